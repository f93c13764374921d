"""Noisy Student: teachers label, students of at least their size learn the labels under noise, and become teachers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from handful.methods.base import Settings
from handful.methods.pseudo_label import PseudoLabel
from handful.methods.supervised import Supervised
from handful.models.backbones import BACKBONES, create
from handful.randomness import key
from handful.recipes.stage import Stage
from handful.recipes.task import Fitted, Task, Workshop
from handful.recipes.train import NO_UNLABELLED, started, train_network
from handful.recipes.training import Training, shortened
from handful.types import UsageError


@dataclass(frozen=True)
class NoisyStudent(Settings):
    """How rounds of self-training are made (Xie et al. 2020, algorithm 1).

    Attributes:
        rounds: students in a row; 0 leaves the teacher.
        students: their networks by name, as "small-resnet,small-resnet-2x": the last one serves for all further rounds;
            "" takes the teacher's network.
        hard: labels are the teacher's most probable classes; otherwise its probabilities.
        threshold: smallest confidence of a pseudo-label that is used.
        balance: as many pseudo-labels for each class: the most confident ones; too few are repeated.
        per_class: how many; 0 shares those above the threshold out equally.
        weight: of the unlabelled term in the student's loss.
        smoothing: label smoothing of the labelled term.
        view: how the teacher's and the students' labelled pictures are shown.
        unlabelled_view: how the unlabelled ones are shown to students.
        dropout: students' dropout before the head.
        drop_path: students' stochastic depth: how often the last residual block is left out (networks without any have
            none).
    """

    rounds: int = 2
    students: str = ""
    hard: bool = False
    threshold: float = 0.3
    balance: bool = True
    per_class: int = 0
    weight: float = 1.0
    smoothing: float = 0.0
    view: str = "strong"
    unlabelled_view: str = "strong"
    dropout: float = 0.5
    drop_path: float = 0.2

    uses_unlabelled: ClassVar[bool] = True

    @property
    def least_confidence(self) -> float:
        return self.threshold

    def __post_init__(self) -> None:
        for name in ("rounds", "per_class"):
            if getattr(self, name) < 0:
                raise UsageError(f"--method.{name.replace('_', '-')} must be at least 0")

    def network(self, number: int, teacher: str) -> str:
        """The network of student ``number`` (from 1)."""
        names = [name.strip() for name in self.students.split(",") if name.strip()]
        return names[min(number, len(names)) - 1] if names else teacher


def noisy_student(stage: Stage, workshop: Workshop) -> Fitted:
    """A teacher on the labelled pictures, then ``rounds`` students; time and steps are shared equally.

    Every network is a stage of its own: a run that was killed goes on in the round that it was in.

    Raises:
        UsageError: there are rounds, but no unlabelled pictures, or a network that does not exist.
    """
    task, method = stage.task, stage.method
    if method.rounds and not len(task.unlabelled):
        raise UsageError(NO_UNLABELLED, fix="put pictures without labels into unlabeled/")
    training = shortened(stage.training, 1 / (method.rounds + 1))
    alone = Supervised(smoothing=method.smoothing, view=method.view)
    fitted = train_network(stage.part("teacher", method=alone, training=training), workshop)
    learn = PseudoLabel(
        threshold=0.0,  # the selection below has one
        hard=method.hard,
        weight=method.weight,
        smoothing=method.smoothing,
        view=method.view,
        unlabelled_view=method.unlabelled_view,
    )
    before: Tensor | None = None
    chain = [("teacher", fitted.logits)]
    for number in range(1, method.rounds + 1):
        p = fitted.logits(task.unlabelled).softmax(1)  # plain pictures, evaluation mode: no noise
        chosen = select(p, method, task.seed)
        network = method.network(number, training.backbone)
        noise = {"dropout": method.dropout, "drop_path": depth_rate(method, network)}
        student = stage.part(
            str(number), task=replace(task, unlabelled=task.unlabelled[chosen]), method=learn,
            training=replace(training, backbone=network, **noise), tables={"target": p[chosen]},
        )  # fmt: skip
        workshop.labelled(student.name, task.unlabelled[chosen], p[chosen].argmax(1))
        workshop.tell(report(number, p, chosen, before, task))
        if number == 1:
            warn_of_smaller(method, training, task, workshop)
        # its start is learnt from all pictures, not from the chosen ones alone
        student = replace(student, start=started(replace(student, task=task), workshop))
        fitted = train_network(student, workshop)
        before = p.argmax(1)
        chain.append((f"student {number}", fitted.logits))
    return replace(fitted, before=tuple(chain[:-1]), name=chain[-1][0])


def select(p: Tensor, method: NoisyStudent, seed: int = 0) -> Tensor:
    """Which pseudo-labels a student sees (Xie et al. 2020, section 3.1, "data filtering and balancing").

    Args:
        p: the teacher's probabilities [m, K].

    Returns:
        Row numbers of p, in ascending order; a row may come repeatedly where its class has too few.

    Raises:
        UsageError: no pseudo-label is confident enough.
    """
    confidence, label = p.max(1)
    kept = (confidence >= method.threshold).nonzero()[:, 0]
    if not len(kept):
        raise UsageError(
            f"no pseudo-label reaches the confidence {method.threshold}", fix="lower --method.threshold"
        )
    if not method.balance:
        return kept
    wanted = method.per_class or max(1, len(kept) // p.shape[1])
    chosen = []
    for k in range(p.shape[1]):
        rows = kept[label[kept] == k]
        best = rows[confidence[rows].argsort(descending=True, stable=True)][:wanted]
        if len(best) and len(best) < wanted:
            words = np.random.Philox(key=key(seed, "duplicates", k)).random_raw(wanted - len(best))
            again = torch.from_numpy((words % np.uint64(len(best))).astype(np.int64))
            best = torch.cat([best, best[again]])
        chosen.append(best)
    return torch.cat(chosen).sort().values


def report(number: int, p: Tensor, chosen: Tensor, before: Tensor | None, task: Task) -> str:
    """A round's line: how many pseudo-labels, of which classes, how sure, and how many are new answers."""
    confidence, label = p.max(1)
    once = chosen.unique()
    count = torch.bincount(label[once], minlength=p.shape[1])
    few, many = int(count.argmin()), int(count.argmax())
    line = (
        f"round {number}: {len(once)} of {len(p)} unlabelled pictures chosen, mean confidence "
        f"{confidence[once].mean():.2f}; "
        f"{task.classes[few]} {int(count[few])} to {task.classes[many]} {int(count[many])}"
    )
    if len(chosen) > len(once):
        line += f"; {len(chosen) - len(once)} repeats"
    if before is not None:
        line += (
            f"; {100 * (label != before).double().mean():.1f} % of the answers differ from the last round's"
        )
    return line


def depth_rate(method: NoisyStudent, network: str) -> float:
    """The rate of stochastic depth that this network can have."""
    entry = BACKBONES.get(network)
    return method.drop_path if entry is None or entry.skips else 0.0


def warn_of_smaller(method: NoisyStudent, training: Training, task: Task, workshop: Workshop) -> None:
    """Tell of a student that is smaller than its teacher: the method wants equal or larger ones."""
    names = [training.backbone, *(method.network(i, training.backbone) for i in range(1, method.rounds + 1))]
    sizes = [
        sum(
            p.numel()
            for p in create(name, n_classes=task.n_classes, size=training.size or None, seed=0).parameters()
        )
        for name in names
    ]
    for i in range(1, len(names)):
        if sizes[i] < sizes[i - 1]:
            workshop.tell(
                f"student {i} ({names[i]}, {sizes[i]:,} weights) is smaller than its teacher ({names[i - 1]}, "
                f"{sizes[i - 1]:,}): students of equal or larger size learn better"
            )
