"""The forecast: fits against an independent solver, known curves, coverage by simulation, words."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import nnls

from handful.stats.forecast import _fit, forecast, shapes

SIZES = (1, 2, 4, 8, 16)


def power(n: np.ndarray | tuple[int, ...], a: float, b: float, c: float) -> np.ndarray:
    """Accuracy of an error curve a + b n^-c."""
    return 1 - (a + b * np.asarray(n, dtype=float) ** -c)


def noisy(clean: np.ndarray, sd: float, generator: np.random.Generator, draws: int = 5) -> np.ndarray:
    """[S, R]: part of the luck is common to a draw, and it shrinks with the labels."""
    scale = np.linspace(1, 0.3, len(clean))[:, None]
    luck = generator.normal(0, sd, draws) + generator.normal(0, sd, (len(clean), draws))
    return np.clip(clean[:, None] + scale * luck, 0, 1)


def test_each_curve_is_the_constrained_least_squares_fit() -> None:
    n = np.array(SIZES, dtype=float)
    errors = np.array(
        [[0.5, 0.4, 0.33, 0.27, 0.25], [0.3, 0.31, 0.29, 0.33, 0.32], [0.5, 0.2, 0.1, 0.04, 0.01]]
    )
    spread = np.array([0.05, 0.04, 0.02, 0.02, 0.01])
    told, weights = _fit(n, errors, spread, n)
    g, share = shapes(n, 16)
    assert share.sum() == pytest.approx(1)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    for row, y in enumerate(errors):
        chi = np.empty(len(g))
        for k, shape in enumerate(g):
            design = np.stack([np.ones(5), shape], axis=1)
            if shape.min() < 0:  # minus log n: its offset may have any sign
                design = np.concatenate([design, -np.ones((5, 1))], axis=1)
            x, norm = nnls(design / spread[:, None], y / spread)
            np.testing.assert_allclose(told[row, k], design @ x, atol=1e-9)
            chi[k] = norm**2
        expected = share * np.exp(-chi / 2)
        np.testing.assert_allclose(weights[row], expected / expected.sum(), atol=1e-9)


def test_shapes_fall() -> None:
    g, _ = shapes(np.array([1.0, 2, 4, 8, 16, 64, 400]), 16)
    assert (np.diff(g, axis=1) <= 0).all()


@pytest.mark.parametrize(("a", "b", "c"), [(0.1, 0.5, 0.5), (0.05, 0.5, 0.8), (0.0, 0.6, 0.3)])
def test_a_known_power_law_is_recovered(a: float, b: float, c: float) -> None:
    clean = power(SIZES, a, b, c)
    told = forecast(SIZES, np.stack([clean] * 3, axis=1), n_classes=10, ahead=(32, 64))
    truth = power((32, 64), a, b, c)
    assert np.abs(told.mean - truth).max() < 0.015
    assert ((told.low <= truth) & (truth <= told.high)).all()
    assert told.now == pytest.approx(clean[-1], abs=0.005)
    np.testing.assert_allclose(told.gain, told.mean - told.now)


def test_the_interval_covers_on_simulated_curves() -> None:
    generator = np.random.default_rng(3)
    covered, rounds = 0, 150
    for _ in range(rounds):
        a, b, c = generator.uniform(0, 0.25), generator.uniform(0.2, 0.6), generator.uniform(0.25, 1)
        told = forecast(SIZES, noisy(power(SIZES, a, b, c), 0.03, generator), n_classes=5, ahead=(64,))
        covered += told.low[0] <= power((64,), a, b, c)[0] <= told.high[0]
    assert covered / rounds >= 0.9


def test_it_widens_with_the_distance_and_stays_a_fraction() -> None:
    told = forecast(SIZES, noisy(power(SIZES, 0.0, 0.5, 0.7), 0.03, np.random.default_rng(0)), n_classes=5)
    assert told.sizes == (32, 48, 80, 160)
    assert (np.diff(told.mean - told.low) > 0).all()
    assert (np.diff(told.gain) >= 0).all()
    assert told.high.max() <= 1
    assert (told.gain_high <= 1 - told.now).all()


def test_one_curve_with_binomial_noise_says_less_from_fewer_pictures() -> None:
    curve = power((2, 4, 8), 0.1, 0.5, 0.6)
    few = forecast((2, 4, 8), curve, n_classes=3, ahead=(16,), n_test=24)
    many = forecast((2, 4, 8), curve, n_classes=3, ahead=(16,), n_test=2400)
    assert few.high[0] - few.low[0] > 1.5 * (many.high[0] - many.low[0])
    truth = power((16,), 0.1, 0.5, 0.6)[0]
    assert few.low[0] < truth < few.high[0]
    assert many.low[0] < truth < many.high[0]


def test_the_same_on_every_call_and_with_missing_cells() -> None:
    x = noisy(power(SIZES, 0.1, 0.5, 0.6), 0.02, np.random.default_rng(1))
    first, second = (forecast(SIZES, x, n_classes=5) for _ in range(2))
    assert np.array_equal(first.low, second.low)
    x[2, 1] = np.nan
    missing = forecast(SIZES, x, n_classes=5)
    assert np.isfinite(missing.low).all()
    assert np.abs(missing.mean - first.mean).max() < 0.02


def test_words() -> None:
    steep = forecast(SIZES, np.stack([power(SIZES, 0, 0.6, 0.3)] * 3, axis=1), n_classes=5, ahead=(24, 64))
    assert steep.labels(0) == 40  # (24 - 16) * 5
    value, low, high = (100 * x[0] for x in (steep.gain, steep.gain_low, steep.gain_high))
    assert steep.sentence() == f"40 more labels ≈ +{value:.1f} points ({low:.1f} … {high:.1f})"
    assert steep.advice().startswith("labelling on is expected to pay: 40 more labels ≈ +")
    flat = forecast(SIZES, np.full((5, 3), 0.8), n_classes=5, ahead=(24, 56))
    assert flat.advice().startswith("about 200 more labels are expected to bring less than one point")
    assert "better stop" in flat.advice()


@pytest.mark.parametrize(
    ("sizes", "x", "options", "words"),
    [
        ((1, 2), np.ones((2, 3)), {}, "at least 3"),
        ((1, 4, 2), np.ones((3, 3)), {}, "ascending"),
        ((1, 2, 4), np.ones((2, 3)), {}, "shape"),
        ((1, 2, 4), 50 * np.ones((3, 3)), {}, "fractions"),
        ((1, 2, 4), np.full((3, 3), np.nan), {}, "no figure"),
        ((1, 2, 4), np.ones(3), {}, "n_test"),
        ((1, 2, 4), np.ones((3, 3)), {"ahead": (4, 8)}, "beyond"),
    ],
)
def test_bad_input_is_named(sizes: tuple[int, ...], x: np.ndarray, options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        forecast(sizes, x, n_classes=3, **options)
