"""The share of a training step that is not the model's forward and backward pass: data, views, optimiser, moving
average, log. Every step of the real loop is taken apart by a clock around its phases; medians are given.

    python -m benchmarks.overhead [--steps 30]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import record
from handful.data.images import Images, from_array
from handful.data.stream import TrainStream, semi_supervised
from handful.engine.fit import fit
from handful.engine.state import TrainingState
from handful.engine.update import average
from handful.methods.base import descend
from handful.methods.supervised import Supervised
from handful.models.backbones import create
from handful.models.ema import EMA
from handful.recipes.task import Task, Workshop
from handful.recipes.train import choose_precision, make_view, optimizer_of
from handful.recipes.training import Training
from handful.types import Batch, Loss, Models

CASES = {
    "wrn-28-2 at 32 px, batch 64": ("wrn-28-2", 32, 64, "sgd"),
    "lite0 at 128 px, batch 16": ("lite0", 128, 16, "adamw"),
}
PICTURES = {32: 20_000, 128: 4_000}  # random colour pictures in memory: their content costs no time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30)
    steps = parser.parse_args().steps
    rows = []
    for case, (name, side, batch, optimizer) in CASES.items():
        for view in ("weak", "strong"):
            rows.append({"case": case, "view": view, **measure(name, side, batch, optimizer, view, steps)})
    record(
        "overhead",
        rows,
        steps=steps,
        threads=torch.get_num_threads(),
        load_average=os.getloadavg()[0],
        note="a load average above the number of threads says that others used the machine meanwhile",
    )


def measure(name: str, side: int, batch: int, optimizer: str, view: str, steps: int) -> dict[str, Any]:
    """Median milliseconds of a step and of its phases."""
    n = PICTURES[side]
    generator = torch.Generator().manual_seed(0)
    data = torch.randint(256, (n, 3, side, side), dtype=torch.uint8, generator=generator).numpy()
    images: Images = from_array(data, fingerprint="overhead")
    task = Task(images, torch.arange(n), torch.arange(n) % 10, torch.arange(0), tuple("abcdefghij"))
    workshop = Workshop(Path(), Path())
    network = create(name, n_classes=10, size=side, seed=0).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    precision = choose_precision(network, workshop)
    models = {"student": network.train(), "average": EMA(network, 0.99)}
    optimizers = {"student": optimizer_of(Training(optimizer=optimizer), network)}
    state = TrainingState(models, optimizers, precision=precision)
    sources = semi_supervised(task.labelled, task.y, {"x": make_view(view, task)}, batch)
    stream = TrainStream(images, network.spec, sources)

    clock: dict[str, list[float]] = {key: [] for key in ("data and views", "forward and backward", "step")}
    mark = {"forward": 0.0, "step": 0.0}

    class Timed:
        def batches(self, start: int) -> Iterator[Batch]:
            for step in range(start, steps + 5):
                begin = mark["step"] = time.perf_counter()
                made = stream.at(step)
                clock["data and views"].append(time.perf_counter() - begin)
                yield made
                clock["step"].append(time.perf_counter() - mark["step"])

    supervised = Supervised()

    def objective(models: Models, batch: Batch, step: int) -> Loss:
        mark["forward"] = time.perf_counter()
        return supervised(models, batch, step)

    # the gradient of the first layer is the last thing that backward makes
    def after_backward(*_: object) -> None:
        clock["forward and backward"].append(time.perf_counter() - mark["forward"])

    optimizers["student"].register_step_pre_hook(after_backward)
    fit(state, descend(objective, after=[average()]), Timed(), steps=steps + 5, log_every=10)
    medians = {key: 1000 * statistics.median(values[5:]) for key, values in clock.items()}
    share = [1 - f / s for f, s in zip(clock["forward and backward"][5:], clock["step"][5:])]
    rest = medians["step"] - medians["forward and backward"] - medians["data and views"]
    return {
        "step ms": medians["step"],
        "forward and backward ms": medians["forward and backward"],
        "data and views ms": medians["data and views"],
        "optimiser, average, log ms": rest,
        "overhead": statistics.median(share),
        "precision": precision.name,
    }


if __name__ == "__main__":
    main()
