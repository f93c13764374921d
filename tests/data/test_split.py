"""Draws, folds and orders: properties, and golden values that hold on every machine."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from handful import parallel, randomness
from handful.augment.views import Plain, Weak, to_input
from handful.data.images import from_array
from handful.data.order import positions
from handful.data.split import draw, folds
from handful.data.stream import Ahead, Source, TrainStream, semi_supervised
from handful.types import InputSpec

labellings = st.lists(st.integers(-1, 3), min_size=4, max_size=60).filter(lambda y: max(y) >= 0)


@settings(max_examples=60, deadline=None)
@given(y=labellings, seed=st.integers(0, 5))
def test_draws_are_stratified_nested_and_repeatable(y: list[int], seed: int) -> None:
    labels = np.array(y)
    before: set[int] = set()
    for n in (1, 2, 4, 100):
        rows = draw(labels, n, seed)
        assert rows.tolist() == sorted(set(rows.tolist()))
        assert np.array_equal(rows, draw(labels, n, seed))
        for k in range(labels.max() + 1):
            assert (labels[rows] == k).sum() == min(n, (labels == k).sum())
        assert (labels[rows] >= 0).all()
        assert before <= set(rows.tolist())
        before = set(rows.tolist())


def test_a_class_draw_does_not_depend_on_the_other_classes() -> None:
    labels = np.arange(60) % 3
    merged = np.where(labels == 2, -1, labels)
    rows = draw(labels, 5, 0)
    assert np.array_equal(rows[labels[rows] < 2], draw(merged, 5, 0))


def test_golden_values_are_the_same_on_every_machine() -> None:
    assert randomness.key("a", 1, 2.5) == GOLDEN_KEY
    assert randomness.permutation(8, "golden", 0).tolist() == GOLDEN_PERMUTATION
    assert draw(np.arange(40) % 4, 2, seed=0).tolist() == GOLDEN_DRAW
    assert folds(np.arange(12) % 3, 2, 1, seed=0)[0].tolist() == GOLDEN_FOLDS
    assert positions(10, 4, 7, 0, "train").tolist() == GOLDEN_POSITIONS
    np.testing.assert_allclose(randomness.uniform((3,), "golden", 0).numpy(), GOLDEN_UNIFORM, atol=1e-7)


GOLDEN_KEY = 6135738090738439930
GOLDEN_PERMUTATION = [3, 7, 1, 2, 6, 4, 5, 0]
GOLDEN_DRAW = [13, 16, 23, 26, 30, 32, 37, 39]
GOLDEN_FOLDS = [0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0]
GOLDEN_POSITIONS = [1, 8, 4, 3]
GOLDEN_UNIFORM = [0.66246498, 0.19441313, 0.25575787]


@settings(max_examples=60, deadline=None)
@given(
    y=st.lists(st.integers(0, 3), min_size=2, max_size=60),
    n_folds=st.integers(2, 5),
    repeats=st.integers(1, 3),
)
def test_folds_are_stratified_and_even(y: list[int], n_folds: int, repeats: int) -> None:
    labels = np.array(y)
    result = folds(labels, n_folds, repeats, seed=1)
    assert len(result) == repeats
    for fold_of in result:
        for k in np.unique(labels):
            sizes = np.bincount(fold_of[labels == k], minlength=n_folds)
            assert len(sizes) == n_folds
            assert sizes.max() - sizes.min() <= 1
        sizes = np.bincount(fold_of, minlength=n_folds)
        assert sizes.max() - sizes.min() <= 1


def test_repeats_differ() -> None:
    a, b = folds(np.arange(40) % 2, 4, 2, seed=0)
    assert not np.array_equal(a, b)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 30), batch=st.integers(1, 40), epochs=st.integers(1, 4))
def test_every_picture_comes_once_an_epoch(n: int, batch: int, epochs: int) -> None:
    steps = -(-n * epochs // batch)
    read = np.concatenate([positions(n, batch, step, "x") for step in range(steps)])
    assert len(read) == steps * batch
    for epoch in range(epochs):
        assert sorted(read[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_a_step_does_not_depend_on_what_was_read_before() -> None:
    later = positions(100, 7, 55, "x")
    for step in range(20):
        positions(100, 7, step, "x")
    assert np.array_equal(positions(100, 7, 55, "x"), later)
    assert not np.array_equal(positions(100, 7, 55, "y"), later)
    first, second = (positions(50, 50, step, "x") for step in (0, 1))
    assert not np.array_equal(first, second), "each epoch has an order of its own"


def stream(**changes: object) -> TrainStream:
    images = from_array(np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8))
    options: dict[str, object] = {
        "labelled": torch.tensor([3, 5, 8, 13]),
        "y": torch.tensor([0, 1, 0, 1]),
        "views": {"x": Plain(), "weak": Weak(), "again": Weak()},
        "batch": 4,
        "unlabelled": torch.arange(14, 20),
        "ratio": 2,
        "tables": {"target": torch.arange(6.0).unsqueeze(1)},
    }
    draws = {name: changes.pop(name) for name in ("seed", "stage") if name in changes}
    sources = semi_supervised(**{**options, **changes})  # type: ignore[arg-type]
    return TrainStream(images, InputSpec(8, 1, (0.5,), (0.5,)), sources, **draws)  # type: ignore[arg-type]


def test_a_batch_holds_the_pictures_that_it_says() -> None:
    s = stream()
    b = s.at(11)
    assert sorted(b["index"].tolist()) == [3, 5, 8, 13]
    assert torch.equal(b["x"], to_input(s.images.take(b["index"]), s.spec))
    assert b["y"].tolist() == [{3: 0, 5: 1, 8: 0, 13: 1}[i] for i in b["index"].tolist()]
    assert b["weak"].shape == (8, 1, 8, 8)
    assert b["target"].flatten().tolist() == [i - 14 for i in b["u_index"].tolist()]
    assert not torch.equal(b["weak"], b["again"]), "two views of one picture draw their own numbers"
    still = stream(views={"x": Plain(), "weak": Plain()}).at(11)
    assert torch.equal(still["weak"], to_input(s.images.take(still["u_index"]), s.spec))


def test_batches_are_pure_in_the_step() -> None:
    s = stream()
    run = s.batches(0)
    for step in range(4):
        batch, again = next(run), stream().at(step)
        assert batch.keys() == again.keys()
        assert all(torch.equal(batch[name], again[name]) for name in batch)
    assert torch.equal(next(s.batches(9))["weak"], s.at(9)["weak"])
    assert not torch.equal(stream(seed=1).at(0)["weak"], s.at(0)["weak"])
    assert not torch.equal(stream(stage="other").at(0)["weak"], s.at(0)["weak"])


@pytest.mark.parametrize("world", [2, 4])
def test_the_slices_of_all_processes_are_the_whole_batch(monkeypatch: pytest.MonkeyPatch, world: int) -> None:
    from handful import parallel

    whole = stream().at(3)
    monkeypatch.setattr(parallel, "size", lambda: world)
    parts = []
    for rank in range(world):
        monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
        parts.append(stream().at(3))
    for name, value in whole.items():
        if value.dim():
            assert torch.equal(torch.cat([part[name] for part in parts]), value), name
        else:  # the step's key is the same everywhere
            assert all(torch.equal(part[name], value) for part in parts), name


def three_sources(batch: int = 4) -> TrainStream:
    """Labelled, unlabelled and another domain's pictures, each with a share and views of its own."""
    images = from_array(np.random.default_rng(0).integers(0, 256, (30, 8, 8), dtype=np.uint8))
    sources = {
        "labelled": Source(torch.arange(6), batch, {"x": Plain()}, "index", {"y": torch.arange(6) % 2}),
        "unlabelled": Source(torch.arange(6, 18), 3 * batch, {"weak": Weak(), "strong": Weak()}, "u_index"),
        "target": Source(torch.arange(18, 30), 2 * batch, {"there": Weak()}, "t_index"),
    }
    return TrainStream(images, InputSpec(8, 1, (0.5,), (0.5,)), sources, seed=2)


