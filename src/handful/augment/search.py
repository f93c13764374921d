"""Which augmentation suits these pictures? Candidates, and the race that leaves the best of them.

The race is successive halving: every candidate is measured in round 1, the better half again in round 2 on other
folds, and so on; what a candidate is worth is its mean over the rounds it ran. It knows nothing of training: whoever
calls it says how one candidate is measured in one round.

Legend: n labelled pictures; right/wrong [n] of one round, every picture scored once while it was held out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from handful.augment.named import words
from handful.augment.operations import OPERATIONS
from handful.augment.randaugment import SCALES, RandAugment
from handful.randomness import permutation, uniform

SCALE = "torchvision"  # there, every operation grows with M
SINGLE_MAGNITUDES = (9.0, 20.0)
GRID = ((1, 9.0), (2, 9.0), (2, 15.0), (3, 15.0), (2, 22.0))  # (N, M) with the whole list
LEAST_LIST, MOST_LIST = 2, 6  # operations in a sampled list


@dataclass
class Tried:
    """One candidate and what was measured of it.

    Attributes:
        view: as ``augment.named`` reads it.
        rounds: right/wrong float [n] of each round that it ran.
    """

    view: str
    rounds: list[np.ndarray] = field(default_factory=list)

    @property
    def accuracy(self) -> float:
        """Mean over its rounds; 0 before the first."""
        return float(np.mean([r.mean() for r in self.rounds])) if self.rounds else 0.0


def candidates(base: str, *, seed: int, gray: bool = False) -> Iterator[str]:
    """Views to try, without end: the base alone; the whole list at a few (N, M); each operation alone, where it does
    anything to such pictures; then sampled lists with sampled N and M."""
    yield base
    names = tuple(
        name
        for name in SCALES[SCALE].strengths
        if name != "identity" and not (gray and OPERATIONS[name].color_only)
    )
    whole = names if gray else ()
    for n, m in GRID:
        yield _line(base, RandAugment(n, m, SCALE, whole))
    for m in SINGLE_MAGNITUDES:
        for name in names:
            if m == SINGLE_MAGNITUDES[0] or SCALES[SCALE].strengths[name]:
                yield _line(base, RandAugment(1, m, SCALE, (name,)))
    number = 0
    while True:
        u = uniform((3,), seed, "policy", number).tolist()
        size = LEAST_LIST + int(u[0] * (MOST_LIST - LEAST_LIST + 1))
        some = tuple(
            names[i] for i in sorted(permutation(len(names), seed, "policy", number)[:size].tolist())
        )
        yield _line(base, RandAugment(1 + int(3 * u[1]), float(round(3 + 27 * u[2])), SCALE, some))
        number += 1


def _line(base: str, policy: RandAugment) -> str:
    return f"{base}+{words('randaugment', policy)}"


def race(
    views: Sequence[str],
    measure: Callable[[str, int], np.ndarray],
    tell: Callable[[str], None] = lambda line: None,
) -> list[Tried]:
    """Successive halving until two are left; the base (the first of ``views``) runs every round beside them.

    Args:
        measure: (view, round) to right/wrong [n].

    Returns:
        All, best first: those that ran more rounds stand before those that were left behind.
    """
    running = [Tried(view) for view in dict.fromkeys(views)]
    base, everyone = running[0], list(running)
    for number in range(len(running).bit_length()):
        for tried in running:
            tried.rounds.append(measure(tried.view, number))
            tell(f"round {number + 1}: {100 * tried.rounds[-1].mean():.1f} %  {tried.view}")
        running.sort(key=lambda t: -t.accuracy)
        if len(running) <= 2:
            break
        running = running[: max(2, len(running) // 2)]
        if base not in running:
            running.append(base)
    return sorted(everyone, key=lambda t: (-len(t.rounds), -t.accuracy))


def measurements(n_views: int) -> int:
    """How often ``race`` measures, at most, for so many views."""
    total, running = 0, n_views
    for _ in range(n_views.bit_length()):
        total += running
        if running <= 2:
            break
        running = max(2, running // 2) + 1
    return total


def affordable(measurements_allowed: int) -> int:
    """The most views that ``race`` can try within so many measurements (at least 2)."""
    n = 2
    while measurements(n + 1) <= measurements_allowed:
        n += 1
    return n
