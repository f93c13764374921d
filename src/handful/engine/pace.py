"""How long a step takes, so that a time can be turned into steps once."""

from __future__ import annotations

import copy
import time

import torch

from handful.data.stream import TrainStream
from handful.engine.state import TrainingState
from handful.types import Update


def seconds_per_step(
    state: TrainingState, update: Update, stream: TrainStream, warm: int = 2, timed: int = 4, at: int = 0
) -> float:
    """Median duration of a step; the state is left as it was. ``at``: the first step that does all that steps do.

    Steps, not seconds, decide the result from then on: the caller writes them into the run's plan.
    """
    before = copy.deepcopy(state.state_dict())
    state.step = max(state.step, at)
    durations = []
    for i in range(warm + timed):
        begin = time.perf_counter()
        update(state, stream.at(i))
        if state.precision.device == "cuda":
            torch.cuda.synchronize()
        durations.append(time.perf_counter() - begin)
    state.load_state_dict(before)
    for role, optimizer in state.optimizers.items():
        if not before["optimizers"][role]["state"]:
            optimizer.state.clear()
    return sorted(durations[warm:])[timed // 2]
