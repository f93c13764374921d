"""``handful compare`` from the command line, on the digits."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from handful import api
from handful.api import write_digits
from handful.cli import main as cli
from handful.cli.compare import numbers, recipes
from handful.types import UsageError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def test_words_become_lists() -> None:
    assert numbers("16, 4,1,4") == (1, 4, 16) and numbers("") == ()
    assert recipes("propagation, auto") == ("propagation", "auto")
    settings = "fine-tune:training.steps=4,training.lr=0.1"
    assert recipes(f"{settings};auto") == (settings, "auto")
    with pytest.raises(UsageError, match="1,4,16,64"):
        numbers("four")


def test_compare_writes_tables_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    write_digits(data, per_class=6, seed=0)
    words = [
        "compare",
        str(data),
        "--labels",
        "1,4",
        "--recipes",
        "propagation@pixels",
        "--seeds",
        "2",
        "--out",
        str(out),
    ]
    assert cli.run(words) == 0
    told = capsys.readouterr().out
    assert "per class, label propagation" in told and str(out / "report.html") in told
    content = json.loads((out / "compare.json").read_text())
    assert content["sizes"] == [1, 4] and len(content["cells"]) == 4 * 2 * 2
    assert {c["n_scored"] for c in content["cells"]} == {450}
    names = {r["contender"] for r in content["rows"]}
    assert names == {"logistic@pixels", "nearest-mean@pixels", "knn@pixels", "propagation@pixels"}
    draws = list(csv.DictReader((out / "draws.csv").open()))
    assert len(draws) == 2 * 4 * 10
    assert all(
        (data / d["path"]).parent.name == d["class"] for d in draws
    )  # labels are drawn from the class folders
    assert (out / "report.html").read_text().count("<svg") >= 4


def test_without_a_test_part_the_page_says_what_it_cannot_show(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_digits(tmp_path / "whole", per_class=8, seed=0)
    for k in range(3):
        (data / str(k)).parent.mkdir(exist_ok=True)
        (tmp_path / "whole" / str(k)).rename(data / str(k))
    options = api.CompareOptions(recipes=("knn@pixels",), labels=(1, 6), seeds=2)
    done = api.compare(data, options, out=tmp_path / "out")
    page = (done.folder / "report.html").read_text()
    assert "cross-validation, 4 folds of 24 labelled pictures" in page
    assert "no test part" in page
    with pytest.raises(UsageError, match="rarest class has 6 once a fold is held out"):
        api.compare(data, api.CompareOptions(labels=(7,), seeds=2), out=tmp_path / "out")


def test_wrong_words_end_with_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_digits(tmp_path / "data", per_class=3, seed=0)
    assert cli.run(["compare", str(tmp_path / "data"), "--recipes", "propagatoin"]) == 2
    assert "did you mean 'propagation'" in capsys.readouterr().err
    assert cli.run(["compare", str(tmp_path / "data"), "--out", str(tmp_path / "data" / "out")]) == 2
    assert cli.run(["compare", str(tmp_path / "nothing")]) == 2
