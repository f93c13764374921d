"""The one stock update: loss, gradient, step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
        for role in trains:
            for group in state.optimizers[role].param_groups:
                asleep = state.step < group.get("from_step", 0)  # gradual unfreezing
                group["lr"] = 0.0 if asleep else group["base_lr"] * state.schedule(state.step)
            state.optimizers[role].step()
        for act in after:
            act(state)
        return {"loss": loss.total.detach(), **loss.terms}

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
