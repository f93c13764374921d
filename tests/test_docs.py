"""The documentation: every page is in the index, the ladder's figures are those that were measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

from benchmarks.ladder import STEPS, table

from handful.recipes.table import RECIPES

ROOT = Path(__file__).resolve().parents[1]


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    named = set(re.findall(r"^(guides/[\w-]+|results)$", index, flags=re.MULTILINE))
    assert named == {
        *(f"guides/{page.stem}" for page in (ROOT / "docs" / "guides").glob("*.md")),
        "results",
    }
    assert "methods/[a-z]*" in index and "decisions/*" in index


def test_the_ladder_is_what_was_measured() -> None:
    rows = json.loads((ROOT / "benchmarks" / "results" / "digits.json").read_text())["rows"]
    lines = table().splitlines()
    last = {row["recipe"].partition("@")[0]: row for row in rows}
    shown = [name for name, *_ in STEPS if name in last]
    assert {"logistic", "supervised", "fixmatch", "auto"} <= set(shown)
    for name in shown:
        (line,) = (line for line in lines if f"(`{name}`)" in line)
        assert f"| {last[name]['accuracy']:.1f} ± {last[name]['sd']:.1f} |" in line
    assert {name for name, *_ in STEPS} <= {*RECIPES, "auto"}
