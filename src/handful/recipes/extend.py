"""New classes for a trained classifier, without its old pictures.

A network that was trained is trained further by Learning without Forgetting; a head on frozen features gets new rows.
Beside it stand plain fine-tuning and feature extraction.

Legend: n labelled pictures of the new classes; O old and N new classes, in this order in every logits [n, O + N].
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from handful import parallel
from handful.augment.views import to_input
from handful.data.images import Images
from handful.inference.logits import evaluating, predict
from handful.methods.forgetting import LearningWithoutForgetting, Responses
from handful.methods.probe import LogisticRegression
from handful.models.classifier import Classifier
from handful.models.heads import Chain, JoinedHead, Likeness, NearestMean, NearestNeighbours
from handful.recipes.feature_space import answers, extracted
from handful.recipes.stage import Stage
from handful.recipes.task import RESERVE, Fitted, Task, Validation, Workshop
from handful.recipes.train import STEPS, Built, as_fitted, train
from handful.recipes.training import Training, usual_training
from handful.stats.calibration import fit_temperature

LWF, PLAIN, FIXED = "learning-without-forgetting", "fine-tuning", "feature-extraction"
TITLES = {LWF: "Learning without Forgetting", PLAIN: "plain fine-tuning", FIXED: "feature extraction"}
GIVEN_UP = 0.1  # of the new pictures may go to old classes
FOLDS = 3  # at most: each trains three networks


@dataclass(frozen=True)
class Old:
    """The classifier that is extended. It is only read.

    Attributes:
        n_classes: O.
        fingerprint: identifies its weights.
    """

    classifier: Classifier
    n_classes: int
    fingerprint: str

    @property
    def trains(self) -> bool:
        """Whether it is a network with a head of its own, and not a head on frozen features."""
        return self.classifier.head is None

    @property
    def comparable(self) -> bool:
        """Whether old and new classes are measured alike, so that one softmax over all needs no calibration."""
        return isinstance(_last(self.classifier.head), (NearestMean, NearestNeighbours))


def ways(old: Old) -> tuple[str, ...]:
    """What can be compared, the one that ships first. On frozen features nothing but the new rows trains."""
    return (LWF, PLAIN, FIXED) if old.trains else (FIXED,)


def further(old: Old, task: Task) -> Training:
    """How a trained network is trained further: at a small rate, without a moving average. The norms' statistics follow
    the new pictures' views where they once followed the old ones', and stay frozen where they came with published
    weights."""
    usual = usual_training(task, str(old.classifier.backbone_config["name"]))
    lr = usual.lr if usual.pretrained else 0.002
    return replace(usual, pretrained=False, precise_norms=False, ema=0.0, size=0, lr=lr)


def extended(old: Old, stage: Stage, workshop: Workshop, way: str) -> Fitted:
    """The classifier with the task's classes after its own, its heads as they come (``calibrate`` sets them side by
    side). The task numbers the new classes from 0; the method is ``LearningWithoutForgetting``."""
    task = stage.task
    if not old.trains:
        return _new_rows(old, task, workshop)
    network, config = warmed_up(old, task, workshop)
    if way == FIXED:
        return _gated(as_fitted(network, config, task, workshop, {}), task, workshop)
    method = replace(stage.method, lambda_old=0.0 if way == PLAIN else stage.method.lambda_old)
    head: Any = network.head
    head.old.requires_grad_(method.old_head_trains)
    roles = teacher(old, task, workshop, method)
    stage = replace(stage, method=method, origin=old.fingerprint, roles=roles)
    return _gated(train(stage, workshop, lambda done: Built(network, config)), task, workshop)


def _gated(fitted: Fitted, task: Task, workshop: Workshop) -> Fitted:
    """A trained network whose joined head knows the new pictures' likeness by its present features."""
    network: Any = fitted.classifier.backbone
    f = features(network, task.images, task.labelled, workshop.device)
    network.head.likeness = Likeness.of(f, task.y, task.n_classes).to(workshop.device)
    fitted.classifier.backbone_config["head"] = network.head.config()
    return fitted


