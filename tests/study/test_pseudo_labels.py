"""The audit of pseudo-labels: which labels, and how right they are, against a count by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from handful.choose.auto import choose
from handful.data.images import from_array
from handful.data.split import folds
from handful.recipes.candidate import Candidate
from handful.recipes.label_propagation import teacher_targets
from handful.recipes.task import Task, Workshop
from handful.study.pseudo_labels import BY_ITSELF, BY_TEACHER, pseudo_labels
from handful.verbs.fit_result import audit_of


def digits(per_class: int = 4, m: int = 200) -> tuple[Task, torch.Tensor]:
    """A task of digits, and the truth about its unlabelled pictures, which it does not hold."""
    x, y = load_digits(return_X_y=True)
    images = from_array(np.round(x * 255 / 16).astype(np.uint8).reshape(-1, 8, 8))
    labelled = np.concatenate([np.flatnonzero(y == k)[:per_class] for k in range(10)])
    others = np.setdiff1d(np.arange(len(y)), labelled)[:m]
    as_tensor = torch.from_numpy
    names = tuple(map(str, range(10)))
    truth = as_tensor(y[others].astype(np.int64))
    return Task(
        images, as_tensor(labelled), as_tensor(y[labelled].astype(np.int64)), as_tensor(others), names
    ), truth


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "cache", tmp_path / "run")


def test_taught_labels_are_those_of_the_teacher_and_checked_ones_never_saw_their_label(
    workshop: Workshop,
) -> None:
    task, truth = digits()
    outcome = choose(task, workshop, only=Candidate("propagation", "pixels"))
    found = pseudo_labels(task, workshop, outcome)
    assert found is not None and found.note == BY_TEACHER and found.threshold == 0
    assert torch.equal(found.p, teacher_targets(task, workshop, on="pixels"))
    assert found.checked is not None and found.truth is not None
    (fold_of,) = folds(task.y.numpy(), 4, 1, task.seed)
    held = torch.from_numpy(fold_of == 2)
    # by hand: the fold's labels are replaced by nonsense, which must change nothing
    lies = task.y.clone()
    lies[held] = (lies[held] + 1) % 10
    part = Task(
        task.images,
        task.labelled[~held],
        lies[~held],
        torch.cat([task.unlabelled, task.labelled[held]]),
        task.classes,
    )
    expected = teacher_targets(part, workshop, on="pixels")[len(task.unlabelled) :]
    torch.testing.assert_close(found.checked[held], expected)
    # what the check says is about what is true of the unlabelled pictures: 40 pictures, four standard errors
    said = float((found.checked.argmax(1) == task.y).double().mean())
    really = float((found.p.argmax(1) == truth).double().mean())
    assert abs(said - really) < 4 * (really * (1 - really) / 40) ** 0.5 + 0.02


def test_recipes_without_unlabelled_pictures_have_none(workshop: Workshop) -> None:
    task, _ = digits()
    assert pseudo_labels(task, workshop, choose(task, workshop, only=Candidate("logistic", "pixels"))) is None


def test_a_networks_own_labels(workshop: Workshop) -> None:
    task, _ = digits(per_class=2, m=20)
    outcome = choose(
        task,
        workshop,
        only=Candidate(
            "pseudo-label-self", "pixels", training={"backbone": "linear", "steps": 1, "batch": 4}
        ),
    )
    found = pseudo_labels(task, workshop, outcome)
    assert found is not None and found.note == BY_ITSELF and found.threshold == 0.9
    assert torch.equal(found.p, outcome.probabilities(task.unlabelled))


def test_the_page_counts_by_hand(workshop: Workshop) -> None:
    from handful.study.pseudo_labels import PseudoLabels

    task, _ = digits(m=6)
    p = torch.full((6, 10), 0.0)
    for i, c in enumerate((0.95, 0.92, 0.6, 0.3, 0.995, 1.0)):
        p[i] = (1 - c) / 9
        p[i, i % 2] = c
    checked = torch.full((12, 10), 0.005)
    checked[:, 0] = 0.955
    truth = torch.tensor([0] * 9 + [1, 2, 3])
    a = audit_of(task, PseudoLabels(p, 0.5, checked, truth, "note"))
    assert (a["n_unlabelled"], a["n_used"], a["n_checked"], a["accuracy"]) == (6, 5, 12, 0.75)
    assert a["bins"] == [(0.5, 0.7, 1, None), (0.9, 0.99, 2, 0.75), (0.99, 1.0, 2, None)]
    assert a["per_class"]["0"] == (3, 0.75) and a["per_class"]["1"] == (2, None)
    assert a["mean_confidence"] == pytest.approx((0.95 + 0.92 + 0.6 + 0.995 + 1.0) / 5)
