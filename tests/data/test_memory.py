"""Memory does not grow with the number of pictures: the small version of ``benchmarks/memory.py``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
from pathlib import Path
import numpy as np, torch
from handful.augment.views import Weak
from handful.data.images import Images, from_array
from handful.data.stream import TrainStream, semi_supervised
from handful.types import InputSpec

def anonymous():
    text = Path("/proc/self/status").read_text()
    return int(text.partition("RssAnon:")[2].split()[0]) / 1024

path, n, side = Path(sys.argv[1]), int(sys.argv[2]), 64
block = np.random.default_rng(0).integers(0, 256, (100, 3, side, side), dtype=np.uint8).tobytes()
with open(path, "wb") as out:
    for _ in range(n // 100):
        out.write(block)
data = np.memmap(path, dtype=np.uint8, mode="c", shape=(n, 3, side, side))
data = data + 0 if sys.argv[3] == "copy" else data
images = Images(torch.from_numpy(data), range(n), "memory")
rows = torch.arange(n)
stream = TrainStream(images, InputSpec(side), semi_supervised(rows, rows, {"x": Weak()}, 50))
most = 0
for step in range(n // 50):
    stream.at(step)
    if step % 10 == 0:
        most = max(most, anonymous())
print(most)
"""


def megabytes(path: Path, n: int, how: str) -> float:
    command = [sys.executable, "-c", CODE, str(path), str(n), how]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # each further thread has memory of its own
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, env=alone)
    return float(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RssAnon is a figure of Linux")
def test_reading_twice_as_many_pictures_takes_no_more_anonymous_memory(tmp_path: Path) -> None:
    """4,000 more pictures of 64 px are 49 MB; a copy of them would be seen."""
    few, many = (megabytes(tmp_path / "x", n, "map") for n in (4000, 8000))
    copied = megabytes(tmp_path / "x", 8000, "copy")
    assert many - few < 12
    assert copied - many > 60
