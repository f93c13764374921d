"""The two moons playground: the set, its noise, the methods' own code on it, the page, and the command."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.moons_mpl import Variant, train
from torch import Tensor, nn

from handful.cli.main import run
from handful.engine.state import TrainingState
from handful.methods.feedback import MovingMean
from handful.methods.meta_pseudo_labels import MetaPseudoLabels
from handful.methods.table import METHODS
from handful.randomness import uniform
from handful.report.moons import WIDTH, drawing
from handful.study.moons import Jitter, Moons, Played, draw, entries, grid, play, summary
from handful.types import Output, UsageError

QUICK = Moons(points=120, labels=3, steps=6)


def test_a_draw_has_its_labels_on_the_right_moons_and_is_always_the_same() -> None:
    points, y, labelled = draw(Moons(), 4)
    assert points.shape == (2000, 2) and y[labelled].tolist() == [0, 0, 0, 1, 1, 1]
    torch.testing.assert_close(points.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    again, other = draw(Moons(), 4), draw(Moons(), 5)
    assert torch.equal(again[0], points) and torch.equal(again[2], labelled)
    assert not torch.equal(other[2], labelled)


def test_jitter_is_normal_noise_of_its_size() -> None:
    u = uniform((20000, 2), "test")
    moved = Jitter(0.2)(torch.ones(20000, 2, 1, 1), u)[..., 0, 0] - 1
    torch.testing.assert_close(moved.mean(0), torch.zeros(2), atol=0.006, rtol=0)  # over 4 sigma
    torch.testing.assert_close(moved.std(0), torch.full((2,), 0.2), atol=0.005, rtol=0)
    assert float((moved.abs() > 0.4).double().mean()) == pytest.approx(0.0455, abs=0.005)
    assert torch.equal(Jitter(0.0)(torch.ones(3, 2, 1, 1), u[:3]), torch.ones(3, 2, 1, 1))


def test_every_method_that_needs_no_stored_teacher_can_be_played() -> None:
    played = {name: play(name, QUICK, 1) for name in entries()}
    cut = {"simclr", "jigsaw", "patch-contrast"}  # a point has no parts
    assert {name for name, kind in METHODS.items() if not kind.needs_teacher} - cut <= set(played)
    for name, result in played.items():
        assert 0 <= result.right <= 1 and result.region.shape == (60, 96), name
    twice = play("fixmatch", QUICK, 1)
    assert torch.equal(twice.region, played["fixmatch"].region)
    with pytest.raises(UsageError, match="no method 'fixmatsch'\nFix: did you mean 'fixmatch'"):
        play("fixmatsch", QUICK)


def test_the_net_can_learn_the_moons_when_they_are_labelled() -> None:
    """What few labels cost is thus no limit of the net. The region is the net's answer at each cell's middle."""
    played = play("supervised", Moons(points=400, labels=100, steps=500), 0)
    assert played.right > 0.98
    nearest = torch.cdist(grid(played.box, 60, 96), played.points).argmin(0)
    assert float((played.region.flatten()[nearest] == played.y).double().mean()) > 0.95


class OneNet(nn.Module):
    """One draw's net of the batched benchmark, as a module."""

    def __init__(self, weights: list[Tensor]) -> None:
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(w.detach()[0].double().clone()) for w in weights])

    def forward(self, x: Tensor) -> Output:
        w1, b1, w2, b2, w3, b3 = self.weights
        hidden = torch.sigmoid(torch.sigmoid(x @ w1 + b1) @ w2 + b2)
        return Output(hidden, hidden @ w3 + b3)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(
    ("feedback", "labels"), [("difference", "argmax"), ("exact", "soft"), ("", "argmax")]
)
def test_the_batched_benchmark_is_the_packages_method(feedback: str, labels: str, momentum: float) -> None:
    """``benchmarks.moons_mpl`` trains all draws at once with code of its own; the second of two draws is followed here
    with ``MetaPseudoLabels``, in float64."""
    v = Variant(
        steps=0, feedback=feedback, labels=labels, batch=0, uda=0.7, momentum=momentum, init=1.0, weight=2.0
    )
    begin_t, begin_s, (points, _, x, y) = train(v, draws=2)
    end_t, end_s, _ = train(Variant(**{**v.__dict__, "steps": 6}), draws=2)
    second = [[w[1:] for w in net] for net in (begin_t, begin_s, end_t, end_s)]
    teacher, student = OneNet(second[0]), OneNet(second[1])

    def sgd(net: nn.Module) -> torch.optim.Optimizer:
        groups = [{"params": list(net.parameters()), "base_lr": v.lr}]
        return torch.optim.SGD(groups, lr=v.lr, momentum=momentum, nesterov=momentum > 0)

    models = {"student": student, "teacher": teacher, "memory": MovingMean(0.01)}
    state = TrainingState(models, {"student": sgd(student), "teacher": sgd(teacher)})
    method = MetaPseudoLabels(
        labels=labels,
        feedback_weight=2.0 if feedback else 0.0,
        uda_weight=0.7,
        ramp_steps=0,
        temperature=1.0,
        threshold=0.0,
        smoothing=0.0,
    )
    u = points[1].double()
    for step in range(6):
        state.step = step
        method.update(state, {"x": x[1].double(), "y": y[1].argmax(1), "weak": u, "strong": u})
    for net, weights in ((teacher, second[2]), (student, second[3])):
        for ours, theirs in zip(net.weights, weights):
            torch.testing.assert_close(theirs[0].double(), ours.detach(), rtol=1e-4, atol=2e-5)
    moved = max((a - b).abs().max().item() for a, b in zip(second[0], second[2]))
    assert moved > 0.01, "the tolerance is far below what the steps do"


