"""Held-out answers of a candidate, and what two candidates' answers say of their difference."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.choose.conftest import digits
from torch import Tensor

from handful.choose.evidence import Belief, HeldOut, combine, measured
from handful.recipes.candidate import Candidate
from handful.recipes.stage import Stage
from handful.recipes.table import RECIPES, find
from handful.recipes.task import Fitted, Task, Workshop


def test_beliefs_of_equal_certainty_meet_in_the_middle() -> None:
    mean, sd = combine(Belief(0.10, 0.04), Belief(0.20, 0.04))
    assert mean == pytest.approx(0.15)
    assert sd == pytest.approx(0.04 / math.sqrt(2))


def test_a_belief_twice_as_sure_counts_four_times() -> None:
    """Weights 1/0.01 and 1/0.0025, that is 1 to 4; the precisions 100 and 400 add up to 500."""
    mean, sd = combine(Belief(0.0, 0.10), Belief(0.05, 0.05))
    assert mean == pytest.approx(0.8 * 0.05)
    assert sd == pytest.approx(math.sqrt(1 / 500))


@given(
    st.floats(-1, 1),
    st.floats(0.001, 1),
    st.floats(-1, 1),
    st.floats(0.001, 1),
    st.floats(-1, 1),
    st.floats(0.001, 1),
)
def test_the_order_of_beliefs_does_not_matter(
    a: float, s: float, b: float, t: float, c: float, u: float
) -> None:
    one = combine(combine(Belief(a, s), Belief(b, t)), Belief(c, u))
    other = combine(Belief(c, u), combine(Belief(b, t), Belief(a, s)))
    assert one == pytest.approx(other, abs=1e-9)
    assert one.sd < min(s, t, u)
    assert min(a, b, c) - 1e-9 <= one.mean <= max(a, b, c) + 1e-9


def test_a_measured_difference_by_hand() -> None:
    """Per picture means of a: 1, 1, 1, 0.5; of b: 0, 0, 1, 0.5; gains 1, 1, 0, 0: mean 1/2, variance 1/3."""
    a = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], dtype=float)
    b = np.array([[0, 0, 1, 1], [0, 0, 1, 0]], dtype=float)
    mean, sd = measured(a, b, n_folds=1)
    assert mean == pytest.approx(0.5)
    assert sd == pytest.approx(math.sqrt(1 / 3 / 4))
    for folds in (2, 4, 5):
        fold_means = 1 / 3 * folds / 4  # Nadeau & Bengio's S^2: of means over 4 / folds pictures
        corrected = (1 / folds + 1 / (folds - 1)) * fold_means  # (1/J + n2/n1) S^2
        assert measured(a, b, folds).sd == pytest.approx(math.sqrt(corrected))
        assert measured(a, b, folds).mean == pytest.approx(0.5)


def test_repeats_are_not_new_pictures() -> None:
    a = np.array([[1, 1, 0, 1, 0, 1]], dtype=float)
    b = np.array([[0, 1, 0, 1, 1, 0]], dtype=float)
    assert measured(np.repeat(a, 10, 0), np.repeat(b, 10, 0), 4) == pytest.approx(measured(a, b, 4))


def test_equal_answers_are_not_certainty() -> None:
    """No gain differs: the variance is that of one changed decision, 1/n, so the standard error is 1/n."""
    same = np.ones((5, 8))
    mean, sd = measured(same, same, n_folds=1)
    assert (mean, sd) == (0, pytest.approx(1 / 8))
    assert measured(same, same, n_folds=4).sd == pytest.approx(1 / 8 * math.sqrt(7 / 3))
    assert measured(same, np.zeros((5, 8)), n_folds=1) == pytest.approx((1.0, 1 / 8))


def test_the_floor_does_not_touch_larger_variances() -> None:
    a, b = np.array([[1.0, 0, 1, 0]]), np.array([[0.0, 1, 0, 1]])  # gains 1, -1, 1, -1: variance 4/3
    assert measured(a, b, n_folds=1).sd == pytest.approx(math.sqrt(4 / 3 / 4))


def test_a_held_out_label_cannot_be_seen(
    bench: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recipes never get a task that holds a label of the fold that they are measured on."""
    task, _, _ = digits()
    seen: list[tuple[Task, Tensor]] = []

    def spy(stage: Stage, workshop: Workshop) -> Fitted:
        def logits(rows: Tensor) -> Tensor:
            seen.append((stage.task, rows))
            return torch.zeros(len(rows), stage.task.n_classes)

        return replace(logistic.algorithm(stage, workshop), logits=logits)

    logistic = find("logistic")
    monkeypatch.setitem(RECIPES, "logistic", replace(logistic, algorithm=spy))
    HeldOut(task, bench()).measure(Candidate("logistic", "pixels"), "spy", 2)
    assert len(seen) == 8
    for part, rows in seen:
        assert not set(rows.tolist()) & set(part.labelled.tolist())
        assert set(rows.tolist()) == set(part.held_out.tolist())
        assert len(part.labelled) == len(part.y) == 12 - len(rows)
        truth = dict(zip(task.labelled.tolist(), task.y.tolist()))
        assert [truth[r] for r in part.labelled.tolist()] == part.y.tolist()
    for repeat in (seen[:4], seen[4:]):
        assert sorted(r for _, rows in repeat for r in rows.tolist()) == sorted(task.labelled.tolist())


@pytest.mark.parametrize(("left", "repeats"), [(1e9, 5), (0.0, 1)])
def test_the_time_that_is_left_limits_the_repeats_but_not_the_first(
    left: float, repeats: int, bench: Callable[..., Workshop]
) -> None:
    """A resumed run obeys what was planned, whatever time it has."""
    task, _, _ = digits()
    first, candidate = bench(), Candidate("logistic", "pixels")
    found = HeldOut(task, first).measure(candidate, "it", 5, left=lambda: left)
    assert found.right.shape == (repeats, 12)
    assert first.plan == {"repeats of it@pixels": repeats}
    resumed = bench(plan={"repeats of it@pixels": 3})
    again = HeldOut(task, resumed).measure(candidate, "it", 5, left=lambda: left)
    assert (again.right[:repeats] == found.right[:3]).all() and len(again.right) == 3
