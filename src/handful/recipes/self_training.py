"""Students that learn from teachers, over several stages."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from handful.methods.feedback import Feedback
from handful.methods.meta_pseudo_labels import MetaPseudoLabels
from handful.methods.pseudo_label import PseudoLabel
from handful.methods.reduced_mpl import ReducedMetaPseudoLabels
from handful.methods.supervised import Supervised
from handful.methods.uda import UDA
from handful.recipes.task import Fitted, Task, Workshop
from handful.recipes.train import Training, digest, shortened, small_training, train_network
from handful.recipes.transfer import teacher_for, teacher_targets

SHARE = 0.5  # of the steps that a first student gets
SLOWER = 0.4  # factor on the learning rate after it: a full rate would undo the start
META: dict[str, Any] = {"uda_weight": 1.0, "ramp_steps": 100}  # hundreds of steps, not hundreds of thousands


def meta_pseudo_labels(
    task: Task,
    workshop: Workshop,
    *,
    on: str,
    method: MetaPseudoLabels | None = None,
    training: Training | None = None,
    stage: str = "mpl",
) -> Fitted:
    """Teacher and student together, both from the weights of a first student (``training.start``), then the student
    alone on the labelled pictures."""
    method = method or MetaPseudoLabels(**META)
    training = training or small_training(task)
    student = train_from_start(task, workshop, method, training, on=on, stage=stage)
    return tuned(student, task, workshop, method, training, stage=stage)


def reduced_meta_pseudo_labels(
    task: Task,
    workshop: Workshop,
    *,
    on: str,
    method: ReducedMetaPseudoLabels | None = None,
    training: Training | None = None,
    stage: str = "mpl-reduced",
) -> Fitted:
    """A UDA teacher labels the unlabelled pictures once and is gone; then a student learns from its corrected labels,
    each with half of the time and the steps. ``training.start`` is the teacher's."""
    method = method or ReducedMetaPseudoLabels()
    training = training or small_training(task)
    training = shortened(training, 1 / 2)
    large = replace(training, backbone=method.teacher or training.backbone)
    uda = UDA(threshold=0.6, temperature=0.7, view=method.view)
    teacher = train_from_start(task, workshop, uda, large, on=on, stage=substage(stage, "teacher"))
    stored = teacher.logits(task.unlabelled).softmax(1)
    del teacher
    student = train_network(task, workshop, method, training, stage=stage, teacher=stored)
    return tuned(student, task, workshop, method, training, stage=stage)


def tuned(
    student: Fitted, task: Task, workshop: Workshop, method: Feedback, training: Training, *, stage: str
) -> Fitted:
    """The student after ``method.tune_steps`` on the labelled pictures alone."""
    if not method.tune_steps:
        return student
    alone = replace(training, steps=method.tune_steps, lr=method.tune_lr, optimizer="sgd", ema=0.0)
    return continued(
        student, task, workshop, Supervised(view=method.view), alone, stage=substage(stage, "tuned")
    )


def train_from_start(
    task: Task, workshop: Workshop, method: Any, training: Training, *, on: str, stage: str
) -> Fitted:
    """``SHARE`` of the steps (or of the time) go to a first student, the rest to the method from its weights.

    What the first student learns is ``training.start``: the labels of label propagation ("propagation"), the labelled
    pictures alone ("supervised"), or there is none ("random"). It sees the labelled pictures as the method does.
    """
    if training.start == "random":
        return train_network(task, workshop, method, training, stage=stage)
    first = shortened(training, SHARE)
    rest = replace(
        training,
        seconds=training.seconds - first.seconds,
        steps=training.steps and max(1, training.steps - first.steps),
        max_steps=training.max_steps and max(1, training.max_steps - first.max_steps),
        lr=training.lr * SLOWER,
    )
    learn = partial(train_network, task, workshop, training=first, stage=substage(stage, "start"))
    if training.start == "supervised":
        begun = learn(method=Supervised(view=method.view))
    else:
        labels = teacher_targets(task, workshop, on=on, method=teacher_for(on))
        begun = learn(method=PseudoLabel(threshold=0.0, view=method.view), teacher=labels)
    return continued(begun, task, workshop, method, rest, stage=stage)


def continued(
    fitted: Fitted, task: Task, workshop: Workshop, method: object, training: Training, *, stage: str
) -> Fitted:
    """Another stage of training, from the weights of ``fitted``."""
    weights = {name: value.clone() for name, value in fitted.classifier.backbone.state_dict().items()}
    origin = digest(torch.cat([value.flatten().double().cpu() for value in weights.values()]))

    def start(network: nn.Module) -> None:
        network.load_state_dict(weights)

    return train_network(task, workshop, method, training, stage=stage, start=start, origin=origin)


def substage(stage: str, part: str) -> str:
    """The name of a part of a stage: "mpl/0.1" and "tuned" make "mpl-tuned/0.1"."""
    name, slash, fold = stage.partition("/")
    return f"{name}-{part}{slash}{fold}"
