"""The methods that train a network, by name: one registry, from which the recipes for small networks and for frozen
features, the self-supervised starts and the two moons are derived. A new method is one file and one row here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from handful.methods.adamatch import AdaMatch
from handful.methods.base import Method
from handful.methods.distillation import Distillation
from handful.methods.fixmatch import FixMatch
from handful.methods.flexmatch import FlexMatch
from handful.methods.freematch import FreeMatch
from handful.methods.jigsaw import Jigsaw
from handful.methods.mean_teacher import MeanTeacher
from handful.methods.meta_pseudo_labels import MetaPseudoLabels
from handful.methods.mixmatch import MixMatch
from handful.methods.patch_contrast import PatchContrast
from handful.methods.pi_model import PiModel
from handful.methods.pseudo_label import PseudoLabel
from handful.methods.reduced_mpl import ReducedMetaPseudoLabels
from handful.methods.simclr import SimCLR
from handful.methods.softmatch import SoftMatch
from handful.methods.supervised import Supervised
from handful.methods.uda import UDA
from handful.methods.vat import VAT

CONSISTENCY, PRETEXT, OTHER = "consistency", "pretext", "other"

# Consistency with few labels: labelled pictures strongly augmented too, and targets from the picture as it is, which
# the weak views' shift makes worse where a digit fills its 8 pixels.
FEW: dict[str, Any] = {"view": "strong", "weak_view": "plain", "passes": 2}
STRONG: dict[str, Any] = {"view": "strong"}


@dataclass(frozen=True)
class Row:
    """A method, and the options in which its uses differ from its class's defaults, which are the paper's.

    Attributes:
        title: the field's name of it; ``words``: the same in plain words.
        family: CONSISTENCY: a recipe for small networks from a first student; PRETEXT: a self-supervised task, beside
            the labels or alone as a start (``--init``); OTHER: its recipes are files of their own.
        small: of its recipe for a small network.
        features: of its recipe on frozen features; None: there is none.
        moons: on two moons; None: it cannot be shown there.
        init: its name as a start, where it is a PRETEXT.
    """

    method: type[Method]
    title: str
    words: str
    family: str = OTHER
    small: Mapping[str, Any] = field(default_factory=dict)
    features: Mapping[str, Any] | None = None
    moons: Mapping[str, Any] | None = field(default_factory=dict)
    init: str = ""


REGISTRY: dict[str, Row] = {
    "supervised": Row(Supervised, "supervised", "from scratch, on the labelled pictures alone"),
    "pseudo-label": Row(
        PseudoLabel, "pseudo-labelling", "the network learns its own confident predictions",
        small={"threshold": 0.9, "ramp_steps": 200}, features={"threshold": 0.95}, moons={"ramp_steps": 200},
    ),
    "pi-model": Row(
        PiModel, "Pi-model", "two views of a picture, one prediction", CONSISTENCY, STRONG, features={"weight": 1.0}
    ),
    "mean-teacher": Row(
        MeanTeacher, "Mean Teacher", "an average of the weights over time is the teacher", CONSISTENCY, STRONG,
        features={"weight": 10.0},
    ),
    "vat": Row(
        VAT, "VAT", "steady against the worst small change of the input", CONSISTENCY, STRONG,
        features={"radius": 0.003, "probe": 0.0003},  # the entries of a row of 1280 have a root mean square of 0.03
    ),
    "mixmatch": Row(
        MixMatch, "MixMatch", "guessed labels, mixed pictures", CONSISTENCY, STRONG, features={"ramp_steps": 200}
    ),
    "uda": Row(
        UDA, "UDA", "sharpened predictions are the targets of strong views", CONSISTENCY, FEW, features={"align": True}
    ),
    "fixmatch": Row(
        FixMatch, "FixMatch", "confident predictions on weak views label the strong ones", CONSISTENCY,
        {**FEW, "threshold": 0.8, "align": True}, features={"threshold": 0.8, "align": True},
    ),
    "flexmatch": Row(
        FlexMatch, "FlexMatch", "FixMatch with a threshold for each class", CONSISTENCY, FEW, features={}
    ),
    "freematch": Row(
        FreeMatch, "FreeMatch", "FixMatch with thresholds that adapt during training", CONSISTENCY, FEW, features={}
    ),
    "softmatch": Row(
        SoftMatch, "SoftMatch", "FixMatch with weights in place of a threshold", CONSISTENCY, FEW, features={}
    ),
    "adamatch": Row(
        AdaMatch, "AdaMatch", "FixMatch with a relative threshold and distribution alignment", CONSISTENCY, FEW,
        features={},
    ),
    "simclr": Row(
        SimCLR, "SimCLR", "two views of a picture end near each other", PRETEXT, moons=None, init="simclr"
    ),
    "jigsaw": Row(Jigsaw, "jigsaw", "shuffled tiles are put in order", PRETEXT, moons=None, init="jigsaw"),
    "patch-contrast": Row(
        PatchContrast, "patch contrast", "patches of one picture end near each other", PRETEXT, moons=None,
        init="patch",
    ),
    "meta-pseudo-labels": Row(
        MetaPseudoLabels, "Meta Pseudo Labels", "the teacher learns from how its pseudo-labels help the student",
        small={"uda_weight": 1.0, "ramp_steps": 100},  # hundreds of steps, not hundreds of thousands
        features={"uda_weight": 0.0, "ramp_steps": 100, "smoothing": 0.0, "tune_lr": 0.1},
        moons={"uda_weight": 1.0, "ramp_steps": 200, "threshold": 0.0, "smoothing": 0.0, "tune_steps": 0},
    ),
    "reduced-mpl": Row(
        ReducedMetaPseudoLabels, "reduced Meta Pseudo Labels", "the teacher is a stored table of predictions",
        moons=None,
    ),
    "distillation": Row(
        Distillation, "knowledge distillation", "a small network learns the predictions of a larger one", moons=None
    ),
}  # fmt: skip

METHODS: dict[str, type[Method]] = {name: row.method for name, row in REGISTRY.items()}
