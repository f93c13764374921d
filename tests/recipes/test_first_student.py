"""The consistency recipes: what the network starts from, how the steps are shared, what the twin says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import handful.recipes.train as train
from handful.choose.auto import Outcome, Trial, choose, twin_of
from handful.choose.prior import PriorTable
from handful.data.images import from_array
from handful.engine.state import TrainingState
from handful.methods.meta_pseudo_labels import MetaPseudoLabels
from handful.methods.table import CONSISTENCY, REGISTRY
from handful.models.backbones import create
from handful.randomness import key
from handful.recipes.candidate import Candidate
from handful.recipes.table import find, fit_candidate
from handful.recipes.task import Fitted, Task, Workshop
from handful.recipes.training import Training
from handful.stats.intervals import paired_difference
from handful.types import UsageError

N, LABELLED, SIDE = 60, 12, 8


def task(seed: int = 0) -> Task:
    """Three classes: a bright band at the top, in the middle or at the bottom, under noise."""
    rng = np.random.Generator(np.random.Philox(key=3))
    x = rng.integers(0, 90, (N, SIDE, SIDE), dtype=np.uint8)
    y = np.arange(N) % 3
    for i, k in enumerate(y):
        x[i, 2 * k : 2 * k + 3] += 130
    labels = torch.from_numpy(y)[:LABELLED]
    rows = torch.arange(N)
    return Task(from_array(x), rows[:LABELLED], labels, rows[LABELLED:], ("low", "mid", "top"), seed=seed)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "cache", tmp_path / "run")


STILL = Training(backbone="lenet", steps=2, batch=4, ratio=2, lr=0.0, ema=0)  # a network that does not move


def weights(fitted: Fitted) -> dict[str, Tensor]:
    return fitted.classifier.backbone.state_dict()


def first_weights(stage: str) -> dict[str, Tensor]:
    """What a stage of this name begins with where nothing is handed to it."""
    torch.manual_seed(key(0, stage, "weights"))
    return create("lenet", n_classes=3, channels=1, size=SIDE).state_dict()


@pytest.mark.parametrize(
    ("start", "origin"),
    [("propagation", "fixmatch-start"), ("supervised", "fixmatch-start"), ("random", "fixmatch")],
)
def test_the_method_goes_on_from_the_first_students_weights(
    start: str, origin: str, workshop: Workshop
) -> None:
    training = Training(**{**vars(STILL), "start": start})
    found = weights(find("fixmatch").run(task(), workshop, on="pixels", training=training, stage="fixmatch"))
    for name, value in first_weights(origin).items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize(
    ("start", "origin"), [("propagation", "mpl-start"), ("supervised", "mpl-start"), ("random", "mpl")]
)
def test_so_do_both_networks_of_meta_pseudo_labels(
    start: str, origin: str, workshop: Workshop, caught: list[TrainingState]
) -> None:
    training = Training(**{**vars(STILL), "start": start})
    method = MetaPseudoLabels(tune_steps=0)
    find("mpl").run(task(), workshop, on="pixels", training=training, method=method, stage="mpl")
    for role in ("student", "teacher"):
        found = caught[-1].models[role].state_dict()
        for name, value in first_weights(origin).items():
            assert torch.equal(found[name], value), (role, name)


@pytest.mark.parametrize("start", ["propagation", "supervised"])
@pytest.mark.parametrize("view", ["strong", "weak+randaugment"])
def test_the_first_student_sees_the_labelled_pictures_as_the_method_does(
    start: str, view: str, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    make_view = train.make_view

    def noted(kind: str, *rest: Any) -> Any:
        shown.append(kind)
        return make_view(kind, *rest)

    monkeypatch.setattr(train, "make_view", noted)
    method = find("fixmatch").make(view=view)
    find("fixmatch").run(
        task(), workshop, on="pixels", method=method, training=replace(STILL, start=start), stage="fixmatch"
    )
    first = ["strong"] if start == "propagation" else []  # its unlabelled pictures
    assert shown == [view, *first, view, "plain", "strong"]


def test_the_steps_are_shared_and_every_fold_is_a_stage_of_its_own(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, int, float]] = []
    fit = train.fit

    def counted(state: Any, *arguments: Any, **options: Any) -> None:
        rate = state.optimizers["student"].param_groups[0]["base_lr"]
        calls.append((state.stage, options["steps"], rate))
        fit(state, *arguments, **options)

    monkeypatch.setattr(train, "fit", counted)
    training = Training(backbone="lenet", steps=7, batch=4, ratio=2, lr=0.1)
    find("uda").run(task(), workshop, on="pixels", training=training, stage="uda/0.1")
    assert calls == [("uda-start/0.1", 4, 0.1), ("uda/0.1", 3, pytest.approx(0.04))]


@pytest.mark.parametrize("name", [name for name, row in REGISTRY.items() if row.family == CONSISTENCY])
def test_every_recipe_learns_the_bands(name: str, workshop: Workshop) -> None:
    here = task()
    candidate = Candidate(name, "pixels", training={"steps": 60, "batch": 8, "ratio": 2})
    fitted = fit_candidate(candidate, here, workshop)
    right = fitted.logits(here.unlabelled).argmax(1) == here.unlabelled % 3
    assert right.float().mean() > 0.9


def test_an_unknown_start_is_refused() -> None:
    with pytest.raises(UsageError, match="no start 'cold'") as caught:
        Training(start="cold")
    assert "supervised" in caught.value.fix


def test_a_recipe_that_is_asked_for_brings_its_labelled_only_twin(workshop: Workshop) -> None:
    told: list[str] = []
    workshop.tell = told.append
    here = task()
    training = {"steps": 20, "batch": 8, "ratio": 2}
    outcome = choose(
        here, workshop, only=Candidate("fixmatch", "pixels", training=training), prior=PriorTable()
    )
    assert outcome.chosen == "fixmatch@pixels"
    assert outcome.twin == "supervised@pixels"
    asked, twin = outcome.trials[outcome.chosen].right, outcome.trials[outcome.twin].right
    assert asked is not None and twin is not None
    gain = paired_difference(asked, twin)
    assert any(f"{100 * gain.value:+.1f} points from supervised@pixels" in line for line in told)
    lone = Candidate("supervised", "pixels", training=training)
    elsewhere = Workshop(workshop.cache, workshop.folder.with_name("alone"))
    alone = choose(here, elsewhere, only=lone, prior=PriorTable())
    assert alone.twin == ""
    assert list(alone.trials) == ["supervised@pixels"]
    assert np.array_equal(alone.trials["supervised@pixels"].right, twin), (
        "with the same steps, on the same folds"
    )


@pytest.mark.parametrize(
    ("asked", "twin", "words"),
    [
        ([1] * 40, [1] * 20 + [0] * 20, "helped"),
        ([1] * 20 + [0] * 20, [1] * 40, "hurt"),
        ([1] * 21 + [0] * 19, [1] * 20 + [0] * 20, "may have helped or hurt"),
    ],
)
def test_whether_the_unlabelled_pictures_helped(asked: list[int], twin: list[int], words: str) -> None:
    trials = {
        "a": Trial(Candidate("fixmatch", "pixels"), np.array([asked], float)),
        "b": Trial(Candidate("supervised", "pixels"), np.array([twin], float)),
    }
    outcome = Outcome(None, "a", trials, twin="b")  # type: ignore[arg-type]
    assert outcome.help_of_unlabelled().startswith(f"the unlabelled pictures {words}:")


def test_twins_look_at_the_same_features_and_networks_at_pixels() -> None:
    def twin(name: str, on: str, **training: str) -> dict[str, tuple[str, str]]:
        found = twin_of(Candidate(name, on, training=training), task())
        return {key: (trial.candidate.recipe, trial.candidate.init) for key, trial in found.items()}

    assert twin("propagation", "lite0") == {"logistic@lite0": ("logistic", "")}
    assert twin("fixmatch", "lite0") == {"supervised@pixels": ("supervised", "")}
    assert twin("logistic", "lite0") == {}
    # what starts from the unlabelled pictures is measured against itself from random weights
    alone = {"supervised-alone@pixels": ("supervised", "")}
    assert twin("supervised", "pixels", init="simclr") == alone
