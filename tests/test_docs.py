"""The documentation: every page is in the index, and the figures of its tables are those that were measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from benchmarks import headlines, show
from benchmarks.ladder import STEPS, table

from handful.recipes.table import RECIPES
from test_layout import ORDER

ROOT = Path(__file__).resolve().parents[1]


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    named = set(re.findall(r"^(guides/[\w-]+|results|architecture)$", index, flags=re.MULTILINE))
    assert named == {
        *(f"guides/{page.stem}" for page in (ROOT / "docs" / "guides").glob("*.md")),
        "architecture",
        "results",
    }
    assert "methods/[a-z]*" in index and "decisions/*" in index


def test_every_method_page_has_its_row() -> None:
    folder = ROOT / "docs" / "methods"
    rows = re.findall(
        r"^\| \[([\w-]+)\]\(\1\.md\) \|", (folder / "README.md").read_text(), flags=re.MULTILINE
    )
    assert sorted(rows) == sorted(page.stem for page in folder.glob("[a-z]*.md"))


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


def test_the_result_pages_are_what_was_measured() -> None:
    docs = ROOT / "docs"
    made = show.pages()
    assert {name: (docs / name).read_text(encoding="utf-8") for name in made} == made, "run benchmarks.show"
    assert {f"results/{page.name}" for page in (docs / "results").iterdir()} == set(made) - {"results.md"}


def test_no_figure_of_a_headline_is_written_by_hand() -> None:
    cases = [headline for cases in headlines.HEADLINES.values() for headline in cases]
    assert len(cases) > 20
    for headline in cases:
        words = re.sub(r"\{[^}]*\}|95 % interval|b?float\d+", "", f"{headline.answer} {headline.interval}")
        assert not re.search(r"\d", words), headline
        found = json.loads((ROOT / "benchmarks" / "results" / f"{headline.result}.json").read_text())
        answer, interval = headlines.figures(headline, found)
        assert (
            f"{headline.case} | {answer} | {interval or '–'} |" in (ROOT / "docs" / "results.md").read_text()
        )


def test_a_headline_wants_exactly_one_row() -> None:
    two = {"rows": [{"labels": 4, "gain": 1.0}, {"labels": 4, "gain": 2.0}]}
    for labels, count in ((4, 2), (5, 0)):
        headline = headlines.Headline("case", "digits", ({"labels": labels},), headlines.GAIN)
        with pytest.raises(ValueError, match=f"{count} rows"):
            headlines.figures(headline, two)


def test_the_map_shows_the_rooms_in_their_order() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| (\d+) \| (.+?) \|", page, flags=re.MULTILINE)
    rooms = tuple(tuple(re.findall(r"`(\w+)`", cell)) for _, cell in lines)
    assert rooms == ORDER
    assert [int(number) for number, _ in lines] == list(range(1, len(ORDER) + 1))
    picture = page.partition("```text")[2].partition("```")[0]
    assert {room for step in ORDER for room in step} <= set(re.findall(r"\w+", picture))
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert " → ".join(", ".join(step) for step in ORDER) in re.sub(r"\s+", " ", contributing)
    for path in re.findall(
        r"`((?:[a-z_]+/)+[a-z_.0-9]+\.\w+)`", page
    ):  # every file that the page names is there
        assert any((place / path).exists() for place in (ROOT, ROOT / "src" / "handful")), path
