"""Degradation (He et al. 2016, figure 1): *training* error of plain and residual nets of 20 and 56 layers, with and
without batch norm, and how their gradients fare.

    python -m benchmarks.degradation [--data-root DIR] [--only NAME;…] [--steps 600] [--seconds 2400]

Fashion-MNIST, its first 10,000 training pictures, no augmentation; widths 8, 16, 32 (half of the paper's), batch 64,
SGD with momentum 0.9, weight decay 1e-4, rate 0.05 falling to 0 as a cosine, 600 steps, one seed after the other. Every
net gets the same batches. The error is that on all the pictures trained on, in evaluation mode: what a deeper net loses
here it has not overfitted. Where a loss is not finite the run ends, and the error is that of chance.

``flow``: the norm of the gradient at the first convolution's output over that at the last one's; 1e-6 means that next
to nothing arrives at the input. ``first weights``: the norm for the first convolution's weights. "glorot" starts with
half the variance of "he", as nets did before ReLUs were taken into account. About 30 minutes on one core; cell by cell,
and the same command goes on.
"""

from __future__ import annotations

import math
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.cells import Grid
from benchmarks.common import arguments, record
from benchmarks.datasets import fashion_mnist
from handful.models.cifar import CifarNet
from handful.models.paths import gradient_norms
from handful.randomness import generator

PICTURES, BATCH, WIDTH, RATE = 10_000, 64, 8, 0.05
SEEDS = (0, 1)


def nets() -> dict[str, dict[str, object]]:
    """The settings of ``CifarNet``, by name."""
    found: dict[str, dict[str, object]] = {}
    for depth in (20, 56):
        for skip in (False, True):
            kind = "residual" if skip else "plain"
            found[f"{kind}-{depth}"] = {"depth": depth, "skip": skip}
            found[f"{kind}-{depth}, no batch norm"] = {"depth": depth, "skip": skip, "norm": False}
        found[f"plain-{depth}, no batch norm, glorot"] = {
            "depth": depth,
            "skip": False,
            "norm": False,
            "init": "glorot",
        }
    return found


def gradient(net: CifarNet, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Gradient norm for the first convolution's weights, and flow at the first convolution over that at the last."""
    found = gradient_norms(net, x, y)[:-1]  # the head is linear
    return found[0].norm, found[0].flow / found[-1].flow if found[-1].flow > 0 else math.nan


def train(options: dict[str, object], seed: int, x: Tensor, y: Tensor, steps: int) -> dict[str, float]:
    """Gradients before, at half-way and at the end; training error in percent and loss at the end."""
    torch.manual_seed(seed)
    net = CifarNet(10, 1, 28, width=WIDTH, **options).to(memory_format=torch.channels_last)  # type: ignore[arg-type, call-overload]
    probe = slice(0, 128)
    figures = dict(zip(("first weights at start", "flow at start"), gradient(net, x[probe], y[probe])))
    optimizer = torch.optim.SGD(net.parameters(), RATE, momentum=0.9, weight_decay=1e-4)
    begin = time.perf_counter()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        rows = torch.randint(len(x), (BATCH,), generator=generator("degradation", seed, step))
        loss = F.cross_entropy(net(x[rows]).logits, y[rows])
        if not torch.isfinite(loss):
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step == steps // 2:
            figures["flow half-way"] = gradient(net, x[probe], y[probe])[1]
    else:
        net.eval()
        with torch.inference_mode():
            logits = torch.cat([net(part).logits for part in x.split(500)])
        figures["training error"] = float(100 * (logits.argmax(1) != y).double().mean())
        figures["training loss"] = float(F.cross_entropy(logits, y))
        figures["seconds"] = time.perf_counter() - begin
        return figures
    return {
        **figures,
        "training error": 90.0,
        "training loss": math.inf,
        "seconds": time.perf_counter() - begin,
    }


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--only", default="", help="names, parted by ;")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seconds", type=float, default=1e9, help="start no further run after so long")
    given = parser.parse_args()
    grid, begin = Grid("degradation"), time.perf_counter()
    data = fashion_mnist(given.data_root)
    rows = data.pool[:PICTURES]
    x = data.images.take(rows).float().div(127.5).sub(1).to(memory_format=torch.channels_last)
    y = torch.from_numpy(data.y[rows])
    names = [name for name in given.only.split(";") if name] or list(nets())
    for seed in SEEDS:
        for name in names:
            cell = f"{name}/{seed}/{given.steps}"
            if not grid.done(cell) and time.perf_counter() - begin < given.seconds:
                found = train(nets()[name], seed, x, y, given.steps)
                grid.add(cell, **{k: float(f"{v:.4g}") for k, v in found.items()})
    missing = [n for n in nets() for s in SEEDS if not grid.done(f"{n}/{s}/{given.steps}")]
    if missing:
        print("not all nets are trained: give the command again")
        return
    table = []
    for name in nets():
        cells = [grid.cells[f"{name}/{seed}/{given.steps}"] for seed in SEEDS]
        row: dict[str, object] = {"net": name}
        for column in ("training error", "training loss"):
            row[column] = round(float(np.mean([c[column] for c in cells])), 3)
        row["training error by seed"] = [round(c["training error"], 2) for c in cells]
        for column in ("first weights at start", "flow at start", "flow half-way"):
            values = [c[column] for c in cells if column in c and math.isfinite(c[column])]
            row[column] = (
                float(f"{np.exp(np.mean(np.log(np.maximum(values, 1e-45)))):.3g}") if values else "–"
            )
        table.append(row)
    record(
        "degradation",
        table,
        setting=f"Fashion-MNIST, {PICTURES} pictures, {given.steps} steps, width {WIDTH}",
    )


if __name__ == "__main__":
    main()
