"""Consistency training of a small network: a first student that label propagation taught, then the method itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from handful.methods.adamatch import AdaMatch
from handful.methods.fixmatch import FixMatch
from handful.methods.flexmatch import FlexMatch
from handful.methods.freematch import FreeMatch
from handful.methods.mean_teacher import MeanTeacher
from handful.methods.mixmatch import MixMatch
from handful.methods.pi_model import PiModel
from handful.methods.pseudo_label import PseudoLabel
from handful.methods.softmatch import SoftMatch
from handful.methods.supervised import Supervised
from handful.methods.uda import UDA
from handful.methods.vat import VAT
from handful.recipes.self_training import continued, substage
from handful.recipes.task import Fitted, Task, Workshop
from handful.recipes.train import Training, shortened, small_training, train_network
from handful.recipes.transfer import teacher_for, teacher_targets

SHARE = 0.5  # of the steps that the first student gets
SLOWER = 0.4  # factor on the learning rate afterwards: a full rate would undo the start
# With few labels: labelled pictures strongly augmented too, and targets from the picture as it is, which the
# weak views' shift makes worse where a digit fills its 8 pixels.
FEW: dict[str, Any] = {"view": "strong", "weak_view": "plain", "passes": 2}


class Kind(NamedTuple):
    """A method, what its recipe is called, and the options in which the recipe differs from the paper."""

    method: type
    title: str
    defaults: Mapping[str, Any]


KINDS: dict[str, Kind] = {
    "pi-model": Kind(PiModel, "two views, one answer", {"view": "strong"}),
    "mean-teacher": Kind(MeanTeacher, "an average of its weights teaches", {"view": "strong"}),
    "vat": Kind(VAT, "steady against the worst small change", {"view": "strong"}),
    "mixmatch": Kind(MixMatch, "guessed labels, mixed pictures", {"view": "strong"}),
    "uda": Kind(UDA, "sharpened answers for strong views", FEW),
    "fixmatch": Kind(FixMatch, "weak views label strong ones", {**FEW, "threshold": 0.8, "align": True}),
    "flexmatch": Kind(FlexMatch, "FixMatch, a threshold for each class", FEW),
    "freematch": Kind(FreeMatch, "FixMatch, thresholds that follow", FEW),
    "softmatch": Kind(SoftMatch, "FixMatch, weights for thresholds", FEW),
    "adamatch": Kind(AdaMatch, "FixMatch, relative threshold, aligned", FEW),
}


def matching(
    name: str,
    task: Task,
    workshop: Workshop,
    *,
    on: str,
    method: Any = None,
    training: Training | None = None,
    stage: str = "",
) -> Fitted:
    """``SHARE`` of the steps (or of the time) go to a first student, the rest to the method from its weights.

    What the first student learns is ``training.start``: the labels of label propagation (by default), the labelled
    pictures alone ("supervised"), or there is none ("random").
    """
    training, stage = training or small_training(task), stage or name
    method = method or KINDS[name].method(**KINDS[name].defaults)
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
        begun = learn(method=Supervised())
    else:
        labels = teacher_targets(task, workshop, on=on, method=teacher_for(on))
        begun = learn(method=PseudoLabel(threshold=0.0), teacher=labels)
    return continued(begun, task, workshop, method, rest, stage=stage)
