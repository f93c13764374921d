"""Label draws and folds: stratified, nested, paired, and the same on every machine."""

from __future__ import annotations

import numpy as np

from handful.randomness import permutation

MOST_FOLDS = 4  # of a cross-validation on labelled pictures


def draw(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Row numbers of ``per_class`` pictures of each class (all of them where a class has fewer).

    Draws are nested (those of 4 contain those of 1) and depend on nothing but the labels and the seed, so
    that every recipe is measured on the same pictures.

    Args:
        labels: int [N]; rows with -1 are never drawn.
    """
    chosen = []
    for k in range(int(labels.max()) + 1):
        rows = np.flatnonzero(labels == k)
        chosen.append(rows[permutation(len(rows), "draw", seed, k)][:per_class])
    return np.sort(np.concatenate(chosen))


def folds(labels: np.ndarray, n_folds: int, repeats: int, seed: int) -> list[np.ndarray]:
    """Repeated stratified cross-validation: ``repeats`` arrays of fold numbers, int64 [N].

    Class members are dealt to the folds in turn; each class starts at another fold, so that folds stay even.
    """
    result = []
    for repeat in range(repeats):
        fold_of = np.empty(len(labels), dtype=np.int64)
        start = 0
        for k in range(int(labels.max()) + 1):
            rows = np.flatnonzero(labels == k)
            order = permutation(len(rows), "folds", seed, repeat, k)
            fold_of[rows[order]] = (start + np.arange(len(rows))) % n_folds
            start += len(rows)
        result.append(fold_of)
    return result


def fold_count(labels: np.ndarray, n_classes: int) -> int:
    """Folds of a cross-validation on pictures with class numbers ``labels`` [n]: ``MOST_FOLDS``, or fewer where a class
    has fewer labels; 0 or 1 where none can be held out."""
    return min(MOST_FOLDS, int(np.bincount(labels, minlength=n_classes).min()))
