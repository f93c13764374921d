"""Learning without Forgetting as an objective: its parts, its teacher, its switches."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handful.losses.forgetting import old_task_loss
from handful.methods.forgetting import LearningWithoutForgetting, Responses
from handful.models.backbones import create
from handful.models.heads import JoinedHead, LinearHead
from handful.types import UsageError

OLD, NEW, SIDE = 3, 2, 8


@pytest.fixture
def old() -> nn.Module:
    """A network with batch norm whose statistics are not those of any batch here, and that is sure of its answers."""
    network = create("conv-4", n_classes=OLD, channels=1, size=SIDE, seed=1)
    with torch.no_grad():
        network.head.weight.mul_(20)  # type: ignore[operator, union-attr]
    network.train()
    for _ in range(3):
        network(torch.randn(16, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(5)) * 2 + 1)
    return network.eval()


@pytest.fixture
def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "x": torch.randn(4, 1, SIDE, SIDE, generator=generator),
        "y": torch.tensor([0, 1, 1, 0]),
        "index": torch.tensor([30, 10, 20, 40]),
    }


def student_of(old: nn.Module) -> nn.Module:
    network: Any = copy.deepcopy(old)
    new = LinearHead(network.dim, NEW)
    with torch.no_grad():
        new.weight.copy_(torch.randn(new.weight.shape, generator=torch.Generator().manual_seed(2)) * 0.1)
    network.head = JoinedHead(network.head, new)
    return network  # type: ignore[no-any-return]


def test_the_loss_is_the_sum_of_its_parts(old: nn.Module, batch: dict[str, Tensor]) -> None:
    student = student_of(old)
    logits = student(batch["x"]).logits
    with torch.no_grad():
        wanted = old(batch["x"]).logits
    method = LearningWithoutForgetting(n_old=OLD, lambda_old=0.7, temperature=3.0, responses="live")
    found = method({"student": student, "teacher": old}, batch, 0)
    new = F.cross_entropy(logits[:, OLD:], batch["y"])
    kept = F.cross_entropy(logits[:, :OLD] / 3, (wanted / 3).softmax(1))
    torch.testing.assert_close(found.total, 0.7 * kept + new)
    torch.testing.assert_close(found.terms["new"], new.detach())
    torch.testing.assert_close(found.terms["old"], kept.detach())


def test_recorded_responses_at_step_0_are_the_live_ones(old: nn.Module, batch: dict[str, Tensor]) -> None:
    """Where the pictures are shown as they are, and the student is still the old network, which is in training
    mode: the teacher's statistics are its own in both."""
    rows = torch.tensor([10, 20, 30, 40])
    place = {row: i for i, row in enumerate(batch["index"].tolist())}
    with torch.no_grad():
        logits = old(batch["x"]).logits[[place[row] for row in rows.tolist()]]
    student = student_of(old).train()
    values = []
    for responses, teacher in (("recorded", Responses(rows, logits)), ("live", copy.deepcopy(old).train())):
        method = LearningWithoutForgetting(n_old=OLD, responses=responses)
        values.append(float(method({"student": student, "teacher": teacher}, batch, 0).total.detach()))
    assert values[0] == pytest.approx(values[1], abs=1e-6)
    method = LearningWithoutForgetting(n_old=OLD)
    found = method({"student": student_of(old), "teacher": Responses(rows, logits)}, batch, 0)
    ordered = logits[[rows.tolist().index(row) for row in batch["index"].tolist()]]
    entropy = old_task_loss(ordered, ordered, 2.0).mean()
    assert float(found.terms["old"]) == pytest.approx(float(entropy), abs=1e-6), "nothing is forgotten yet"


def test_a_live_teacher_is_asked_in_evaluation_mode_and_stays_as_it_is(
    old: nn.Module, batch: dict[str, Tensor]
) -> None:
    with torch.no_grad():
        wanted = old(batch["x"]).logits
    teacher = copy.deepcopy(old).train()  # a caller who forgot
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    method = LearningWithoutForgetting(n_old=OLD, responses="live")
    torch.testing.assert_close(method.old_answers(teacher, batch), wanted)
    method({"student": student_of(old).train(), "teacher": teacher}, batch, 0).total.backward()
    assert teacher.training, "its mode is put back"
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in teacher.parameters())


def test_without_weight_nobody_asks_the_old_network(old: nn.Module, batch: dict[str, Tensor]) -> None:
    student = student_of(old)
    found = LearningWithoutForgetting(n_old=OLD, lambda_old=0.0)({"student": student}, batch, 0)
    expected = F.cross_entropy(student(batch["x"]).logits[:, OLD:], batch["y"])
    assert found.total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert set(found.terms) == {"new"}


def test_which_old_head_trains() -> None:
    make = LearningWithoutForgetting
    assert make(OLD).old_head_trains
    assert not make(OLD, freeze_old_head=True).old_head_trains
    assert not make(OLD, lambda_old=0.0).old_head_trains


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"responses": "lazy"}, "no responses 'lazy'"),
        ({"lambda_old": -1.0}, "weight of -1"),
        ({"temperature": 0.0}, "temperature of 0"),
    ],
)
def test_wrong_settings(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        LearningWithoutForgetting(OLD, **changes)


def test_responses_are_found_by_row_number() -> None:
    rows = torch.tensor([7, 3, 5])
    logits = torch.tensor([[7.0, 0.7], [3.0, 0.3], [5.0, 0.5]])
    found = Responses(rows, logits)(torch.tensor([5, 7, 5, 3]))
    assert found.tolist() == torch.tensor([[5.0, 0.5], [7.0, 0.7], [5.0, 0.5], [3.0, 0.3]]).tolist()
