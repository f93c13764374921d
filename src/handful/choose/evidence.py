"""What the labelled pictures say of a candidate: held-out answers, and the difference of two candidates by them.

All figures are *differences of accuracy between two candidates on the same pictures*, never two accuracies
compared by eye. Two beliefs, each a mean with a standard deviation, combine by precision:
posterior = (m1 / s1^2 + m2 / s2^2) / (1 / s1^2 + 1 / s2^2).

Legend: n labelled pictures, R repeats of the cross-validation, K classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from handful import parallel
from handful.engine.checkpoint import read, write
from handful.recipes.candidate import Candidate
from handful.recipes.table import fit_candidate
from handful.recipes.task import Task, Validation, Workshop

AGAIN = 0.1  # of the time that is left goes at most to a candidate's repeats after the first


class Belief(NamedTuple):
    """A difference of accuracies: mean and standard deviation."""

    mean: float
    sd: float


def combine(a: Belief, b: Belief) -> Belief:
    """Precision-weighted average of two independent beliefs."""
    wa, wb = 1 / a.sd**2, 1 / b.sd**2
    return Belief((a.mean * wa + b.mean * wb) / (wa + wb), (wa + wb) ** -0.5)


def measured(a: np.ndarray, b: np.ndarray, n_folds: int) -> Belief:
    """Difference of two candidates from right/wrong arrays [R, n] of the same repeated cross-validation.

    Repeats are averaged per picture. The variance of the mean over pictures is enlarged by 1 + K / (K - 1) for K folds,
    because the folds share training pictures. Nadeau & Bengio (2003, sec. 3) take (1/J + n2/n1) S^2 for the variance
    of a mean over J splits, with n1 pictures to train on, n2 to test on, and S^2 the variance between the splits'
    means. In cross-validation J = K, n2/n1 = 1 / (K - 1), and S^2 = var(g) K / n, as a fold's mean is one over n / K
    pictures; so (1/K + 1/(K - 1)) S^2 = var(g) / n * (1 + K / (K - 1)). It is 7/3 at 4 folds, and 1 where a validation
    part takes the folds' place. The variance never falls below that of a single changed decision, so that few equal
    answers are not taken for certainty.
    """
    gain = a.mean(0) - b.mean(0)
    n = len(gain)
    if n < 2:
        return Belief(float(gain.mean()), 1.0)  # one picture says next to nothing
    variance = max(float(gain.var(ddof=1)), 1 / n) / n
    inflation = 1 + n_folds / (n_folds - 1) if n_folds > 1 else 1.0
    return Belief(float(gain.mean()), math.sqrt(variance * inflation))


@dataclass
class Evidence:
    """Held-out answers of one candidate.

    Attributes:
        right: right/wrong [R, n] over the labelled pictures (or [1, n] over the validation part).
        logits, truth: held-out logits [n, K] of the first repeat with the true classes, for the temperature.
        rounds: held-out logits [n, K] of the networks in a chain, by name, the last one's too (``Fitted.before``).
        seconds: that it took.
    """

    right: np.ndarray
    logits: Tensor
    truth: Tensor
    rounds: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class HeldOut:
    """Pictures to measure all candidates on: the validation part, or, without one, the labelled pictures by repeated
    stratified cross-validation."""

    task: Task
    workshop: Workshop
    validation: Validation | None = None

    @property
    def n_folds(self) -> int:
        """Of the cross-validation; 1 where a validation part takes its place."""
        return 1 if self.validation else self.task.n_folds

    @property
    def possible(self) -> bool:
        """Whether there is anything to measure on."""
        return self.validation is not None or self.task.n_folds > 1

    def measure(
        self,
        candidate: Candidate,
        stage: str,
        repeats: int = 1,
        *,
        seconds: float = 0.0,
        left: Callable[[], float] = lambda: math.inf,
    ) -> Evidence:
        """Train the candidate and look at its held-out answers; what a killed run has measured is taken up.

        Args:
            stage: names the trainings in the log and the plan.
            repeats: of the cross-validation, fewer where those after the first would take more than ``AGAIN`` of the
                seconds that are ``left`` then.
            seconds: of each training.
        """
        key = f"{stage}@{candidate.on}"
        path = self.workshop.folder / "stages" / f"measured-{key.replace(':', '_')}.safetensors"
        if parallel.first_says(path.exists()):  # a late process may find what the first has just written
            saved = read(path)
            return Evidence(**{**saved, "right": saved["right"].double().numpy()})
        begin = time.perf_counter()
        if self.validation is not None:
            found = self._by_validation(candidate, stage, seconds, self.validation)
        else:
            found = self._by_folds(candidate, stage, repeats, seconds, left)
        found.seconds = time.perf_counter() - begin
        if parallel.is_first():
            write(path, {**vars(found), "right": torch.from_numpy(found.right)})
        return found

    def _by_validation(
        self, candidate: Candidate, stage: str, seconds: float, validation: Validation
    ) -> Evidence:
        fitted = fit_candidate(candidate, self.task, self.workshop, stage=stage, seconds=seconds)
        logits = fitted.logits(validation.rows)
        rounds = {name: earlier(validation.rows) for name, earlier in fitted.before}
        if rounds:
            rounds[fitted.name] = logits
        right = (logits.argmax(1) == validation.y).double().unsqueeze(0).numpy()
        return Evidence(right, logits, validation.y, rounds)

    def _by_folds(
        self, candidate: Candidate, stage: str, repeats: int, seconds: float, left: Callable[[], float]
    ) -> Evidence:
        task, workshop, key = self.task, self.workshop, f"{stage}@{candidate.on}"
        first, rows, rounds = self._blank(), list[Tensor](), dict[str, Tensor]()
        while len(rows) < repeats:
            repeat = len(rows)
            out = self._blank() if repeat else first
            for fold, held in enumerate(task.folds(self.n_folds, repeat)):
                begin = time.perf_counter()
                place = f"{stage}/{repeat}.{fold}"
                fitted = fit_candidate(candidate, task.without(held), workshop, stage=place, seconds=seconds)
                out[held] = fitted.logits(task.labelled[held])
                for name, earlier in fitted.before if repeat == 0 else ():
                    rounds.setdefault(name, self._blank())[held] = earlier(task.labelled[held])
                done = repeat * self.n_folds + fold + 1
                workshop.progress(f"cross-validation of {key}", done, repeats * self.n_folds)
            rows.append((out.argmax(1) == task.y).double())
            # by the last fold: the first ones may have made features and graphs
            if repeat == 0 and repeats > 1:
                taken = self.n_folds * (time.perf_counter() - begin)
                repeats = workshop.planned(f"repeats of {key}", partial(_affordable, repeats, taken, left()))
        if rounds:
            rounds[fitted.name] = first
        return Evidence(torch.stack(rows).numpy(), first, task.y, rounds)

    def _blank(self) -> Tensor:
        return torch.zeros(len(self.task.y), self.task.n_classes)


def _affordable(repeats: int, taken: float, left: float) -> int:
    """Repeats of which each takes ``taken`` seconds, the first one included; what takes no time at all can be had as
    often as one likes."""
    return 1 + int(parallel.first_says(min(repeats - 1.0, AGAIN * left / max(taken, 1e-6))))
