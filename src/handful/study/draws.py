"""Pictures that labels are drawn from, paired and nested, for a comparison or a learning curve.

Legend: N pictures, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from handful.data.images import Images
from handful.data.split import draw, fold_count, folds
from handful.randomness import digest, key, permutation
from handful.recipes.task import Task


@dataclass(frozen=True)
class Source:
    """Pictures to draw labels from, and those to score on.

    Attributes:
        y: int64 [N], -1 where the class is not known.
        pool: row numbers that are learnt from; labels are drawn among those with a known class.
        test: row numbers to score on; without any, cross-validation on the labelled part of the pool.
        scored: which part ``test`` is.
        name: for messages, and so that the automatic choice leaves out what it knows of this set.
    """

    images: Images
    y: np.ndarray
    pool: np.ndarray
    test: np.ndarray
    classes: tuple[str, ...]
    name: str = "data"
    scored: str = "test"

    def limited(self, most: int) -> Source:
        """The same with a pool of at most ``most`` pictures, sampled once for all draws and recipes."""
        if not most or len(self.pool) <= most:
            return self
        some = np.sort(self.pool[permutation(len(self.pool), "pool")[:most]])
        return replace(self, pool=some)

    @cached_property
    def fingerprint(self) -> str:
        """Identifies pictures, labels and parts."""
        parts = (digest(torch.from_numpy(a)) for a in (self.y, self.pool, self.test))
        return f"{key(self.images.fingerprint, *parts, self.classes):016x}"

    @property
    def known(self) -> np.ndarray:
        """Row numbers of the pool whose class is known."""
        return self.pool[self.y[self.pool] >= 0]

    def n_folds(self) -> int:
        """Of the cross-validation where there is no test part."""
        return fold_count(self.y[self.known], len(self.classes))

    def most_labels(self) -> int:
        """The largest number of labels per class that every class can give."""
        counts = np.bincount(self.y[self.known], minlength=len(self.classes))
        if len(self.test):
            return int(counts.min())
        return int(counts.min() - math.ceil(counts.min() / max(self.n_folds(), 1)))

    def drawn(self, per_class: int, seed: int, among: np.ndarray | None = None) -> np.ndarray:
        """Row numbers of one draw, sorted: ``per_class`` of each class (all where a class has fewer)."""
        rows = self.known if among is None else among
        return rows[draw(self.y[rows], per_class, seed)]

    def tasks(self, per_class: int, seed: int) -> Iterator[tuple[Task, Tensor]]:
        """The tasks of one draw with the rows to score on: one with a test part, otherwise one a fold."""
        if len(self.test):
            yield self._task(self.drawn(per_class, seed), np.empty(0, np.int64), seed), _rows(self.test)
            return
        known = self.known
        fold_of = folds(self.y[known], self.n_folds(), 1, seed)[0]
        for fold in range(self.n_folds()):
            held = known[fold_of == fold]
            labelled = self.drawn(per_class, seed, known[fold_of != fold])
            yield self._task(labelled, held, seed), _rows(held)

    def _task(self, labelled: np.ndarray, held: np.ndarray, seed: int) -> Task:
        rest = np.setdiff1d(self.pool, np.concatenate([labelled, held]))
        y = _rows(self.y[labelled])
        return Task(self.images, _rows(labelled), y, _rows(rest), self.classes, _rows(held), seed)


def draws_table(
    source: Source, sizes: Sequence[int], seeds: Sequence[int]
) -> list[tuple[int, str, int, str]]:
    """(draw, class, rank, picture) of every labelled picture; at size n those of rank below n are labelled.

    Without a test part the labelled pictures of a fold are drawn among the others, so there is no single list.
    """
    if not len(source.test):
        return []
    rows = []
    for seed in seeds:
        taken: set[int] = set()
        rank = dict.fromkeys(range(len(source.classes)), 0)
        for size in range(1, max(sizes) + 1):
            for row in source.drawn(size, seed).tolist():
                if row not in taken:
                    taken.add(row)
                    k = int(source.y[row])
                    rows.append((seed, source.classes[k], rank[k], source.images.names[row]))
                    rank[k] += 1
    return rows


def _rows(a: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(a, dtype=np.int64))
