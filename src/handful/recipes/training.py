"""How a network is trained: the options, and their defaults for small and for pretrained networks."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from handful.methods.table import REGISTRY
from handful.models.backbones import comes_pretrained
from handful.recipes.task import Task
from handful.types import UsageError

INITS = {row.init: name for name, row in REGISTRY.items() if row.init}  # by --init


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
        for name in ("batch", "steps", "max_steps", "ratio", "unfreeze_every", "init_steps"):
            least = 1 if name == "batch" else 0
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


SMALL = Training(backbone="small-resnet", max_steps=300)


def small_training(task: Task, **changes: object) -> Training:
    """How small networks are trained from scratch; Conv-4 for tiny pictures, the residual net for others."""
    tiny = task.images.side <= 16
    return replace(SMALL, **{"backbone": "conv-4" if tiny else SMALL.backbone, **changes})  # type: ignore[arg-type]


def tuning(backbone: str) -> Training:
    """How a pretrained network is fine-tuned: AdamW, rates divided by 2.6 per layer group towards the input
    (Howard & Ruder 2018, sec. 3.2), batch norm's statistics frozen."""
    return Training(
        backbone=backbone, pretrained=True, size=128, seconds=60, max_steps=150, batch=16, ratio=1, optimizer="adamw",
        lr=3e-4, weight_decay=0.01, decay_by_depth=2.6, freeze_norms=True, ema=0.9,
    )  # fmt: skip


def usual_training(task: Task, backbone: str) -> Training:
    """How a network of this name is trained: fine-tuned where it comes with published weights, else as a small one."""
    return tuning(backbone) if comes_pretrained(backbone) else small_training(task, backbone=backbone)


def shortened(training: Training, share: float) -> Training:
    """The same for one stage of several: a share of the time and of the steps, rounded up (0 steps would mean as many
    as the time gives)."""
    return replace(
        training,
        seconds=training.seconds * share,
        steps=math.ceil(training.steps * share),
        max_steps=math.ceil(training.max_steps * share),
    )
