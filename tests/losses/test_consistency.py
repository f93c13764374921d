"""Targets and consistency losses, number by number."""

import math

import pytest
import torch
from torch import Tensor

from handful.losses import consistency as c


def example(n: int = 20, k: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(n, k, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def softmax(row: list[float]) -> list[float]:
    return [math.exp(z) / sum(math.exp(v) for v in row) for z in row]


@pytest.mark.parametrize("hard", [True, False])
def test_pseudo_targets_equal_a_loop(hard: bool) -> None:
    logits = example().requires_grad_(True)
    target, weight = c.pseudo_target(logits, hard=hard, threshold=0.6)
    assert not target.requires_grad
    assert 0 < weight.sum() < 20, "the example must have both kinds of rows"
    for row, t, w in zip(logits.tolist(), target, weight):
        p = softmax(row)
        assert float(w) == float(max(p) >= 0.6)
        if hard:
            assert int(t) == p.index(max(p))
        else:
            assert t.tolist() == pytest.approx(p, rel=1e-12)


def test_thresholds_at_the_ends() -> None:
    logits = torch.tensor([[50.0, 0.0], [0.0, 0.0]])
    assert c.pseudo_target(logits, hard=True, threshold=0.0)[1].tolist() == [1, 1]
    assert c.pseudo_target(logits, hard=True, threshold=1.01)[1].tolist() == [0, 0]


@pytest.mark.parametrize("temperature", [0.4, 0.5, 1.0, 3.0])
def test_sharpening_equals_a_loop_and_the_tempered_softmax(temperature: float) -> None:
    logits = example()
    sharp = c.sharpen(logits.softmax(1), temperature)
    torch.testing.assert_close(sharp, (logits / temperature).softmax(1))
    for p, row in zip(logits.softmax(1).tolist(), sharp.tolist()):
        powers = [v ** (1 / temperature) for v in p]
        assert row == pytest.approx([v / sum(powers) for v in powers], rel=1e-9)


def test_sharpening_a_certain_prediction_leaves_it() -> None:
    p = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    torch.testing.assert_close(c.sharpen(p, 0.5), p)


def test_alignment_equals_a_loop() -> None:
    p, wanted, found = example().softmax(1), [0.5, 0.3, 0.2], [0.2, 0.2, 0.6]
    aligned = c.align(p, torch.tensor(wanted, dtype=p.dtype), torch.tensor(found, dtype=p.dtype))
    for before, after in zip(p.tolist(), aligned.tolist()):
        scaled = [v * w / f for v, w, f in zip(before, wanted, found)]
        assert after == pytest.approx([v / sum(scaled) for v in scaled], rel=1e-12)


def test_alignment_to_what_is_found_changes_nothing() -> None:
    p = example().softmax(1)
    torch.testing.assert_close(c.align(p, p.mean(0), p.mean(0)), p)


def test_the_squared_difference_equals_torch_and_is_zero_between_equals() -> None:
    logits, p = example(), example(seed=1).softmax(1)
    ours = c.squared_difference(logits, p)
    theirs = torch.nn.functional.mse_loss(logits.softmax(1), p, reduction="none").mean(1)
    torch.testing.assert_close(ours, theirs)
    assert c.squared_difference(logits + 3, logits.softmax(1)).abs().max() < 1e-15


def test_the_divergence_equals_torch_and_a_loop() -> None:
    logits, p = example(), example(seed=1).softmax(1)
    ours = c.divergence(p, logits)
    theirs = torch.nn.functional.kl_div(logits.log_softmax(1), p, reduction="none").sum(1)
    torch.testing.assert_close(ours, theirs)
    for z, target, value in zip(logits.tolist(), p.tolist(), ours.tolist()):
        assert value == pytest.approx(sum(t * math.log(t / q) for t, q in zip(target, softmax(z))), rel=1e-9)


def test_the_divergence_of_a_certain_target_is_the_cross_entropy() -> None:
    logits = example()
    hard = torch.nn.functional.one_hot(logits.argmin(1), 3).double()
    expected = torch.nn.functional.cross_entropy(logits, logits.argmin(1), reduction="none")
    torch.testing.assert_close(c.divergence(hard, logits), expected)


def test_the_ramp() -> None:
    assert c.ramp_up(0, 80) == pytest.approx(math.exp(-5))
    assert c.ramp_up(40, 80) == pytest.approx(math.exp(-1.25))
    assert c.ramp_up(80, 80) == c.ramp_up(999, 80) == c.ramp_up(0, 0) == 1


@pytest.mark.parametrize(("schedule", "half"), [("linear", 0.5), ("exp", 0.0820850), ("log", 0.9179150)])
def test_signal_annealing_goes_from_chance_to_one(schedule: str, half: float) -> None:
    assert c.signal_annealing(0, 100, 10, schedule) == pytest.approx(0.1, abs=0.007)
    assert c.signal_annealing(50, 100, 10, schedule) == pytest.approx(half * 0.9 + 0.1, abs=1e-6)
    assert c.signal_annealing(100, 100, 10, schedule) == pytest.approx(1, abs=0.007)


def test_fairness_equals_a_loop() -> None:
    p, k = example(12).softmax(1), 3
    trust = (p.amax(1) > 0.55).double()
    found, histogram = [0.5, 0.3, 0.2], [0.6, 0.3, 0.1]
    ours = c.fairness(p, trust, torch.tensor(found, dtype=p.dtype), torch.tensor(histogram, dtype=p.dtype))
    used = [row for row, t in zip(p.tolist(), trust.tolist()) if t]
    assert 0 < len(used) < 12
    p_bar = [sum(row[j] for row in used) / len(used) for j in range(k)]
    h_bar = [sum(row.index(max(row)) == j for row in used) / len(used) for j in range(k)]
    ratio = [a / h if h else 0.0 for a, h in zip(p_bar, h_bar)]
    wanted = [a / b for a, b in zip(found, histogram)]
    loop = sum(w / sum(wanted) * math.log(r / sum(ratio) + 1e-12) for w, r in zip(wanted, ratio))
    assert float(ours) == pytest.approx(loop, rel=1e-9)


def test_fairness_has_a_gradient_and_is_zero_where_nothing_is_trusted() -> None:
    logits = example(12).requires_grad_(True)
    uniform = torch.full((3,), 1 / 3, dtype=torch.float64)
    c.fairness(logits.softmax(1), torch.ones(12, dtype=torch.float64), uniform, uniform).backward()
    assert logits.grad is not None and logits.grad.abs().max() > 1e-4
    nothing = torch.zeros(12, dtype=torch.float64)
    assert c.fairness(logits.softmax(1), nothing, uniform, uniform).item() == 0


def test_mixing() -> None:
    a, b = torch.ones(3, 1, 2, 2), torch.zeros(3, 1, 2, 2)
    share = torch.tensor([1.0, 0.75, 0.5])
    assert c.mix(a, b, share)[:, 0, 0, 0].tolist() == [1.0, 0.75, 0.5]
    assert c.mix(a[:, 0, 0], b[:, 0, 0], share)[:, 1].tolist() == [1.0, 0.75, 0.5]
