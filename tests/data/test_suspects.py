"""Suspect labels: the closed forms against loops, and the stated false-alarm rate against the counted one."""

from __future__ import annotations

import numpy as np
import pytest

from handful.data.suspects import Suspects, left_out, suspects, threshold


def clusters(n: int, classes: int, spread: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """n pictures of each class around class means, of length 1: [n * classes, 24]."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(classes, 24))
    y = np.repeat(np.arange(classes), n)
    x = means[y] / np.linalg.norm(means[y], axis=1, keepdims=True) + spread * rng.normal(size=(len(y), 24))
    return x / np.linalg.norm(x, axis=1, keepdims=True), y


def flipped(y: np.ndarray, share: float, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    wrong = np.zeros(len(y), bool)
    wrong[rng.choice(len(y), round(share * len(y)), replace=False)] = True
    given = y.copy()
    given[wrong] = (y[wrong] + rng.integers(1, classes, wrong.sum())) % classes
    return given, wrong


def test_leave_one_out_equals_leaving_one_out() -> None:
    x, y = clusters(4, 3, 0.3, 0)
    fast = left_out(x, y, 3, 0.1)
    for i in range(len(x)):
        rest = np.arange(len(x)) != i
        gram = x[rest] @ x[rest].T + 1 / len(x) + 0.1 * np.eye(len(x) - 1)
        answer = (x[i] @ x[rest].T + 1 / len(x)) @ np.linalg.solve(gram, np.eye(3)[y[rest]])
        assert fast[i] == pytest.approx(answer, abs=1e-9)


def test_the_threshold_equals_a_search_over_all() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet([0.3] * 4, 50)
    t, stated = threshold(p, 0.02)

    def alarms(level: float) -> float:
        return sum(p[i, j] for i in range(50) for j in range(4) if p[i, j] <= level) / 50

    assert stated == pytest.approx(alarms(t))
    assert stated <= 0.02
    larger = min(value for value in p.ravel() if value > t)
    assert alarms(larger) > 0.02
    assert threshold(np.full((5, 2), 0.5), 0.02) == (0.0, 0.0)


@pytest.mark.parametrize("per_class", [4, 10])
@pytest.mark.parametrize("share", [0.0, 0.1])
def test_the_stated_rate_holds_on_pictures_whose_truth_is_known(per_class: int, share: float) -> None:
    """30 sets of 8 classes. The counted rate may be twice the stated 2 %, with the doubt of so many pictures."""
    alarms, found, clean, bad = 0, 0, 0, 0
    for seed in range(30):
        x, y = clusters(per_class, 8, 0.35, seed)
        given, wrong = flipped(y, share, 8, seed)
        s = suspects(x, given, 8)
        assert s.rate <= 0.02
        alarms, clean = alarms + int(s.suspect[~wrong].sum()), clean + int((~wrong).sum())
        found, bad = found + int(s.suspect[wrong].sum()), bad + int(wrong.sum())
    assert alarms / clean < 0.04 + 2 * (0.04 / clean) ** 0.5
    if share:
        assert found / bad > (0.3 if per_class == 4 else 0.6)
        assert found > alarms


def test_too_little_to_judge() -> None:
    for x, y in (
        (np.ones((1, 3)), np.array([0])),
        (np.eye(3), np.array([1, 1, 1])),
        (np.empty((0, 3)), np.empty(0, int)),
    ):
        s = suspects(x, y, 2)
        assert isinstance(s, Suspects) and not s.suspect.any() and s.p.shape == (len(x), 2)


def test_many_pictures_are_dealt_into_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    from handful.data import suspects as module

    x, y = clusters(10, 4, 0.2, 0)
    given, wrong = flipped(y, 0.1, 4, 0)
    monkeypatch.setattr(module, "LARGEST", 15)
    s = suspects(x, given, 4)
    assert s.p.sum(1) == pytest.approx(np.ones(40))
    assert s.suspect[wrong].sum() >= 2
