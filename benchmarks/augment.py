"""How fast pictures are augmented, against torchvision, Pillow and kornia, and against copying memory.

One process, one thread for all, the candidates in turn, medians over the rounds; ratios are of those medians. What a
peer needs (Pillow pictures, floats) is made before the clock runs. torchvision works picture by picture, since on a
batch it draws one operation for all; kornia is used as it comes (one operation for the batch as well).

    python -m benchmarks.augment [--rounds 7] [--no-training]

Needs ``pip install kornia`` for its rows; they are left out without.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor
from torchvision.transforms import v2

from benchmarks.common import record
from handful.augment import tensors
from handful.augment.mix import Mixing
from handful.augment.named import make
from handful.augment.tensors import by_tensors
from handful.augment.views import View
from handful.data.images import from_array
from handful.data.stream import TrainStream, semi_supervised
from handful.losses.classify import cross_entropy
from handful.models.backbones import create
from handful.randomness import uniform

Candidates = dict[str, Callable[[], Any]]
SIZES = {32: 512, 224: 64}


def photographs(n: int, side: int) -> Tensor:
    """Cuttings of two photographs that ship with scikit-learn: uint8 [n, 3, side, side]."""
    whole = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    draw = np.random.RandomState(0)
    out = np.empty((n, 3, side, side), np.uint8)
    for i in range(n):
        top, left = draw.randint(0, 427 - 320), draw.randint(0, 640 - 320)
        part = Image.fromarray(whole[i % 2][top : top + 320, left : left + 320]).resize((side, side))
        out[i] = np.asarray(part).transpose(2, 0, 1)
    return torch.from_numpy(out)


def ours(view: View, x: Tensor, tensors: bool = False) -> Callable[[], Any]:
    """Drawing the numbers included."""
    number = iter(range(10**9))

    def run() -> Tensor:
        u = uniform((len(x), view.n_draws), "benchmark", next(number))
        if tensors:
            return by_tensors(x, view.rows(u.double().numpy(), *x.shape[2:]))  # type: ignore[attr-defined]
        return view(x, u)

    return run


def randaugment(x: Tensor) -> Candidates:
    view = make("randaugment:n=2:m=9:scale=torchvision")
    theirs = v2.RandAugment(2, 9)
    pillow = [Image.fromarray(p.permute(1, 2, 0).contiguous().numpy()) for p in x]
    found: Candidates = {
        "handful": ours(view, x),
        "handful, tensor operations (no numba)": ours(view, x, tensors=True),
        "torchvision v2, tensors": lambda: [theirs(p) for p in x],
        "torchvision v2, Pillow": lambda: [theirs(p) for p in pillow],
    }
    try:
        from kornia.augmentation.auto import RandAugment as Kornia
    except ImportError:
        return found
    floats, kornia = x.float() / 255, Kornia(n=2, m=9)
    return {**found, "kornia": lambda: kornia(floats)}


def weak(x: Tensor) -> Candidates:
    side = x.shape[2]
    theirs = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomCrop(side, side // 8, padding_mode="reflect")])
    pillow = [Image.fromarray(p.permute(1, 2, 0).contiguous().numpy()) for p in x]
    return {
        "handful": ours(make("weak"), x),
        "handful, tensor operations (no numba)": ours(make("weak"), x, tensors=True),
        "torchvision v2, tensors": lambda: [theirs(p) for p in x],
        "torchvision v2, Pillow": lambda: [theirs(p) for p in pillow],
    }


def cutmix(x: Tensor) -> Candidates:
    mixing, number = Mixing("cutmix"), iter(range(10**9))
    other, theirs, labels = x.flip(0), v2.CutMix(num_classes=10), torch.arange(len(x)) % 10

    def run() -> Any:
        return mixing(x, other, uniform((len(x), 5), "benchmark", next(number)))

    return {"handful": run, "torchvision v2 (one box for the batch)": lambda: theirs(x, labels)}


def timed(candidates: Candidates, n: int, rounds: int) -> dict[str, float]:
    """Pictures a second of each, the median over the rounds; one round more warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        for name, run in candidates.items():
            begin = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - begin)
    return {name: n / statistics.median(values) for name, values in seconds.items()}


def speeds(rounds: int) -> list[dict[str, Any]]:
    rows = []
    for side, n in SIZES.items():
        x = photographs(n, side)
        out = torch.empty_like(x)
        copy: Candidates = {"copy": lambda x=x, out=out: out.copy_(x)}  # type: ignore[misc]
        for what, candidates in {
            "RandAugment(2, 9)": randaugment(x), "weak (flip, crop)": weak(x), "CutMix": cutmix(x),
        }.items():  # fmt: skip
            found = timed({**candidates, **copy}, n, rounds)
            for name, speed in found.items():
                row = {"what": what, "pixels": side, "by": name, "pictures a second": round(speed)}
                if name.startswith("handful"):
                    row["share of copying"] = round(speed / found["copy"], 4)
                elif name != "copy":
                    row["handful is faster by"] = round(found["handful"] / speed, 2)
                rows.append(row)
    return rows


def in_training(
    backbone: str, channels: int, side: int, batch: int, ratio: int, rounds: int
) -> dict[str, Any]:
    """The share of a FixMatch-like step that its pictures take: weak views of all, a strong one of the unlabelled
    pictures; a forward pass without gradient for weak unlabelled ones, forward and backward for the others."""
    draw = np.random.RandomState(0)
    images = from_array(
        draw.randint(0, 256, (4000, channels, side, side)).astype(np.uint8), fingerprint="random"
    )
    network: Any = create(backbone, n_classes=10, channels=channels, size=side, seed=0)
    network = network.to(memory_format=torch.channels_last).train()
    views = {"x": make("weak"), "weak": make("weak"), "strong": make("fixmatch-strong")}
    rows = torch.arange(len(images))
    stream = TrainStream(images, network.spec, semi_supervised(rows, rows % 10, views, batch, rows, ratio))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.03, momentum=0.9, nesterov=True)
    data, model = [], []
    for step in range(rounds + 1):
        begin = time.perf_counter()
        made = stream.at(step)
        middle = time.perf_counter()
        with torch.no_grad():
            target = network(made["weak"]).logits.argmax(1)
        logits = network(torch.cat([made["x"], made["strong"]])).logits
        cross_entropy(logits, torch.cat([made["y"], target])).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if step:
            data.append(middle - begin)
            model.append(time.perf_counter() - middle)
    seen, learnt = statistics.median(data), statistics.median(model)
    return {
        "what": f"FixMatch step, {backbone}, {batch} + {ratio} x {batch} at {side} px",
        "reading and views ms": round(1000 * seen, 1),
        "network ms": round(1000 * learnt, 1),
        "share of the step": round(seen / (seen + learnt), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-training", action="store_true", help="leave out the share of a training step")
    given = parser.parse_args()
    torch.set_num_threads(1)
    gc.disable()
    rows = speeds(given.rounds)
    if not given.no_training:
        rows.append(in_training("conv-4", 1, 28, 64, 7, 4))
        rows.append(in_training("wrn-28-2", 3, 32, 64, 7, 2))
    record("augment", rows, threads=1, compiled=tensors.compiled() is not None)


if __name__ == "__main__":
    main()