def teacher(
    old: Old, task: Task, workshop: Workshop, method: LearningWithoutForgetting
) -> Mapping[str, nn.Module]:
    """Who answers for the old network: its recorded responses to the labelled pictures, or a frozen copy of it."""
    if method.lambda_old == 0:
        return {}
    network = copy.deepcopy(old.classifier.backbone).eval().requires_grad_(False).to(workshop.device)
    if method.responses == "live":
        return {"teacher": network}
    spec = old.classifier.spec
    said = predict(network, task.images, task.labelled, spec, device=workshop.device)
    return {"teacher": Responses(task.labelled, said)}


def warmed_up(old: Old, task: Task, workshop: Workshop) -> tuple[nn.Module, dict[str, Any]]:
    """The old network with a new head beside its own, trained to convergence with all else frozen: the rows are
    *solved* on the features of the labelled pictures, centred and divided by their mean length. Also returned: its
    configuration."""
    network = copy.deepcopy(old.classifier.backbone).requires_grad_(True)
    f = features(network, task.images, task.labelled, workshop.device)
    centre = f.mean(0)
    length = (f - centre).norm(dim=1).mean().clamp_min(1e-12)
    new: Any = LogisticRegression().fit((f - centre) / length, task.y, task.n_classes)
    with torch.no_grad():
        new.weight.div_(length)
        new.bias.sub_(new.weight @ centre)
    head = JoinedHead(network.head, new)  # type: ignore[arg-type]
    network.head = head
    n_classes = old.n_classes + task.n_classes
    return network, {**old.classifier.backbone_config, "n_classes": n_classes, "head": head.config()}


def features(network: nn.Module, images: Images, ids: Tensor, device: str = "cpu") -> Tensor:
    """Features of pictures by row number, in evaluation mode: float32 [n, D]."""
    spec: Any = network.spec
    with evaluating(network.to(device)):
        parts = [
            network(to_input(images.take(some).to(device), spec)).features.float().cpu()
            for some in ids.split(256)
        ]
    return torch.cat(parts).clone()


def _new_rows(old: Old, task: Task, workshop: Workshop) -> Fitted:
    """A head on frozen features with new rows; old ones stay as they are. Class means and stored examples are simply
    joined by more of their kind; any other head gets a logistic regression of the new classes at its side."""
    made = old.classifier
    before, last = _split(made.head)
    with torch.inference_mode():
        table = before(_frozen_table(old, task, workshop))
    x = table[task.labelled]
    head: nn.Module
    if isinstance(last, NearestMean):
        new: Any = NearestMean(x.shape[1], task.n_classes, last.metric, last.scale).fit(x, task.y)
        head = NearestMean(x.shape[1], old.n_classes + task.n_classes, last.metric, last.scale)
        head.means = torch.cat([last.means, new.means])
    elif isinstance(last, NearestNeighbours):
        options = last.config() | {"n_classes": old.n_classes + task.n_classes}
        head = NearestNeighbours(**{k: v for k, v in options.items() if k not in ("kind", "n_bank")})
        head.fit(torch.cat([last.bank, x]), torch.cat([last.labels, task.y + old.n_classes]))
    else:
        likeness = Likeness.of(x, task.y, task.n_classes)
        head = JoinedHead(copy.deepcopy(last), LogisticRegression().fit(x, task.y, task.n_classes), likeness)
    whole = Chain(*copy.deepcopy(before), head)
    classifier = Classifier(made.backbone, whole, made.backbone_config, mirror=made.mirror)
    if not isinstance(head, JoinedHead):
        classifier.temperature.copy_(made.temperature)
    return Fitted(classifier, answers(head, table))


def _split(head: nn.Module | None) -> tuple[Chain, nn.Module]:
    """What stands before the layer that knows the classes, and that layer."""
    assert head is not None
    parts = list(head) if isinstance(head, Chain) else [head]
    return Chain(*parts[:-1]), parts[-1]


