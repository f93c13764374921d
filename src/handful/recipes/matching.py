"""Consistency training of a small network: a first student that label propagation taught, then the method itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from handful.methods.adamatch import AdaMatch
from handful.methods.fixmatch import FixMatch
from handful.methods.flexmatch import FlexMatch
from handful.methods.freematch import FreeMatch
from handful.methods.mean_teacher import MeanTeacher
from handful.methods.mixmatch import MixMatch
from handful.methods.pi_model import PiModel
from handful.methods.softmatch import SoftMatch
from handful.methods.uda import UDA
from handful.methods.vat import VAT
from handful.recipes.self_training import train_from_start
from handful.recipes.task import Fitted, Task, Workshop
from handful.recipes.train import Training, small_training

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
    """The method ``name``, from the weights of a first student."""
    method = method or KINDS[name].method(**KINDS[name].defaults)
    return train_from_start(
        task, workshop, method, training or small_training(task), on=on, stage=stage or name
    )
