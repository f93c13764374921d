"""The one stock update (loss, gradient, step), and how a method brings another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from handful.engine.state import State
from handful.models.ema import EMA
from handful.parallel import unwrap
from handful.types import Batch, Objective, Update


def descend(
    objective: Objective, trains: Sequence[str] = ("student",), after: Sequence[Callable[[State], None]] = ()
) -> Update:
    """One gradient step of ``objective`` for the roles in ``trains``, then each of ``after`` in order.

    Other roles may be used by the objective; their weights stay as they are.
    """

    def update(state: State, batch: Batch) -> dict[str, Tensor]:
        with state.precision():
            loss = objective(state.models, batch, state.step)
        for role in trains:
            state.optimizers[role].zero_grad(set_to_none=True)
        loss.total.backward()
        if torch.isfinite(
            loss.total
        ):  # otherwise ``fit`` stops, and looks for the picture by the weights as they are
            for role in trains:
                state.advance(role)
            for act in after:
                act(state)
        return {"loss": loss.total.detach(), **loss.terms}

    return update


def update_of(method: Any, after: Sequence[Callable[[State], None]] = ()) -> Update:
    """What a step of ``method`` is: its own ``update`` where it brings one, else descent on it for the roles
    that it ``trains``; then each of ``after`` in order."""
    own = getattr(method, "update", None)
    if own is None:
        return descend(method, getattr(method, "trains", ("student",)), after)

    def update(state: State, batch: Batch) -> dict[str, Tensor]:
        scalars: dict[str, Tensor] = own(state, batch)
        for act in after:
            act(state)
        return scalars

    return update


def average(of: str = "student", role: str = "average") -> Callable[[State], None]:
    """For ``after``: let the moving average under ``role`` follow the network under ``of``."""

    def act(state: State) -> None:
        follower = state.models[role]
        assert isinstance(follower, EMA)
        follower.update(unwrap(state.models[of]))

    return act


def freeze_norms(model: nn.Module) -> None:
    """Keep batch norm's running statistics as they are (for few labels): evaluation mode for norms."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
