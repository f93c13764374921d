"""From a method and a network to what the loop trains: models by role, wrapped, with an optimiser each.

The order is the same for every trainer: the roles are made and placed, those that train are wrapped for several
processes, and only then their optimisers are made, since a wrapper may replace the parameters (FSDP2 does).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from handful import parallel
from handful.engine.state import Precision, TrainingState
from handful.engine.update import step_of
from handful.methods.base import Method
from handful.models.ema import EMA
from handful.models.norms import freeze_norms
from handful.models.small import Net
from handful.types import Update

MakeOptimizer = Callable[[str, nn.Module], torch.optim.Optimizer]
"""A role and its network (unwrapped) to an optimiser whose groups carry ``base_lr``."""


@dataclass(frozen=True)
class Setup:
    """How a training is set up, whatever its method.

    Attributes:
        seed, stage: name the random draws.
        precision: number format and device.
        average: decay of the student's moving average, under the role "average"; 0: none.
        frozen_norms: batch norm's running statistics stay as they are (for few labels).
        compile: use ``torch.compile`` for what trains.
    """

    seed: int = 0
    stage: str = "train"
    precision: Precision = field(default_factory=Precision)
    average: float = 0.0
    frozen_norms: bool = False
    compile: bool = False


def assemble(
    method: Method,
    models: Mapping[str, nn.Module],
    optimizer: MakeOptimizer,
    setup: Setup,
    *,
    n_classes: int,
    unlabelled: Tensor,
) -> tuple[TrainingState, Update]:
    """The state at step 0, and the update of one step.

    Args:
        models: "student", and roles that the method is given ready-made (a teacher).
        unlabelled: row numbers of the unlabelled pictures, int64 [m].
    """
    student = models["student"]
    if not method.uses_auxiliary:  # heads that get no loss take no part
        for part in student.auxiliary_heads if isinstance(student, Net) else ():
            part.requires_grad_(False)
    roles = {**models, **method.roles(student, n_classes, unlabelled)}
    for role, model in roles.items():
        roles[role] = model.to(setup.precision.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if setup.average:
        roles["average"] = EMA(student, setup.average)
    optimizers = {}
    for role in method.trains:
        roles[role].train()
        if setup.frozen_norms:
            freeze_norms(roles[role])
        roles[role] = parallel.wrap(roles[role])
        optimizers[role] = optimizer(role, parallel.unwrap(roles[role]))
        if setup.compile:
            roles[role] = torch.compile(roles[role])  # type: ignore[assignment]
    state = TrainingState(roles, optimizers, seed=setup.seed, stage=setup.stage, precision=setup.precision)
    return state, step_of(method, state)
