"""Labels saved: arithmetic by hand, pairing, ends of the curve, and coverage of the interval by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from handful.stats.labels_saved import best_curve, labels_saved, sentence, worth

SIZES = [1, 4, 16, 64]


def rows(*means: float, draws: int = 3) -> np.ndarray:
    """[S, draws], every draw equal to the mean."""
    return np.tile(np.array(means)[:, None], (1, draws))


def test_a_point_between_two_sizes_is_interpolated_in_log_labels() -> None:
    probe = rows(0.5, 0.6, 0.7, 0.8)
    found = labels_saved(SIZES, {"probe": probe}, rows(0.65, 0.70, 0.75, 0.80))
    # 0.65 lies half way between 4 and 16 in log labels: sqrt(4 * 16) = 8; 0.75: sqrt(16 * 64) = 32
    assert [f.labels for f in found] == pytest.approx([8.0, 16.0, 32.0, 64.0])
    assert [f.given for f in found] == SIZES
    quarter = labels_saved(SIZES, {"probe": probe}, rows(0.525, 0.6, 0.7, 0.8))[0]
    assert quarter.labels == pytest.approx(4**0.25)


def test_the_best_baseline_of_each_size_is_the_curve() -> None:
    names, curve = best_curve({"a": rows(0.5, 0.6, 0.6, 0.6), "b": rows(0.4, 0.6, 0.7, 0.9)})
    assert names == ["a", "a", "b", "b"]
    assert curve[:, 0].tolist() == [0.5, 0.6, 0.7, 0.9]


def test_a_dip_is_levelled() -> None:
    """0.6, 0.58 becomes 0.6, 0.6: the first size that reaches the accuracy counts."""
    found = labels_saved(SIZES, {"probe": rows(0.5, 0.6, 0.58, 0.8)}, rows(0.6, 0.7, 0.7, 0.7))
    assert found[0].labels == pytest.approx(4.0)
    noise = np.array([-0.004, 0.001, 0.003])
    steep = np.array([0.6, 0.8, 0.74, 0.86])[:, None] + noise[::-1]
    drawn = labels_saved(SIZES, {"probe": steep}, np.full((4, 1), 0.82) + noise)[0]
    assert drawn.labels is not None and drawn.low is not None and drawn.high is not None
    assert drawn.low <= drawn.labels <= drawn.high
    assert found[1].labels == pytest.approx(32.0)  # half way from 0.6 at 16 to 0.8 at 64


def test_beyond_the_curve_nothing_is_made_up() -> None:
    found = labels_saved(SIZES, {"probe": rows(0.5, 0.6, 0.7, 0.8)}, rows(0.4, 0.85, 0.8, 0.5))
    assert [(f.labels, f.beyond) for f in found][:2] == [(None, "below"), (None, "above")]
    assert found[2].labels == pytest.approx(64) and found[3].labels == pytest.approx(1)
    assert worth(found[0]) == "fewer than 1 (the fewest measured)"
    assert worth(found[1]).startswith("more than 64 (the most measured")


def test_beyond_the_curve_it_says_whether_that_is_sure() -> None:
    """A large gap in every draw is; noise as large as the gap, or a single draw, is not."""
    probe = np.array([0.4, 0.5, 0.6, 0.7])[:, None] + np.array([-0.01, 0.0, 0.01])
    far, near = np.full((4, 3), 0.95), np.full((4, 3), 0.705) + np.array([-0.05, 0.05, 0.01])
    sure = labels_saved(SIZES, {"probe": probe}, far)[0]
    unsure = labels_saved(SIZES, {"probe": probe}, near)[0]
    one = labels_saved(SIZES, {"probe": probe[:, :1]}, far[:, :1])[0]
    assert [x.beyond for x in (sure, unsure, one)] == ["above"] * 3
    assert [x.sure for x in (sure, unsure, one)] == [True, False, False]
    assert worth(sure) == "more than 64 (the most measured)"
    assert worth(unsure).startswith("perhaps more than 64 (the most measured")
    assert "certain" not in sentence("m", sure) and "not certain" in sentence("m", unsure)


def test_the_interval_keeps_the_pairing() -> None:
    """A hard draw is hard for both: with the offsets shared the interval is narrow, with them shuffled it is wide."""
    offsets = np.array([-0.04, -0.02, 0.0, 0.02, 0.04])
    probe = np.array([0.5, 0.6, 0.7, 0.8])[:, None] + offsets
    noise = np.array([0.001, -0.001, 0.0, 0.001, -0.001])
    method = np.array([0.6, 0.65, 0.75, 0.8])[:, None] + offsets + noise
    paired = labels_saved(SIZES, {"probe": probe}, method)[1]
    shuffled = labels_saved(SIZES, {"probe": probe}, method[:, ::-1])[1]
    assert paired.labels == pytest.approx(8.0)
    assert paired.low is not None and paired.high is not None
    # by hand: differences (method - curve at m) vary by the noise alone; t(4) * sd / sqrt(5) = 0.001242, and the
    # curve rises by 0.1 over log 4, so the interval is 8 * 4 ** (+-0.01242)
    half = 2.776445 * noise.std(ddof=1) / math.sqrt(5) / 0.1
    assert paired.low == pytest.approx(8 * 4**-half, rel=2e-3)
    assert paired.high == pytest.approx(8 * 4**half, rel=2e-3)
    assert shuffled.low is not None and shuffled.high is not None
    assert shuffled.high / shuffled.low > 2 * paired.high / paired.low


def test_missing_draws_are_left_out_and_one_draw_has_no_interval() -> None:
    probe, method = rows(0.5, 0.6, 0.7, 0.8), rows(0.65, 0.7, 0.75, 0.8)
    method[0, 1] = np.nan
    assert labels_saved(SIZES, {"probe": probe}, method)[0].labels == pytest.approx(8.0)
    one = labels_saved(SIZES, {"probe": probe[:, :1]}, method[:, :1])[0]
    assert (one.labels, one.low, one.high) == (pytest.approx(8.0), None, None)


def test_words() -> None:
    saved = labels_saved(SIZES, {"the probe": rows(0.5, 0.6, 0.7, 0.8)}, rows(0.55, 0.65, 0.7, 0.9))
    assert sentence("X", saved[1]) == "With 4 labels per class, X does what the probe needs 8 (8 … 8) for."
    assert sentence("X", saved[0]).startswith("With 1 label per class, X does what the probe needs 2 (")
    assert (
        sentence("X", saved[3])
        == "With 64 labels per class, X does better than the probe with 64, the most measured."
    )
    with pytest.raises(ValueError, match="ascend"):
        labels_saved([4, 1], {"a": rows(0.1, 0.2)}, rows(0.1, 0.2))
    with pytest.raises(ValueError, match="none"):
        labels_saved([1, 4], {}, rows(0.1, 0.2))


def test_five_draws_cover_what_they_claim() -> None:
    """Draws with a shared and an own part, as real accuracies have; the truth is 4 * 4 ** 0.7 labels."""
    rng, covered, trials = np.random.RandomState(0), 0, 600
    probe_mean, truth = np.array([0.50, 0.62, 0.72, 0.78]), 4 * 4**0.7
    method_mean = np.array([0.60, 0.62 + 0.7 * 0.10, 0.76, 0.79])
    for _ in range(trials):
        shared = rng.normal(0, 1, 5) * np.array([0.05, 0.03, 0.015, 0.008])[:, None]
        probe = probe_mean[:, None] + shared + rng.normal(0, 0.008, (4, 5))
        method = method_mean[:, None] + shared + rng.normal(0, 0.008, (4, 5))
        found = labels_saved(SIZES, {"probe": probe}, method)[1]
        low = found.low if found.low is not None else 0.0
        high = found.high if found.high is not None else math.inf
        covered += low <= truth <= high
    assert covered / trials >= 0.90
