"""What the contract tests share: a toy task of 8 px pictures, networks, one training run of any method."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from handful import parallel
from handful.augment.views import Plain, View, Weak
from handful.data.images import Images, from_array
from handful.data.stream import TrainStream
from handful.engine import schedule
from handful.engine.fit import fit
from handful.engine.state import State
from handful.engine.update import average, descend
from handful.methods.table import METHODS
from handful.models.backbones import create
from handful.models.ema import EMA
from handful.types import Batch

# A method whose constructor needs options, or that needs other ones to learn the toy task, says so here.
OPTIONS: dict[str, dict[str, Any]] = {
    "supervised": {"smoothing": 0.1},
    "pseudo-label": {"threshold": 0.55, "ramp_steps": 20},
}
# Settings under which a method equals supervised training: (options, exact). Where a joint forward pass
# changes the order of sums, the two agree to 1e-12 in float64 instead.
DEGENERATE: dict[str, list[tuple[dict[str, Any], bool]]] = {
    "supervised": [
        ({"smoothing": 0.0}, True),
        ({"smoothing": 0.0, "mix": "both", "mix_chance": 0.0}, False),
    ],
    "pseudo-label": [
        ({"weight": 0.0, "joint": False}, True),
        ({"threshold": 1.01, "joint": False}, True),
        ({"weight": 0.0, "joint": True}, False),
        ({"threshold": 1.01, "joint": True}, False),
    ],
}
NETWORKS = {"norm-free": "lenet", "batch-norm": "conv-4"}
SIDE, N, N_LABELLED = 8, 64, 8


def method(name: str, **changes: Any) -> Any:
    """A method of the table with its options for the toy task."""
    made = METHODS[name](**OPTIONS.get(name, {}))
    return replace(made, **changes)


def pictures() -> tuple[Images, Tensor]:
    """Two easy classes: the upper or the lower half is bright, under noise. Made without random state."""
    noise = np.random.Philox(key=7).random_raw(N * SIDE * SIDE).astype(np.uint64) % np.uint64(90)
    x = noise.reshape(N, SIDE, SIDE).astype(np.uint8)
    y = np.arange(N) % 2
    x[y == 0, : SIDE // 2] += 120
    x[y == 1, SIDE // 2 :] += 120
    return from_array(x), torch.from_numpy(y)


@dataclass
class Double:
    """A stream whose floating tensors are float64."""

    inner: TrainStream

    def batches(self, start: int) -> Iterator[Batch]:
        for batch in self.inner.batches(start):
            yield {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}


def stream(algorithm: Any, spec: Any) -> TrainStream:
    """Eight labelled pictures, four in a batch, and twice as many unlabelled ones where the method asks."""
    images, y = pictures()
    mixing = getattr(algorithm, "mixing", None)
    views: dict[str, View] = {name: Weak(flip=True) for name in algorithm.views if name != "x"}
    return TrainStream(
        images=images,
        spec=spec,
        labelled=torch.arange(N_LABELLED),
        y=torch.nn.functional.one_hot(y[:N_LABELLED]).float() if mixing else y[:N_LABELLED],
        mixing=mixing,
        views={"x": Plain(), **views},
        batch=4,
        unlabelled=torch.arange(N_LABELLED, N),
        ratio=2 if algorithm.uses_unlabelled else 0,
        seed=3,
        stage="toy",
    )


def start(
    backbone: str,
    *,
    dtype: torch.dtype = torch.float32,
    optimizer: str = "sgd",
    steps: int = 8,
    lr: float = 0.05,
) -> State:
    """A student (wrapped, where there are several processes), its average, and a role that nobody trains."""
    network = create(backbone, n_classes=2, channels=1, size=SIDE, seed=1).to(dtype)
    other = create(backbone, n_classes=2, channels=1, size=SIDE, seed=2).to(dtype)
    groups = [{"params": list(network.parameters()), "lr": lr, "base_lr": lr}]
    made: torch.optim.Optimizer
    if optimizer == "sgd":
        made = torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True, weight_decay=1e-3, foreach=True)
    else:
        made = torch.optim.AdamW(groups, lr=lr, weight_decay=0.01, foreach=True)
    average_of = EMA(network, 0.9)
    models: dict[str, nn.Module] = {
        "student": parallel.wrap(network.train()),
        "average": average_of,
        "bystander": other.train(),
    }
    return State(models, {"student": made}, schedule.cosine(steps, 1), seed=3, stage="toy")


def train(
    state: State,
    algorithm: Any,
    *,
    steps: int = 8,
    until: int | None = None,
    log: Callable[[int, dict[str, float]], None] = lambda step, scalars: None,
) -> State:
    """Train the student up to step ``until`` of ``steps``."""
    network = parallel.unwrap(state.models["student"])
    batches: Any = stream(algorithm, network.spec)
    if next(network.parameters()).dtype == torch.float64:
        batches = Double(batches)
    update = descend(algorithm, after=[average()])
    fit(state, update, batches, steps=until or steps, log=log, log_every=1)
    return state


def weights(state: State) -> dict[str, Tensor]:
    """Everything of every role, by name."""
    return {
        f"{role}.{name}": value.detach().clone()
        for role, model in state.models.items()
        for name, value in parallel.unwrap(model).state_dict().items()
    }


def two_processes(rank: int, world: int, folder: str) -> None:
    """What one of two processes does: every method on every network; the first one writes the results."""
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    try:
        for name in METHODS:
            for kind, backbone in NETWORKS.items():
                logged: list[dict[str, float]] = []
                state = start(backbone, dtype=torch.float64)
                train(state, method(name), steps=4, log=lambda step, s, logged=logged: logged.append(s))
                torch.save((weights(state), logged), Path(folder) / f"{name}.{kind}.{rank}.pt")
    finally:
        parallel.stop()
