"""Everything that a step changes, in one place: what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from handful.parallel import unwrap


@dataclass(frozen=True)
class Precision:
    """Number format of the forward pass: float32, or bfloat16 under autocast (weights stay float32).

    Attributes:
        name: "fp32" or "bf16".
        device: "cpu" or "cuda".
    """

    name: str = "fp32"
    device: str = "cpu"

    def __call__(self) -> AbstractContextManager[Any]:
        if self.name == "bf16":
            return torch.autocast(self.device, dtype=torch.bfloat16)
        return nullcontext()


@dataclass
class TrainingState:
    """Networks by role, their optimisers, the step; ``seed`` and ``stage`` name the run's random draws, and ``names``
    the pictures of some row numbers, in messages.

    Each optimiser's parameter groups carry ``base_lr``; the learning rate of a step is
    ``base_lr * schedule(step)``, so that a schedule has nothing to save; a role without a schedule keeps its rate.
    """

    models: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer] = field(default_factory=dict)
    schedules: dict[str, Callable[[int], float]] = field(default_factory=dict)
    step: int = 0
    seed: int = 0
    stage: str = "train"
    precision: Precision = Precision()
    names: Callable[[torch.Tensor], list[str]] = lambda index: list(map(str, index.tolist()))

    def advance(self, role: str) -> None:
        """One step of ``role``'s optimiser, at this step's learning rates."""
        schedule = self.schedules.get(role)
        factor = schedule(self.step) if schedule else 1.0
        for group in self.optimizers[role].param_groups:
            asleep = self.step < group.get("from_step", 0)  # gradual unfreezing
            group["lr"] = 0.0 if asleep else group["base_lr"] * factor
        self.optimizers[role].step()

    def state_dict(self) -> dict[str, Any]:
        """A tree of dictionaries, lists, tensors and numbers."""
        return {
            "step": self.step,
            "models": {role: unwrap(model).state_dict() for role, model in self.models.items()},
            "optimizers": {role: optimizer.state_dict() for role, optimizer in self.optimizers.items()},
        }

    def load_state_dict(self, tree: dict[str, Any]) -> None:
        """Take up a saved state; roles and shapes must be the same."""
        self.step = int(tree["step"])
        for role, model in self.models.items():
            unwrap(model).load_state_dict(tree["models"][role])
        for role, optimizer in self.optimizers.items():
            saved = tree["optimizers"][role]
            optimizer.load_state_dict({**saved, "state": {int(k): v for k, v in saved["state"].items()}})
            for parameter, held in optimizer.state.items():  # a file keeps values, not strides
                for name, value in held.items():
                    if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                        held[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
