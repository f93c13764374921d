"""Screening of unlabelled pictures: strangers planted in the pool of tf_flowers, and classes in other shares than the
labels say.

300 USPS digits (enlarged, in gray) or 300 pictures of office things are hidden among about 2,900 flowers; precision and
recall of ``recipes.screen`` are those of its flags. For the shares, one class of flowers is thinned to a tenth.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.cells import spread
from benchmarks.common import arguments, record
from benchmarks.datasets import DATASETS
from handful.api import cache_folder
from handful.data.features import cached_features
from handful.data.images import Images, from_array
from handful.data.split import draw
from handful.losses.classify import fit_temperature
from handful.methods.probe import LogisticRegression
from handful.models.backbones import create
from handful.recipes.screen import screen
from handful.recipes.transfer import PHOTO_INPUT

PLANTED, DRAWS, LABELS, SIDE = 300, 5, (1, 4, 16), 128


def features(images: Images) -> Tensor:
    """Lite0 features [N, D] as a run makes them."""
    table, _ = cached_features(
        "lite0",
        create("lite0", pretrained=True, size=PHOTO_INPUT),
        images,
        fingerprint=images.fingerprint,
        cache=cache_folder() / "features",
        backend="auto",
        mirror=True,
    )
    return table


def length_one(x: Tensor) -> Tensor:
    """Centred on the pool, of length 1."""
    return F.normalize(x - x.mean(0), dim=1)


def held_out(x: Tensor, y: Tensor, n_classes: int, seed: int) -> float:
    """Temperature of a regression, by two folds of the labelled pictures."""
    fold = torch.from_numpy(np.random.RandomState(seed).permutation(len(y)) % 2).bool()
    if min(int(torch.bincount(y[f], minlength=n_classes).min()) for f in (fold, ~fold)) == 0:
        return 1.0
    logits = torch.zeros(len(y), n_classes)
    for part in (fold, ~fold):
        with torch.no_grad():
            logits[part] = LogisticRegression().fit(x[~part], y[~part], n_classes)(x[part])
    return fit_temperature(logits, y)


def main() -> None:
    given = arguments(__doc__ or "").parse_args()
    flowers = DATASETS["tf_flowers"](given.data_root)
    usps, office = DATASETS["usps"](given.data_root), DATASETS["office-caltech"](given.data_root)
    digits = F.interpolate(usps.images.take(torch.arange(400)).float(), size=SIDE, mode="bilinear")
    digits = digits.round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)
    table, y, k = features(flowers.images), flowers.y, len(flowers.classes)
    strangers = {
        "nothing": torch.empty(0, table.shape[1]),
        "USPS": features(from_array(digits.numpy())),
        "office": features(office.images),
    }
    rows: list[dict[str, Any]] = []
    for n in LABELS:
        for name, others in strangers.items():
            for thin in (False, True):
                found: dict[str, list[float]] = {
                    key: [] for key in ("precision", "recall", "flagged", "mismatch", "true")
                }
                for seed in range(DRAWS):
                    rng = np.random.RandomState(seed)
                    labelled = flowers.pool[draw(y[flowers.pool], n, seed)]
                    rest = np.setdiff1d(flowers.pool, labelled)
                    if thin:
                        rest = rest[(y[rest] != 0) | (rng.rand(len(rest)) < 0.1)]
                    planted = others[rng.permutation(len(others))[:PLANTED]]
                    x = length_one(torch.cat([table[labelled], table[rest], planted]))
                    x_l, x_u, t = x[: len(labelled)], x[len(labelled) :], torch.from_numpy(y[labelled])
                    with torch.no_grad():
                        logits = LogisticRegression().fit(x_l, t, k)(x_u)
                    result = screen(x_l, t, x_u, (logits / held_out(x_l, t, k, seed)).softmax(1))
                    truth = torch.arange(len(x_u)) >= len(rest)
                    hits = int((result.strange & truth).sum())
                    shares = torch.from_numpy(np.bincount(y[rest], minlength=k) / len(rest))
                    found["flagged"].append(int(result.strange.sum()))
                    found["mismatch"].append(100 * result.mismatch)
                    found["true"].append(100 * float((shares - result.labelled).abs().sum() / 2))
                    if len(planted):
                        found["precision"].append(100 * hits / max(1, int(result.strange.sum())))
                        found["recall"].append(100 * hits / len(planted))
                means = {key: spread(values)["mean"] for key, values in found.items() if values}
                rows.append({"labels": n, "planted": name, "one class thinned": thin, **means})
    record("screening", rows, seeds=f"label draws 0 to {DRAWS - 1}", planted=PLANTED)


if __name__ == "__main__":
    main()
