"""The training stage: one network, one method, some steps; checkpointed, resumable, never run twice."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from handful import parallel
from handful.augment.named import make
from handful.augment.views import View
from handful.data.stream import Ahead, TrainStream, semi_supervised
from handful.engine import checkpoint, schedule
from handful.engine.assemble import Setup, assemble
from handful.engine.fit import fit
from handful.engine.norms import find_norms
from handful.engine.pace import seconds_per_step
from handful.engine.state import Precision, TrainingState
from handful.inference.logits import predict
from handful.machine import has_fast_bf16
from handful.methods.base import Method
from handful.methods.table import METHODS
from handful.models.backbones import comes_pretrained, create, family, layer_groups
from handful.models.classifier import Classifier
from handful.models.ema import EMA
from handful.models.heads import CosineHead
from handful.randomness import digest, key, seeded
from handful.recipes.stage import Stage
from handful.recipes.task import Fitted, Task, Workshop
from handful.recipes.training import INITS, Training
from handful.types import UsageError

MIN_STEPS = 20
STEPS, FOLD_STEPS = "steps of ", "steps in a fold of "  # names in a run's plan
NO_RATIO = "a ratio of 0 shows no unlabelled picture to a recipe that learns from them"
NO_UNLABELLED = "this recipe learns from unlabelled pictures, and there are none"
# What self-supervised training has of the training that it is for.
INIT_TAKES = ("backbone", "max_steps", "batch", "optimizer", "lr", "weight_decay", "warmup", "ema", "size")
DONE, LAST = "done.safetensors", "last.safetensors"


@dataclass(frozen=True)
class Built:
    """A network before it is trained, and what ``build_classifier`` needs to make it again."""

    network: nn.Module
    config: dict[str, Any]


def train_network(stage: Stage, workshop: Workshop) -> Fitted:
    """Train the backbone that ``stage.training`` names by ``stage.method``.

    Raises:
        UsageError: the method learns from unlabelled pictures and there are none.
    """
    return train(stage, workshop, lambda done: fresh(stage, workshop, done))


def train(stage: Stage, workshop: Workshop, build: Callable[[bool], Built]) -> Fitted:
    """Train what ``build`` gives by ``stage.method``; parameters that take no gradient stay as they are.

    The stage's result is taken up where there is one; ``build`` is told so, since first weights do not matter then.
    """
    check(stage)
    folder = folder_of(stage, workshop)
    done = (folder / DONE).exists()
    built = build(done)
    roles = (taken_up if done else run)(stage, workshop, built.network, folder)
    return as_fitted(roles.pop("result"), built.config, stage.task, workshop, roles)


def as_fitted(
    network: nn.Module, config: dict[str, Any], task: Task, workshop: Workshop, roles: Mapping[str, nn.Module]
) -> Fitted:
    """A network, made by ``config``, as a classifier of the task's pictures."""
    classifier = Classifier(network, None, config).to(workshop.device)

    def logits(ids: Tensor) -> Tensor:
        return predict(network, task.images, ids, classifier.spec, device=workshop.device)

    return Fitted(classifier, logits, roles=roles)


def check(stage: Stage) -> None:
    """Raises UsageError where a method that learns from unlabelled pictures would see none."""
    method: Method = stage.method
    if method.uses_unlabelled and not len(stage.task.unlabelled):
        raise UsageError(NO_UNLABELLED, fix="put pictures without labels into unlabeled/")
    if not stage.training.ratio and method.uses_unlabelled and set(method.views) - {"x"}:
        raise UsageError(NO_RATIO, fix="give --training.ratio 1 or more")


def folder_of(stage: Stage, workshop: Workshop) -> Path:
    """Where a stage keeps its checkpoints: named after everything that decides its result."""
    task = stage.task
    inputs = map(digest, (task.labelled, task.y, task.unlabelled, *stage.tables.values()))
    decides = (*inputs, *stage.tables, stage.method, stage.training, task.seed, stage.origin)
    return workshop.folder / "stages" / f"{stage.name}-{key(task.images.fingerprint, *decides):016x}"


