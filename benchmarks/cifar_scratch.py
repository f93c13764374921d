"""CIFAR-10 (JPEG files) from scratch, pool 50,000, whole test part, two label draws; SVHN is not in the data folder.

A small residual net (32 px, 1 million weights), 1,500 steps in all for each network or chain of networks, 32 labelled
and 128 unlabelled pictures a step, everything else as the recipes have it:

- ``few`` (25 labels per class): supervised, weakly and strongly augmented, UDA, FixMatch, Noisy Student, Meta Pseudo
  Labels. About 70 minutes on one thread of a processor with AMX that another job shares.
- ``many`` (400 per class, CIFAR-10-4K): supervised, UDA, FixMatch, Meta Pseudo Labels with and without the final
  fine-tuning; the same network on all 50,000 labels, 160 pictures a step, as many as the others see; and a list of
  regularisers of the weakly augmented net. About 90 minutes.

UDA, FixMatch and Meta Pseudo Labels start from a supervised net: neighbours in pixels, which label propagation goes
by, say little about photographs. They are there with the views of their recipes and with those of the papers
(``PAPER``): labelled pictures and the pictures that give the targets weakly augmented, the others by RandAugment and a
square cut out; FixMatch from random weights, too. Meta Pseudo Labels chooses no view but its labelled pictures'.
"""

from __future__ import annotations

from typing import Any

from benchmarks.common import arguments
from benchmarks.grids import keep, paired, rows, source, sweep

STEPS, RATIO, DRAWS = 1500, 4, 2
WEAK = "supervised:method.view=weak"
CORE = (
    "supervised",
    "uda:training.start=supervised",
    "fixmatch:training.start=supervised",
    "mpl:training.start=supervised",
)
PAPER = "method.view=weak,method.weak_view=weak,method.strong_view=weak+randaugment+cutout"
AS_IN_PAPERS = (
    *(f"{text},{PAPER}" for text in CORE[1:3]),
    f"fixmatch:training.start=random,{PAPER}",
    f"{CORE[3]},method.view=weak",
)
FEW = (WEAK, *CORE, *AS_IN_PAPERS, "noisy-student")
REGULARISERS = (
    WEAK,
    f"{WEAK},method.smoothing=0.1",
    f"{WEAK},method.mix=mixup",
    f"{WEAK},method.mix=cutmix",
    f"{WEAK},training.dropout=0.5",
    f"{WEAK},training.drop_path=0.2",
    "supervised:method.view=weak+randaugment",
)
MANY = (*CORE, *AS_IN_PAPERS, "mpl:training.start=supervised,method.tune_steps=0", *REGULARISERS)


def contender(text: str, steps: int, batch: int = 0) -> str:
    """A recipe with its steps."""
    settings = f"training.steps={steps},training.ratio={RATIO}" + (
        f",training.batch={batch}" if batch else ""
    )
    return f"{text}{',' if ':' in text else ':'}{settings}"


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("part", choices=("few", "many"))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--pool", type=int, default=0, help="pictures to learn from; 0: all 50,000")
    given = parser.parse_args()
    few, root, name = given.part == "few", given.data_root, f"cifar_{given.part}"
    options: dict[str, Any] = {"pool": given.pool, "seeds": given.draws}
    recipes = tuple(contender(text, given.steps) for text in (FEW if few else MANY))
    c = sweep(name, "cifar10", root, recipes=recipes, labels=(25 if few else 400,), **options)
    extra: list[dict[str, Any]] = []
    if not few:
        one = contender("supervised", given.steps, 32 * (1 + RATIO))
        labels = source("cifar10", root, given.pool).most_labels()
        every = sweep("cifar_all", "cifar10", root, recipes=(one,), labels=(labels,), **options)
        extra = [row for row in rows(every) if row["recipe"].startswith("supervised")]
    baselines = [contender(text, given.steps) for text in (WEAK, "supervised")]
    keep(name, c, paired(c, baselines) + extra, steps=given.steps, ratio=RATIO, pool=given.pool or 50_000)


if __name__ == "__main__":
    main()
