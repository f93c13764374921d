"""``handful inspect``: the page, the table beside it, another set, and folders that cannot be learnt from."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handful import api
from handful.api import write_digits
from handful.cli import main as cli
from handful.data.manifest import read_folder
from handful.types import UsageError

ROOT = Path(os.environ.get("HANDFUL_DATA_ROOT", Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "digits"
    write_digits(folder, per_class=8, seed=0)
    return folder


def plain(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.replace("\u202f", ",")))


def test_the_page_of_a_folder(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p: hashlib.sha256(p.read_bytes()).digest() for p in digits.rglob("*") if p.is_file()}
    copy = digits.parent / "planted"
    for path in before:
        (copy / path.relative_to(digits)).parent.mkdir(parents=True, exist_ok=True)
        (copy / path.relative_to(digits)).write_bytes(path.read_bytes())
    some = sorted((copy / "3").iterdir())
    (copy / "test" / "3" / "leak.png").write_bytes(some[0].read_bytes())
    (copy / "7" / "three.png").write_bytes(some[1].read_bytes())
    (copy / "3" / "broken.png").write_bytes(b"x")
    (copy / "<b>").mkdir()
    (copy / "<b>" / "one.png").write_bytes(some[2].read_bytes())
    assert cli.run(["inspect", str(copy), "--out", str(tmp_path / "look")]) == 0
    told = capsys.readouterr().out
    assert "1 copy across splits" in told and "2 pictures with two labels" in told
    page = (tmp_path / "look" / "report.html").read_text()
    text = plain(page)
    for words in (
        "Class balance",
        "Mean picture of each class",
        "Brightness",
        "Shorter side",
        "3/broken.png",
    ):
        assert words in text, words
    assert page.count("mean of 8") >= 8
    assert "<b>/one.png" not in page and "&lt;b&gt;/one.png" in page, "names are escaped"
    assert (
        "<script" not in page
        and "http://" not in page.replace("http://www.w3.org", "")
        and "https://" not in page
    )
    with open(tmp_path / "look" / "issues.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"3/broken.png", "7/three.png"} <= {row["file"] for row in rows} | {
        r["reason"].split(" ")[-1] for r in rows
    }
    assert before == {p: hashlib.sha256(p.read_bytes()).digest() for p in digits.rglob("*") if p.is_file()}


def test_json_alone_stands_on_the_output(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken").mkdir()
    for part in ("0", "1"):
        (tmp_path / "broken" / part).mkdir()
        for file in sorted((digits / part).iterdir()):
            (tmp_path / "broken" / part / file.name).write_bytes(file.read_bytes())
    (tmp_path / "broken" / "0" / "empty.png").write_bytes(b"")
    words = ["inspect", str(tmp_path / "broken"), "--out", str(tmp_path / "look"), "--json"]
    assert cli.run(words) == 0
    found = json.loads(capsys.readouterr().out)
    with open(tmp_path / "look" / "issues.csv", newline="") as file:
        assert [row["file"] for row in csv.DictReader(file)] == [issue["file"] for issue in found["issues"]]
    assert "0/empty.png" in [issue["file"] for issue in found["issues"] if issue["kind"] == "unreadable"]
    assert found["told_apart"] is None
    assert cli.run([*words, "--against", str(digits)]) in (0, 2)  # 2: too few pictures to compare
    told = capsys.readouterr()
    assert "too few to compare" in told.err or json.loads(told.out)["told_apart"]["interval"]


def test_means_are_the_means(digits: Path, tmp_path: Path) -> None:
    """The mean picture of class 0, decoded from the page, equals that of its files."""
    import base64
    import io

    api.inspect(digits, out=tmp_path)
    page = (tmp_path / "report.html").read_text()
    section = page[page.index('id="means"') :]
    found = re.search(r"data:image/png;base64,([^\"]+)", section)
    assert found
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(found[1]))))
    files = sorted((digits / "0").iterdir())
    expected = np.mean([np.asarray(Image.open(f)) for f in files], axis=0)
    assert np.abs(shown - expected).max() <= 0.51


def test_a_pile_of_pictures_against_a_folder(digits: Path, tmp_path: Path) -> None:
    """Brightened digits in a folder without classes: looked at, told apart, and called not fit to learn from."""
    pile = tmp_path / "pile"
    pile.mkdir()
    for i, path in enumerate(sorted((digits / "unlabeled").iterdir())[:200]):
        x = np.asarray(Image.open(path)).astype(int)
        Image.fromarray(np.clip(x + 50, 0, 255).astype(np.uint8)).save(pile / f"{i}.png")
    done = api.inspect(pile, digits, out=tmp_path / "look")
    assert done.gap is not None and done.gap.apart and done.gap.n == 200
    assert [issue.kind for issue in done.issues][:1] == ["fatal"]
    text = plain((tmp_path / "look" / "report.html").read_text())
    assert "pile and digits can be told apart" in text
    assert "the pictures that give it away" in text
    assert "nothing is labelled" in text


def test_halves_of_the_digits_are_not_told_apart(digits: Path, tmp_path: Path) -> None:
    files = sorted((digits / "unlabeled").iterdir())
    halves = [tmp_path / "a", tmp_path / "b"]
    order = np.random.default_rng(0).permutation(len(files))
    for i, k in enumerate(order):
        halves[i % 2].mkdir(exist_ok=True)
        (halves[i % 2] / files[k].name).write_bytes(files[k].read_bytes())
    done = api.inspect(halves[0], halves[1], out=tmp_path / "look")
    assert done.gap is not None and not done.gap.apart
    assert done.gap.accuracy.low <= 0.5 <= done.gap.accuracy.high
    assert "could not be told apart" in plain((tmp_path / "look" / "report.html").read_text())


@pytest.mark.data
@pytest.mark.skipif(not (ROOT / "mnist").exists(), reason="the real data sets are not here")
def test_mnist_and_usps_are_apart_and_two_halves_of_mnist_are_not(tmp_path: Path) -> None:
    mnist, usps = (np.load(ROOT / name / f"{name}.npz") for name in ("mnist", "usps"))
    order = np.random.default_rng(1).permutation(60_000)[:2000]
    x, y = mnist["x_train"][order], mnist["y_train"][order]
    a, b, c = (x[:1000], y[:1000]), (x[1000:], y[1000:]), (usps["x_train"][:1000], usps["y_train"][:1000])
    apart, same = (api.inspect(a, other, out=tmp_path / str(i)).gap for i, other in enumerate((c, b)))
    assert apart is not None and apart.accuracy.low > 0.95
    assert same is not None and same.accuracy.low <= 0.5 <= same.accuracy.high


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "there is no such folder"),
        (["empty"], "holds no pictures"),
        (["two", "--against", "nowhere"], "there is no such folder"),
        (["two", "--against", "two"], "too few to compare sets"),
        (["two", "--out", "two/look"], "lies in the folder of pictures"),
    ],
)
def test_what_cannot_be_looked_at(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("two/a/1.png", "two/b/1.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.new("L", (9, 9), len(name)).save(tmp_path / name)
    assert cli.run(["inspect", *words]) == 2
    assert message in capsys.readouterr().err


def test_reading_is_strict_where_looking_is_not(tmp_path: Path) -> None:
    Image.new("L", (9, 9)).save(tmp_path / "1.png")
    with pytest.raises(UsageError):
        read_folder(tmp_path)
    done = api.inspect(tmp_path, out=tmp_path.parent / f"{tmp_path.name}-look")
    assert done.issues[0].kind == "fatal" and "Fix" not in done.issues[0].suggestion
