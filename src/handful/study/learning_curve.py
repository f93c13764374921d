"""The user's own learning curve: how right is a recipe with fewer labels than there are, and what would more bring?

Cross-validation on the labelled pictures with 1, 2, 4, … of the labels of each class; ``stats.forecast`` carries the
curve on. Only recipes that take seconds are asked: a network's curve would cost a training run for every point.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from handful import parallel
from handful.choose.auto import Outcome
from handful.recipes.table import fit_candidate
from handful.recipes.task import Task, Workshop
from handful.stats.forecast import STOP, Forecast, forecast
from handful.study.draws import Source

LEAST = 3  # sizes that a forecast needs
AHEAD = (2, 3, 5)  # times the labels that there are
REPEATS, PATIENCE = 5, 20.0  # draws of the curve, fewer where they would take more seconds than this


@dataclass(frozen=True)
class OwnCurve:
    """What was measured on the labelled pictures, and what is expected beyond.

    Attributes:
        name: the candidate that was asked.
        sizes: labels per class; ``accuracy``: fractions, means over draws and folds.
        have: labels per class that there are (of the rarest class).
        expected: at ``have`` and at multiples of it.
    """

    name: str
    sizes: tuple[int, ...]
    accuracy: tuple[float, ...]
    have: int
    expected: Forecast

    def gain(self, row: int) -> tuple[float, float, float]:
        """Gain over what there is now, with its interval, at ``expected.sizes[row]``; row 0 is now."""
        f = self.expected
        return tuple(float(x[row] - f.gain[0]) for x in (f.gain, f.gain_low, f.gain_high))  # type: ignore[return-value]

    def sentence(self, row: int = 1) -> str:
        """ "40 more labels ≈ +3.1 points (1.2 … 5.0)"."""
        value, low, high = (100 * x for x in self.gain(row))
        return f"{self.more(row)} more labels ≈ {value:+.1f} points ({low:.1f} … {high:.1f})"

    def more(self, row: int) -> int:
        """Further labels in all."""
        return (self.expected.sizes[row] - self.have) * self.expected.n_classes

    def advice(self) -> str:
        """The sentences that a person reads: what more labels bring, and whether to stop."""
        rows = range(1, len(self.expected.sizes))
        worth = [row for row in rows if self.gain(row)[0] >= STOP]
        last = rows[-1]
        start = f"Going by {self.name} on your own labelled pictures: "
        if not worth:
            most = self.gain(last)[2]
            end = (
                "better stop labelling"
                if most < STOP
                else f"at most {100 * most:.1f}, so probably not worth it"
            )
            return f"{start}{self.more(last)} more labels are expected to bring less than one point; {end}."
        row = worth[0]
        sure = "" if self.gain(row)[1] > 0 else ", though no gain at all is possible too"
        further = f"; {self.sentence(last)}" if last != row else ""
        return f"{start}{self.sentence(row)}{further}{sure}."


def sizes_up_to(most: int) -> tuple[int, ...]:
    """Powers of two and ``most`` itself; few get a 3 in between: 1, 2, 3 or 1, 2, 3, 4, 6 or 1, 2, 4, 8, 12."""
    powers = {2**i for i in range(most.bit_length())} | {most} if most else set()
    return tuple(sorted(powers | ({3} if 3 <= most < 8 else set())))


def own_curve(task: Task, workshop: Workshop, outcome: Outcome) -> OwnCurve | None:
    """The curve of what was chosen, or, where that is a network, of the best candidate that takes seconds.

    None where the rarest class has too few labels for three sizes (from 4 on it works).
    """
    cheap = {k: t for k, t in outcome.trials.items() if t.right is not None and not t.recipe.trains}
    if not cheap:
        return None
    name = outcome.chosen if outcome.chosen in cheap else max(cheap, key=lambda k: cheap[k].right.mean())  # type: ignore[union-attr]
    trial = cheap[name]
    y = np.full(len(task.images), -1, dtype=np.int64)
    y[task.labelled.numpy()] = task.y.numpy()
    source = Source(task.images, y, task.pool().numpy(), np.empty(0, np.int64), task.classes)
    most = source.most_labels()
    sizes = sizes_up_to(most)
    if len(sizes) < LEAST or source.n_folds() < 2:
        return None

    def right(n: int, seed: int) -> float:
        total = 0
        for part, rows in source.tasks(n, seed):
            guess = fit_candidate(trial.candidate, part, workshop).logits(rows).argmax(1).numpy()
            total += int((guess == y[rows.numpy()]).sum())
        return total / len(task.labelled)

    begin = time.perf_counter()
    first = {n: right(n, 0) for n in sizes}
    taken = time.perf_counter() - begin
    repeats = workshop.planned(
        "draws of the learning curve",
        lambda: int(parallel.first_says(np.clip(PATIENCE // max(taken, 0.1), 1, REPEATS))),
    )
    curve = [[first[n], *(right(n, seed) for seed in range(1, repeats))] for n in sizes]
    accuracy = np.array(curve).mean(1)
    ahead = (task.fewest, *(task.fewest * times for times in AHEAD))
    expected = forecast(sizes, accuracy, n_classes=task.n_classes, ahead=ahead, n_test=len(task.labelled))
    return OwnCurve(name, sizes, tuple(map(float, accuracy)), task.fewest, expected)
