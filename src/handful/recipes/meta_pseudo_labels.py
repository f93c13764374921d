"""Meta Pseudo Labels as recipes: teacher and student together, or the teacher's labels stored beforehand."""

from __future__ import annotations

from dataclasses import replace

from handful.methods.supervised import Supervised
from handful.methods.uda import UDA
from handful.recipes.consistency import continued, from_first_student
from handful.recipes.stage import Stage
from handful.recipes.task import Fitted, Workshop
from handful.recipes.train import train_network
from handful.recipes.training import shortened


def meta_pseudo_labels(stage: Stage, workshop: Workshop) -> Fitted:
    """Teacher and student together, both from the weights of a first student, then the student alone on the labelled
    pictures."""
    return fine_tuned(from_first_student(stage, workshop), stage, workshop)


def reduced_meta_pseudo_labels(stage: Stage, workshop: Workshop) -> Fitted:
    """A UDA teacher labels the unlabelled pictures once and is gone; then a student learns from its corrected labels,
    each with half of the time and the steps. ``start`` of the training is the teacher's."""
    stage = replace(stage, training=shortened(stage.training, 1 / 2))
    large = replace(stage.training, backbone=stage.method.teacher or stage.training.backbone)
    uda = UDA(threshold=0.6, temperature=0.7, view=stage.method.view)
    teacher = from_first_student(stage.part("teacher", method=uda, training=large), workshop)
    stored = teacher.logits(stage.task.unlabelled).softmax(1)
    del teacher
    return fine_tuned(train_network(replace(stage, tables={"target": stored}), workshop), stage, workshop)


def fine_tuned(student: Fitted, stage: Stage, workshop: Workshop) -> Fitted:
    """The student after the method's ``fine_tuning`` on the labelled pictures alone; the other roles stay with it."""
    steps, lr = stage.method.fine_tuning
    if not steps:
        return student
    alone = replace(stage.training, steps=steps, lr=lr, optimizer="sgd", ema=0.0)
    last = stage.part("tuned", method=Supervised(view=stage.method.view), training=alone)
    end = continued(student, last, workshop)
    return replace(end, roles={**student.roles, **end.roles})
