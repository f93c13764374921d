"""What a method declares: every member that the engine, the recipes and the report ask for, with its default.

Legend: B pictures of a batch, K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from handful.augment.mix import Mixing
from handful.types import Batch, Loss, Models, State, Update


@dataclass(frozen=True)
class Settings:
    """What a recipe is configured by: a method that trains a network, a head on features, rounds of training. The
    fields of a subclass are its options."""

    uses_unlabelled: ClassVar[bool] = False

    @property
    def least_confidence(self) -> float:
        """Pseudo-labels less sure than this are not used; 0: all are, or no fixed bound decides."""
        return 0.0


@dataclass(frozen=True)
class Method(Settings, ABC):
    """How networks are trained: which pictures they see, which roles there are, and what a step does.

    Attributes:
        uses_unlabelled: whether the batch has unlabelled pictures.
        needs_teacher: whether it needs a teacher's stored answers, ``target`` [M, K] in the batch.
        uses_auxiliary: whether auxiliary heads of the network (GoogLeNet) get a loss.
    """

    needs_teacher: ClassVar[bool] = False
    uses_auxiliary: ClassVar[bool] = False

    @property
    @abstractmethod
    def views(self) -> Mapping[str, str]:
        """Which view of the pictures stands under which name of the batch; "x" is for the labelled ones. On frozen
        features the name decides: "weak" is the row as it is, every other one has dropout."""

    @property
    def trains(self) -> tuple[str, ...]:
        """The roles that have an optimiser each."""
        return ("student",)

    @property
    def optimization(self) -> Mapping[str, Mapping[str, Any]]:
        """By role: fields of ``recipes.train.Training`` in which its optimiser and schedule differ."""
        return {}

    @property
    def mixing(self) -> Mixing | None:
        """How labelled pictures are mixed; their targets are probabilities [B, K] then."""
        return None

    @property
    def taught_mixing(self) -> Mixing | None:
        """How unlabelled pictures are mixed."""
        return None

    @property
    def pixels(self) -> tuple[str, ...]:
        """Views whose decoded pictures the batch holds too, uint8, as ``NAME_pixels``."""
        return ()

    @property
    def first_whole_step(self) -> int:
        """The first step that does all that steps do: by it their duration is measured."""
        return 0

    @property
    def fine_tuning(self) -> tuple[int, float]:
        """Steps and learning rate of the student's training on the labels alone at the end; (0, …): none."""
        return 0, 0.0

    def roles(self, network: nn.Module, n_classes: int, unlabelled: Tensor) -> dict[str, nn.Module]:
        """Networks and memories besides the student, by role. One that is an ``EMA`` follows the student.

        Args:
            network: the student with its first weights.
            unlabelled: row numbers of those pictures, int64 [m].
        """
        return {}

    @abstractmethod
    def update(self, state: State, batch: Batch) -> dict[str, Tensor]:
        """One step: who moves, in which order. Returns scalars for the log, "loss" among them."""


@dataclass(frozen=True)
class Objective(Method):
    """A method that is a loss: its step is one of gradient descent."""

    @abstractmethod
    def __call__(self, models: Models, batch: Batch, step: int) -> Loss:
        """The loss of a batch; reads like the paper's equation. Its terms need not be detached."""

    def update(self, state: State, batch: Batch) -> dict[str, Tensor]:
        """One gradient step for the roles in ``trains``; all other weights stay as they are."""
        return descend(self, self.trains)(state, batch)


@dataclass(frozen=True)
class SemiSupervised(Objective):
    """L = mean_i CE(student(x_i), y_i) + weight * L_u: the labelled pictures' loss, and a term without their labels.

    Attributes:
        weight: of the term without labels.
        smoothing: label smoothing of the labelled term (Szegedy et al. 2016, sec. 7).
        view: how the labelled pictures are shown: "weak" in the papers, "strong" helps with very few labels.
    """

    weight: float = 1.0
    smoothing: float = 0.0
    view: str = "weak"

    uses_unlabelled: ClassVar[bool] = True


def descend(
    objective: Callable[[Models, Batch, int], Loss],
    trains: Sequence[str] = ("student",),
    after: Sequence[Callable[[Any], None]] = (),
) -> Update:
    """One gradient step of ``objective`` for the roles in ``trains``, then each of ``after`` (which take the state) in
    order."""

    def update(state: State, batch: Batch) -> dict[str, Tensor]:
        with state.precision():
            loss = objective(state.models, batch, state.step)
        for role in trains:
            state.optimizers[role].zero_grad(set_to_none=True)
        loss.total.backward()
        if torch.isfinite(loss.total):  # otherwise ``fit`` stops, and finds the pictures by these weights
            for role in trains:
                state.advance(role)
            for act in after:
                act(state)
        return {"loss": loss.total.detach(), **{name: term.detach() for name, term in loss.terms.items()}}

    return update


@dataclass(frozen=True)
class Head(Settings, ABC):
    """A classifier on frozen features that is solved for, not trained."""

    @abstractmethod
    def fit(self, x: Tensor, y: Tensor, n_classes: int) -> nn.Module:
        """A head from features [n, D] and class numbers int64 [n]."""
