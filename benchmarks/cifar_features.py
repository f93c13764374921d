"""CIFAR-10 (JPEG set) at 1, 4, 25, 100 and 400 labels per class: recipes on frozen EfficientNet-Lite0 features, small
networks from scratch and the automatic choice.

The pool is a fixed sample of 20,000 of the 50,000 training pictures, the test part is whole. The prior that ``auto``
uses leaves CIFAR-10 out. Networks from scratch train for 60 steps, the automatic choice has 20 seconds.
"""

from __future__ import annotations

from benchmarks.common import arguments
from benchmarks.grids import keep, sweep

CHEAP = ("propagation@lite0", "propagation@pixels")
NETWORKS = ("pseudo-label@lite0:training.steps=60", "auto")


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--only-cheap", action="store_true", help="recipes on frozen features alone")
    parser.add_argument("--more", nargs="*", default=[], help="further recipes")
    given = parser.parse_args()
    recipes = (*CHEAP, *given.more, *(() if given.only_cheap else NETWORKS))
    c = sweep(
        "cifar_features", "cifar10", given.data_root, pool=20_000, recipes=recipes, labels=(1, 4, 25, 100, 400),
        seeds=5, seconds=20, without_priors=("cifar10",),
    )  # fmt: skip
    keep("cifar_features", c, pool=20_000)


if __name__ == "__main__":
    main()
