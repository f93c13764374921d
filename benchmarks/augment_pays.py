"""What augmentation is worth: none, weak, strong, RandAugment, RandAugment with MixUp or CutMix, on the same draws.

CIFAR-10 with 400 labels per class, a small residual network from random weights, 800 steps of 64 pictures (13 epochs)
and, as ``cifar10-long``, 3,200 (51 epochs, one draw); tf_flowers with 16 labels per class, EfficientNet-Lite0
fine-tuned for 100 steps of 16 (20 epochs). Three label draws, last averaged weights, no selection.

    python -m benchmarks.augment_pays [--only cifar10|cifar10-long|tf_flowers] [--steps N]
"""

from __future__ import annotations

from typing import Any

from benchmarks.common import arguments, record
from benchmarks.grids import add_cells, rows, sweep

VIEWS = {
    "none": "method.view=plain",
    "weak": "method.view=weak",
    "strong": "method.view=strong",
    "RandAugment": "method.view=weak+randaugment:n=2:m=9",
    "FixMatch's": "method.view=fixmatch-strong",
    "TrivialAugment": "method.view=weak+trivialaugment",
    "RandAugment + CutMix": "method.view=weak+randaugment:n=2:m=9,method.mix=cutmix",
    "RandAugment + MixUp": "method.view=weak+randaugment:n=2:m=9,method.mix=mixup,method.mix_alpha=0.2",
}
FEW = ("none", "weak", "RandAugment", "RandAugment + CutMix")
CASES = {
    "cifar10": ("cifar10", "supervised", 400, 800, "training.batch=64", FEW, 3),
    "cifar10-long": ("cifar10", "supervised", 400, 3200, "training.batch=64", FEW, 1),
    "tf_flowers": ("tf_flowers", "fine-tune@lite0", 16, 100, "", tuple(VIEWS), 3),
}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--only", choices=CASES, help="one of the three cases")
    parser.add_argument("--steps", type=int, default=0, help="instead of the usual number: for a quick try")
    parser.add_argument("--draws", type=int, default=0, help="instead of the usual number")
    given = parser.parse_args()
    found: list[dict[str, Any]] = []
    cells: list[list[Any]] = []
    for case, (data, recipe, labels, usual, more, views, draws) in CASES.items():
        if given.only not in (None, case):
            continue
        steps = given.steps or usual
        settings = {
            name: ",".join(filter(None, (f"{recipe}:{VIEWS[name]}", f"training.steps={steps}", more)))
            for name in views
        }
        c = sweep(
            f"augment_pays-{case}", data, given.data_root, recipes=tuple(settings.values()), labels=(labels,),
            seeds=given.draws or draws,
        )  # fmt: skip
        names = {tuple(sorted(text.partition(":")[2].split(","))): name for name, text in settings.items()}
        for row in rows(c):
            name = names.get(tuple(sorted(row["recipe"].partition(":")[2].split(","))), row["recipe"])
            found.append({"data": case, "augmentation": name, **row})
        cells += [[case, x.contender, x.labels, x.seed, x.accuracy, round(x.seconds, 1)] for x in c.cells]
    record("augment_pays", found, seeds="label draws 0 to 2; of cifar10-long 0")
    columns = ["data", "recipe", "labels", "draw", "accuracy", "seconds"]
    add_cells("augment_pays", {"columns": columns, "cells": cells})


if __name__ == "__main__":
    main()
