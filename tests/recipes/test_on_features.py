"""FixMatch on a table of features: its batches, where it starts, that it learns and what it must not look at."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))
import toy

import handful.recipes.on_features as on_features
from handful.data.images import from_array
from handful.methods.supervised import Supervised
from handful.recipes.label_propagation import propagate
from handful.recipes.on_features import FeatureStream
from handful.recipes.table import RECIPES, find
from handful.recipes.task import Fitted, Task, Workshop

N, LABELLED, SIDE = 90, 9, 8


def task(n_labels: int = LABELLED) -> Task:
    """Three classes: a bright band at the top, in the middle or at the bottom, under much noise."""
    rng = np.random.Generator(np.random.Philox(key=3))
    x = rng.integers(0, 150, (N, SIDE, SIDE), dtype=np.uint8)
    y = np.arange(N) % 3
    for i, k in enumerate(y):
        x[i, 2 * k : 2 * k + 3] += 60
    rows = torch.arange(N)
    labels = torch.from_numpy(y)[:n_labels]
    return Task(from_array(x), rows[:n_labels], labels, rows[n_labels:], ("low", "mid", "top"))


ON_FEATURES = sorted(name for name in RECIPES if name.endswith("-features"))


def run(name: str, here: Task, workshop: Workshop, method: Any = None) -> Fitted:
    return find(name).run(here, workshop, on="pixels", method=method, stage="same" if method else name)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "cache", tmp_path / "run")


def test_a_batch_holds_rows_as_they_are_and_thinned() -> None:
    table = torch.arange(1, 41).float().view(10, 4)
    labelled, unlabelled = torch.tensor([2, 0, 7]), torch.tensor([1, 3, 4, 5, 6, 8, 9])
    stream = FeatureStream(table, labelled, torch.tensor([1, 0, 1]), unlabelled, drop=0.25)
    batch = stream.at(3)
    assert torch.equal(batch["weak"], table[batch["u_index"]])
    assert set(batch["u_index"].tolist()) == set(unlabelled.tolist())
    assert set(zip(batch["index"].tolist(), batch["y"].tolist())) == {(2, 1), (0, 0), (7, 1)}
    for name, rows in (("x", batch["index"]), ("strong", batch["u_index"])):
        kept = batch[name] != 0
        torch.testing.assert_close(batch[name][kept], table[rows][kept] / 0.75)
        assert 0.65 < kept.float().mean() < 0.85
        assert len({tuple(row) for row in kept.tolist()}) > 4, "each row is thinned in its own way"
    assert all(torch.equal(batch[name], stream.at(3)[name]) for name in batch)
    assert not torch.equal(batch["strong"], stream.at(4)["strong"])


def test_without_steps_it_is_label_propagation(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_features, "STEPS", 0)
    here = task()
    rows = torch.arange(N)
    assert torch.equal(
        run("fixmatch-features", here, workshop).logits(rows),
        propagate(here, workshop, on="pixels").logits(rows),
    )


def test_it_learns_from_the_unlabelled_rows(workshop: Workshop) -> None:
    here = task(3)
    rest, truth = here.unlabelled, here.unlabelled % 3
    right = (run("fixmatch-features", here, workshop).logits(rest).argmax(1) == truth).float().mean()
    alone = (run("logistic", here, workshop).logits(rest).argmax(1) == truth).float().mean()
    assert right > alone
    assert right > 0.9


@pytest.mark.parametrize("name", ON_FEATURES)
def test_every_method_learns_from_the_unlabelled_rows(name: str, workshop: Workshop) -> None:
    here = task(3)
    rows, truth = here.unlabelled, here.unlabelled % 3
    right = (run(name, here, workshop).logits(rows).argmax(1) == truth).float().mean()
    alone = (run("logistic", here, workshop).logits(rows).argmax(1) == truth).float().mean()
    assert right > alone


@pytest.mark.parametrize("name", [name for name in ON_FEATURES if name != "mpl-features"])
def test_without_weight_a_method_is_supervised_training(
    name: str, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_features, "STEPS", 30)
    here, rows, recipe = task(), torch.arange(N), find(name)
    nothing, _ = toy.DEGENERATE[name.removesuffix("-features")][0]
    method = recipe.make(**nothing)
    got = run(name, here, workshop, method=method).logits(rows)
    plain = run(name, here, workshop, method=Supervised()).logits(rows)
    begun = propagate(here, workshop, on="pixels").logits(rows)
    torch.testing.assert_close(got, plain, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(plain, begun, atol=1e-2)


def test_what_is_saved_answers_as_the_table_does(workshop: Workshop) -> None:
    from handful.augment.views import to_input

    here = task()
    fitted = run("fixmatch-features", here, workshop)
    rows = torch.arange(20)
    classifier = fitted.classifier.eval()
    with torch.no_grad():
        direct = classifier(to_input(here.images.take(rows), classifier.spec)).logits
    torch.testing.assert_close(direct, fitted.logits(rows), rtol=1e-4, atol=1e-4)


def test_held_out_pictures_are_not_learnt(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[int] = set()
    at = FeatureStream.at

    def watched(self: FeatureStream, step: int) -> dict[str, torch.Tensor]:
        batch = at(self, step)
        seen.update(batch["index"].tolist() + batch["u_index"].tolist())
        return batch

    monkeypatch.setattr(FeatureStream, "at", watched)
    here = replace(task(), seed=1)
    fold = torch.arange(LABELLED) < 3
    run("fixmatch-features", here.without(fold), workshop)
    assert seen == set(range(3, N))
