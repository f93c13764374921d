"""Two sets side by side: apart where they are, and an interval that contains chance where they are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from handful.data.gap import as_features, components, gap, looks, measures, shift
from handful.data.images import Images, from_array

RNG = np.random.default_rng(0)


def digits() -> np.ndarray:
    from sklearn.datasets import load_digits

    return np.round(load_digits(return_X_y=True)[0] * 255 / 16).astype(np.uint8).reshape(-1, 8, 8)


def compared(a: np.ndarray, b: np.ndarray, seed: int = 0) -> object:
    sides = [from_array(x) for x in (a, b)]
    rows = [torch.arange(len(x)) for x in sides]
    figures = [measures(x, r) for x, r in zip(sides, rows)]
    names = list(figures[0])
    parts = components(*(looks(x, r) for x, r in zip(sides, rows)))
    x = [torch.cat([p, as_features(f, names)], 1) for p, f in zip(parts, figures)]
    return gap((x[0], figures[0]), (x[1], figures[1]), seed)


def test_halves_of_one_set_are_at_chance_as_often_as_the_interval_says() -> None:
    """40 random halvings of 400 digits: a 95 % interval misses 50 % in 2 of 40; more than 6 has a chance of 0.3 %."""
    x, missed = digits(), 0
    for seed in range(40):
        some = np.random.default_rng(seed).permutation(len(x))[:400]
        found = compared(x[some[:200]], x[some[200:]], seed)
        missed += not found.accuracy.low <= 0.5 <= found.accuracy.high
        assert found.n == 200 and len(found.p_first) == 200
    assert missed <= 6


def test_brighter_pictures_are_told_apart_and_the_shift_is_named() -> None:
    x = digits()[:400]
    found = compared(x[:200], np.clip(x[200:].astype(int) + 60, 0, 255).astype(np.uint8))
    assert found.apart and found.accuracy.low > 0.9
    largest = found.shifts[0]
    assert "brightness" in largest.name and largest.effect.low > 1
    assert largest.second > largest.first
    assert found.p_first.mean() > 0.8 and found.p_second.mean() > 0.8


def test_a_shift_equals_its_definition() -> None:
    a, b = RNG.normal(0, 1, 50), RNG.normal(0.5, 2, 70)
    found = shift("x", a, b)
    d = (b.mean() - a.mean()) / np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    half = 1.96 * np.sqrt(1 / 50 + 1 / 70 + d**2 / 240)
    assert found.effect == pytest.approx((d, d - half, d + half))
    assert (found.first, found.second) == (a.mean(), b.mean())
    assert shift("x", np.ones(5), np.ones(5)).effect == (0, 0, 0)
    assert shift("x", np.ones(5), np.full(5, 2.0)).effect.value == float("inf")


def test_measures_equal_their_definitions() -> None:
    x = RNG.integers(0, 256, (3, 3, 16, 16), dtype=np.uint8)
    images: Images = from_array(x)
    found = measures(images, torch.arange(3))
    gray = np.einsum("nchw,c->nhw", x / 255, [0.299, 0.587, 0.114])
    assert found["brightness"] == pytest.approx(gray.mean((1, 2)), abs=1e-5)
    assert found["contrast"] == pytest.approx(gray.std((1, 2), ddof=1), abs=1e-5)
    slopes = np.abs(np.diff(gray, axis=1)).mean((1, 2)) + np.abs(np.diff(gray, axis=2)).mean((1, 2))
    assert found["sharpness"] == pytest.approx(slopes / 2, abs=1e-5)
    frame = np.ones((16, 16), bool)
    frame[2:-2, 2:-2] = False
    assert found["brightness of the border"] == pytest.approx(gray[:, frame].mean(1), abs=1e-5)
    high, low = x.max(1) / 255, x.min(1) / 255
    assert found["saturation"] == pytest.approx(
        ((high - low) / np.maximum(high, 1 / 255)).mean((1, 2)), abs=1e-5
    )
    assert found["share of red"] == pytest.approx(x[:, 0].mean((1, 2)) / x.sum(1).mean((1, 2)), abs=1e-5)
    assert set(measures(from_array(x[:, 0]), torch.arange(3))) == {
        "brightness", "contrast", "sharpness", "brightness of the border"
    }  # fmt: skip
