"""The methods that train a network, by name. A new method is one file and one row here."""

from __future__ import annotations

from typing import Any

from handful.methods.meta_pseudo_labels import MetaPseudoLabels
from handful.methods.pseudo_label import PseudoLabel
from handful.methods.supervised import Supervised

METHODS: dict[str, type[Any]] = {
    "supervised": Supervised,
    "pseudo-label": PseudoLabel,
    "meta-pseudo-labels": MetaPseudoLabels,
}
