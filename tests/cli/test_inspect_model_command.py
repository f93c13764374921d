"""``handful inspect --model``: the page of a network, of a run, and what cannot be inspected."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from handful import api
from handful.cli import main as cli
from handful.models.receptive import Field, Reach
from handful.report.model_figures import bars, heat, norms, overlay, power_of_ten
from handful.report.model_page import amount, sides
from handful.verbs.inspect_model import crossed, solved


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "digits"
    api.write_digits(folder, per_class=6, seed=0)
    return folder


def plain(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.replace("\u202f", ",")))


def test_the_page_of_a_network(tmp_path: Path) -> None:
    look = api.inspect_model("small-resnet", size=8, channels=1, out=tmp_path).look
    page = (tmp_path / "report.html").read_text()
    text = plain(page)
    for part in ("Layers", "What a unit sees", "Where gradients vanish or explode", "Paths through the shortcuts",
                 "without shortcuts", "without batch norm", "without both", "body.3"):  # fmt: skip
        assert part in text, part
    assert "Which layers transfer" not in text
    assert "<script" not in page and "https://" not in page
    assert [p.paths for p in look.paths] == [1, 2, 1]
    assert sum(row.counted.parameters for row in look.blocks) == look.total.parameters
    assert sum(row.counted.flops for row in look.blocks) == look.total.flops


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "inspect",
        "--model",
        "conv-4",
        "--size",
        "8",
        "--channels",
        "1",
        "--out",
        str(tmp_path / "look"),
    ]
    assert cli.run(words) == 0
    told = capsys.readouterr().out
    assert "112 k parameters" in told.replace("\u202f", " ") and "multiply-adds" in told
    assert "handful inspect --model conv-4" in plain((tmp_path / "look" / "report.html").read_text())


def test_probes_and_maps_on_pictures(digits: Path, tmp_path: Path) -> None:
    """Fresh weights: the pixels' own layers are as good as any; a probe on the test part of the folder."""
    look = api.inspect_model("lenet", digits, size=8, channels=1, out=tmp_path / "look").look
    assert list(look.probes)[-1] == "features"
    assert max(look.probes.values()) > 0.6, "60 labelled digits, linear"
    assert look.chance == pytest.approx(0.1)
    assert len(look.maps) == 8 and look.maps[0][1].image.shape == (3, 8, 8)
    text = plain((tmp_path / "look" / "report.html").read_text())
    assert "450 test pictures" in text and "Grad-CAM of body" in text


def test_auxiliary_heads_are_a_variant(tmp_path: Path) -> None:
    look = api.inspect_model("googlenet", size=16, out=tmp_path).look
    assert {"as it is", "without auxiliary heads", "without batch norm"} == set(look.at_start)
    assert len(look.at_start["as it is"]) == len(look.at_start["without auxiliary heads"]) + 6
    assert look.held > 3e6 and "run in training only" in plain((tmp_path / "report.html").read_text())


def test_what_cannot_be_inspected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["--model", "resnet-51"], "did you mean 'resnet-50'"),
        (["--model", "alexnet", "--size", "9"], "needs pictures of at least 15 px"),
        (["--model", "vgg-16", "--size", "32", "--pretrained"], "more than 64 px"),
        (["--model", "lenet", str(tmp_path / "nothing")], "nothing"),
    ):
        assert cli.run(["inspect", *words, "--out", str(tmp_path / "look")]) == 2
        told = capsys.readouterr().err
        assert said in told and "Fix:" in told and len(told.splitlines()) < 12
    assert not (tmp_path / "look").exists()


def test_a_linear_probe_takes_vectors_as_they_are() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(90) % 3
    x = torch.eye(3)[y] * 40 + 1000 + torch.randn(90, 3, generator=generator)
    head = solved(x, y, 3)
    assert isinstance(head, torch.nn.Linear)
    assert float((head(x).argmax(1) == y).double().mean()) == 1
    assert crossed(x, y, 3) == 1
    noise = torch.randn(90, 3, generator=generator)
    assert crossed(noise, y, 3) < 0.6


def test_figures() -> None:
    svg = str(norms({"a": [1.0, 1e-3, 0.0], "b": [1e-6, float("inf"), 1.0]}, "x"))
    assert "a (1 not finite or 0)" in svg and "b (1 not finite or 0)" in svg and "10⁻⁶" in svg
    assert norms({"a": [0.0]}, "x") == "" and power_of_ten(-12) == "10⁻¹²"
    assert str(bars({"p": [0.25, 0.5, 0.25]}, "x", "k")).count("<rect") == 4
    ramp = heat(np.array([[0.0, 1.0]]))
    assert ramp[:, 0, 1].tolist() == [255, 255, 255] and ramp[:, 0, 0].sum() < 100
    gray = np.full((1, 2, 2), 100, np.uint8)
    assert overlay(gray, np.zeros((2, 2)))[:, 0, 0].tolist() == [100, 100, 100]
    assert amount(25_557_032) == "25.6\u202fM"
    assert (
        sides(Field(Reach(7), Reach(1))) == "7 × 1"
        and sides(Field(Reach(851), Reach(851), True)) == "whole (851)"
    )
