"""What the contract tests share: a toy task of 8 px pictures, networks, one training run of any method."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handful import parallel
from handful.augment.views import Plain, View, Weak
from handful.data.images import Images, from_array
from handful.data.stream import TrainStream, semi_supervised
from handful.engine import schedule
from handful.engine.assemble import Setup, assemble
from handful.engine.fit import fit
from handful.engine.state import TrainingState
from handful.engine.update import step_of
from handful.methods.base import Method, Objective
from handful.methods.supervised import Supervised
from handful.methods.table import METHODS
from handful.models.backbones import create
from handful.types import Batch, Loss, Models


@dataclass(frozen=True)
class OnlineDistillation(Method):
    """The baseline of Meta Pseudo Labels: a teacher that descends on CE + UDA, and a student that descends on the
    teacher's hard labels while it does. Written with torch's own losses."""

    uses_unlabelled: ClassVar[bool] = True
    trains: ClassVar = ("student", "teacher")
    views: ClassVar = {"x": "plain", "weak": "weak", "strong": "weak"}

    def roles(self, network: nn.Module, n_classes: int, unlabelled: Tensor) -> dict[str, nn.Module]:
        return {"teacher": copy.deepcopy(network)}

    def update(self, state: TrainingState, batch: Batch) -> dict[str, Tensor]:
        x, weak, strong = batch["x"], batch["weak"], batch["strong"]
        z = state.models["teacher"](torch.cat([x, weak, strong])).logits
        z_x, z_w, z_s = z[: len(x)], z[len(x) : -len(strong)], z[-len(strong) :]
        q = (z_w.detach() / 0.7).softmax(1)
        consistency = F.cross_entropy(z_s, q, reduction="none") * (q.amax(1) >= 0.6)
        weight = min(1.0, state.step / 10)
        teacher = F.cross_entropy(z_x, batch["y"]) + weight * consistency.mean()
        student = F.cross_entropy(state.models["student"](strong).logits, z_s.argmax(1))
        for role, loss in (("student", student), ("teacher", teacher)):
            state.optimizers[role].zero_grad()
            loss.backward()
            state.advance(role)
        return {"loss": student.detach()}


@dataclass(frozen=True)
class Told(Objective):
    """The baseline of the reduced form: a student that descends on the stored teacher's hard labels alone."""

    uses_unlabelled: ClassVar[bool] = True
    needs_teacher: ClassVar[bool] = True
    views: ClassVar = {"x": "plain", "strong": "weak"}

    def __call__(self, models: Models, batch: Batch, step: int) -> Loss:
        loss = F.cross_entropy(models["student"](batch["strong"]).logits, batch["target"].argmax(1))
        return Loss(loss, {})


# A method whose constructor needs options, or that needs other ones to learn the toy task, says so here.
OPTIONS: dict[str, dict[str, Any]] = {
    "supervised": {"smoothing": 0.1},
    "pseudo-label": {"threshold": 0.55, "ramp_steps": 20},
    "meta-pseudo-labels": {"uda_weight": 1.0, "ramp_steps": 10, "smoothing": 0.0, "labels": "sample"},
    "reduced-mpl": {"labels": "sample", "feedback_weight": 1.0},
    "pi-model": {"weight": 1.0, "ramp_steps": 20},
    "mean-teacher": {"weight": 1.0, "decay": 0.9, "ramp_steps": 20},
    "vat": {"weight": 0.3},
    "mixmatch": {"weight": 1.0, "ramp_steps": 20},
    "uda": {"threshold": 0.55, "annealing": "linear", "annealing_steps": 8, "passes": 3},
    "fixmatch": {"threshold": 0.55, "align": True},
    # LeNet begins slowly, and would answer one class for all before it has learnt anything
    "flexmatch": {"threshold": 0.9, "weight": 0.3, "passes": 2},
    "softmatch": {"weight": 0.3},
    "distillation": {"hard_weight": 0.5, "soft_weight": 0.5, "temperature": 2.0},
    "simclr": {"weight": 0.3},
    "jigsaw": {"weight": 0.3},
    "patch-contrast": {"weight": 0.3},
}
# Settings under which a method equals its baseline (``baseline``): (options, exact). Where a joint forward pass
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
    "meta-pseudo-labels": [({"feedback_weight": 0.0, "labels": "argmax"}, True)],
    "reduced-mpl": [({"feedback_weight": 0.0, "labels": "argmax"}, True)],
    "pi-model": [({"weight": 0.0, "passes": 3}, True), ({"weight": 0.0, "passes": 1}, False)],
    "mean-teacher": [({"weight": 0.0, "passes": 3}, True), ({"weight": 0.0, "passes": 1}, False)],
    "vat": [
        ({"weight": 0.0, "entropy": 0.0, "joint": False}, True),
        ({"weight": 0.0, "entropy": 0.0, "joint": True}, False),
    ],
    "mixmatch": [
        ({"weight": 0.0, "alpha": 0.0, "joint": False}, True),
        ({"weight": 0.0, "alpha": 0.0, "joint": True}, False),
    ],
    "uda": [
        ({"weight": 0.0, "annealing": "", "passes": 3}, True),
        ({"threshold": 1.01, "annealing": "", "passes": 3}, True),
        ({"threshold": 1.01, "annealing": "", "passes": 1}, False),
    ],
    "fixmatch": [
        ({"weight": 0.0, "passes": 3}, True),
        ({"threshold": 1.01, "passes": 3}, True),
        ({"weight": 0.0, "passes": 2}, False),
        ({"threshold": 1.01, "passes": 1}, False),
    ],
    # a class in which nothing is confident has threshold 0: only the weight turns this one off
    "flexmatch": [({"weight": 0.0, "passes": 3}, True), ({"weight": 0.0, "passes": 2}, False)],
    "freematch": [
        ({"weight": 0.0, "fair": 0.0, "passes": 3}, True),
        ({"weight": 0.0, "fair": 0.0, "passes": 2}, False),
    ],
    "softmatch": [({"weight": 0.0, "passes": 3}, True), ({"weight": 0.0, "passes": 2}, False)],
    "distillation": [({"hard_weight": 1.0, "soft_weight": 0.0}, True)],
    "adamatch": [
        ({"weight": 0.0, "passes": 3}, True),
        ({"threshold": 2.01, "passes": 3}, True),  # relative to a confidence of at least 1 / 2
        ({"threshold": 2.01, "passes": 1}, False),
    ],
    "simclr": [({"weight": 0.0}, True)],
    "jigsaw": [({"weight": 0.0}, True)],
    "patch-contrast": [({"weight": 0.0}, True)],
}
BASELINES: dict[str, Any] = {  # the others: supervised training
    "meta-pseudo-labels": OnlineDistillation(),
    "reduced-mpl": Told(),
}
# Steps to solve the toy task, where 40 are not enough: these students learn second-hand.
STEPS = {"meta-pseudo-labels": 80, "reduced-mpl": 80}
NETWORKS = {"norm-free": "lenet", "batch-norm": "conv-4"}
SIDE, N, N_LABELLED = 8, 64, 8


