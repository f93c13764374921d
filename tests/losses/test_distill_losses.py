"""Distillation losses against loops, closed forms, limits and torch's own."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from handful.losses.distill import direction_loss, hint_loss, soft_target_loss

TEMPERATURES = [0.5, 1.0, 2.0, 4.0, 20.0]


def draw(seed: int, b: int = 6, k: int = 5) -> Tensor:
    return 3 * torch.randn(b, k, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def tempered(row: list[float], t: float) -> list[float]:
    powers = [math.exp(z / t) for z in row]
    return [v / sum(powers) for v in powers]


@pytest.mark.parametrize("t", TEMPERATURES)
def test_soft_targets_equal_a_loop_and_torch(t: float) -> None:
    student, teacher = draw(0), draw(1)
    ours = soft_target_loss(student, teacher, t)
    for z, v, found in zip(student.tolist(), teacher.tolist(), ours.tolist()):
        q, p = tempered(z, t), tempered(v, t)
        expected = t * t * sum(pk * (math.log(pk) - math.log(qk)) for pk, qk in zip(p, q))
        assert found == pytest.approx(expected, rel=1e-10)
    theirs = F.kl_div((student / t).log_softmax(1), (teacher / t).softmax(1), reduction="batchmean")
    torch.testing.assert_close(ours.mean(), t * t * theirs)  # summed over classes, mean over the batch


@pytest.mark.parametrize("t", [1.0, 3.0])
def test_two_classes_in_closed_form(t: float) -> None:
    """Logits (a, 0) against (0, 0): p = 1/2 each, so KL = -log 2 - (a/T)/2 + log(1 + e^(a/T))."""
    a = 1.7
    found = soft_target_loss(torch.tensor([[a, 0.0]]), torch.zeros(1, 2), t)
    expected = t * t * (-math.log(2) - a / t / 2 + math.log(1 + math.exp(a / t)))
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("t", TEMPERATURES)
def test_a_student_that_is_its_teacher_has_no_loss_and_no_gradient(t: float) -> None:
    z = draw(2).requires_grad_()
    loss = soft_target_loss(z, z.detach() + 7, t)  # a shift of all logits is no difference
    (grad,) = torch.autograd.grad(loss.sum(), z)
    assert loss.abs().max() < 1e-12 * t * t
    assert grad.abs().max() < 1e-12 * t


@pytest.mark.parametrize("t", TEMPERATURES)
def test_the_gradient_is_t_times_the_difference_of_the_softened_answers(t: float) -> None:
    student, teacher = draw(0).requires_grad_(), draw(1).requires_grad_()
    soft_target_loss(student, teacher, t).sum().backward()
    expected = t * ((student / t).softmax(1) - (teacher / t).softmax(1))
    torch.testing.assert_close(student.grad, expected.detach())
    assert teacher.grad is None


def test_the_gradient_keeps_its_scale_as_the_temperature_grows() -> None:
    """Hinton's limit: with T^2 it becomes (z - v) / K of centred logits; without, it would die as 1 / T^2."""
    student, teacher = draw(0).requires_grad_(), draw(1)
    z, v = (x.detach() - x.detach().mean(1, keepdim=True) for x in (student, teacher))
    limit = (z - v) / z.shape[1]
    far = []
    for t in (10.0, 100.0, 1000.0):
        (grad,) = torch.autograd.grad(soft_target_loss(student, teacher, t).sum(), student)
        far.append(float((grad - limit).abs().max()))
    assert far[1] < far[0] / 8 and far[2] < far[1] / 8  # the error falls as 1 / T
    assert far[2] < 1e-2 * float(limit.abs().max())


def test_a_low_temperature_asks_for_the_best_class_alone() -> None:
    """As T -> 0 the loss over T becomes the margin by which the student misses the teacher's best class."""
    student, teacher = draw(0), draw(1)
    best = teacher.argmax(1, keepdim=True)
    margin = student.amax(1) - student.gather(1, best)[:, 0]
    assert (margin > 0).any() and (margin == 0).any()
    t = 1e-3
    torch.testing.assert_close(soft_target_loss(student, teacher, t) / t, margin, rtol=0, atol=1e-2)


def test_probabilities_serve_as_well_as_logits() -> None:
    student, teacher = draw(0), draw(1)
    given = soft_target_loss(student, teacher.softmax(1).log(), 4.0)
    torch.testing.assert_close(given, soft_target_loss(student, teacher, 4.0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    student, teacher = draw(0).to(dtype), draw(1).to(dtype)
    found = soft_target_loss(student, teacher, 4.0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, soft_target_loss(student.float(), teacher.float(), 4.0), rtol=0, atol=0)


def test_features_equal_loops() -> None:
    a, b = draw(3), draw(4)
    for x, y, hint, direction in zip(
        a.tolist(), b.tolist(), hint_loss(a, b).tolist(), direction_loss(a, b).tolist()
    ):
        assert hint == pytest.approx(sum((p - q) ** 2 for p, q in zip(x, y)) / len(x))
        dot = sum(p * q for p, q in zip(x, y))
        assert direction == pytest.approx(1 - dot / math.hypot(*x) / math.hypot(*y))


def test_features_of_the_teacher_take_no_gradient_and_directions_no_length() -> None:
    a, b = draw(3).requires_grad_(), draw(4).requires_grad_()
    (hint_loss(a, b) + direction_loss(a, b)).sum().backward()
    assert a.grad is not None and b.grad is None
    torch.testing.assert_close(direction_loss(5 * a, b), direction_loss(a, b))
    same = b.detach()
    assert direction_loss(same, same).abs().max() < 1e-12 and hint_loss(same, same).abs().max() == 0