def test_the_drawing_shows_the_regions_cell_by_cell() -> None:
    region = torch.zeros(60, 96, dtype=torch.int64)
    region[:30, 10:50] = 1
    points, y, labelled = draw(QUICK, 0)
    played = Played("a & <b>", 0, 0.9, region, points, y, labelled, (-2.4, -1.5, 2.4, 1.5))
    tree = ET.fromstring(str(drawing([played, played])))
    space = "{http://www.w3.org/2000/svg}"
    style = tree.findtext(f"{space}style") or ""
    assert ".m0 {" in style and ".m1 {" in style, "as a file of its own, too, the regions have their colours"
    panels = tree.findall(f"{space}g")
    assert len(panels) == 2 and "a & <b>: 90.0" in (panels[0].findtext(f"{space}text") or "")
    assert len(panels[0].findall(f"{space}path")) == 6 and len(panels[0].findall(f"{space}circle")) == 120
    area = {"m0": 0.0, "m1": 0.0}
    for box in panels[0].findall(f"{space}rect"):
        area[box.attrib["class"]] += float(box.attrib["width"])
    assert area["m1"] == pytest.approx(30 * 40 / 96 * WIDTH, rel=0.01)
    assert area["m0"] + area["m1"] == pytest.approx(60 * WIDTH, rel=0.01)


def test_the_median_of_an_even_number_of_draws() -> None:
    (row,) = summary({"m": [0.9, 0.5, 1.0, 0.6]})
    assert row["median"] == pytest.approx(0.75)


def test_the_table_by_hand() -> None:
    (row,) = summary({"vat": [0.8, 1.0, 0.99]})
    expected: dict[str, Any] = {"method": "vat", "right": 0.93, "median": 0.99, "solved": 2, "draws": 3}
    assert {k: pytest.approx(v) if isinstance(v, float) else v for k, v in expected.items()} == {
        k: row[k] for k in expected
    }
    assert row["sd"] == pytest.approx(0.112694, abs=1e-5)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "moons",
        "--methods",
        "supervised;vat",
        "--seeds",
        "2",
        "--moons.steps",
        "4",
        "--out",
        str(tmp_path),
    ]
    assert run(words) == 0
    page = (tmp_path / "moons.html").read_text()
    assert "supervised" in page and "vat" in page and len(re.findall("of 2</td>", page)) == 2
    assert "<script" not in page and "://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert (tmp_path / "moons.svg").exists() and str(tmp_path) in capsys.readouterr().out
    assert run(["moons", "--methods", "list"]) == 0
    assert "meta-pseudo-labels, exact" in capsys.readouterr().out
    assert run(["moons", "--methods", "voodoo", "--out", str(tmp_path)]) == 2
