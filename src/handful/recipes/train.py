"""The training stage: one network, one method, some steps; checkpointed, resumable, never run twice."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from handful import parallel
from handful.augment.named import make
from handful.augment.views import View
from handful.data.stream import TrainStream
from handful.engine import checkpoint, schedule
from handful.engine.fit import fit
from handful.engine.norms import find_norms
from handful.engine.pace import seconds_per_step
from handful.engine.state import Precision, State
from handful.engine.update import average, freeze_norms, update_of
from handful.inference.logits import predict
from handful.machine import has_fast_bf16
from handful.methods.jigsaw import Jigsaw
from handful.methods.patch_contrast import PatchContrast
from handful.methods.simclr import SimCLR
from handful.models.backbones import create, family, layer_groups
from handful.models.classifier import Classifier
from handful.models.ema import EMA
from handful.models.heads import CosineHead
from handful.randomness import key, seeded
from handful.recipes.task import Fitted, Task, Workshop
from handful.types import UsageError

INITS: dict[str, Any] = {
    "jigsaw": Jigsaw(alone=True),
    "simclr": SimCLR(alone=True),
    "patch": PatchContrast(alone=True),
}  # by --init


@dataclass(frozen=True)
class Training:
    """How a network is trained.

    Attributes:
        backbone: a name of ``models.backbones``.
        pretrained: start from published weights.
        seconds: time budget, turned into steps once; ignored where ``steps`` is set.
        steps: number of steps; 0 lets ``seconds`` decide.
        max_steps: never more than this many; 0: no limit.
        batch: labelled pictures a step.
        ratio: unlabelled pictures for each labelled one.
        optimizer: "sgd" (Nesterov momentum 0.9) or "adamw".
        lr: learning rate of the last layers.
        weight_decay: on weights, not on biases and norms.
        decay_by_depth: each layer group's rate is the next one's divided by this (2.6: Howard & Ruder 2018).
        unfreeze_every: steps after which one more layer group, from the head down, starts to train; 0: all
            at once.
        freeze_norms: keep batch norm's statistics as they are.
        precise_norms: at the end, find them anew from the pictures as they are, those that it has learnt from, at most
            1,024 (PreciseBN: Wu & Johnson 2021): the running averages are those of the views.
        warmup: steps of linear warm-up, as a share of all.
        ema: decay of the moving average that is kept; 0 keeps the last weights.
        size: input side in pixels; 0 takes the backbone's or the pictures' own.
        head: "linear", or "cosine" (Gidaris & Komodakis 2018).
        start: of the consistency recipes and ``mpl``: weights from a student of label propagation ("propagation"), from
            the labelled pictures alone ("supervised"), or "random".
        dropout: on the features, before the head.
        drop_path: stochastic depth: how often the last residual block is left out; earlier ones less, linearly.
        init: what a fresh network has learnt from all pictures without any label before this training: "jigsaw",
            "simclr", "patch", or "random" for nothing.
        init_steps: of that; 0: as many as the training that it is for.
    """

    backbone: str = "small-resnet"
    pretrained: bool = False
    seconds: float = 30.0
    steps: int = 0
    max_steps: int = 0
    batch: int = 32
    ratio: int = 7
    optimizer: str = "sgd"
    lr: float = 0.05
    weight_decay: float = 5e-4
    decay_by_depth: float = 1.0
    unfreeze_every: int = 0
    freeze_norms: bool = False
    precise_norms: bool = True
    warmup: float = 0.05
    ema: float = 0.99
    size: int = 0
    head: str = "linear"
    start: str = "propagation"
    dropout: float = 0.0
    drop_path: float = 0.0
    init: str = "random"
    init_steps: int = 0

    def __post_init__(self) -> None:
        choices = {
            "optimizer": ("sgd", "adamw"),
            "head": ("linear", "cosine"),
            "start": ("propagation", "supervised", "random"),
            "init": ("random", *INITS),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise UsageError(f"there is no {name} '{getattr(self, name)}'", fix=" or ".join(known))
        for name, least in {
            "batch": 1,
            "steps": 0,
            "max_steps": 0,
            "ratio": 0,
            "unfreeze_every": 0,
            "init_steps": 0,
        }.items():
            if getattr(self, name) < least:
                raise UsageError(f"--training.{name.replace('_', '-')} must be at least {least}")
        for name in ("dropout", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"--training.{name.replace('_', '-')} must lie in [0, 1)")
        if self.init != "random" and self.pretrained:
            raise UsageError(
                f"--init {self.init} is for networks from scratch, and this one starts from published weights",
                fix="leave --init out, or choose a recipe that trains a small network",
            )


MIN_STEPS = 20
STEPS, FOLD_STEPS = "steps of ", "steps in a fold of "  # names in a run's plan
SMALL = Training(backbone="small-resnet", max_steps=300)
NO_RATIO = "a ratio of 0 shows no unlabelled picture to a recipe that learns from them"
NO_UNLABELLED = "this recipe learns from unlabelled pictures, and there are none"


def small_training(task: Task, **changes: object) -> Training:
    """How small networks are trained from scratch; Conv-4 for tiny pictures, the residual net for others."""
    tiny = task.images.side <= 16
    return replace(SMALL, **{"backbone": "conv-4" if tiny else SMALL.backbone, **changes})  # type: ignore[arg-type]


def shortened(training: Training, share: float) -> Training:
    """The same for one stage of several: a share of the time and of the steps, rounded up (0 steps would mean as many
    as the time gives)."""
    return replace(
        training,
        seconds=training.seconds * share,
        steps=math.ceil(training.steps * share),
        max_steps=math.ceil(training.max_steps * share),
    )


def train_network(
    task: Task,
    workshop: Workshop,
    method: Any,
    training: Training,
    *,
    stage: str,
    start: Callable[[nn.Module], None] | None = None,
    origin: str = "",
    teacher: Tensor | None = None,
    beside: Mapping[str, Tensor] | None = None,
    roles: Mapping[str, nn.Module] | None = None,
) -> Fitted:
    """Train ``training.backbone`` by ``method`` on the task.

    Args:
        stage: names the stage in the log, the plan and the run's folder.
        start: puts initial weights into the fresh network (a solved head, another stage's result); without,
            ``training.init`` decides on them.
        origin: a fingerprint of those weights, where the other arguments do not decide them: with another one,
            the stage is another.
        teacher: probabilities [m, K] for ``task.unlabelled``; they reach the method as ``target``.
        beside: further tables with a row for each of ``task.unlabelled``; they reach the method by their names.
        roles: other modules that the method needs, by role; they do not train (``origin`` has to tell them apart).

    Raises:
        UsageError: the method learns from unlabelled pictures and there are none.
    """
    if method.uses_unlabelled and not len(task.unlabelled):
        raise UsageError(NO_UNLABELLED, fix="put pictures without labels into unlabeled/")
    if not training.ratio and method.uses_unlabelled and set(method.views) - {"x"}:
        raise UsageError(NO_RATIO, fix="give --training.ratio 1 or more")
    spec: dict[str, Any] = {
        "n_classes": task.n_classes,
        "channels": task.images.channels,
        "size": training.size or None,
    }
    if training.pretrained or training.backbone == "lite0" or ":" in training.backbone:
        spec["channels"] = 3
    elif not training.size:
        spec["size"] = task.images.side
    spec |= {name: getattr(training, name) for name in ("dropout", "drop_path") if getattr(training, name)}
    tables = {} if teacher is None else {"target": teacher}
    tables |= beside or {}
    inputs = (teacher, *(beside or {}).values())
    folder = _folder(task, workshop, method, training, stage, inputs, origin)
    done = (folder / DONE).exists()
    config: dict[str, Any] = {"name": training.backbone, **spec}
    with seeded(key(task.seed, stage, "weights")):
        network: nn.Module = create(training.backbone, pretrained=training.pretrained and not done, **spec)
        if training.head == "cosine":
            network.head = CosineHead(network.dim, task.n_classes)  # type: ignore[arg-type]
            config["head"] = network.head.config()
    if not done:
        start = start or started(task, workshop, training)
        if start:
            start(network)
    return _finished(task, workshop, method, training, network, config, stage, folder, tables, roles or {})


def train_further(
    task: Task,
    workshop: Workshop,
    method: Any,
    training: Training,
    network: nn.Module,
    config: dict[str, Any],
    *,
    stage: str,
    origin: str,
    roles: Mapping[str, nn.Module],
) -> Fitted:
    """Train a network that is there already; ``training`` does not choose it then. Parameters that take no gradient
    stay as they are.

    Args:
        config: what ``build_classifier`` needs to make it again.
        stage, origin: as in ``train_network``; the origin names the network's first weights.
        roles: other modules that the method needs, by role; they do not train.
    """
    folder = _folder(task, workshop, method, training, stage, (None,), origin)
    return _finished(task, workshop, method, training, network, config, stage, folder, {}, roles)


DONE = "done.safetensors"


def _folder(
    task: Task,
    workshop: Workshop,
    method: Any,
    training: Training,
    stage: str,
    tables: Sequence[Tensor | None],
    origin: str,
) -> Path:
    """Where a stage keeps its checkpoints: named after everything that decides its result."""
    inputs = map(digest, (task.labelled, task.y, task.unlabelled, *tables))
    origins = [origin] if origin else []
    name = f"{stage}-{key(task.images.fingerprint, *inputs, method, training, task.seed, *origins):016x}"
    return workshop.folder / "stages" / name


def _finished(
    task: Task,
    workshop: Workshop,
    method: Any,
    training: Training,
    network: nn.Module,
    config: dict[str, Any],
    stage: str,
    folder: Path,
    tables: Mapping[str, Tensor],
    roles: Mapping[str, nn.Module],
) -> Fitted:
    """The trained network: the stage's result where there is one, or else trained now."""
    if (folder / DONE).exists():
        network.load_state_dict(checkpoint.read(folder / DONE)["network"])
        network = network.to(memory_format=torch.channels_last)  # same bits
    else:
        network = _run(task, workshop, method, training, network, stage, folder, tables, roles)
    classifier = Classifier(network, None, config).to(workshop.device)

    def logits(ids: Tensor) -> Tensor:
        return predict(network, task.images, ids, classifier.spec, device=workshop.device)

    return Fitted(classifier, logits)


def started(task: Task, workshop: Workshop, training: Training) -> Callable[[nn.Module], None] | None:
    """What puts the weights of ``training.init`` into a fresh network; None where that is "random"."""
    if training.init == "random":
        return None

    def start(network: nn.Module) -> None:
        body: Any = network.body
        body.load_state_dict(self_supervised(task, workshop, training))

    return start


def self_supervised(task: Task, workshop: Workshop, training: Training) -> dict[str, Tensor]:
    """The body's weights after ``training.init``: a stage on all pictures of the pool, none of them labelled, the same
    for every fold and for every network of this kind."""
    method, stage = INITS[training.init], f"init-{training.init}"
    steps = training.init_steps or training.steps
    alone = Training(
        backbone=training.backbone,
        seconds=0.0 if steps else workshop.planned(f"seconds of {stage}", lambda: training.seconds),
        steps=steps,
        max_steps=training.max_steps,
        batch=training.batch,
        ratio=max(1, 2 * training.ratio // method.copies),  # about as many passes of the network for each
        optimizer=training.optimizer,
        lr=training.lr,
        weight_decay=training.weight_decay,
        warmup=training.warmup,
        ema=training.ema,
        size=training.size,
    )
    nobody = torch.empty(0, dtype=torch.int64)
    pool = replace(task, labelled=nobody, y=nobody, unlabelled=task.pool(), held_out=nobody, classes=())
    network: Any = train_network(pool, workshop, method, alone, stage=stage).classifier.backbone
    weights: dict[str, Tensor] = network.body.state_dict()
    return weights


def _run(
    task: Task,
    workshop: Workshop,
    method: Any,
    training: Training,
    network: nn.Module,
    stage: str,
    folder: Path,
    tables: Mapping[str, Tensor],
    roles: Mapping[str, nn.Module],
) -> nn.Module:
    if not getattr(method, "uses_auxiliary", False):  # heads that get no loss take no part
        for part in getattr(network, "auxiliary_heads", ()):
            part.requires_grad_(False)
    models: dict[str, nn.Module] = {"student": network, **roles}
    models |= extra_roles(method, network, task.n_classes, task.unlabelled)
    for role, model in models.items():
        models[role] = model.to(workshop.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    trained = getattr(method, "trains", ("student",))
    if training.ema:
        models["average"] = EMA(network, training.ema)
    state = State(
        models=models,
        optimizers={role: _optimizer(training, models[role]) for role in trained},
        seed=task.seed,
        stage=stage,
        precision=choose_precision(network, workshop),
        names=lambda index: [task.images.names[int(i)] for i in index],
    )
    followers = [role for role, module in models.items() if isinstance(module, EMA)]
    for role in trained:
        models[role].train()
        if training.freeze_norms:
            freeze_norms(models[role])
        models[role] = parallel.wrap(models[role])
        if workshop.compile:
            models[role] = torch.compile(models[role])  # type: ignore[assignment]
    mixing = getattr(method, "mixing", None)
    stream = TrainStream(
        images=task.images,
        spec=network.spec,  # type: ignore[arg-type]
        labelled=task.labelled,
        y=torch.nn.functional.one_hot(task.y, task.n_classes).float() if mixing else task.y,
        mixing=mixing,
        views={name: make_view(kind, task) for name, kind in method.views.items()},
        batch=training.batch,
        unlabelled=task.unlabelled,
        ratio=training.ratio if method.uses_unlabelled else 0,
        extra=tables,
        unlabelled_mixing=getattr(method, "taught_mixing", None),
        pixels=getattr(method, "pixels", ()),
        seed=task.seed,
        stage=stage,
        device=workshop.device,
    )
    update = update_of(method, after=[average(role=role) for role in followers])
    steps = training.steps or workshop.planned(
        steps_of(stage),
        lambda: _affordable(training, seconds_per_step(state, update, stream, at=getattr(method, "wait", 0))),
    )
    state.schedule = schedule.cosine(steps, int(training.warmup * steps))
    for optimizer in state.optimizers.values():
        for group in optimizer.param_groups:
            group["from_step"] = group["rank"] * training.unfreeze_every

    last = folder / "last.safetensors"
    if last.exists():
        state.load_state_dict(checkpoint.read(last))

    def save(state: State) -> Path:
        if parallel.is_first():
            checkpoint.write(last, state.state_dict())
        parallel.barrier()
        return last

    def log(step: int, scalars: dict[str, float]) -> None:
        workshop.log(stage, step, scalars)
        workshop.progress(stage, step, steps)

    fit(
        state,
        update,
        stream,
        steps=steps,
        log=log,
        log_every=max(1, steps // 50),
        save=save,
        save_every=workshop.save_every,
    )
    averaged = models.get("average")
    result = averaged.module if isinstance(averaged, EMA) else network
    if training.precise_norms and not training.freeze_norms:
        learnt = [task.labelled, task.unlabelled] if method.uses_unlabelled else [task.labelled]
        find_norms(result, task.images, torch.cat(learnt), workshop.device)
    if parallel.is_first():
        checkpoint.write(folder / DONE, {"network": result.state_dict()})
        last.unlink(missing_ok=True)
    parallel.barrier()
    return result


def steps_of(stage: str) -> str:
    """Under which name the plan keeps a stage's steps: the folds of a cross-validation share theirs."""
    name, slash, _ = stage.partition("/")
    return f"{FOLD_STEPS if slash else STEPS}{name}"


def extra_roles(method: Any, network: nn.Module, n_classes: int, unlabelled: Tensor) -> dict[str, nn.Module]:
    """The modules that a method has beside the student, by role: what it remembers (``memory``), a teacher.

    A method that has any says so by ``roles(network, n_classes, unlabelled)`` (the row numbers of the unlabelled
    pictures). One that is an ``EMA`` follows the student after each step; the others are the method's own affair.
    """
    return method.roles(network, n_classes, unlabelled) if hasattr(method, "roles") else {}


def _affordable(training: Training, step_seconds: float) -> int:
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


def _optimizer(training: Training, network: nn.Module) -> torch.optim.Optimizer:
    """Parameter groups from input to head with rates that shrink with depth; none decays on vectors."""
    parameters = []
    for rank, group in enumerate(reversed(layer_groups(network))):  # rank 0 is the head
        lr = training.lr / training.decay_by_depth**rank
        matrices = [p for p in group if p.dim() > 1]
        vectors = [p for p in group if p.dim() <= 1]
        for members, decay in ((matrices, training.weight_decay), (vectors, 0.0)):
            if members:
                parameters.append(
                    {
                        "params": members,
                        "lr": lr,
                        "base_lr": lr,
                        "weight_decay": decay,
                        "rank": rank,
                        "from_step": 0,
                    }
                )
    if training.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=training.lr, fused=True)
    return torch.optim.SGD(parameters, lr=training.lr, momentum=0.9, nesterov=True, fused=True)


def digest(x: Tensor | None) -> str:
    """A hash over a tensor's bytes: cache keys and fingerprints."""
    if x is None:
        return ""
    import hashlib

    return hashlib.blake2b(x.contiguous().numpy().tobytes(), digest_size=8).hexdigest()
