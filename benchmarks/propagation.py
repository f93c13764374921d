"""Label propagation against plain regression, before and after its defaults were chosen.

``python -m benchmarks.propagation`` measures three heads on frozen features, all on the same label draws: logistic
regression on the labelled pictures, label propagation with its first settings, and with the default ones. The
defaults were chosen on these data sets with draws 0 to 4; the table is of draws 5 to 9, which took no part. It says
what the choice is worth on new labels, not on new data sets: tf_flowers and digits are kept for that.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import InMemory, arguments, record
from benchmarks.datasets import DATASETS
from handful.api import cache_folder
from handful.augment.views import to_input
from handful.data.images import from_array
from handful.data.split import draw
from handful.inference.features import extract
from handful.methods.label_propagation import LabelPropagation, affinity
from handful.methods.probe import LogisticRegression
from handful.models.backbones import create
from handful.models.classifier import PixelComponents
from handful.models.heads import Centre
from handful.randomness import permutation

PIXELS = ("mnist", "usps", "fashion_mnist")
PHOTO = ("cifar10", "caltech101", "office-amazon", "office-caltech", "office-webcam")
POOL_LIMIT = 10_000
TEST_LIMIT = {"cifar10": 2000}
LABELS = (1, 4, 16, 64)
DRAWS = range(5, 10)
OLD = LabelPropagation(neighbours=10, power=3.0, alpha=0.9, iterations=20, prior=0, C=10.0, keep=1.0, cap=0)
NEW = LabelPropagation()


class Table(NamedTuple):
    """Features of pool [N, D] and test part, centred on the pool and of length 1, with class numbers."""

    pool: Tensor
    y_pool: Tensor
    test: Tensor
    y_test: Tensor


def table(name: str, root: Path, cache: Path) -> Table:
    """The features of a data set; a large pool or test part is sampled."""
    data = DATASETS[name](root)
    pool = np.sort(data.pool[permutation(len(data.pool), "study pool")[:POOL_LIMIT]])
    limit = TEST_LIMIT.get(name, len(data.test))
    test = np.sort(data.test[permutation(len(data.test), "study test")[:limit]])
    x = data.images.take(np.concatenate([pool, test]))
    if name in PIXELS:
        backbone = PixelComponents(data.images.channels, data.images.side, 64)
        some = np.sort(permutation(len(pool), "components")[:5000])
        backbone.fit(to_input(x[some], backbone.spec))
        raw = torch.cat([backbone(to_input(part, backbone.spec)).features for part in x.split(4096)])
    else:
        network = create("lite0", n_classes=0, pretrained=True)
        key = from_array(x.numpy()).fingerprint
        raw, _ = extract(network, InMemory(x), key=f"lite0 {key}", cache=cache, mirror=True)
    centre = Centre(raw.shape[1]).fit(raw[: len(pool)])
    rows = centre(raw)
    y = torch.from_numpy(data.y)
    return Table(rows[: len(pool)], y[pool], rows[len(pool) :], y[test])


def measure(t: Table, per_class: int) -> dict[str, list[float]]:
    """Test accuracy (%) of each head, a figure a draw."""
    n_classes = int(t.y_pool.max()) + 1
    graph = affinity(t.pool, NEW.neighbours, NEW.power)  # the old settings have the same one
    found: dict[str, list[float]] = {"logistic": [], "old": [], "new": []}
    for seed in DRAWS:
        seeds = torch.from_numpy(draw(t.y_pool.numpy(), per_class, seed))
        y = t.y_pool[seeds]
        heads = {
            "logistic": LogisticRegression().fit(t.pool[seeds], y, n_classes),
            "old": OLD.fit(t.pool, seeds, y, n_classes, graph=graph),
            "new": NEW.fit(t.pool, seeds, y, n_classes, graph=graph),
        }
        for key, head in heads.items():
            with torch.inference_mode():
                right = head(t.test).argmax(1) == t.y_test
            found[key].append(100 * right.double().mean().item())
    return found


def row(name: str, per_class: int, found: dict[str, list[float]]) -> dict[str, Any]:
    """Mean and standard deviation over the draws of each head, and of new minus old."""
    new, old = np.array(found["new"]), np.array(found["old"])
    figures: dict[str, Any] = {"data": name, "labels": per_class}
    for key, values in {**found, "new - old": new - old}.items():
        figures[key] = round(float(np.mean(values)), 2)
        figures[f"{key} sd"] = round(float(np.std(values, ddof=1)), 2)
    return figures


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--threads", type=int, default=1, help="more are slower where the machine is shared")
    parser.add_argument("--only", nargs="*", default=[*PIXELS, *PHOTO], help="data sets")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows: list[dict[str, Any]] = []
    for name in given.only:
        t = table(name, given.data_root, cache_folder() / "features")
        smallest = int(torch.bincount(t.y_pool).min())
        for per_class in LABELS:
            if per_class < smallest:  # else nothing, or next to nothing, is left unlabelled
                rows.append(row(name, per_class, measure(t, per_class)))
                print(rows[-1], flush=True)
    settings = {"old": asdict(OLD), "new": asdict(NEW), "logistic": asdict(LogisticRegression())}
    sample = {"pool at most": POOL_LIMIT, "test at most": TEST_LIMIT}
    note = "defaults chosen on draws 0 to 4 of the same data sets"
    record("propagation", rows, seeds="label draws 5 to 9", note=note, settings=settings, sample=sample)


if __name__ == "__main__":
    main()
