"""Fashion-MNIST at 4 and 25 labels per class, pool 60,000: small networks by every method, in equally many steps.

The core methods are measured on three label draws (``--draws``), the others (``--rest``) on one; ``--long`` gives
three methods at 25 labels more steps, about as many as fit into 4 minutes a run on two quiet cores. Supervised
training has the same network, augmentation and steps; it is there weakly augmented, too, and so is label
propagation. A recipe of several stages shares the steps among them. ``RICH`` views are RandAugment and a square cut
out, as in FixMatch's paper, for the labels alone and for these methods.

The settings of the recipes come from USPS and MNIST (docs/methods/fixmatch.md), the ``RICH`` views from the paper. One
was made known by these pictures: that an ``anchor`` of 0.1 is too weak for ``mpl-reduced``.
"""

from __future__ import annotations

from benchmarks.common import arguments
from benchmarks.grids import keep, paired, sweep
from handful.recipes.table import RECIPES

LABELS, STEPS, LONG_STEPS = (4, 25), 600, 3000
RICH = "weak+randaugment+cutout"
BASELINES = (
    "supervised",
    "supervised:method.view=weak",
    "propagation@pixels",
    f"supervised:method.view={RICH}",
)
RICH_MATCHING = tuple(
    f"{name}:training.start=supervised,method.view={RICH},method.strong_view={RICH}"
    for name in ("fixmatch", "uda", "adamatch")
)
CORE = (
    *BASELINES,
    "pseudo-label",
    "uda",
    "fixmatch:training.start=supervised",
    RICH_MATCHING[0],
    "fixmatch",
    "noisy-student",
    "mpl",
    "mpl:method.feedback_weight=0.0",
)
REST = (
    "supervised",
    "propagation@pixels",
    "pi-model",
    "mean-teacher",
    "vat",
    "mixmatch",
    "flexmatch",
    "freematch",
    "softmatch",
    "adamatch",
    "mpl-reduced",
)
LONG = (*BASELINES, *RICH_MATCHING)


def contender(text: str, steps: int) -> str:
    """A recipe of the table with its steps."""
    name = text.partition(":")[0].partition("@")[0]
    if not RECIPES[name].trains:
        return text
    return f"{text}{',' if ':' in text else ':'}training.steps={steps}"


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--steps", type=int, default=0, help="of every network; 0: the part's own")
    parser.add_argument("--draws", type=int, default=3, help="label draws of the core methods")
    parser.add_argument("--labels", type=int, nargs="+", default=[], help="per class; none: the part's own")
    parser.add_argument("--pool", type=int, default=0, help="pictures to learn from; 0: all 60,000")
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--rest", action="store_true", help="the other methods, on one draw")
    part.add_argument("--long", action="store_true", help="three methods at 25 labels, in more steps")
    given = parser.parse_args()
    name = "fashion_rest" if given.rest else "fashion_long" if given.long else "fashion"
    names = {"fashion": CORE, "fashion_rest": REST, "fashion_long": LONG}[name]
    steps = given.steps or (LONG_STEPS if given.long else STEPS)
    labels = given.labels or (LABELS[1:] if given.long else LABELS)
    recipes = tuple(contender(text, steps) for text in names)
    c = sweep(
        name, "fashion_mnist", given.data_root, pool=given.pool, recipes=recipes, labels=tuple(labels),
        seeds=1 if given.rest else given.draws,
    )  # fmt: skip
    keep(
        name,
        c,
        paired(c, [contender(text, steps) for text in BASELINES if text in names]),
        steps=steps,
        pool=given.pool or 60_000,
    )


if __name__ == "__main__":
    main()