def _last(head: nn.Module | None) -> nn.Module | None:
    return None if head is None else _split(head)[1]


def _frozen_table(old: Old, task: Task, workshop: Workshop) -> Tensor:
    """What the frozen backbone says of every picture of the task, [N, D]; made once per run."""
    key = ("extend", old.fingerprint)
    if key not in workshop.spaces:
        made = old.classifier
        if made.backbone_config["name"] == "pixels":
            table = features(made.backbone, task.images, torch.arange(len(task.images)))
        else:
            name = made.backbone_config["name"]
            table = extracted(name, made.backbone, task, workshop, key=old.fingerprint, mirror=made.mirror)
        workshop.spaces[key] = table
    found = workshop.spaces[key]
    assert isinstance(found, Tensor)
    return found


class Heads(NamedTuple):
    """How a new head stands beside the old one (``JoinedHead``): its temperature, the likeness's limit and spread."""

    temperature: float = 1.0
    limit: float = 0.0
    spread: float = 1.0


def held_out_logits(old: Old, stage: Stage, workshop: Workshop, way: str, n_folds: int) -> Tensor:
    """Logits [n, O + N] of every labelled picture by an extension that did not learn from it."""
    task = stage.task
    out = torch.zeros(len(task.y), old.n_classes + task.n_classes)
    for fold, held in enumerate(task.folds(n_folds)):
        part = replace(stage, task=task.without(held), name=f"{way}/0.{fold}")
        fitted = extended(old, part, workshop, way)
        out[held] = fitted.logits(task.labelled[held])
        workshop.progress(f"cross-validation of {TITLES[way]}", fold + 1, n_folds)
    return out


def fit_heads(logits: Tensor, y: Tensor, n_old: int, temperature_old: float) -> Heads:
    """Set a new head beside the old one by held-out pictures of the new classes.

    The temperature makes the new head's own probabilities fit. The limit is the smallest with which no more than
    ``GIVEN_UP`` of these pictures are answered by an old class; the spread is the standard deviation of their
    distances. More cannot be set without old pictures: the likelihood of new pictures alone grows with the limit
    without end, and how many old pictures a limit gives away cannot be seen in new ones.

    Args:
        logits: [n, O + N], of held-out pictures, the joined head as it comes.
        y: their new classes, numbered from 0.
        temperature_old: what divides the old logits.
    """
    old, new = logits[:, :n_old].double() / temperature_old, logits[:, n_old:].double()
    distance = -new.logsumexp(1)
    temperature = fit_temperature(new, y)
    spread = max(float(distance.std(correction=0)), 1e-3)
    lead = old.log_softmax(1).amax(1) - (new / temperature).log_softmax(1).amax(1)
    needed = (distance + spread * lead).sort().values  # the limit that each picture needs
    limit = float(needed[len(needed) - 1 - int(GIVEN_UP * len(needed))])
    return Heads(temperature, limit + 1e-3 * spread, spread)


def calibrate(fitted: Fitted, temperature_old: float, heads: Heads) -> None:
    """Set the two heads of an extension side by side, in place. Decisions within a head do not change."""
    made = fitted.classifier
    joined = _last(made.backbone.head if made.head is None else made.head)  # type: ignore[arg-type]
    assert isinstance(joined, JoinedHead) and joined.likeness is not None
    joined.temperatures.copy_(torch.tensor([temperature_old, heads.temperature]))
    joined.likeness.limit.fill_(heads.limit)
    joined.likeness.spread.fill_(heads.spread)


def side_by_side(logits: Tensor, n_old: int, temperature_old: float, heads: Heads) -> Tensor:
    """Logits [n, O + N] of a joined head as it comes, as it gives them once it is calibrated."""
    old, new = logits[:, :n_old] / temperature_old, logits[:, n_old:]
    likeness = (heads.limit + new.logsumexp(1, keepdim=True)) / heads.spread
    return torch.cat([old.log_softmax(1), (new / heads.temperature).log_softmax(1) + likeness], 1)


