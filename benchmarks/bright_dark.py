"""Learnt on bright pictures, tested on dark ones, with and without augmentation of the brightness.

The training part is the half of each class that is brighter (mean gray above the class's median), the test part the
darker half of the test pictures; for comparison the brighter half. CIFAR-10 with 100 labels per class, a small network
from random weights; tf_flowers with 16, EfficientNet-Lite0 fine-tuned. Three label draws. How far the halves are apart
is measured as ``handful inspect --against`` does, without its frozen features.

    python -m benchmarks.bright_dark [--only cifar10|tf_flowers] [--steps N]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import arguments, record
from benchmarks.datasets import DATASETS, Dataset
from benchmarks.grids import rows, sweep
from handful.data import gap as gaps
from handful.data.images import from_array

VIEWS = {
    "weak": "weak",
    "weak + brightness": "weak+brightness:low=0.2:high=1.2",
    "weak + brightness, added": "weak+brightness-add:low=-120:high=20",
    "weak + RandAugment": "weak+randaugment:n=2:m=9",
}
CASES = {
    "cifar10": ("supervised", 100, 400, "training.batch=64"),
    "tf_flowers": ("fine-tune@lite0", 16, 100, ""),
}
COMPARED = 1000  # pictures of each half that the gap is measured on


def brighter(data: Dataset) -> np.ndarray:
    """Whether each picture is brighter than the middle of its class and part: bool [N]."""
    gray = np.concatenate(
        [
            data.images.take(some).float().mean((1, 2, 3)).numpy()
            for some in torch.arange(len(data.y)).split(4096)
        ]
    )
    bright = np.zeros(len(data.y), bool)
    for part in (data.pool, data.test):
        for k in range(len(data.classes)):
            some = part[data.y[part] == k]
            bright[some] = gray[some] > np.median(gray[some])
    return bright


def half(name: str, root: Path, test_bright: bool) -> Dataset:
    """Bright pool; bright or dark test pictures."""
    data = DATASETS[name](root)
    bright = brighter(data)
    return data._replace(pool=data.pool[bright[data.pool]], test=data.test[bright[data.test] == test_bright])


for _name in CASES:  # a sweep opens its data by name
    for _word, _bright in (("bright", True), ("dark", False)):
        DATASETS[f"{_name}-to-{_word}"] = lambda root, n=_name, b=_bright: half(n, root, b)  # type: ignore[misc]


def apart(data: Dataset) -> dict[str, Any]:
    """How well pool and test can be told apart, and by how much their brightness differs."""
    figures, looks = [], []
    n = min(COMPARED, len(data.pool), len(data.test))
    for part in (data.pool, data.test):
        some = np.sort(np.random.RandomState(0).choice(part, n, replace=False))
        images = from_array(data.images.take(some).numpy())
        figures.append(gaps.measures(images, torch.arange(n)))
        looks.append(gaps.looks(images, torch.arange(n)))
    names = list(figures[0])
    features = [
        torch.cat([x, gaps.as_features(f, names)], 1) for x, f in zip(gaps.components(*looks), figures)
    ]
    found = gaps.gap((features[0], figures[0]), (features[1], figures[1]))
    light = next(shift for shift in found.shifts if shift.name == "brightness")
    return {
        "told apart": round(100 * found.accuracy.value, 1),
        "low": round(100 * found.accuracy.low, 1),
        "high": round(100 * found.accuracy.high, 1),
        "brightness learnt": round(light.first, 3),
        "brightness tested": round(light.second, 3),
        "shift in sd": round(light.effect.value, 2),
    }


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--only", choices=CASES)
    parser.add_argument("--steps", type=int, default=0, help="instead of the usual number: for a quick try")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    found: list[dict[str, Any]] = []
    for data, (recipe, labels, usual, more) in CASES.items():
        if given.only not in (None, data):
            continue
        for word in ("dark", "bright"):
            name = f"{data}-to-{word}"
            found.append({"data": name, "augmentation": "the gap", **apart(DATASETS[name](given.data_root))})
            training = ",".join(filter(None, (f"training.steps={given.steps or usual}", more)))
            settings = tuple(f"{recipe}:method.view={view},{training}" for view in VIEWS.values())
            c = sweep(
                f"bright_dark-{name}",
                name,
                given.data_root,
                recipes=settings,
                labels=(labels,),
                seeds=given.seeds,
            )
            for row in rows(c):
                view = row["recipe"].partition("method.view=")[2].partition(",")[0]
                words = next((w for w, v in VIEWS.items() if v == view), row["recipe"])
                found.append({"data": name, "augmentation": words, **row})
    record("bright_dark", found, seeds=f"label draws 0 to {given.seeds - 1}")


if __name__ == "__main__":
    main()
