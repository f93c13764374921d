"""Handwritten digits at 4 labels per class, 20 label draws: does the shipped model beat labelled-only training?

The prior that ``auto`` uses leaves the digits out. Networks train for a fixed number of steps (each with its
labelled-only twin), the automatic choice has 90 seconds, as in the demo.
"""

from __future__ import annotations

from benchmarks.common import arguments
from benchmarks.grids import keep, sweep

DRAWS = 20
SECONDS = 90
RECIPES = (
    "propagation@pixels",
    "pseudo-label@pixels:training.steps=300",
    "fixmatch@pixels:training.steps=300",
    "vat@pixels:training.steps=300",
    "auto",
)


def main() -> None:
    given = arguments(__doc__ or "").parse_args()
    c = sweep(
        "digits", "digits", given.data_root, recipes=RECIPES, labels=(4,), seeds=DRAWS, seconds=SECONDS,
        without_priors=("digits",),
    )  # fmt: skip
    chosen = [cell.chosen for cell in c.cells if cell.chosen]
    keep("digits", c, chosen={name: chosen.count(name) for name in sorted(set(chosen))})


if __name__ == "__main__":
    main()