def fresh(stage: Stage, workshop: Workshop, done: bool) -> Built:
    """The network that the stage's training names, with its first weights (any weights where it is ``done``)."""
    task, training = stage.task, stage.training
    spec: dict[str, Any] = {
        "n_classes": task.n_classes,
        "channels": task.images.channels,
        "size": training.size or None,
    }
    if training.pretrained or comes_pretrained(training.backbone):
        spec["channels"] = 3
    elif not training.size:
        spec["size"] = task.images.side
    noise = {"dropout": training.dropout, "drop_path": training.drop_path}
    spec |= {name: rate for name, rate in noise.items() if rate}
    config: dict[str, Any] = {"name": training.backbone, **spec}
    with seeded(key(task.seed, stage.name, "weights")):
        network = create(training.backbone, pretrained=training.pretrained and not done, **spec)
        if training.head == "cosine":
            network.head = CosineHead(network.dim, task.n_classes)
            config["head"] = network.head.config()
    start = None if done else stage.start or started(stage, workshop)
    if start:
        start(network)
    return Built(network, config)


def started(stage: Stage, workshop: Workshop) -> Callable[[nn.Module], None] | None:
    """What puts the weights of ``init`` of the stage's training into a fresh network; None where that is "random"."""
    if stage.training.init == "random":
        return None

    def start(network: nn.Module) -> None:
        body: Any = network.body
        body.load_state_dict(self_supervised(stage, workshop))

    return start