# Further settings that have roles or a stream of their own: they keep the promises on processes and resuming, too.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "distillation with features": ("distillation", {"feature_weight": 0.5, "feature_dim": 3}),
    "supervised with mixing": ("supervised", {"mix": "both"}),
}


def method(name: str, **changes: Any) -> Any:
    """A method of the table, or a variant, with its options for the toy task."""
    name, more = VARIANTS.get(name, (name, {}))
    made = METHODS[name](**OPTIONS.get(name, {}))
    return replace(made, **more, **changes)


def baseline(name: str) -> Any:
    """What a method's degenerate settings are compared with."""
    return BASELINES.get(name, Supervised())


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
    stored = torch.full((N - N_LABELLED, 2), 0.2).scatter(
        1, y[N_LABELLED:, None], 0.8
    )  # a teacher that is right
    tables = {"target": stored, "guide": stored @ torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]])}
    labels = torch.nn.functional.one_hot(y[:N_LABELLED]).float() if algorithm.mixing else y[:N_LABELLED]
    views: dict[str, View] = {name: Plain() if name == "x" else Weak(flip=True) for name in algorithm.views}
    rows, ratio = torch.arange(N), 2 if algorithm.uses_unlabelled else 0
    told = tables if algorithm.needs_teacher else {}
    sources = semi_supervised(rows[:N_LABELLED], labels, views, 4, rows[N_LABELLED:], ratio, told)
    if algorithm.mixing:
        sources["labelled"] = replace(sources["labelled"], mixing=algorithm.mixing, mixed=("y",))
    return TrainStream(images, spec, sources, seed=3, stage="toy")


def start(
    backbone: str,
    algorithm: Any,
    *,
    dtype: torch.dtype = torch.float32,
    optimizer: str = "sgd",
    steps: int = 8,
    lr: float = 0.05,
) -> TrainingState:
    """A student and what the method has beside it (wrapped, where there are several processes), the student's
    average, and a role that nobody trains."""
    network = create(backbone, n_classes=2, channels=1, size=SIDE, seed=1).to(dtype)
    other = create(backbone, n_classes=2, channels=1, size=SIDE, seed=2).to(dtype)

    def make(role: str, model: nn.Module) -> torch.optim.Optimizer:
        groups = [{"params": list(model.parameters()), "lr": lr, "base_lr": lr}]
        if optimizer == "sgd":
            return torch.optim.SGD(
                groups, lr=lr, momentum=0.9, nesterov=True, weight_decay=1e-3, foreach=True
            )
        return torch.optim.AdamW(groups, lr=lr, weight_decay=0.01, foreach=True)

    state, _ = assemble(
        algorithm, {"student": network, "bystander": other.train()}, make, Setup(3, "toy", average=0.9),
        n_classes=2, unlabelled=torch.arange(N_LABELLED, N),
    )  # fmt: skip
    state.schedules = dict.fromkeys(algorithm.trains, schedule.cosine(steps, 1))
    return state


def train(
    state: TrainingState,
    algorithm: Any,
    *,
    steps: int = 8,
    until: int | None = None,
    log: Callable[[int, dict[str, float]], None] = lambda step, scalars: None,
) -> TrainingState:
    """Train the student up to step ``until`` of ``steps``."""
    network = parallel.unwrap(state.models["student"])
    batches: Any = stream(algorithm, network.spec)
    if next(network.parameters()).dtype == torch.float64:
        batches = Double(batches)
    fit(state, step_of(algorithm, state), batches, steps=until or steps, log=log, log_every=1)
    return state


def weights(state: TrainingState) -> dict[str, Tensor]:
    """Everything of every role, by name."""
    return {
        f"{role}.{name}": value.detach().clone()
        for role, model in state.models.items()
        for name, value in parallel.unwrap(model).state_dict().items()
    }


def two_processes(rank: int, world: int, folder: str, names: Sequence[str]) -> None:
    """What one of two processes does: each of the methods on every network, results written."""
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    try:
        for name in names:
            for kind, backbone in NETWORKS.items():
                logged: list[dict[str, float]] = []
                state = start(backbone, method(name), dtype=torch.float64)
                train(state, method(name), steps=4, log=lambda step, s, logged=logged: logged.append(s))
                torch.save((weights(state), logged), Path(folder) / f"{name}.{kind}.{rank}.pt")
    finally:
        parallel.stop()
