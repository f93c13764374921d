"""Anonymous resident memory (RssAnon of /proc/self/status) while a picture store is read and trained on: it must
not grow with the number of pictures. Pages of the mapped file are RssFile, which the system takes back at will.

Arrays of random bytes are written straight into a file laid out like a store's (no pictures are decoded), in a
temporary folder; each size is measured in a process of its own, which reads every picture through the weak view
and trains on some of them.

    python -m benchmarks.memory
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from handful.augment.views import Weak
from handful.data.images import Images
from handful.data.stream import TrainStream, semi_supervised
from handful.engine.fit import fit
from handful.engine.state import TrainingState
from handful.engine.update import average
from handful.methods.base import descend
from handful.methods.supervised import Supervised
from handful.models.backbones import create
from handful.models.ema import EMA

CASES = ((32, 30_000, 60_000), (224, 5_000, 10_000))


def main() -> None:
    from benchmarks.common import record

    rows: list[dict[str, Any]] = []
    for side, few, many in CASES:
        found = {n: in_a_process(side, n) for n in (few, many)}
        for n, figures in found.items():
            rows.append({"side": side, "pictures": n, **figures})
        rows[-1]["growth MB"] = found[many]["RssAnon MB"] - found[few]["RssAnon MB"]
        rows[-1]["pictures added MB"] = (many - few) * 3 * side * side / 1e6
    record("memory", rows)


def in_a_process(side: int, n: int) -> dict[str, float]:
    """``measure`` in a fresh process, on a store that is made for it and removed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.memory", folder, str(side), str(n)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures = json.loads(done.stdout)
    assert isinstance(figures, dict)
    return figures


def measure(folder: Path, side: int, n: int, steps: int = 10) -> dict[str, float]:
    """Largest RssAnon at the end of any 50 batches of one epoch, then during training, in MB."""
    path, size = folder / "images.u8", 3 * side * side
    block = np.random.default_rng(0).integers(0, 256, 100 * size, dtype=np.uint8).tobytes()
    with open(path, "wb") as out:
        for _ in range(n // 100):
            out.write(block)
    data = np.memmap(path, dtype=np.uint8, mode="c", shape=(n, 3, side, side))  # as open_store maps it
    images = Images(torch.from_numpy(data), range(n), "memory")  # type: ignore[arg-type]
    network = create("small-resnet", n_classes=2, size=side, seed=0)
    rows = torch.arange(n)
    stream = TrainStream(images, network.spec, semi_supervised(rows, rows % 2, {"x": Weak()}, 50))
    most = 0.0
    for step in range(n // 50):
        stream.at(step)
        if step % 50 == 49:
            most = max(most, status("RssAnon"))
    sgd = torch.optim.SGD([{"params": network.parameters(), "base_lr": 0.01}], lr=0.01)
    models = {"student": network.train(), "average": EMA(network, 0.9)}
    begin = n // 50
    state = TrainingState(models, {"student": sgd}, step=begin)
    seen: list[float] = []
    fit(
        state,
        descend(Supervised(), after=[average(), lambda s: seen.append(status("RssAnon"))]),
        stream,
        steps=begin + steps,
    )
    return {"RssAnon MB": max(most, *seen), "RssFile MB": status("RssFile")}


def status(field: str) -> float:
    """A field of /proc/self/status in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise KeyError(field)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
    else:
        main()
