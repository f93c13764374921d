"""What follows a step: moving averages. What a step is, each method says (``methods.base``)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from handful.engine.state import TrainingState
from handful.methods.base import Method
from handful.models.ema import EMA
from handful.parallel import unwrap
from handful.types import Batch, Update


def step_of(method: Method, state: TrainingState) -> Update:
    """A step of ``method``; then every moving average among the state's roles follows the student."""
    followers = [average(role) for role, model in state.models.items() if isinstance(model, EMA)]

    def update(state: TrainingState, batch: Batch) -> dict[str, Tensor]:
        scalars = method.update(state, batch)
        for follow in followers:
            follow(state)
        return scalars

    return update


def average(role: str = "average") -> Callable[[TrainingState], None]:
    """Let the moving average under ``role`` follow the student."""

    def act(state: TrainingState) -> None:
        follower = state.models[role]
        assert isinstance(follower, EMA)
        follower.update(unwrap(state.models["student"]))

    return act
