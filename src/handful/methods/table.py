"""The methods that train a network, by name. A new method is one file and one row here."""

from __future__ import annotations

from typing import Any

from handful.methods.adamatch import AdaMatch
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

METHODS: dict[str, type[Any]] = {
    "supervised": Supervised,
    "pseudo-label": PseudoLabel,
    "pi-model": PiModel,
    "mean-teacher": MeanTeacher,
    "vat": VAT,
    "mixmatch": MixMatch,
    "uda": UDA,
    "fixmatch": FixMatch,
    "flexmatch": FlexMatch,
    "freematch": FreeMatch,
    "softmatch": SoftMatch,
    "adamatch": AdaMatch,
    "simclr": SimCLR,
    "jigsaw": Jigsaw,
    "patch-contrast": PatchContrast,
    "meta-pseudo-labels": MetaPseudoLabels,
    "reduced-mpl": ReducedMetaPseudoLabels,
    "distillation": Distillation,
}
