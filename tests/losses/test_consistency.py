"""Pseudo-targets number by number."""

import math

import pytest
import torch

from handful.losses.consistency import pseudo_target


@pytest.mark.parametrize("hard", [True, False])
def test_equals_a_loop(hard: bool) -> None:
    torch.manual_seed(0)
    logits = torch.randn(20, 3, dtype=torch.float64, requires_grad=True)
    target, weight = pseudo_target(logits, hard=hard, threshold=0.6)
    assert not target.requires_grad
    assert 0 < weight.sum() < 20, "the example must have both kinds of rows"
    for row, t, w in zip(logits.tolist(), target, weight):
        p = [math.exp(z) / sum(math.exp(v) for v in row) for z in row]
        assert float(w) == float(max(p) >= 0.6)
        if hard:
            assert int(t) == p.index(max(p))
        else:
            assert t.tolist() == pytest.approx(p, rel=1e-12)


def test_thresholds_at_the_ends() -> None:
    logits = torch.tensor([[50.0, 0.0], [0.0, 0.0]])
    assert pseudo_target(logits, hard=True, threshold=0.0)[1].tolist() == [1, 1]
    assert pseudo_target(logits, hard=True, threshold=1.01)[1].tolist() == [0, 0]
