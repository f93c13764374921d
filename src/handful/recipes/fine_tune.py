"""Fine-tuning: everything trained from pretrained weights (transfer learning, approach 2)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from handful.methods.probe import LogisticRegression
from handful.models.heads import CosineHead
from handful.recipes.feature_space import space
from handful.recipes.label_propagation import teacher_targets
from handful.recipes.stage import Stage
from handful.recipes.task import Fitted, Workshop
from handful.recipes.train import train_network
from handful.types import UsageError


def fine_tune(stage: Stage, workshop: Workshop) -> Fitted:
    """All layers trained from pretrained weights, the head starting from the solved probe ("head first"), which learns
    the stage's "target" for the unlabelled pictures too, where there is one.

    Raises:
        UsageError: ``on`` is not a pretrained network, or not the one that the training names.
    """
    task, training, on = stage.task, stage.training, stage.on
    if on == "pixels" or training.backbone != on:
        wrong = "pixels" if on == "pixels" else training.backbone
        raise UsageError(
            f"fine-tuning starts from a pretrained network's features, not from '{wrong}'",
            fix="choose the network with --features: lite0 or timm:NAME",
        )
    features = space(task, workshop, on, training.size)
    rows, target = task.labelled, F.one_hot(task.y, task.n_classes).float()
    if "target" in stage.tables:
        rows, target = torch.cat([rows, task.unlabelled]), torch.cat([target, stage.tables["target"]])

    def start(network: nn.Module) -> None:
        head: Any = network.head
        with torch.no_grad():
            if isinstance(head, CosineHead):  # imprinted class means (Qi et al. 2018, eq. 4)
                means = target.T @ (features.table[rows] * features.length + features.centre.mean)
                head.weight.copy_(F.normalize(means, dim=1))
                return
            # W ((f - m) / |f - m|) + b with |f - m| at its mean over the pool: the probe as a plain linear layer
            solved: Any = LogisticRegression().fit_soft(features.table[rows], target, torch.ones(len(rows)))
            head.weight.copy_(solved.weight / features.length)
            head.bias.copy_(solved.bias - head.weight @ features.centre.mean)

    return train_network(replace(stage, start=start), workshop)


def fine_tune_pseudo(stage: Stage, workshop: Workshop) -> Fitted:
    """Label propagation labels the unlabelled pictures; everything is fine-tuned on them too."""
    target = teacher_targets(stage.task, workshop, on=stage.on)
    return fine_tune(replace(stage, tables={"target": target}), workshop)
