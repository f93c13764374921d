"""What input size and mirroring are worth to a probe on frozen EfficientNet-Lite0 features.

Logistic regression (C = 10) on features centred by the pool's mean and L2-normalised, with 4 and 16 labels a
class: mean and standard deviation over label draws. Pictures are cut to squares from the files; where a file
is smaller than the size asked for, it is enlarged.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from benchmarks.common import InMemory, arguments, members, pictures, record
from handful import machine
from handful.inference.features import extract
from handful.models.backbones import create

SIZES = (128, 160, 192, 224)
DRAWS = 3


def load(data_root: Path, name: str, size: int) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Pictures, class numbers, and whether a picture is for training."""
    archive = data_root / name / f"{name}.zip"
    names = [n for n in members(archive) if "Faces_easy" not in n]
    if name == "office_caltech10":  # domain/class/file: the largest domains; every second file tests
        names = [n for n in names if n.split("/")[-3] in ("amazon", "caltech")]
        train = np.arange(len(names)) % 2 == 0
    else:  # split/class/file
        train = np.array([n.split("/")[-3] == "train" for n in names])
    classes = np.unique([n.split("/")[-2] for n in names], return_inverse=True)[1]
    return pictures(archive, size, names), classes, train


def probe(features: Tensor, classes: np.ndarray, train: np.ndarray, shots: int, seed: int) -> float:
    """Test accuracy with ``shots`` labels a class."""
    x = F.normalize(features - features[train].mean(0), dim=1).numpy()
    rng = np.random.default_rng(seed)
    chosen = np.concatenate(
        [rng.permutation(np.flatnonzero(train & (classes == k)))[:shots] for k in np.unique(classes)]
    )
    model = LogisticRegression(C=10, max_iter=200, tol=1e-3).fit(x[chosen], classes[chosen])
    return float(model.score(x[~train], classes[~train]))


def main() -> None:
    options = arguments(str(__doc__)).parse_args()
    machine.tune_allocator()
    machine.set_threads()
    rows: list[dict[str, Any]] = []
    backend = ""
    for data in ("caltech101", "office_caltech10"):
        for size in SIZES:
            x, classes, train = load(options.data_root, data, size)
            net = create("lite0", pretrained=True, size=size)
            began = time.perf_counter()
            plain, backend = extract(net, InMemory(x))
            seconds = time.perf_counter() - began
            both = (plain + extract(net, InMemory(x.flip(3)), backend=backend).values) / 2
            for mirror, values in ((False, plain), (True, both)):
                row: dict[str, Any] = {"data": data, "size": size, "mirror": mirror}
                row["pictures_per_second"] = len(x) / seconds / (1 + mirror)
                for shots in (4, 16):
                    scores = [probe(values, classes, train, shots, seed) for seed in range(DRAWS)]
                    row[f"accuracy_{shots}"] = float(np.mean(scores))
                    row[f"sd_{shots}"] = float(np.std(scores, ddof=1))
                rows.append(row)
            record(
                "feature_size", rows, backend=backend, seeds=list(range(DRAWS))
            )  # a stopped run keeps these


if __name__ == "__main__":
    main()