@dataclass(frozen=True)
class Attempt:
    """New classes added in one way.

    Attributes:
        held_out: calibrated logits [n, O + N] of new pictures that it did not learn from; None where there are none.
        heads: None where old and new classes are measured alike.
    """

    fitted: Fitted
    held_out: Tensor | None
    heads: Heads | None
    seconds: float


@dataclass(frozen=True)
class Extension:
    """Every way that was tried; the first ships.

    Attributes:
        truth: classes of the held-out pictures, numbered over all [n].
        n_folds: of the cross-validation that held them out; 0: they are the validation part.
        steps: of each training; 0 where nothing trained.
    """

    attempts: dict[str, Attempt]
    truth: Tensor
    n_folds: int
    steps: int


def add_classes(
    old: Old,
    stage: Stage,
    workshop: Workshop,
    *,
    validation: Validation | None = None,
    only: Sequence[str] = (),
    seconds: float = 300.0,
    started: float | None = None,
) -> Extension:
    """Add the task's classes by Learning without Forgetting, and beside it by plain fine-tuning and feature extraction,
    all with the same number of steps; hold new pictures out to set the heads side by side.

    Args:
        stage: its task, method and training; where that names no ``steps``, ``seconds`` in all are shared among the
            trainings.
        validation: new pictures to hold out; without, cross-validation on the labelled ones.
        only: some of ``ways``; by default all.
        started: when the run began (``time.perf_counter``).
    """
    started = time.perf_counter() if started is None else started
    task, training = stage.task, stage.training
    n_folds = 0 if validation or task.n_folds < 2 else min(FOLDS, task.n_folds)
    wanted = tuple(only) or ways(old)
    trainings = sum(way != FIXED for way in wanted) * (n_folds + 1)
    if trainings and not training.steps:
        left = max(0.0, RESERVE * seconds - (time.perf_counter() - started))
        share = workshop.planned("seconds per training run", lambda: parallel.first_says(left / trainings))
        training = replace(training, seconds=share)
    attempts = {}
    truth = validation.y if validation else task.y
    for way in wanted:
        begin = time.perf_counter()
        workshop.tell(f"{TITLES[way]}: {task.n_classes} new classes beside {old.n_classes} old ones")
        stage = replace(stage, name=way, training=training)
        fitted = extended(old, stage, workshop, way)
        if way == LWF:  # whatever else trains, trains as many steps
            training = replace(training, steps=training.steps or int(workshop.plan[f"{STEPS}{LWF}"]))
            stage = replace(stage, training=training)
        if validation:
            held = fitted.logits(validation.rows)
        elif n_folds:
            held = held_out_logits(old, stage, workshop, way, n_folds)
        else:  # a class has a single picture: those that were learnt must do
            held = fitted.logits(task.labelled)
        heads = None
        if not old.comparable:
            temperature = float(old.classifier.temperature)
            heads = fit_heads(held, truth, old.n_classes, temperature)
            calibrate(fitted, temperature, heads)
            held = side_by_side(held, old.n_classes, temperature, heads)
        measured = held if validation or n_folds else None
        attempts[way] = Attempt(fitted, measured, heads, time.perf_counter() - begin)
    return Extension(attempts, truth + old.n_classes, n_folds, training.steps if old.trains else 0)


class Reading(NamedTuple):
    """Right or wrong of pictures of one side (old or new classes), bool [n]: by the head that is known to be asked,
    and by one softmax over all classes."""

    task_aware: Tensor
    joint: Tensor


def read(logits: Tensor, y: Tensor, n_old: int) -> Reading:
    """Both readings of logits [n, O + N] with true classes ``y`` [n], numbered over all; they must be all old or all
    new."""
    old = bool((y < n_old).all())
    own = logits[:, :n_old].argmax(1) if old else logits[:, n_old:].argmax(1) + n_old
    return Reading(own == y, logits.argmax(1) == y)
