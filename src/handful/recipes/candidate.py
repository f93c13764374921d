"""A candidate: a recipe on a feature space, with what differs from the recipe's own settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Candidate:
    """What can be tried, measured and trained.

    Attributes:
        recipe: a name of ``recipes.table``.
        on: feature space; "" stands for the recipe's usual one.
        method: fields of the recipe's method that differ from its own for the pictures, or a method of its own.
        training: fields of ``recipes.training.Training`` that differ from the recipe's own.
    """

    recipe: str
    on: str = ""
    method: Any = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Its name in tables: "logistic@lite0"."""
        return f"{self.recipe}@{self.on}"

    @property
    def init(self) -> str:
        """The self-supervised start of its networks, "" for none."""
        init = str(self.training.get("init", "random"))
        return "" if init == "random" else init