def self_supervised(stage: Stage, workshop: Workshop) -> dict[str, Tensor]:
    """The body's weights after ``init``: a stage on all pictures of the pool, none of them labelled, the same for every
    fold and for every network of this kind."""
    task, training = stage.task, stage.training
    name = f"init-{training.init}"
    method: Any = METHODS[INITS[training.init]](alone=True)  # type: ignore[call-arg]
    steps = training.init_steps or training.steps
    alone = Training(
        seconds=0.0 if steps else workshop.planned(f"seconds of {name}", lambda: training.seconds),
        steps=steps,
        ratio=max(1, 2 * training.ratio // method.copies),  # about as many passes of the network for each
        **{field: getattr(training, field) for field in INIT_TAKES},
    )
    nobody = torch.empty(0, dtype=torch.int64)
    pool = replace(task, labelled=nobody, y=nobody, unlabelled=task.pool(), held_out=nobody, classes=())
    network: Any = train_network(Stage(name, pool, method, alone), workshop).classifier.backbone
    weights: dict[str, Tensor] = network.body.state_dict()
    return weights


def run(stage: Stage, workshop: Workshop, network: Any, folder: Path) -> dict[str, nn.Module]:
    """Train, from the last checkpoint on where there is one. Gives all roles as they ended, and "result": the network
    that ships, the student's moving average where there is one."""
    task, training, method = stage.task, stage.training, stage.method
    setup = Setup(
        task.seed, stage.name, choose_precision(network, workshop), training.ema, training.freeze_norms,
        workshop.compile,
    )  # fmt: skip
    of_role = {role: replace(training, **method.optimization.get(role, {})) for role in method.trains}
    state, update = assemble(
        method, {"student": network, **stage.roles}, lambda role, model: optimizer_of(of_role[role], model), setup,
        n_classes=task.n_classes, unlabelled=task.unlabelled,
    )  # fmt: skip
    state.names = lambda index: [task.images.names[int(i)] for i in index]
    stream = stream_of(stage, workshop, network)
    steps = training.steps or workshop.planned(
        steps_of(stage.name),
        lambda: affordable(training, seconds_per_step(state, update, stream, at=method.first_whole_step)),
    )
    for role, own in of_role.items():
        state.schedules[role] = schedule.cosine(steps, int(own.warmup * steps))
        for group in state.optimizers[role].param_groups:
            group["from_step"] = group["rank"] * own.unfreeze_every
    last = folder / LAST
    if last.exists():
        state.load_state_dict(checkpoint.read(last))

    def save(state: TrainingState) -> Path:
        if parallel.is_first():
            checkpoint.write(last, state.state_dict())
        parallel.barrier()
        return last

    def log(step: int, scalars: dict[str, float]) -> None:
        workshop.log(stage.name, step, scalars)
        workshop.progress(stage.name, step, steps)

    fit(
        state,
        update,
        Ahead(stream) if workshop.device == "cuda" else stream,
        steps=steps,
        log=log,
        log_every=max(1, steps // 50),
        save=save,
        save_every=workshop.save_every,
    )
    roles = {role: parallel.unwrap(model) for role, model in state.models.items()}
    average = roles.pop("average", None)
    roles["result"] = average.module if isinstance(average, EMA) else network
    if training.precise_norms and not training.freeze_norms:
        learnt = [task.labelled, task.unlabelled] if method.uses_unlabelled else [task.labelled]
        find_norms(roles["result"], task.images, torch.cat(learnt), workshop.device)
    if parallel.is_first():
        kept = {role: model.state_dict() for role, model in roles.items() if role not in stage.roles}
        checkpoint.write(folder / DONE, kept)
        last.unlink(missing_ok=True)
    parallel.barrier()
    return roles


def taken_up(stage: Stage, workshop: Workshop, network: nn.Module, folder: Path) -> dict[str, nn.Module]:
    """All roles of a finished stage, with the weights that they ended with."""
    saved, task = checkpoint.read(folder / DONE), stage.task
    roles = {"result": network, **stage.method.roles(network, task.n_classes, task.unlabelled)}
    roles["student"] = copy.deepcopy(network)
    for role, model in roles.items():
        model.load_state_dict(saved[role])
        roles[role] = model.to(workshop.device, memory_format=torch.channels_last)
    return {**roles, **stage.roles}


def stream_of(stage: Stage, workshop: Workshop, network: Any) -> TrainStream:
    """The batches of a stage: its labelled pictures, and for each of them ``ratio`` unlabelled ones."""
    task, training, method = stage.task, stage.training, stage.method
    views = {name: make_view(kind, task) for name, kind in method.views.items()}
    y = torch.nn.functional.one_hot(task.y, task.n_classes).float() if method.mixing else task.y
    ratio = training.ratio if method.uses_unlabelled else 0
    sources = semi_supervised(task.labelled, y, views, training.batch, task.unlabelled, ratio, stage.tables)
    if method.mixing:
        sources["labelled"] = replace(sources["labelled"], mixing=method.mixing, mixed=("y",))
    if "unlabelled" in sources:
        changes = {"mixing": method.taught_mixing, "pixels": method.pixels}
        sources["unlabelled"] = replace(sources["unlabelled"], **changes)
    return TrainStream(task.images, network.spec, sources, task.seed, stage.name, workshop.device)


def steps_of(stage: str) -> str:
    """Under which name the plan keeps a stage's steps: the folds of a cross-validation share theirs."""
    name, slash, _ = stage.partition("/")
    return f"{FOLD_STEPS if slash else STEPS}{name}"


def affordable(training: Training, step_seconds: float) -> int:
    """Steps that fit into the time; every process takes the first one's answer."""
    steps = max(MIN_STEPS, int(training.seconds / parallel.first_says(step_seconds)))
    return min(steps, training.max_steps) if training.max_steps else steps


def choose_precision(network: nn.Module, workshop: Workshop) -> Precision:
    """bf16 for dense convolutions where the processor has it, fp32 for depthwise ones (slower in bf16)."""
    if workshop.device == "cuda":
        good = torch.cuda.is_bf16_supported()
        return Precision(workshop.planned("precision", lambda: "bf16" if good else "fp32"), "cuda")
    kind = family(network)
    name = workshop.planned(
        f"precision of {kind} networks", lambda: "bf16" if kind == "dense" and has_fast_bf16() else "fp32"
    )
    return Precision(name, "cpu")


def make_view(kind: str, task: Task) -> View:
    """A view by its words. Gray pictures are not mirrored unless they say so: digits and letters would turn into
    others."""
    return make(kind, flip=task.images.channels == 3)


def optimizer_of(training: Training, network: nn.Module) -> torch.optim.Optimizer:
    """Parameter groups from input to head with rates that shrink with depth; none decays on vectors."""
    parameters = []
    for rank, group in enumerate(reversed(layer_groups(network))):  # rank 0 is the head
        lr = training.lr / training.decay_by_depth**rank
        matrices = [p for p in group if p.dim() > 1]
        vectors = [p for p in group if p.dim() <= 1]
        for members, decay in ((matrices, training.weight_decay), (vectors, 0.0)):
            if members:
                rates = {"lr": lr, "base_lr": lr, "weight_decay": decay}
                parameters.append({"params": members, **rates, "rank": rank, "from_step": 0})
    if training.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=training.lr, fused=True)
    return torch.optim.SGD(parameters, lr=training.lr, momentum=0.9, nesterov=True, fused=True)
