"""Distillation as a method: the objective term by term, teachers that stay as they are, what a batch shows to whom."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handful import parallel
from handful.augment.mix import Mixing
from handful.augment.views import Strong, to_input
from handful.data.images import from_array
from handful.data.stream import TrainStream, semi_supervised
from handful.engine.fit import fit
from handful.engine.state import TrainingState
from handful.methods.distillation import PATIENT, Distillation
from handful.models.backbones import create
from handful.models.teacher import FrozenTeacher, Teachers, gray
from handful.types import InputSpec, Loss, Output, UsageError

N, SIDE, K = 24, 8, 3


def rows(n: int, k: int, seed: int) -> Tensor:
    return torch.randn(n, k, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Told(nn.Module):
    """Features and logits as given; ``dim`` is the width of the features."""

    dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(rows(4, K, 9))

    def forward(self, x: Tensor) -> Output:
        return Output(x, x @ self.weight)


def batch(b: int = 5, m: int = 7) -> dict[str, Tensor]:
    p = rows(m, K, 3).softmax(1)
    return {
        "x": rows(b, 4, 1),
        "y": torch.arange(b) % K,
        "u": rows(m, 4, 2),
        "target": p,
        "guide": rows(m, 6, 4),
    }


@pytest.mark.parametrize(("hard", "soft"), [(0.3, 0.7), (1.0, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_loss_is_its_parts(hard: float, soft: float, temperature: float) -> None:
    student, given = Told(), batch()
    method = Distillation(temperature, hard, soft)
    loss: Loss = method({"student": student}, given, 0)
    z_x, z_u = given["x"] @ student.weight, given["u"] @ student.weight
    tempered = given["target"] ** (1 / temperature)
    tempered = tempered / tempered.sum(1, keepdim=True)
    kl = F.kl_div((z_u / temperature).log_softmax(1), tempered, reduction="batchmean")
    expected = hard * F.cross_entropy(z_x, given["y"]) + soft * temperature**2 * kl
    torch.testing.assert_close(loss.total, expected)
    assert ("hard" in loss.terms) == (hard > 0) and ("soft" in loss.terms) == (soft > 0)
    assert set(method.views) == {name for name, weight in (("x", hard), ("u", soft)) if weight}


@pytest.mark.parametrize("kind", ["hint", "direction"])
def test_features_are_compared_after_a_learned_projection(kind: str) -> None:
    student, given = Told(), batch()
    method = Distillation(feature_weight=2.0, feature_loss=kind, feature_dim=6)
    assert method.trains == ("student", "projection")
    projection = method.roles(student, K, torch.arange(7))["projection"]
    models: dict[str, nn.Module] = {"student": student, "projection": projection}
    loss = method(models, given, 0)
    without = replace(method, feature_weight=0.0)({"student": student}, given, 0)
    f = given["u"] @ projection.weight.T + projection.bias
    apart = (
        F.mse_loss(f, given["guide"])
        if kind == "hint"
        else (1 - F.cosine_similarity(f, given["guide"], dim=1)).mean()
    )
    torch.testing.assert_close(loss.total, without.total + 2 * apart)
    loss.total.backward()
    assert projection.weight.grad is not None and student.weight.grad is not None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hard_weight": -1.0}, "hard weight -1"),
        ({"hard_weight": 0.0, "soft_weight": 0.0}, "nothing is learned"),
        ({"temperature": 0.0}, "temperature of 0"),
        ({"feature_loss": "maps"}, "no feature loss 'maps'"),
        ({"mix": "mixup"}, "not for mixtures"),
        ({"patient": True, "mix": "mixcut"}, "no mixing 'mixcut'"),
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        _ = Distillation(**changes).taught_mixing


def test_several_teachers_answer_with_the_mean_of_their_probabilities() -> None:
    z = [rows(4, K, seed) for seed in (5, 6, 7)]
    teachers = Teachers([lambda x, v=v: Output(v + 1, v.log_softmax(1)) for v in z])
    said = teachers(torch.zeros(4, 1, 2, 2))
    torch.testing.assert_close(said.logits.exp(), torch.stack([v.softmax(1) for v in z]).mean(0))
    assert torch.equal(said.features, z[0] + 1)
    one = Teachers([lambda x: Output(z[0], z[0].log_softmax(1))])
    assert torch.equal(one(torch.zeros(4, 1, 2, 2)).logits, z[0].log_softmax(1))


def test_gray_is_pillows() -> None:
    from PIL import Image

    x = np.random.RandomState(0).randint(0, 256, (5, 6, 3)).astype(np.uint8)
    ours = gray(torch.from_numpy(x.transpose(2, 0, 1).copy())[None])[0, 0].numpy()
    assert np.array_equal(ours, np.asarray(Image.fromarray(x).convert("L")))


def pictures() -> Any:
    return from_array(np.random.RandomState(1).randint(0, 256, (N, SIDE, SIDE)).astype(np.uint8))


def stream(
    method: Distillation, spec: InputSpec, labelled: int = 6, mixing: Mixing | None = None
) -> TrainStream:
    rows = torch.arange(labelled)
    views = dict.fromkeys(method.views, Strong(flip=False))
    sources = semi_supervised(rows, rows % K, views, 4, torch.arange(N), 3)
    taught = {"mixing": mixing or method.taught_mixing, "pixels": method.pixels}
    sources["unlabelled"] = replace(sources["unlabelled"], **taught)
    return TrainStream(pictures(), spec, sources)


def test_a_patient_teacher_sees_the_very_pixels_of_the_student() -> None:
    student = create("conv-4", n_classes=K, channels=1, size=SIDE, seed=0)
    seen: list[Tensor] = []

    def answer(pixels: Tensor) -> Output:
        seen.append(pixels)
        return Output(torch.zeros(len(pixels), 0), torch.zeros(len(pixels), K).log_softmax(1))

    method = Distillation(**PATIENT)
    some = stream(method, student.spec).at(3)
    method({"student": student, "teacher": Teachers([answer])}, some, 0)
    (pixels,) = seen
    assert pixels.dtype == torch.uint8 and len(pixels) == 12
    assert torch.equal(to_input(pixels, student.spec), some["u"].contiguous())
    plain = stream(replace(method, mix="none"), student.spec).at(3)
    assert not torch.equal(plain["u_pixels"], pixels), "MixUp must have mixed them"
    assert torch.equal(plain["u_index"], some["u_index"])


def test_a_batch_without_labels_needs_no_labelled_picture() -> None:
    method = Distillation(hard_weight=0.0)
    some = stream(method, InputSpec(SIDE, 1, (0.5,), (0.5,)), labelled=0).at(0)
    assert "x" not in some and "y" not in some
    assert torch.equal(some["index"], some["u_index"]) and len(some["u"]) == 12


@pytest.mark.parametrize("mixing", [None, Mixing("mixup"), Mixing("both")])
def test_two_processes_see_the_halves_of_one_batch(
    mixing: Mixing | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = Distillation(patient=True)
    whole_stream = stream(method, InputSpec(SIDE, 1, (0.5,), (0.5,)), mixing=mixing)
    whole = whole_stream.at(5)
    halves = []
    for rank in (0, 1):
        with monkeypatch.context() as patch:
            patch.setattr(parallel, "size", lambda: 2)
            patch.setattr(parallel, "rows", lambda n, rank=rank: slice(rank * n // 2, (rank + 1) * n // 2))
            halves.append(whole_stream.at(5))
    for name in ("x", "y", "u", "u_pixels", "u_index"):
        assert torch.equal(torch.cat([half[name] for half in halves]), whole[name]), name


def test_teachers_stay_as_they_are_while_the_student_learns() -> None:
    """Evaluation mode, no gradient, batch norm's statistics unchanged, nothing of them in a checkpoint."""
    student = create("conv-4", n_classes=K, channels=1, size=SIDE, seed=0).train()
    network = create("conv-4", n_classes=K, channels=1, size=SIDE, seed=1).train()
    teachers = Teachers([FrozenTeacher(network, network.spec, 1)])
    before = {name: value.clone() for name, value in network.state_dict().items()}
    first = teachers(pictures().take(torch.arange(N))).logits
    method = Distillation(**PATIENT)
    optimizer = torch.optim.SGD([{"params": student.parameters(), "base_lr": 0.1}], lr=0.1)
    state = TrainingState({"student": student, "teacher": teachers.train()}, {"student": optimizer})
    norm = next(m for m in student.modules() if isinstance(m, nn.BatchNorm2d))
    was = norm.running_mean.clone()  # type: ignore[union-attr]
    fit(state, method.update, stream(method, student.spec), steps=4)
    assert not torch.equal(norm.running_mean, was)  # type: ignore[arg-type]
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(teachers(pictures().take(torch.arange(N))).logits, first)
    assert state.state_dict()["models"]["teacher"] == {}
    assert not first.requires_grad
