"""Does CutMix help to localise? How often the brightest place of a class activation map lies on a planted object.

Pictures of 48 px: a background of CIFAR-10 (enlarged, of any class, so that it says nothing) with one MNIST digit of
20 px planted at a random place. The network (``small-resnet``) learns the digit from picture and label alone, with no
mixing, MixUp or CutMix, from the same pictures in the same steps. Map: sum over channels of the head's weight of the
picture's class times the last feature map (Zhou et al. 2016, eq. 2), enlarged bilinearly. *Pointed*: its maximum lies
in the digit's box; by chance that is the box's share of the picture. *Inside*: share of the positive map in the box.

    python -m benchmarks.pointing [--seeds 3] [--steps 1800]
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.cells import Grid
from benchmarks.common import arguments, record
from benchmarks.datasets import DATASETS
from handful.augment.views import to_input
from handful.data.images import from_array
from handful.methods.supervised import Supervised
from handful.recipes.stage import Stage
from handful.recipes.task import Task, Workshop
from handful.recipes.train import train_network
from handful.recipes.training import Training
from handful.stats.intervals import wilson

SIDE, DIGIT = 48, 20
LEARNT, TESTED = 4000, 2000
MIXES = {"none": {}, "mixup": {"mix": "mixup"}, "cutmix": {"mix": "cutmix"}}


def planted(root: Path, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures uint8 [N, 3, 48, 48], digits [N], boxes (top, left) [N, 2]; the last TESTED are for the test."""
    draw = np.random.RandomState(seed)
    digits, scenes = DATASETS["mnist"](root), DATASETS["cifar10"](root)
    n = LEARNT + TESTED
    chosen = [
        np.concatenate(
            [draw.choice(data.pool, LEARNT, replace=False), draw.choice(data.test, TESTED, replace=False)]
        )
        for data in (digits, scenes)
    ]
    x = F.interpolate(scenes.images.take(chosen[1]), (SIDE, SIDE), mode="bicubic", antialias=True).float()
    ink = (
        F.interpolate(digits.images.take(chosen[0]), (DIGIT, DIGIT), mode="bicubic", antialias=True).float()
        / 255
    )
    corner = draw.randint(0, SIDE - DIGIT + 1, (n, 2))
    shade = torch.from_numpy(np.where(draw.rand(n, 1) < 0.5, 0.0, 255.0)).float()
    for i, (top, left) in enumerate(corner.tolist()):
        part = x[i, :, top : top + DIGIT, left : left + DIGIT]
        part += ink[i] * (shade[i] - part)
    return x.round().clamp(0, 255).byte().numpy(), digits.y[chosen[0]], corner


def maps(network: Any, x: Tensor, y: Tensor) -> Tensor:
    """Class activation maps of the pictures' own classes, [B, H, W]."""
    kept: list[Tensor] = []
    layers = list(network.body)
    last = max(
        i for i, layer in enumerate(layers) if not isinstance(layer, (nn.Flatten, nn.AdaptiveAvgPool2d))
    )
    hook = layers[last].register_forward_hook(lambda module, given, out: kept.append(out))
    with torch.inference_mode():
        network(x)
    hook.remove()
    found = torch.einsum("bchw,bc->bhw", kept[0], network.head.weight[y])
    return F.interpolate(found.unsqueeze(1), x.shape[2:], mode="bilinear", align_corners=False)[:, 0]


def measure(root: Path, seed: int, steps: int, mix: dict[str, Any]) -> dict[str, float]:
    """Accuracy and pointing on pictures that the network did not learn from."""
    x, y, corner = planted(root, seed)
    rows, labels = torch.arange(LEARNT), torch.from_numpy(y)
    task = Task(from_array(x), rows, labels[:LEARNT], rows[:0], tuple("0123456789"), seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder), Path(folder), save_every=0)
        training = Training(backbone="small-resnet", steps=steps, batch=64)
        method = Supervised(view="weak:flip=false", **mix)
        network: Any = train_network(
            Stage("pointing", task, method, training), workshop
        ).classifier.backbone.eval()
    right, pointed, inside = [], [], []
    for some in torch.arange(LEARNT, LEARNT + TESTED).split(250):
        batch = to_input(task.images.take(some), network.spec)
        with torch.inference_mode():
            right.append(network(batch).logits.argmax(1) == labels[some])
        seen = maps(network, batch, labels[some])
        top, left = torch.from_numpy(corner)[some].unbind(1)
        place = seen.flatten(1).argmax(1)
        i, j = place // SIDE, place % SIDE
        pointed.append((i >= top) & (i < top + DIGIT) & (j >= left) & (j < left + DIGIT))
        position = torch.arange(SIDE)
        down = (position >= top.unsqueeze(1)) & (position < top.unsqueeze(1) + DIGIT)
        across = (position >= left.unsqueeze(1)) & (position < left.unsqueeze(1) + DIGIT)
        box = down.unsqueeze(2) & across.unsqueeze(1)
        positive = seen.clamp(min=0)
        inside.append((positive * box).sum((1, 2)) / positive.sum((1, 2)).clamp(min=1e-9))
    return {
        "right": float(torch.cat(right).float().mean()),
        "pointed": float(torch.cat(pointed).float().mean()),
        "inside": float(torch.cat(inside).mean()),
    }


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1800)
    given = parser.parse_args()
    grid = Grid("pointing")
    rows = []
    for name, mix in MIXES.items():
        found = []
        for seed in range(given.seeds):
            cell = f"{name}-{given.steps}-{seed}"
            if not grid.done(cell):
                grid.add(cell, **measure(given.data_root, seed, given.steps, mix))
            found.append({key: grid.cells[cell][key] for key in ("right", "pointed", "inside")})
        mean = {key: float(np.mean([f[key] for f in found])) for key in found[0]}
        low, high = wilson(mean["pointed"] * TESTED * given.seeds, TESTED * given.seeds)
        spread = [round(100 * f["pointed"], 1) for f in found]
        rows.append(
            {
                "mixing": name,
                "accuracy": round(100 * mean["right"], 2),
                "pointed": round(100 * mean["pointed"], 2),
                "low": round(100 * low, 2),
                "high": round(100 * high, 2),
                "of each seed": " ".join(map(str, spread)),
                "share of the map inside": round(100 * mean["inside"], 2),
            }
        )
        print(rows[-1], flush=True)
    chance = round(100 * (DIGIT / SIDE) ** 2, 1)
    record("pointing", rows, seeds=f"0 to {given.seeds - 1}", steps=given.steps, pointed_by_chance=chance)


if __name__ == "__main__":
    main()
