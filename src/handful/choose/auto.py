"""The automatic choice: cheap candidates first, costly ones within the time, the best one by ``choice.RULE``."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handful import parallel
from handful.choose.rule import EVIDENCE_FROM, PriorTable, Verdict, decide, prior_table
from handful.data.split import folds as deal
from handful.engine.checkpoint import read, write
from handful.recipes.table import Recipe, candidates, find, label
from handful.recipes.task import RESERVE, Fitted, Task, Validation, Workshop
from handful.recipes.train import NO_UNLABELLED
from handful.stats.calibration import fit_temperature
from handful.stats.intervals import paired_difference
from handful.types import UsageError

CHEAP_REPEATS = 5  # of the cross-validation of candidates that take seconds
AGAIN = 0.1  # of the time that is left goes at most to a candidate's repeats after the first
MOST_FOLDS = 4
HOPE = 0.15  # a costly candidate is tried if, by prior and evidence so far, it may lead by this many standard errors


@dataclass
class Trial:
    """What became of one candidate.

    Attributes:
        right: right/wrong [R, n] over the labelled pictures (or [1, n] over the validation part).
        logits, truth: held-out logits [n, K] of the first repeat with the true classes, for the temperature.
        seconds: spent on it.
        rounds: held-out logits [n, K] of the networks in a chain, by name, the last one's too (``Fitted.before``).
        init: the self-supervised start of its networks, "" for none.
        stage: names its stages in the log and the plan.
    """

    name: str
    on: str
    recipe: Recipe
    right: np.ndarray | None = None
    logits: Tensor | None = None
    truth: Tensor | None = None
    seconds: float = 0.0
    note: str = ""
    rounds: dict[str, Tensor] = field(default_factory=dict)
    init: str = ""
    stage: str = ""

    def __post_init__(self) -> None:
        self.stage = self.stage or self.name

    @property
    def uses_unlabelled(self) -> bool:
        """Whether it looks at unlabelled pictures."""
        return self.recipe.uses_unlabelled or bool(self.init)


@dataclass
class Outcome:
    """The classifier that ships and the story of how it was chosen.

    Attributes:
        twin: key of the trial that did the same as an asked-for recipe with the labelled pictures alone.
    """

    fitted: Fitted
    chosen: str
    trials: dict[str, Trial]
    verdict: Verdict | None = None
    n_folds: int = 0
    temperature: float = 1.0
    twin: str = ""

    def help_of_unlabelled(self) -> str:
        """A sentence: did the unlabelled pictures help, by the same held-out pictures as the twin?"""
        with_them, without = self.trials[self.chosen].right, self.trials[self.twin].right
        assert with_them is not None and without is not None
        repeats = min(len(with_them), len(without))
        gain = paired_difference(with_them[:repeats], without[:repeats])
        low, high = gain.interval
        words = "helped" if low > 0 else "hurt" if high < 0 else "may have helped or hurt"
        return (
            f"the unlabelled pictures {words}: {self.chosen} lies {100 * gain.value:+.1f} points from {self.twin}, "
            f"which had none (95 % interval {100 * low:+.1f} to {100 * high:+.1f})"
        )

    def probabilities(self, rows: Tensor) -> Tensor:
        """Calibrated class probabilities of pictures by row number: [n, K]."""
        return (self.fitted.logits(rows) / self.temperature).softmax(1)


def choose(
    task: Task,
    workshop: Workshop,
    *,
    seconds: float = 300.0,
    validation: Validation | None = None,
    only: tuple[str, str] | None = None,
    among: Sequence[tuple[str, str]] = (),
    method: Any = None,
    training: Mapping[str, Any] | None = None,
    prior: PriorTable | None = None,
    started: float | None = None,
) -> Outcome:
    """Try candidates, choose, train the chosen one on all labelled pictures, calibrate it.

    Args:
        seconds: for everything, from ``started`` on; networks share what the cheap candidates leave of it.
        validation: pictures to choose by; without, repeated stratified cross-validation on the labelled ones.
        only: (recipe, space): no choice, just this one, measured in the same way; where it learns from unlabelled
            pictures (or starts from them, by ``training["init"]``), so is its labelled-only twin, with the same time or
            steps.
        among: the candidates; by default those that ``recipes.table`` names for such pictures.
        method, training: overrides for ``only``.
        prior: what is known from other data sets; by default the table that ships with handful.
        started: when the run began (``time.perf_counter``); by default now.

    Raises:
        UsageError: ``only`` learns from unlabelled pictures and there are none.
    """
    started = time.perf_counter() if started is None else started
    prior = prior if prior is not None else prior_table()
    rarest = int(torch.bincount(task.y, minlength=task.n_classes).min())
    n_folds = 1 if validation else min(MOST_FOLDS, rarest)
    can_measure = validation is not None or rarest >= 2
    counts = validation is not None or rarest >= EVIDENCE_FROM
    pairs = [only] if only else list(among) or candidates(task)
    trials = {label(*pair): Trial(*pair, find(pair[0])) for pair in pairs}
    asked = label(*pairs[0])
    if only:
        trials[asked].init = started_by(training or {})
        trials |= twin_of(trials[asked], task)
    usable = {k: t for k, t in trials.items() if len(task.unlabelled) or not t.recipe.uses_unlabelled}
    if only and label(*only) not in usable:
        raise UsageError(
            NO_UNLABELLED, fix="put pictures without labels into unlabeled/, or choose another --recipe"
        )
    costly = [trial for trial in usable.values() if trial.recipe.trains]
    runs = len(costly) * (n_folds if can_measure else 0) + 1 + any(trial.init for trial in costly)

    def left() -> float:
        """Seconds that there are still, less a reserve for predictions and the report."""
        return max(0.0, RESERVE * seconds - (time.perf_counter() - started))

    def share() -> float:
        """Seconds for each training run: what the cheap candidates left."""
        return float(workshop.planned("seconds per training run", lambda: parallel.first_says(left() / runs)))

    def last() -> float:
        """Seconds for training what ships: all that is left; with a validation part it is trained already."""
        if validation is not None:
            return share()
        return float(
            workshop.planned(
                "seconds of the last training run", lambda: parallel.first_says(max(share(), left()))
            )
        )

    def options(trial: Trial, given: Callable[[], float] = share) -> dict[str, Any]:
        trains = {"seconds": given() if trial.recipe.trains else 0.0, **(training or {})}
        if not trial.init:
            trains.pop("init", None)
        return recipe_options(
            task, trial.name, trial.on, trains, method if trial.name == pairs[0][0] else None
        )

    def verdict() -> Verdict:
        right = {k: t.right for k, t in usable.items() if t.right is not None} if counts else {}
        users = {k: t.recipe.uses_unlabelled for k, t in usable.items()}
        return decide(users, prior, task.kind, rarest, right, n_folds)

    for key, trial in trials.items():
        if key not in usable:
            trial.note = "not tried: there are no unlabelled pictures"
            continue
        if trial.recipe.trains and not only and share() < trial.recipe.least_seconds:
            trial.note = (
                f"not tried: {share():.0f} s for each training run would be too few; give more --time"
            )
            del usable[key]
            continue
        if not can_measure:
            trial.note = "not measured: a class has a single label"
            continue
        if trial.recipe.trains and not only:
            now = verdict()
            belief, best = now.beliefs[key], now.beliefs[now.chosen]
            if counts and belief.mean + (1 + HOPE) * belief.sd < best.mean:
                trial.note = "not tried: by prior and evidence it had little chance"
                continue
        repeats = 1 if trial.recipe.trains or validation else CHEAP_REPEATS
        _measure(trial, key, task, workshop, validation, n_folds, repeats, options(trial), left)
        workshop.tell(_line(trial, key))

    final = None if only else verdict()
    chosen = final.chosen if final else asked
    trial = trials[chosen]
    begin = time.perf_counter()
    workshop.tell(f"training {chosen} on all {len(task.labelled)} labelled pictures")
    fitted = trial.recipe.run(task, workshop, on=trial.on, **options(trial, last), stage=trial.stage)
    trial.seconds += time.perf_counter() - begin
    outcome = Outcome(fitted, chosen, trials, final, n_folds)
    if only and len(trials) > 1 and trial.right is not None:
        outcome.twin = next(key for key in trials if key != asked)
        workshop.tell(outcome.help_of_unlabelled())
    if trial.logits is not None and trial.truth is not None:
        outcome.temperature = fit_temperature(trial.logits, trial.truth)
        fitted.classifier.temperature.fill_(outcome.temperature)
    return outcome


def started_by(training: Mapping[str, Any]) -> str:
    """The self-supervised start that training options ask for, "" for none."""
    init = str(training.get("init", "random"))
    return "" if init == "random" else init


def twin_of(trial: Trial, task: Task) -> dict[str, Trial]:
    """What does the same with the labelled pictures alone, by its key, where there is such a thing."""
    name = trial.recipe.labelled_only
    if name:
        on = "pixels" if find(name).on == "pixels" else trial.on  # which looks at nothing else
        return {label(name, on): Trial(name, on, find(name))}
    if trial.init:
        alone = f"{trial.name}-alone"
        return {label(alone, trial.on): Trial(trial.name, trial.on, trial.recipe, stage=alone)}
    return {}


def recipe_options(
    task: Task, name: str, on: str, training: Mapping[str, Any], method: Any = None
) -> dict[str, Any]:
    """Keyword arguments of a recipe's function: its default training with some fields changed."""
    chosen: dict[str, Any] = {} if method is None else {"method": method}
    if find(name).trains:
        chosen["training"] = find(name).training_for(task, on, training)
    return chosen


