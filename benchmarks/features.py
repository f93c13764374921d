"""Pictures a second through the frozen EfficientNet-Lite0, and how near each backend is to fp32 eager.

Two worker processes wait for orders, one with the allocator as it is and one with it tuned. Every round
measures each candidate once, in turn, so that a slow spell of the machine meets all. Figures are medians;
ratios are to torch fp32 NCHW eager with the allocator as it is.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.common import InMemory, arguments, members, pictures, record
from handful import machine
from handful.inference import backends, features
from handful.models.backbones import create

PICTURES = 128
BASE = "torch-eager-fp32"
GOALS = {"plain install (torch)": ("torch", 3.0), "fast (best of the rest)": ("openvino", 8.0)}


def work(data_root: Path, size: int, tuned: bool) -> None:
    """Obey lines on standard input: a backend's name, answered by seconds for one picture."""
    if tuned:
        machine.tune_allocator()
    machine.set_threads()
    archive = data_root / "imagenet_500_samples" / "imagenet_500_samples.zip"
    net = create("lite0", pretrained=True, size=size).eval()
    images = InMemory(pictures(archive, size, members(archive)[:PICTURES]))
    spec, check, runners = net.spec, backends.reference(net, images, net.spec), {}
    exact = features.extract(net, images, backend=BASE).values
    for line in sys.stdin:
        name = line.strip()
        if name not in runners:
            began = time.perf_counter()
            runner, batch = backends.start(name, net, spec, None, None, *check)
            started = time.perf_counter() - began
            got = features.run(runner, images, spec, batch, False, net.dim, None)
            runners[name] = (runner, batch)
            cosine = F.cosine_similarity(got, exact)
            parity = {
                "batch": batch,
                "start_seconds": started,
                "cosine_min": cosine.min().item(),
                "cosine_mean": cosine.mean().item(),
                "max_difference": (got - exact).abs().max().item(),
                "largest_feature": exact.abs().max().item(),
            }
            print(json.dumps(parity), flush=True)
        else:
            runner, batch = runners[name]
            began = time.perf_counter()
            features.run(runner, images, spec, batch, False, net.dim, None)
            print(json.dumps((time.perf_counter() - began) / len(images)), flush=True)


def ask(worker: subprocess.Popen[str], name: str) -> Any:
    """One order to a worker and its answer."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(name + "\n")
    worker.stdin.flush()
    answer = worker.stdout.readline()
    if not answer:
        raise RuntimeError(f"the worker ended while measuring {name}")
    return json.loads(answer)


def measure(data_root: Path, size: int, rounds: int) -> list[dict[str, Any]]:
    """All candidates at one size."""
    workers = {
        tuned: subprocess.Popen(
            [
                *[sys.executable, "-m", "benchmarks.features", "--data-root", str(data_root)],
                *["--work", str(size), "tuned" if tuned else "default"],
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for tuned in (False, True)
    }
    names = [name for name in features.BACKENDS if not features.missing(name)]
    candidates = [(name, tuned) for tuned in (False, True) for name in names]
    parity = {(name, tuned): ask(workers[tuned], name) for name, tuned in candidates}
    print("all started", flush=True)
    seconds: dict[tuple[str, bool], list[float]] = {candidate: [] for candidate in candidates}
    for _ in range(rounds):
        for name, tuned in candidates:
            seconds[name, tuned].append(ask(workers[tuned], name))
            print(
                f"{size} px, {name}, tuned {tuned}: {1 / seconds[name, tuned][-1]:.0f} a second", flush=True
            )
    for worker in workers.values():
        worker.communicate()
    middle = {candidate: statistics.median(values) for candidate, values in seconds.items()}
    return [
        {
            "size": size,
            "backend": name,
            "allocator": "tuned" if tuned else "default",
            "images_per_second": 1 / middle[name, tuned],
            "ratio_to_eager_default": middle[BASE, False] / middle[name, tuned],
            "ratio_to_eager_tuned": middle[BASE, True] / middle[name, tuned],
            "slowest_to_fastest_round": max(seconds[name, tuned]) / min(seconds[name, tuned]),
            **parity[name, tuned],
        }
        for name, tuned in candidates
    ]


def main() -> None:
    parser = arguments(str(__doc__))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 224])
    parser.add_argument("--work", nargs=2, metavar=("SIZE", "ALLOCATOR"), help="used by the benchmark itself")
    options = parser.parse_args()
    if options.work:
        work(options.data_root, int(options.work[0]), options.work[1] == "tuned")
        return
    rows = [row for size in options.sizes for row in measure(options.data_root, size, options.rounds)]
    goals = {}
    for what, (backend, goal) in GOALS.items():
        ratios = [
            row["ratio_to_eager_default"]
            for row in rows
            if (row["size"], row["backend"], row["allocator"]) == (128, backend, "tuned")
        ]
        goals[what] = {"goal": goal, "backend": backend, "reached": max(ratios, default=None)}
    record(
        "features",
        rows,
        network="lite0, packaged weights",
        data=f"imagenet_500_samples, first {PICTURES}, in memory as uint8 at the network's size",
        rounds=options.rounds,
        bf16=machine.has_fast_bf16(),
        threads=torch.get_num_threads(),
        goals_at_128_px=goals,
    )


if __name__ == "__main__":
    main()
