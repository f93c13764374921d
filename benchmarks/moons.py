"""Every semi-supervised method on two moons, 20 draws: share of the points that are right, and a picture.

    python -m benchmarks.moons [--draws 20] [--only NAME;…] [--seconds 200]

Draws that are done are kept; ``--seconds`` stops after a while, and the same command goes on.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.cells import Grid
from benchmarks.common import arguments, record
from handful.report.moons import drawing
from handful.stats.intervals import mean_interval
from handful.study.moons import Moons, entries, play, summary

FIGURE = Path(__file__).parent.parent / "docs" / "figures" / "moons.svg"
FIRST = 0  # draws 0 … were not looked at when the settings were made; those were 100 …


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--only", default="", help="names, parted by ;")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no further run after so long")
    given = parser.parse_args()
    grid, begin, moons = Grid("moons"), time.perf_counter(), Moons()
    names = [name for name in given.only.split(";") if name] or list(entries())
    for seed in range(FIRST, FIRST + given.draws):
        for name in names:
            if not grid.done(f"{name}/{seed}") and time.perf_counter() - begin < given.seconds:
                start = time.perf_counter()
                right = play(name, moons, seed).right
                grid.add(
                    f"{name}/{seed}", right=round(right, 4), seconds=round(time.perf_counter() - start, 1)
                )
    draws = range(FIRST, FIRST + given.draws)
    if any(not grid.done(f"{name}/{seed}") for name in entries() for seed in draws):
        print("not all draws are done: give the command again")
        return
    right = {name: [grid.cells[f"{name}/{seed}"]["right"] for seed in draws] for name in entries()}
    rows = summary(right)
    for row in rows:
        gain = mean_interval(np.array(right[row["method"]]) - np.array(right["supervised"]))
        row |= {"gain": gain.value, "gain low": gain.low, "gain high": gain.high}
    record("moons", rows, seeds=f"draws {draws[0]} to {draws[-1]}", setting=str(moons))
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    FIGURE.write_text(str(drawing([play(name, moons, FIRST) for name in entries()])) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
