"""Screening of unlabelled pictures: strangers planted in the pool of tf_flowers, and classes in other shares than the
labels say.

USPS digits (enlarged, gray), pictures of office things or of Caltech-101 are hidden among some 2,900 flowers;
precision and recall of ``study.screening`` are those of its flags. For the shares, one class of flowers is thinned to a
tenth. The rule was set on draws 0 to 3 of digits and office things; Caltech-101 and the draws are fresh.
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
from handful.data.images import Images, from_array
from handful.data.split import draw
from handful.inference.features import extract
from handful.methods.probe import LogisticRegression
from handful.models.backbones import create
from handful.models.heads import Centre
from handful.recipes.feature_space import PHOTO_INPUT
from handful.stats.calibration import fit_temperature
from handful.study.screening import class_frequencies, screen

PLANTED, DRAWS, LABELS, SIDE = (30, 300), range(10, 15), (4, 16), 128


def features(images: Images) -> Tensor:
    """Lite0 features [N, D] as a run makes them."""
    table, _ = extract(
        create("lite0", pretrained=True, size=PHOTO_INPUT),
        images,
        key=f"lite0 {images.fingerprint}",
        cache=cache_folder() / "features",
        mirror=True,
    )
    return table


def as_in_a_run(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Features centred on the pool and of length 1, and what ``study.screening`` makes of them."""
    centre = Centre(raw.shape[1]).fit(raw)
    length = float((raw - centre.mean).norm(dim=1).mean())
    table = centre(raw)
    return table, table * length + centre.mean


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
    caltech = DATASETS["caltech101"](given.data_root)
    digits = F.interpolate(usps.images.take(torch.arange(400)).float(), size=SIDE, mode="bilinear")
    digits = digits.round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)
    table, y, k = features(flowers.images), flowers.y, len(flowers.classes)
    strangers = {
        "USPS": features(from_array(digits.numpy())),
        "office": features(office.images),
        "Caltech-101": features(caltech.images)[torch.from_numpy(caltech.test)],
    }
    cases = [("nothing", 0), *((name, count) for name in strangers for count in PLANTED)]
    rows: list[dict[str, Any]] = []
    for n in LABELS:
        for name, count in cases:
            for thin in (False, True) if not count else (False,):
                names = ("precision", "recall", "flagged", "mismatch", "true mismatch")
                found: dict[str, list[float]] = {key: [] for key in names}
                for seed in DRAWS:
                    rng = np.random.RandomState(seed)
                    labelled = flowers.pool[draw(y[flowers.pool], n, seed)]
                    rest = np.setdiff1d(flowers.pool, labelled)
                    if thin:
                        rest = rest[(y[rest] != 0) | (rng.rand(len(rest)) < 0.1)]
                    parts = [table[labelled], table[rest]]
                    if count:
                        others = strangers[name]
                        parts.append(others[rng.permutation(len(others))[:count]])
                    x, raw = as_in_a_run(torch.cat(parts))
                    x_l, x_u, t = x[: len(labelled)], x[len(labelled) :], torch.from_numpy(y[labelled])
                    with torch.no_grad():
                        logits = LogisticRegression().fit(x_l, t, k)(x_u)
                    p = (logits / held_out(x_l, t, k, seed)).softmax(1)
                    result = screen(raw[: len(labelled)], t, raw[len(labelled) :], p, "lite0")
                    among = class_frequencies(p[~result.strange], result.labelled)  # with few labels, too
                    off = float((among - result.labelled).abs().sum() / 2)
                    truth = torch.arange(len(x_u)) >= len(rest)
                    flagged, hits = int(result.strange.sum()), int((result.strange & truth).sum())
                    shares = torch.from_numpy(np.bincount(y[rest], minlength=k) / len(rest))
                    found["flagged"].append(flagged)
                    found["mismatch"].append(100 * off)
                    found["true mismatch"].append(100 * float((shares - result.labelled).abs().sum() / 2))
                    if count:
                        found["precision"] += [100 * hits / flagged] if flagged else []
                        found["recall"].append(100 * hits / count)
                means = {key: spread(values)["mean"] for key, values in found.items() if values}
                rows.append({"labels": n, "planted": f"{count} {name}", "one class thinned": thin, **means})
    record("screening", rows, seeds=f"label draws {DRAWS[0]} to {DRAWS[-1]}")


if __name__ == "__main__":
    main()