def _measure(
    trial: Trial,
    key: str,
    task: Task,
    workshop: Workshop,
    validation: Validation | None,
    n_folds: int,
    repeats: int,
    options: Mapping[str, Any],
    left: Callable[[], float] = lambda: math.inf,
) -> None:
    """Fill in ``trial.right`` and the held-out logits; a result that a killed run left is taken up.

    The cross-validation is repeated as often as a share of the time that is ``left`` after the first allows.
    """

    def affordable(fold_seconds: float) -> int:
        """Repeats, the first one included; a fold that takes no time at all can be had as often as one likes."""
        again = AGAIN * left() / max(n_folds * fold_seconds, 1e-6)
        return 1 + int(parallel.first_says(min(repeats - 1.0, again)))

    path = workshop.folder / "stages" / f"measured-{key.replace(':', '_')}.safetensors"
    begin = time.perf_counter()
    if path.exists():
        saved = read(path)
        trial.right, trial.seconds = saved["right"].double().numpy(), saved["seconds"]
        trial.logits, trial.truth, trial.rounds = saved["logits"], saved["truth"], saved["rounds"]
        return
    if validation is not None:
        fitted = trial.recipe.run(task, workshop, on=trial.on, **options, stage=trial.stage)
        trial.logits, trial.truth = fitted.logits(validation.rows), validation.y
        trial.rounds = {name: logits(validation.rows) for name, logits in fitted.before}
        if fitted.before:
            trial.rounds[fitted.name] = trial.logits
        right = (trial.logits.argmax(1) == trial.truth).double().unsqueeze(0)
    else:
        rows = []
        for repeat, fold_of in enumerate(deal(task.y.numpy(), n_folds, repeats, task.seed)):
            if repeat == repeats:
                break
            held_out_logits = torch.zeros(len(task.y), task.n_classes)
            for fold in range(n_folds):
                fold_begin = time.perf_counter()
                held = torch.from_numpy(fold_of == fold)
                stage = f"{trial.stage}/{repeat}.{fold}"
                fitted = trial.recipe.run(task.without(held), workshop, on=trial.on, **options, stage=stage)
                held_out_logits[held] = fitted.logits(task.labelled[held])
                for name, logits in fitted.before if repeat == 0 else ():
                    known = trial.rounds.setdefault(name, torch.zeros(len(task.y), task.n_classes))
                    known[held] = logits(task.labelled[held])
                workshop.progress(
                    f"cross-validation of {key}", repeat * n_folds + fold + 1, repeats * n_folds
                )
            rows.append((held_out_logits.argmax(1) == task.y).double())
            if (
                repeat == 0 and repeats > 1
            ):  # by the last fold: the first ones may have made features and graphs
                spent = time.perf_counter() - fold_begin
                repeats = workshop.planned(f"repeats of {key}", partial(affordable, spent))
            if repeat == 0:
                trial.logits, trial.truth = held_out_logits, task.y
                if trial.rounds:
                    trial.rounds[fitted.name] = held_out_logits
        right = torch.stack(rows)
    trial.right = right.numpy()
    trial.seconds = time.perf_counter() - begin
    if parallel.is_first():
        found = {"logits": trial.logits, "truth": trial.truth, "rounds": trial.rounds}
        write(path, {"right": right, "seconds": trial.seconds, **found})


def _line(trial: Trial, key: str) -> str:
    assert trial.right is not None
    return f"{key}: {100 * trial.right.mean():.1f} % of the held-out labelled pictures right ({trial.seconds:.1f} s)"
