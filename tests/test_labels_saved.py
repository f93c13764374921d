"""Labels saved: numbers worked out by hand, pairing, missing cells, and coverage by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from handful.labels_saved import envelope, labels_saved, paired

SIZES = [1, 4, 16, 64]
PROBE = np.array([[0.4] * 3, [0.6] * 3, [0.8] * 3, [0.9] * 3])


def method(accuracy: float, at: int = 4) -> np.ndarray:
    x = np.full((4, 3), np.nan)
    x[SIZES.index(at)] = accuracy
    return x


@pytest.mark.parametrize(
    ("accuracy", "labels"),
    [
        (0.6, 4.0),
        (0.7, 8.0),  # half-way between 4 and 16 in log labels: sqrt(4 * 16)
        (0.65, 4 * 2**0.5),  # a quarter of the way: 4 * 4 ** 0.25
        (0.85, 32.0),
    ],
)
def test_the_number_is_interpolated_in_log_labels(accuracy: float, labels: float) -> None:
    found = labels_saved(SIZES, {"probe": PROBE}, method(accuracy), 4)
    assert found.labels == pytest.approx(labels)
    assert found.reached
    assert found.saved == pytest.approx(labels - 4)


def test_beyond_the_curve_nothing_is_extrapolated() -> None:
    above = labels_saved(SIZES, {"probe": PROBE}, method(0.95), 4)
    assert (above.labels, above.better, above.reached, above.saved) == (None, True, False, None)
    assert (
        above.sentence("auto")
        == "with 4 labels per class, auto does what probe needs more than we measured (up to 64) for"
    )
    below = labels_saved(SIZES, {"probe": PROBE}, method(0.3), 4)
    assert (below.labels, below.better) == (None, False)
    assert below.sentence("auto") == "with 4 labels per class, auto does what probe needs fewer than 1 for"


def test_the_curve_never_falls_and_takes_the_best_baseline() -> None:
    # probe 0.5, 0.4, 0.8; mean 0.45, 0.6, 0.7: the best up to each size is 0.5, 0.6, 0.8
    baselines = {
        "probe": np.array([[0.5] * 2, [0.4] * 2, [0.8] * 2]),
        "mean": np.array([[0.45] * 2, [0.6] * 2, [0.7] * 2]),
    }
    nodes, names, curve = envelope([1, 4, 16], baselines)
    assert nodes.tolist() == [1, 4, 16]
    assert names == ["probe", "mean", "probe"]
    np.testing.assert_allclose(curve[:, 0], [0.5, 0.6, 0.8])
    # alone, the probe's fall at 4 is bridged by its own value at 1
    _, _, alone = envelope([1, 4, 16], {"probe": baselines["probe"]})
    np.testing.assert_allclose(alone[:, 0], [0.5, 0.5, 0.8])
    ours = np.full((3, 2), 0.65)
    assert labels_saved([1, 4, 16], {"probe": baselines["probe"]}, ours, 1).labels == pytest.approx(4 * 2)
    assert labels_saved([1, 4, 16], baselines, ours, 1).baseline == "probe"  # the better one at 16
    assert labels_saved([1, 4, 16], baselines, np.full((3, 2), 0.55), 1).baseline == "mean"


def test_draws_stay_paired() -> None:
    """Draws that are hard for both: the difference is steady though each alone swings by 20 points."""
    hard = np.array([-0.2, -0.1, 0.0, 0.1, 0.2]) / 2
    probe = np.array([0.4, 0.6, 0.8])[:, None] + hard
    ours = np.array([0.5, 0.7, 0.8])[:, None] + hard + np.array([1, -1, 0, -1, 1]) * 1e-3
    found = labels_saved([1, 4, 16], {"probe": probe}, ours, 4)
    # d = 0.7 - m's curve: half-width t(4) * sd / sqrt(5), sd = 1e-3 * sqrt(4 / 4), in a slope of 0.2 per log 4
    half = 2.7764 * 1e-3 / 5**0.5 / 0.2
    assert found.labels == pytest.approx(8.0)
    assert found.low == pytest.approx(8 * 4**-half, rel=0.01)
    assert found.high == pytest.approx(8 * 4**half, rel=0.01)
    shuffled = labels_saved([1, 4, 16], {"probe": probe}, ours[:, ::-1], 4)
    assert shuffled.labels == pytest.approx(8.0)
    assert shuffled.low is None or shuffled.low < 6


def test_missing_cells() -> None:
    ours = method(0.7)
    ours[1, 0] = np.nan
    probe = PROBE.copy()
    probe[:, 0] = 0.0  # the draw that the method lacks does not count
    found = labels_saved(SIZES, {"probe": probe}, ours, 4)
    assert (found.labels, found.draws) == (pytest.approx(8.0), 2)
    probe[2, 1] = np.nan  # a size that lacks a draw is left out: 4 to 64 is now one step, 0.6 to 0.9
    found = labels_saved(SIZES, {"probe": probe}, ours, 4)
    assert found.labels == pytest.approx(4 * 16 ** (1 / 3))


def test_one_draw_has_no_interval() -> None:
    found = labels_saved(SIZES, {"probe": PROBE[:, :1]}, method(0.7)[:, :1], 4)
    assert (found.low, found.high) == (None, None)
    assert found.sentence("auto").endswith("needs 8 (one draw: no interval) for")


def test_the_sentence() -> None:
    swing = np.array([-0.02, 0.0, 0.02])
    found = labels_saved(SIZES, {"probe": PROBE}, method(0.7) + swing, 4)
    # 4.303 * 0.02 / sqrt(3) = 0.0497 of a slope of 0.2 per factor 4: 8 * 4 ** ±0.248 = 5.67 and 11.3
    assert found.sentence("auto") == "with 4 labels per class, auto does what probe needs 8 (5.7 … 11) for"
    wide = labels_saved(SIZES, {"probe": PROBE}, method(0.88) + swing, 4)
    assert wide.words.endswith("… more than we measured)")


def test_an_interval_that_excludes_nothing_says_so() -> None:
    found = labels_saved(SIZES, {"probe": PROBE}, method(0.95) + np.array([-0.9, 0.0, 0.9]), 4)
    assert (found.labels, found.low, found.high) == (None, None, None)
    assert found.words == "more than we measured (up to 64); interval fewer than 1 … more than we measured"


@pytest.mark.parametrize(
    ("sizes", "baselines", "ours", "size", "words"),
    [
        ([4, 1], {"p": np.ones((2, 2))}, np.ones((2, 2)), 1, "ascending"),
        ([1, 4], {"p": np.ones((2, 2))}, np.ones((2, 2)), 2, "not among"),
        ([1, 4], {"p": np.ones((2, 3))}, np.ones((2, 2)), 1, "draws"),
        ([1, 4], {"p": np.ones((3, 2))}, np.ones((2, 2)), 1, "shape"),
        ([1, 4], {"p": np.ones((2, 2))}, np.full((2, 2), np.nan), 1, "no figure"),
        ([1, 4], {"p": np.full((2, 2), np.nan)}, np.ones((2, 2)), 1, "no baseline"),
        ([1, 4], {}, np.ones((2, 2)), 1, "no baseline"),
    ],
)
def test_bad_input_is_named(
    sizes: list[int], baselines: dict[str, np.ndarray], ours: np.ndarray, size: int, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        labels_saved(sizes, baselines, ours, size)


def test_paired_difference_is_students() -> None:
    from scipy.stats import ttest_rel

    a, b = np.array([0.7, 0.8, np.nan, 0.9, 0.75]), np.array([0.6, 0.75, 0.5, 0.7, 0.8])
    keep = [0, 1, 3, 4]
    reference = ttest_rel(a[keep], b[keep]).confidence_interval(0.95)
    value, low, high = paired(a, b)
    assert value == pytest.approx(0.075)  # (0.1 + 0.05 + 0.2 - 0.05) / 4
    assert (low, high) == pytest.approx((reference.low, reference.high))


@pytest.mark.parametrize("second", [False, True])
def test_the_interval_covers_at_five_draws(second: bool) -> None:
    """Correlated draws as in real grids: one part common to a draw, one of each cell. Nominal 95 %."""
    generator = np.random.default_rng(7)
    truth = np.array([0.45, 0.58, 0.68, 0.75])
    rounds, covered = 800, 0
    for _ in range(rounds):
        draw = generator.normal(0, 0.03, 5)
        shape = np.array([1.0, 0.8, 0.5, 0.3])[:, None]  # fewer labels, more luck

        def cells(draw: np.ndarray = draw, shape: np.ndarray = shape) -> np.ndarray:
            return shape * (draw + generator.normal(0, 0.02, (4, 5)))

        baselines = {"probe": truth[:, None] + cells()}
        if second:  # nearly as good: choosing between the two by the same draws may cost coverage
            baselines["mean"] = truth[:, None] - 0.01 + cells()
        ours = np.full((4, 5), 0.63) + cells()
        found = labels_saved([1, 4, 16, 64], baselines, ours, 4)
        low, high = found.low or 0.0, found.high or np.inf
        covered += low <= 8 <= high  # 0.63 is half-way from 4 to 16
    assert covered / rounds >= 0.9
