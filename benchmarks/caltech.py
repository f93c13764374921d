"""Caltech-101 (128 px, without Faces_easy) at 1, 4 and 16 labels per class: what is each technique worth in labels?

The prior that ``auto`` uses leaves Caltech-101 out. Networks are fine-tuned for 30 steps; the automatic
choice has 30 seconds.
"""

from __future__ import annotations

from benchmarks.common import arguments
from benchmarks.grids import keep, sweep

RECIPES = ("propagation", "fine-tune-pseudo@lite0:training.steps=30", "auto")


def main() -> None:
    given = arguments(__doc__ or "").parse_args()
    c = sweep(
        "caltech", "caltech101", given.data_root, recipes=RECIPES, labels=(1, 4, 16), seeds=5, seconds=30,
        without_priors=("caltech101",),
    )  # fmt: skip
    keep("caltech", c)


if __name__ == "__main__":
    main()
