"""Every backbone in one table: parameters, arithmetic, receptive field, activation memory, speed, ONNX parity.

    python -m benchmarks.backbones [--only NAME;…] [--seconds 1200]

At the size each was made for: parameters, multiply-adds, theoretical receptive field of the last map, bytes of
activations that a training step keeps for each picture (all counted on shapes). At 64 px (at its own size where that is
32 px or less), so that the whole takes minutes: pictures a second in training (forward, backward, SGD; batch 16) and in
inference (batch 16), median of three after one that is not timed, on the threads that ``handful fit`` would take; and
the largest difference of a probability between the ONNX file and PyTorch. Networks of more than 150 million parameters
are counted only. About 12 minutes on one core; cell by cell.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.cells import Grid
from benchmarks.common import arguments, record
from handful.inference.model_file import Saved
from handful.inference.onnx import parity, to_onnx
from handful.models.backbones import BACKBONES, create
from handful.models.classifier import Classifier
from handful.models.count import activation_bytes, count
from handful.models.maps import building_blocks
from handful.models.receptive import fields
from handful.models.small import Net
from handful.report.model_page import sides

BATCH, LARGEST = 16, 150e6


def counted(name: str) -> dict[str, Any]:
    """What is read off the shapes, with 1000 classes for photographs and 10 for small pictures."""
    size = BACKBONES[name].size
    with torch.device("meta"):
        net = create(name, n_classes=1000 if size > 84 else 10)
    shape = (3, size, size)
    total = count(net, shape)
    maps = [n for n, s in building_blocks(net, shape).items() if len(s) == 4 and s[2] * s[3] > 1]
    known = fields(net, shape)
    seen = [known[n] for n in maps if n in known]
    return {
        "px": size,
        "parameters, M": round(total.parameters / 1e6, 3),
        "multiply-adds, G": float(f"{total.multiply_adds / 1e9:.4g}"),
        "receptive field, px": sides(seen[-1]) if seen else "–",
        "activations, MB a picture": float(f"{activation_bytes(net, (8, *shape)) / 8e6:.3g}"),
    }


def median_of(step: Any, rounds: int = 3) -> float:
    """Seconds of a step, after one that is not timed."""
    seconds = []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds[1:]))


def speed(net: Net, size: int) -> dict[str, float]:
    """Pictures a second in training and in inference."""
    x: Tensor = torch.randn(BATCH, 3, size, size).to(memory_format=torch.channels_last)
    y = torch.arange(BATCH) % 10
    net = net.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)

    def train() -> None:
        loss = F.cross_entropy(net(x).logits, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def infer() -> None:
        with torch.inference_mode():
            net(x)

    trained = median_of(train)
    net.eval()
    return {
        "training, pictures/s": float(f"{BATCH / trained:.3g}"),
        "inference, pictures/s": float(f"{BATCH / median_of(infer):.3g}"),
    }


def exported(name: str, net: Net, size: int) -> float:
    """The largest difference of a probability between the ONNX file and PyTorch."""
    config = {"name": name, "n_classes": 10, "channels": 3, "size": size}
    saved = Saved(
        Classifier(net.eval(), None, config).eval(), tuple("0123456789"), {"channels": 3, "side": size}, ""
    )
    return float(f"{parity(saved, to_onnx(saved)):.2g}")


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--only", default="", help="names, parted by ;")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no further network after so long")
    given = parser.parse_args()
    grid, begin = Grid("backbones"), time.perf_counter()
    names = [name for name in given.only.split(";") if name] or list(BACKBONES)
    for name in names:
        if grid.done(name) or time.perf_counter() - begin > given.seconds:
            continue
        found = counted(name)
        size = 64 if found["px"] > 32 else found["px"]
        if found["parameters, M"] * 1e6 < LARGEST:
            net = create(name, n_classes=10, size=size, seed=0)
            found |= {"timed at, px": size, **speed(net, size)}
            found["ONNX difference"] = exported(name, net, size)
        grid.add(name, **found)
    if all(grid.done(name) for name in BACKBONES):
        rows = [
            {"network": name, **{k: v for k, v in grid.cells[name].items() if k != "cell"}}
            for name in BACKBONES
        ]
        record("backbones", rows, batch=BATCH, threads=torch.get_num_threads())
    else:
        print("not all networks are measured: give the command again")


if __name__ == "__main__":
    main()
