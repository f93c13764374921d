"""The automatic choice: cheap candidates first, costly ones within the time, the best one by ``rule.RULE``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from handful import parallel
from handful.choose.evidence import HeldOut
from handful.choose.prior import PriorTable, prior_table
from handful.choose.rule import EVIDENCE_FROM, Verdict, decide
from handful.recipes.candidate import Candidate
from handful.recipes.table import Recipe, candidates, find, fit_candidate
from handful.recipes.task import RESERVE, Fitted, Task, Validation, Workshop
from handful.recipes.train import NO_UNLABELLED
from handful.stats.calibration import fit_temperature
from handful.stats.intervals import paired_difference
from handful.types import UsageError

CHEAP_REPEATS = 5  # of the cross-validation of candidates that take seconds
UPPER = 1.15  # a costly candidate is tried where its gain, this many standard errors above its mean, reaches the best


@dataclass
class Trial:
    """What became of one candidate.

    Attributes:
        candidate: what was tried.
        right: right/wrong [R, n] over the labelled pictures (or [1, n] over the validation part).
        logits, truth: held-out logits [n, K] of the first repeat with the true classes, for the temperature.
        seconds: spent on it.
        rounds: held-out logits [n, K] of the networks in a chain, by name, the last one's too (``Fitted.before``).
        stage: names its stages in the log and the plan; by default after the recipe.
    """

    candidate: Candidate
    right: np.ndarray | None = None
    logits: Tensor | None = None
    truth: Tensor | None = None
    seconds: float = 0.0
    note: str = ""
    rounds: dict[str, Tensor] = field(default_factory=dict)
    stage: str = ""

    def __post_init__(self) -> None:
        self.stage = self.stage or self.candidate.recipe

    @property
    def recipe(self) -> Recipe:
        """Its row of the table."""
        return find(self.candidate.recipe)

    @property
    def uses_unlabelled(self) -> bool:
        """Whether it looks at unlabelled pictures."""
        return self.recipe.uses_unlabelled or bool(self.candidate.init)

    def measure(self, held_out: HeldOut, budget: Budget) -> None:
        """Fill in what its held-out answers are."""
        trains = self.recipe.trains
        found = held_out.measure(
            self.candidate,
            self.stage,
            1 if trains or held_out.validation else CHEAP_REPEATS,
            seconds=budget.share() if trains else 0.0,
            left=budget.left,
        )
        self.right, self.logits, self.truth = found.right, found.logits, found.truth
        self.rounds, self.seconds = found.rounds, found.seconds

    def sentence(self) -> str:
        """How right it was."""
        assert self.right is not None
        share = f"{100 * self.right.mean():.1f} % of the held-out labelled pictures right"
        return f"{self.stage}@{self.candidate.on}: {share} ({self.seconds:.1f} s)"


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


@dataclass
class Budget:
    """The time of a choice, as the first process's clock has it; what follows from it is planned once.

    Attributes:
        seconds: for everything, from ``started`` (``time.perf_counter``) on.
        trainings: of networks, that share it.
    """

    workshop: Workshop
    seconds: float
    started: float
    trainings: int

    def left(self) -> float:
        """Seconds that there are still, less a reserve for predictions and the report."""
        return max(0.0, RESERVE * self.seconds - (time.perf_counter() - self.started))

    def share(self) -> float:
        """Seconds for each training: what the cheap candidates left."""
        return self._planned("seconds per training run", lambda: self.left() / self.trainings)

    def last(self) -> float:
        """Seconds for training what ships: all that is left."""
        return self._planned("seconds of the last training run", lambda: max(self.share(), self.left()))

    def _planned(self, name: str, seconds: Callable[[], float]) -> float:
        return float(self.workshop.planned(name, lambda: parallel.first_says(seconds())))


def choose(
    task: Task,
    workshop: Workshop,
    *,
    seconds: float = 300.0,
    validation: Validation | None = None,
    only: Candidate | None = None,
    among: Sequence[Candidate] = (),
    prior: PriorTable | None = None,
    started: float | None = None,
) -> Outcome:
    """Try candidates, choose, train the chosen one on all labelled pictures, calibrate it.

    Args:
        seconds: for everything, from ``started`` on; networks share what the cheap candidates leave of it.
        validation: pictures to choose by; without, repeated stratified cross-validation on the labelled ones.
        only: no choice, just this one, measured in the same way; where it learns from unlabelled pictures (or starts
            from them, by ``training["init"]``), so is its labelled-only twin, with the same time or steps.
        among: the candidates; by default those that ``recipes.table`` names for such pictures.
        prior: what is known from other data sets; by default the table that ships with handful.
        started: when the run began (``time.perf_counter``); by default now.

    Raises:
        UsageError: ``only`` learns from unlabelled pictures and there are none.
    """
    prior = prior if prior is not None else prior_table()
    if only and not only.on:
        only = replace(only, on=find(only.recipe).space(task))
    tried = [only] if only else list(among) or candidates(task)
    trials = {candidate.key: Trial(candidate) for candidate in tried}
    if only:
        trials |= twin_of(only, task)
    usable = {k: t for k, t in trials.items() if len(task.unlabelled) or not t.recipe.uses_unlabelled}
    if only and only.key not in usable:
        raise UsageError(
            NO_UNLABELLED, fix="put pictures without labels into unlabeled/, or choose another --recipe"
        )
    held_out = HeldOut(task, workshop, validation)
    counts = validation is not None or task.fewest >= EVIDENCE_FROM
    costly = [trial for trial in usable.values() if trial.recipe.trains]
    trainings = (
        len(costly) * held_out.n_folds * held_out.possible + 1 + any(trial.candidate.init for trial in costly)
    )
    budget = Budget(workshop, seconds, time.perf_counter() if started is None else started, trainings)

    def verdict() -> Verdict:
        right = {k: t.right for k, t in usable.items() if t.right is not None} if counts else {}
        users = {k: t.recipe.uses_unlabelled for k, t in usable.items()}
        return decide(users, prior, task.kind, task.fewest, right, held_out.n_folds)

    for key, trial in trials.items():
        trains_by_choice = trial.recipe.trains and not only
        if key not in usable:
            trial.note = "not tried: there are no unlabelled pictures"
        elif trains_by_choice and budget.share() < trial.recipe.least_seconds:
            share = f"{budget.share():.0f} s for each training run would be too few"
            trial.note = f"not tried: {share}; give more --time"
            del usable[key]
        elif not held_out.possible:
            trial.note = "not measured: a class has a single label"
        elif trains_by_choice and counts and not may_lead(key, verdict()):
            trial.note = "not tried: by prior and evidence it had little chance"
        else:
            trial.measure(held_out, budget)
            workshop.tell(trial.sentence())

    final = None if only else verdict()
    # processes may differ in the last bit of a logit: the first one's choice holds for all
    keys = list(trials)
    chosen = keys[int(parallel.first_says(keys.index(final.chosen if final else tried[0].key)))]
    trial = trials[chosen]
    workshop.tell(f"training {chosen} on all {len(task.labelled)} labelled pictures")
    begin = time.perf_counter()
    # with a validation part it is trained already, in its share
    given = 0.0 if not trial.recipe.trains else budget.share() if validation else budget.last()
    fitted = fit_candidate(trial.candidate, task, workshop, stage=trial.stage, seconds=given)
    trial.seconds += time.perf_counter() - begin
    outcome = Outcome(fitted, chosen, trials, final, held_out.n_folds)
    if only and len(trials) > 1 and trial.right is not None:
        outcome.twin = next(key for key in trials if key != chosen)
        workshop.tell(outcome.help_of_unlabelled())
    if trial.logits is not None and trial.truth is not None:
        outcome.temperature = fit_temperature(trial.logits, trial.truth)
        fitted.classifier.temperature.fill_(outcome.temperature)
    return outcome


def may_lead(key: str, verdict: Verdict) -> bool:
    """Whether a candidate's gain may reach the best one's so far; the first process's figures say."""
    belief, best = verdict.beliefs[key], verdict.beliefs[verdict.chosen]
    return not parallel.first_says(belief.mean + UPPER * belief.sd < best.mean)


def twin_of(candidate: Candidate, task: Task) -> dict[str, Trial]:
    """What does the same with the labelled pictures alone, by its key, where there is such a thing."""
    training = {k: v for k, v in candidate.training.items() if k != "init"}
    name = find(candidate.recipe).labelled_only
    if name:
        on = "pixels" if find(name).on == "pixels" else candidate.on  # which looks at nothing else
        twin = Candidate(name, on, training=training)
        return {twin.key: Trial(twin)}
    if candidate.init:
        alone = f"{candidate.recipe}-alone"
        return {f"{alone}@{candidate.on}": Trial(replace(candidate, training=training), stage=alone)}
    return {}
