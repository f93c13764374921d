"""Self-training: students that learn the labels of label propagation, then those of the student before."""

from __future__ import annotations

from dataclasses import replace

from handful.recipes.label_propagation import teacher_for, teacher_targets
from handful.recipes.stage import Stage
from handful.recipes.task import Fitted, Workshop
from handful.recipes.train import train_network
from handful.recipes.training import shortened

ROUNDS = 2  # students


def self_training(stage: Stage, workshop: Workshop) -> Fitted:
    """Label propagation labels the unlabelled pictures and a small network learns them under strong augmentation;
    then that network labels them and a second one learns its answers. The ``ROUNDS`` students share the time and the
    steps."""
    task = stage.task
    stage = replace(stage, training=shortened(stage.training, 1 / ROUNDS))
    targets = teacher_targets(task, workshop, on=stage.on, method=teacher_for(stage.on))
    for number in range(1, ROUNDS + 1):
        student = train_network(stage.part(str(number), tables={"target": targets}), workshop)
        targets = student.logits(task.unlabelled).softmax(1)
    return student
