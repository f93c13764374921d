"""A stage: one training, or one run of a recipe, as a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from handful.recipes.task import Task
from handful.recipes.training import Training


@dataclass(frozen=True)
class Stage:
    """What is to be done, and with what.

    Attributes:
        name: in the log, the plan and the run's folder; part of the key of every random draw. "fixmatch/0.1" is fold 1
            of repeat 0.
        method: how networks are trained (``methods.base.Method``), or the settings of a recipe or head.
        on: the feature space that the recipe works on.
        start: puts initial weights into a fresh network (a solved head, another stage's result); without, ``init`` of
            the training decides on them.
        origin: a fingerprint of those weights, and of ``roles``, where nothing else decides them: with another one,
            the stage is another.
        tables: with a row for each unlabelled picture, by the name under which they reach the method ("target": a
            teacher's probabilities).
        roles: modules that the method is given, by role; they do not train.
    """

    name: str
    task: Task
    method: Any
    training: Training
    on: str = "pixels"
    start: Callable[[nn.Module], None] | None = None
    origin: str = ""
    tables: Mapping[str, Tensor] = field(default_factory=dict)
    roles: Mapping[str, nn.Module] = field(default_factory=dict)

    def part(self, name: str, **changes: Any) -> Stage:
        """A stage of this one, with some fields changed: "mpl/0.1" and "tuned" make "mpl-tuned/0.1"."""
        stem, slash, fold = self.name.partition("/")
        return replace(self, name=f"{stem}-{name}{slash}{fold}", **changes)