def test_each_source_gives_its_own_share_in_its_own_views() -> None:
    batch = three_sources().at(5)
    assert {name: len(batch[name]) for name in ("x", "weak", "strong", "there")} == {
        "x": 4, "weak": 12, "strong": 12, "there": 8,
    }  # fmt: skip
    assert set(batch["t_index"].tolist()) <= set(range(18, 30))
    assert batch["y"].tolist() == [i % 2 for i in batch["index"].tolist()]
    alone = three_sources()
    others = {name: source for name, source in alone.sources.items() if name != "target"}
    without = replace(alone, sources=others).at(5)
    assert all(torch.equal(without[name], batch[name]) for name in without), (
        "sources do not disturb each other"
    )


def test_two_processes_share_every_source(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = three_sources().at(3)
    monkeypatch.setattr(parallel, "size", lambda: 2)
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
        parts.append(three_sources().at(3))
    for name in ("x", "y", "index", "weak", "strong", "u_index", "there", "t_index"):
        assert torch.equal(torch.cat([part[name] for part in parts]), whole[name]), name


def test_batches_made_ahead_are_the_same_and_their_errors_arrive() -> None:
    stream, threads = three_sources(), threading.active_count()
    ahead = Ahead(stream).batches(7)
    for step in range(7, 11):
        batch = next(ahead)
        assert all(torch.equal(batch[name], value) for name, value in stream.at(step).items())
    ahead.close()
    assert threading.active_count() == threads, "its thread has ended"
    broken = replace(
        stream, sources={"labelled": replace(stream.sources["labelled"], rows=torch.tensor([99]))}
    )
    with pytest.raises(IndexError):
        next(Ahead(broken).batches(0))
