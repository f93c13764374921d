"""Peak memory of Meta Pseudo Labels: the student alone, the reduced form with its stored teacher, both networks
at once, and the exact gradient. Each is measured in a process of its own, in the same batches; weights, optimisers,
activations and the process itself are in the figure ("base" is a process that has built the student and no more).

    python -m benchmarks.mpl_memory [--backbone wrn-28-2 --batch 8 --ratio 7 --size 32]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.cells import Grid
from benchmarks.common import arguments, record
from handful import machine
from handful.engine.assemble import Setup, assemble
from handful.methods.meta_pseudo_labels import MetaPseudoLabels
from handful.methods.pseudo_label import PseudoLabel
from handful.methods.reduced_mpl import ReducedMetaPseudoLabels
from handful.models.backbones import create

CASES: dict[str, Any] = {
    "base": None,
    "student on stored labels": PseudoLabel(threshold=0.0, hard=False),
    "reduced MPL": ReducedMetaPseudoLabels(),
    "reduced MPL, exact": ReducedMetaPseudoLabels(labels="soft"),
    "MPL": MetaPseudoLabels(),
    "MPL, exact": MetaPseudoLabels(labels="soft"),
}
STEPS, CLASSES = 3, 10


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--backbone", default="wrn-28-2")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--ratio", type=int, default=7)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--case", help="measure this one here and print it")
    given = parser.parse_args()
    if given.case:
        print(json.dumps(measure(CASES[given.case], given.backbone, given.batch, given.ratio, given.size)))
        return
    grid, shape = Grid("mpl_memory"), f"{given.backbone}/{given.batch}x{1 + given.ratio}/{given.size}"
    rows: list[dict[str, Any]] = []
    for name in CASES:
        cell = f"{shape}/{name}"
        options = [f"--{k}={getattr(given, k)}" for k in ("backbone", "batch", "ratio", "size")]
        command = [sys.executable, "-m", "benchmarks.mpl_memory", f"--case={name}", *options]
        if not grid.done(cell):
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            grid.add(cell, **json.loads(done.stdout))
        rows.append({"case": name, **{k: v for k, v in grid.cells[cell].items() if k != "cell"}})
        rows[-1]["above base MB"] = round(rows[-1]["peak MB"] - rows[0]["peak MB"], 1)
    record("mpl_memory", rows, backbone=given.backbone, batch=given.batch, ratio=given.ratio, size=given.size)


def measure(method: Any, backbone: str, batch: int, ratio: int, size: int) -> dict[str, float]:
    """Peak memory of this process in MB, and the median seconds of a step, over a few steps in float32."""
    machine.tune_allocator()
    machine.set_threads()
    student = create(backbone, n_classes=CLASSES, size=size, seed=0).train()
    if method is None:
        return {"peak MB": _peak()}

    def sgd(role: str, model: torch.nn.Module) -> torch.optim.SGD:
        groups = [{"params": list(model.parameters()), "base_lr": 0.01}]
        return torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True, foreach=True)

    state, update = assemble(
        method, {"student": student}, sgd, Setup(), n_classes=CLASSES, unlabelled=torch.arange(100)
    )
    seconds = []
    for step, data in enumerate(batches(method, batch, ratio, size)):
        begin = time.perf_counter()
        update(state, data)
        state.step = step + 1
        seconds.append(time.perf_counter() - begin)
    return {"peak MB": _peak(), "seconds a step": round(statistics.median(seconds), 3)}


def batches(method: Any, batch: int, ratio: int, size: int) -> Iterator[dict[str, Tensor]]:
    """Random pictures, only the views that the method asks for."""
    for step in range(STEPS):
        g = torch.Generator().manual_seed(step)
        names = [name for name in method.views if name != "x"]
        out = {name: torch.randn(batch * ratio, 3, size, size, generator=g) for name in names}
        out |= {"x": torch.randn(batch, 3, size, size, generator=g), "y": torch.arange(batch) % CLASSES}
        out["target"] = torch.softmax(torch.randn(batch * ratio, CLASSES, generator=g), 1)
        yield out


def _peak() -> float:
    found = machine.peak_memory()
    assert found is not None, "this system does not tell"
    return round(found / 1e6, 1)


if __name__ == "__main__":
    main()
