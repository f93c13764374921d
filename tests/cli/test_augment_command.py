"""``handful augment`` from the command line: the gallery, copies, the search, and a policy that a recipe takes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from handful import api
from handful.augment.operations import OPERATIONS
from handful.cli import main as cli
from handful.report import gallery
from handful.types import UsageError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    """Two classes of colour pictures of 12 px, four each, an unlabelled and a test picture."""
    draw = np.random.RandomState(0)
    for place, n in {"red": 4, "blue": 4, "unlabeled": 1, "test/red": 1}.items():
        for i in range(n):
            x = draw.randint(0, 90, (12, 12, 3)).astype(np.uint8)
            x[..., 2 if place == "blue" else 0] += 120
            (tmp_path / "flowers" / place).mkdir(parents=True, exist_ok=True)
            Image.fromarray(x).save(tmp_path / "flowers" / place / f"{i}.png")
    return tmp_path / "flowers"


def test_the_gallery_shows_every_operation_and_prints_label_weights(flowers: Path, tmp_path: Path) -> None:
    assert cli.run(["augment", str(flowers), "--view", "weak+rotate", "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "gallery.html").read_text()
    for name in OPERATIONS:
        if name != "identity":
            assert f"<h3>{name}" in page, name
    assert "<code>weak+rotate</code>" in page
    assert page.count("<img") > 200
    assert "http" not in re.sub(r"http-equiv", "", page), "the page needs something from outside"
    weights = re.findall(r"([\d.]+) % (red|blue), ([\d.]+) % (red|blue)<", page)
    assert len(weights) == 2 * gallery.PAIRS
    for one, first, other, second in weights:
        assert float(one) + float(other) == pytest.approx(100, abs=0.11)
        assert first != second


def test_a_printed_cutmix_weight_is_the_area_that_is_seen() -> None:
    black_and_white = torch.stack([torch.zeros(3, 20, 20), torch.full((3, 20, 20), 255)]).to(torch.uint8)
    strip = gallery._mixed("cutmix", black_and_white, ["black", "white"], 0)
    for i, thumb in enumerate(strip.thumbs):
        own = float(thumb.caption.split(" % ")[0])
        assert own == pytest.approx(100 * (thumb.image == (0 if i % 2 == 0 else 255)).mean(), abs=0.051)


def test_copies_lie_in_folders_as_their_pictures(flowers: Path, tmp_path: Path) -> None:
    Image.open(flowers / "red" / "0.png").save(flowers / "red" / "0.jpg")
    out = tmp_path / "copies"
    words = [
        "augment",
        str(flowers),
        "--view",
        "invert",
        "--apply",
        str(out),
        "--copies",
        "2",
        "--out",
        str(tmp_path / "g"),
    ]
    assert cli.run([*words, "--out", str(tmp_path / "g")]) == 0
    found = sorted(p.relative_to(out).as_posix() for p in out.rglob("*.png"))
    assert len(found) == 2 * 10, "labelled and unlabelled pictures, twice each; no test picture"
    assert {"red/1-1.png", "red/1-2.png", "red/0.png-1.png", "red/0.jpg-1.png", "unlabeled/0-2.png"} <= set(
        found
    )
    before, after = (
        np.asarray(Image.open(p)).astype(int) for p in (flowers / "blue" / "3.png", out / "blue" / "3-2.png")
    )
    assert (before + after == 255).all()


def test_copies_of_pictures_elsewhere_stay_below_their_folder(flowers: Path, tmp_path: Path) -> None:
    place = tmp_path / "table"
    place.mkdir()
    rows = [f"{flowers / name / '0.png'},{name}" for name in ("red", "blue")]
    rows += [f"../flowers/{name}/1.png,{name}" for name in ("red", "blue")]
    (place / "t.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    before = sorted(tmp_path.rglob("*.png"))
    words = ["augment", str(place / "t.csv"), "--copies", "1", "--apply", str(tmp_path / "deep" / "copies")]
    assert cli.run([*words, "--out", str(tmp_path / "g")]) == 0
    new = set(tmp_path.rglob("*.png")) - set(before)
    assert len(new) == 4 and all(p.is_relative_to(tmp_path / "deep" / "copies") for p in new)


def test_a_search_leaves_the_folders_beside_its_own_alone(flowers: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "work").mkdir(parents=True)
    (tmp_path / "out" / "work" / "thesis.txt").write_text("years")
    words = [
        "augment",
        str(flowers),
        "--search",
        "--steps",
        "1",
        "--time",
        "1s",
        "--out",
        str(tmp_path / "out"),
    ]
    assert cli.run(words) == 0
    assert (tmp_path / "out" / "work" / "thesis.txt").read_text() == "years"
    assert not [p for p in (tmp_path / "out").iterdir() if p.name.startswith(".search")]


def test_a_searched_policy_is_a_file_that_fit_takes(
    flowers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    search = ["augment", str(flowers), "--search", "--time", "2s", "--steps", "5", "--out", str(out)]
    assert cli.run(search) == 0
    told = capsys.readouterr().out
    assert f"--method.view {out / 'policy.toml'}" in told
    policy = tomllib.loads((out / "policy.toml").read_text())
    assert policy["searched"]["labelled_pictures"] == 8
    assert len(policy["tried"]) >= 2
    run = tmp_path / "run"
    fit = ["fit", str(flowers), "--recipe", "supervised", "--method.view", str(out / "policy.toml")]
    assert cli.run([*fit, "--method.mix", "cutmix", "--training.steps", "5", "--out", str(run)]) == 0
    kept = tomllib.loads((run / "run.toml").read_text())["options"]["method"]
    assert kept == {"view": policy["view"], "mix": "cutmix"}, "the run depends on the file"


def test_what_cannot_be_done_is_told(
    flowers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["augment", str(flowers), "--view", "wek"]) == 2
    assert "did you mean 'weak'" in capsys.readouterr().err
    assert cli.run(["augment", str(flowers), "--search", "--view", "weak"]) == 2
    assert cli.run(["augment", str(flowers), "--apply", str(flowers / "more")]) == 2
    assert "only read" in capsys.readouterr().err
    fit = ["fit", str(flowers), "--recipe", "supervised", "--method.view", str(tmp_path / "none.toml")]
    assert cli.run(fit) == 2
    assert "none.toml" in capsys.readouterr().err
    with pytest.raises(UsageError, match="nothing would be written"):
        api.augment(flowers, api.AugmentOptions(copies=0), apply=tmp_path / "x")
