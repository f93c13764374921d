"""Distillation as a recipe: without labels, with features, patient, from stored answers; and the task's own teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from handful.data.images import from_array
from handful.methods.distillation import PATIENT, Distillation
from handful.methods.supervised import Supervised
from handful.models.teacher import FrozenTeacher, Teachers
from handful.recipes import distill as recipe
from handful.recipes.distill import Lessons, ask, distilled, labels_alone, own_lessons
from handful.recipes.stage import Stage
from handful.recipes.table import RECIPES
from handful.recipes.task import Fitted, Task, Workshop
from handful.recipes.train import train_network
from handful.recipes.training import Training
from handful.types import UsageError

TRAINING = Training(backbone="conv-4", steps=60, batch=16, ratio=3, ema=0.0)


@pytest.fixture(scope="module")
def task() -> Task:
    x, y = load_digits(return_X_y=True)
    images = from_array(np.round(x * 255 / 16).astype(np.uint8).reshape(-1, 8, 8)[:900])
    labels = torch.from_numpy(y.astype(np.int64))
    return Task(images, torch.arange(100), labels[:100], torch.arange(100, 500), tuple("0123456789"))


UNSEEN = torch.arange(500, 900)


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Workshop]:
    return lambda: Workshop(cache=tmp_path / "cache", folder=tmp_path / "run", save_every=0)


@pytest.fixture(scope="module")
def teacher(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    folder = tmp_path_factory.mktemp("teacher")
    training = replace(TRAINING, backbone="conv-4", steps=120, batch=32)
    return train_network(
        Stage("t", task, Supervised(view="weak"), training), Workshop(folder, folder, save_every=0)
    )


def lessons_of(teacher: Fitted, task: Task, rows: torch.Tensor, features: bool = False) -> Lessons:
    frozen = FrozenTeacher(teacher.classifier, teacher.classifier.spec, 1)
    return Lessons(rows, *ask(frozen, task.images, rows, features=features), Teachers([frozen]), "teacher")


def agreement(a: Fitted, b: Fitted) -> float:
    return float((a.logits(UNSEEN).argmax(1) == b.logits(UNSEEN).argmax(1)).double().mean())


def test_a_student_learns_from_pictures_that_the_teacher_never_saw_and_no_labels(
    task: Task, teacher: Fitted, bench: Callable[..., Workshop]
) -> None:
    """The pictures are half of those that are left: neither teacher nor student knows the others."""
    fresh = torch.arange(500, 700)
    none = replace(task, labelled=fresh[:0], y=fresh[:0], unlabelled=fresh)
    method = Distillation(hard_weight=0.0, soft_weight=1.0, taught_view="plain")
    student = distilled(Stage("s", none, method, TRAINING), lessons_of(teacher, task, fresh), bench())
    rest = torch.arange(700, 900)
    same = student.logits(rest).argmax(1) == teacher.logits(rest).argmax(1)
    assert float(same.double().mean()) > 0.8  # chance is a tenth


@pytest.mark.parametrize("patient", [False, True])
def test_a_run_is_repeated_to_the_bit_and_features_are_imitated(
    patient: bool, task: Task, teacher: Fitted, tmp_path: Path
) -> None:
    rows = torch.cat([task.labelled, task.unlabelled]).sort().values
    lessons = lessons_of(teacher, task, rows, features=True)
    changes: dict[str, Any] = {**PATIENT, "hard_weight": 0.1} if patient else {}
    method = Distillation(feature_weight=0.5, feature_loss="direction", **changes)
    training, logged = replace(TRAINING, steps=24), list[dict[str, float]]()
    found = []
    for name in ("one", "two"):
        bench = Workshop(tmp_path, tmp_path / name, save_every=0)
        bench.log = lambda stage, step, scalars: logged.append(scalars)
        found.append(distilled(Stage("s", task, method, training), lessons, bench).logits(UNSEEN[:50]))
    assert torch.equal(*found)
    assert logged[0]["features"] > logged[23]["features"] > 0
    assert logged[0]["soft"] > logged[23]["soft"] > 0


def test_features_are_imitated_in_the_same_way_where_the_start_without_labels_is_there_already(
    task: Task, teacher: Fitted, tmp_path: Path
) -> None:
    rows = torch.cat([task.labelled, task.unlabelled]).sort().values
    lessons = lessons_of(teacher, task, rows, features=True)
    training = replace(TRAINING, steps=2, init="jigsaw", init_steps=2)
    fresh, used = (Workshop(tmp_path, tmp_path / name, save_every=0) for name in ("fresh", "used"))
    distilled(Stage("s", task, Distillation(), training), lessons, used)  # leaves the start behind
    method = Distillation(feature_weight=0.5)
    found = [distilled(Stage("s", task, method, training), lessons, bench) for bench in (fresh, used)]
    assert torch.equal(*(fitted.logits(UNSEEN[:50]) for fitted in found))


def test_what_a_teacher_cannot_give(task: Task, teacher: Fitted, bench: Callable[..., Workshop]) -> None:
    rows = torch.cat([task.labelled, task.unlabelled]).sort().values
    known = lessons_of(teacher, task, rows)
    stored = replace(known, live=None)
    with pytest.raises(UsageError, match="cannot answer for crops"):
        distilled(Stage("s", task, Distillation(patient=True), TRAINING), stored, bench())
    with pytest.raises(UsageError, match="no features to imitate"):
        distilled(Stage("s", task, Distillation(feature_weight=1.0), TRAINING), stored, bench())
    with pytest.raises(UsageError, match="ratio of 0"):
        distilled(Stage("s", task, Distillation(), replace(TRAINING, ratio=0)), known, bench())
    with pytest.raises(ValueError, match="not asked about"):
        known.places(UNSEEN)


def test_answers_are_kept_and_are_those_of_the_classifier(
    task: Task, teacher: Fitted, tmp_path: Path
) -> None:
    frozen, calls = FrozenTeacher(teacher.classifier, teacher.classifier.spec, 1), list[int]()

    def counted(pixels: torch.Tensor) -> Any:
        calls.append(len(pixels))
        return frozen(pixels)

    rows, file = torch.arange(10, 150), tmp_path / "answers.safetensors"
    log_p, features = ask(counted, task.images, rows, features=True, file=file)
    assert sum(calls) == 140 and features.shape == (140, 64)
    torch.testing.assert_close(log_p, teacher.logits(rows).log_softmax(1))
    again, _ = ask(counted, task.images, rows, features=True, file=file)
    assert sum(calls) == 140 and torch.equal(again, log_p)


def test_the_twin_has_as_many_steps_and_the_same_augmentation(
    task: Task, bench: Callable[..., Workshop]
) -> None:
    workshop = bench()
    workshop.plan["steps of s"] = 7
    timed = replace(TRAINING, steps=0)
    method = Distillation(taught_view="weak")
    twin = labels_alone(Stage("s", task, method, timed), workshop, name="twin")
    plain = train_network(Stage("twin", task, Supervised(view="weak"), replace(timed, steps=7)), bench())
    assert torch.equal(twin.logits(UNSEEN), plain.logits(UNSEEN))


def test_the_recipe_brings_its_own_larger_teacher(task: Task, bench: Callable[..., Workshop]) -> None:
    few = replace(TRAINING, steps=60)
    student = RECIPES["distill"].run(task, bench(), on="pixels", training=few, stage="distill")
    assert student.classifier.backbone_config["name"] == "conv-4"
    weights = sum(p.numel() for p in student.classifier.parameters())
    teachers = [p.name for p in (bench().folder / "stages").iterdir()]
    assert any(name.startswith("distill-teacher") for name in teachers)
    assert recipe.LARGER["conv-4"] == "conv-4-2x" and weights < 150_000
    truth = torch.from_numpy(load_digits(return_X_y=True)[1].astype(np.int64))[UNSEEN]
    assert float((student.logits(UNSEEN).argmax(1) == truth).double().mean()) > 0.5


def test_own_lessons_are_the_teachers_answers(
    task: Task, teacher: Fitted, bench: Callable[..., Workshop]
) -> None:
    lessons = own_lessons(teacher, task, bench(), Distillation())
    assert torch.equal(lessons.rows, torch.arange(500))
    torch.testing.assert_close(lessons.log_p, teacher.logits(lessons.rows).log_softmax(1))
    assert lessons.live is not None
