"""Intervals against scipy's own, closed forms and values worked by hand."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, f1_score

from handful.stats import intervals as st


def test_balanced_accuracy_and_macro_f1_equal_scikit_learn() -> None:
    rng = np.random.RandomState(0)
    truth, guess = rng.choice(4, 300, p=[0.7, 0.2, 0.08, 0.02]), rng.randint(0, 4, 300)
    guess = np.where(rng.rand(300) < 0.6, truth, guess)
    assert st.balanced_accuracy(truth, guess, 4) == pytest.approx(balanced_accuracy_score(truth, guess))
    assert st.macro_f1(truth, guess, 4) == pytest.approx(f1_score(truth, guess, average="macro"))
    # a class that nobody has and nobody is called is left out; one that is only called counts as 0
    assert st.macro_f1(truth, guess, 6) == st.macro_f1(truth, guess, 4)
    assert st.macro_f1([0, 0, 1, 1], [0, 0, 1, 2], 3) == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert math.isnan(st.macro_f1([], [], 3))


@pytest.mark.parametrize(
    ("correct", "n"), [(0, 1), (0, 40), (1, 7), (20, 40), (37, 40), (40, 40), (431, 449)]
)
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_wilson_equals_scipy(correct: int, n: int, level: float) -> None:
    ours = st.wilson(correct, n, level)
    theirs = stats.binomtest(correct, n).proportion_ci(level, method="wilson")
    assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_wilson_by_hand_and_at_the_ends() -> None:
    assert st.wilson(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    z2 = stats.norm.ppf(0.975) ** 2
    assert st.wilson(0, 40) == pytest.approx((0.0, z2 / (40 + z2)))
    assert st.wilson(40, 40)[1] == 1.0
    assert st.wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("correct", "n", "level"), [(5, 4, 0.95), (-1, 4, 0.95), (1, 4, 1.0), (1, 4, 0.0)])
def test_wilson_refuses(correct: int, n: int, level: float) -> None:
    with pytest.raises(ValueError, match=r"correct|level"):
        st.wilson(correct, n, level)


def test_wilson_covers_the_truth_about_as_often_as_it_says() -> None:
    n, p = 40, 0.85
    k = np.arange(n + 1)
    inside = [low <= p <= high for low, high in (st.wilson(int(c), n) for c in k)]
    assert 0.93 < stats.binom.pmf(k, n, p)[inside].sum() < 0.98


def test_accuracy_does_not_count_repeats_as_pictures() -> None:
    once = np.array([1, 1, 0, 1])
    assert st.accuracy(np.stack([once] * 10)) == st.accuracy(once)
    assert st.accuracy(once).interval == st.wilson(3, 4)
    assert st.accuracy([[1, 0], [1, 1]]).value == 0.75


def test_paired_difference_equals_scipys_t_interval() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 60)) < [[0.9], [0.7]]
    ours = st.paired_difference(a, b)
    theirs = stats.ttest_rel(a.astype(float), b.astype(float)).confidence_interval(0.95)
    assert ours.value == pytest.approx(a.mean() - b.mean())
    assert ours.interval == pytest.approx((theirs.low, theirs.high))


def test_paired_difference_by_hand() -> None:
    # gains 1, 0, 0, 0: mean 1/4, sd 1/2, standard error 1/4, t(3) = 3.182446
    ours = st.paired_difference([1, 1, 0, 1], [0, 1, 0, 1])
    assert ours == pytest.approx((0.25, 0.25 - 3.182446 / 4, 1.0), abs=1e-6)  # 1.0456 is cut to 1


def test_repeats_are_averaged_per_picture_first() -> None:
    a = np.tile([[1, 1, 0, 1], [1, 0, 0, 1]], 4)
    b = np.tile([[0, 1, 0, 1]], 4)
    gains = [1, -0.5, 0, 0] * 4
    expected = stats.t.interval(0.95, 15, loc=np.mean(gains), scale=stats.sem(gains))
    assert st.paired_difference(a, b).interval == pytest.approx(expected)


def test_equal_predictions_are_not_proof_of_equality() -> None:
    same = np.ones(40)
    value, low, high = st.paired_difference(same, same)
    assert value == 0
    assert -low == high == pytest.approx(st.wilson(0, 40)[1])
    assert st.paired_difference(same, np.zeros(40)).high == 1.0


def test_paired_difference_is_antisymmetric() -> None:
    a, b = np.random.default_rng(1).integers(0, 2, (2, 3, 25))
    forth, back = st.paired_difference(a, b), st.paired_difference(b, a)
    assert forth == pytest.approx((-back.value, -back.high, -back.low))


@pytest.mark.parametrize(
    ("a", "b"), [([1, 0], [1]), ([], []), ([2, 0], [1, 0]), (1, 0), ([math.nan, 1], [1, 0])]
)
def test_paired_difference_refuses(a: object, b: object) -> None:
    with pytest.raises(ValueError, match=r"pictures|picture|values"):
        st.paired_difference(a, b)  # type: ignore[arg-type]


def test_mean_interval_equals_scipy_and_has_none_for_one_value() -> None:
    x = [0.91, 0.93, 0.88, 0.95]
    assert st.mean_interval(x).interval == pytest.approx(stats.t.interval(0.95, 3, np.mean(x), stats.sem(x)))
    alone = st.mean_interval([0.5])
    assert alone.value == 0.5
    assert math.isnan(alone.low)
    assert math.isnan(alone.high)
    with pytest.raises(ValueError, match="non-empty"):
        st.mean_interval([])
