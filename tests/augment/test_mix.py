"""MixUp and CutMix: label weights equal what was done to the pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from handful import parallel
from handful.augment.mix import Mixing, mixed_labels, partners
from handful.augment.named import make
from handful.augment.views import Plain
from handful.data.images import from_array
from handful.data.stream import Source, TrainStream
from handful.randomness import uniform
from handful.types import InputSpec, UsageError

BLACK_AND_WHITE = [torch.full((40, 3, 17, 23), v, dtype=torch.uint8) for v in (0, 255)]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.1, 3), st.integers(0, 10**6))
def test_cutmix_weights_equal_the_counted_pixels_exactly(h: int, w: int, alpha: float, seed: int) -> None:
    x = torch.zeros(8, 1, h, w, dtype=torch.uint8)
    mixed, weight = Mixing("cutmix", alpha)(x, x + 1, uniform((8, 5), seed))
    for picture, own in zip(mixed, weight):
        assert float(own) == int((picture == 0).sum()) / (h * w)
        rows, columns = torch.nonzero(picture[0] == 1, as_tuple=True)
        if len(rows):  # one box
            assert len(rows) == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)


def test_mixup_weights_are_those_of_the_pixels() -> None:
    black, white = BLACK_AND_WHITE
    mixed, weight = Mixing("mixup", 0.4)(black, white, uniform((40, 5), "mixup"))
    expected = (255 * (1 - weight)).view(-1, 1, 1, 1)
    assert ((mixed - expected).abs() <= 0.5).all()
    assert len(mixed.unique()) > 20


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.5])
def test_weights_follow_their_beta_distribution(alpha: float) -> None:
    x = torch.zeros(4000, 1, 1, 1, dtype=torch.uint8)
    _, weight = Mixing("mixup", alpha)(x, x, uniform((4000, 5), "beta"))
    assert stats.kstest(weight.numpy(), "beta", (alpha, alpha)).pvalue > 1e-3


def test_cutmix_boxes_have_the_area_that_is_asked_for_where_they_are_not_cut() -> None:
    x = torch.zeros(3000, 1, 64, 64, dtype=torch.uint8)
    u = uniform((3000, 5), "area")
    u[:, 3:] = 0.5  # in the middle nothing is cut off
    _, weight = Mixing("cutmix", 1.0)(x, x, u)
    assert stats.kstest(weight.numpy(), "uniform").pvalue > 1e-9  # alpha 1, but for whole pixels
    np.testing.assert_allclose(weight.numpy(), u[:, 2].numpy(), atol=2 / 64)


def test_both_kinds_come_equally_often_and_chance_leaves_pictures_alone() -> None:
    x = torch.full((2000, 1, 6, 6), 10, dtype=torch.uint8)
    mixed, weight = Mixing("both", 1.0, 0.5)(x, x + 100, uniform((2000, 5), "both"))
    untouched = (mixed == 10).all((1, 2, 3))
    assert stats.binomtest(int((weight == 1).sum()), 2000, 0.5).proportion_ci(0.999).low < 0.62
    assert (untouched | (weight < 1)).all()
    whole = ((mixed == 10) | (mixed == 110)).all((1, 2, 3))
    cut = int((whole & (weight < 1)).sum())
    blended = int((~whole).sum())
    assert stats.binomtest(cut, cut + blended, 0.5).pvalue > 1e-6
    same, one = Mixing("both", 1.0, 0.0)(x, x + 100, uniform((2000, 5), "both"))
    assert torch.equal(same, x)
    assert (one == 1).all()


def test_labels_are_mixed_by_the_weights() -> None:
    y = torch.eye(3)
    out = mixed_labels(y, y[[1, 2, 0]], torch.tensor([0.25, 1.0, 0.0]))
    assert out.tolist() == [[0.25, 0.75, 0], [0, 1, 0], [1, 0, 0]]


def test_partners_are_a_permutation() -> None:
    order = partners(100, 0, "train", 3)
    assert sorted(order.tolist()) == list(range(100))
    assert not torch.equal(order, partners(100, 0, "train", 4))


def stream(mixing: Mixing | None) -> TrainStream:
    draw = np.random.RandomState(0)
    images = from_array(draw.randint(0, 256, (30, 1, 8, 8)).astype(np.uint8))
    y = torch.nn.functional.one_hot(torch.arange(30) % 3, 3).float()
    views = {"x": make("weak+randaugment:n=1")}
    source = Source(torch.arange(30), 12, views, "index", {"y": y}, mixing, ("y",))
    return TrainStream(images, InputSpec(8, 1), {"labelled": source}, seed=5)


def test_two_processes_mix_as_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = stream(Mixing("both")).at(7)
    monkeypatch.setattr(parallel, "size", lambda: 2)
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
        parts.append(stream(Mixing("both")).at(7))
    for name in ("x", "y", "index"):
        assert torch.equal(torch.cat([part[name] for part in parts]), whole[name])


def test_a_streams_targets_say_what_its_pictures_are() -> None:
    """Pictures that show their class as a gray value: the mean of a mixed one has to be the mean of its label."""
    shown = np.array([0, 120, 240])
    images = from_array(np.broadcast_to(shown[np.arange(30) % 3].astype(np.uint8)[:, None, None], (30, 8, 8)))
    source = replace(stream(Mixing("both")).sources["labelled"], views={"x": Plain()})
    made = TrainStream(images, InputSpec(8, 1, (0.0,), (1 / 255,)), {"labelled": source}).at(0)
    means = made["x"].double().mean((1, 2, 3))
    torch.testing.assert_close(means, made["y"].double() @ torch.from_numpy(shown).double(), atol=0.5, rtol=0)
    assert len(made["y"].max(1).values.unique()) > 5


def test_wrong_settings_are_told() -> None:
    with pytest.raises(UsageError, match="no mixing 'mixcut'"):
        Mixing("mixcut")
    with pytest.raises(UsageError, match="alpha above 0"):
        Mixing("mixup", 0)
