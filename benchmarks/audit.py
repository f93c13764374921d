"""What the audit finds: planted copies, and flipped labels.

``python -m benchmarks.audit [--only copies|suspects] [--sets tf_flowers,…] [--seeds 20] [--sheet]``

*Copies.* In tf_flowers and caltech101, copies of 200 pictures of each kind are planted among the originals: the
very same file; resized to 50 … 90 % and saved again (JPEG, quality 90); saved again at quality 40 … 79; a cut-out
of 95 % of each side at a random place, saved again. The store is made as for a run. *Recall*: planted copies that
are found as a pair with their original. *Precision*: of the pairs that hold a planted copy, those that join it with
its original, with another copy of it, or with a picture that the audit calls a copy of the original: the sets have
copies of their own, whose number is given, and which ``--sheet`` draws, least alike first, to be judged by eye.
``SAME_DETAIL`` and ``NEAR`` were chosen by looking at Office-Caltech and at the planted copies of a first try on
tf_flowers.

*Suspects.* Label draws of 4, 10 and 40 a class; in each, 10 % of the labels are moved to another class (and none,
to count false alarms on good labels only). Features are those of a run. The false-alarm rate is counted over right
labels, precision over everything that is flagged, recall over wrong labels. The score was developed on digits and
USPS. Reference (the well-known confident-learning library, digits): 4 a class: 21 % of clean digits flagged,
precision .39, recall .80; 10 a class: .68 and .75; 40: .79 and .82.
"""

from __future__ import annotations

import io
import json
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from benchmarks.common import RESULTS, arguments, record
from benchmarks.datasets import DATASETS, Dataset
from handful.api import cache_folder
from handful.data.copies import find_copies
from handful.data.images import from_array
from handful.data.split import draw
from handful.data.suspects import RATE, suspects
from handful.randomness import permutation, uniform
from handful.recipes.feature_space import space
from handful.recipes.table import spaces_for
from handful.recipes.task import Task, Workshop
from handful.stats.intervals import wilson

COPY_SETS = {"tf_flowers": "tf_flowers/tf_flowers.zip", "caltech101": "caltech101/caltech101.zip"}
KINDS = ("exact", "resized", "recompressed", "cropped")
LABEL_SETS = ("digits", "tf_flowers", "caltech101")
PLANTED = 200
FLIPPED = 0.1
POOL = 8000  # pictures whose features are computed


def saved_again(picture: Image.Image, quality: int) -> Image.Image:
    """Through a JPEG file of this quality."""
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return Image.open(io.BytesIO(out.getvalue())).convert("RGB")


def copy_of(picture: Image.Image, kind: str, rng: np.random.Generator) -> Image.Image:
    """A copy as somebody might have made it."""
    width, height = picture.size
    if kind == "resized":
        factor = rng.uniform(0.5, 0.9)
        small = picture.resize((round(width * factor), round(height * factor)), Image.Resampling.BICUBIC)
        return saved_again(small, 90)
    if kind == "recompressed":
        return saved_again(picture, int(rng.integers(40, 80)))
    if kind == "cropped":
        w, h = round(width * 0.95), round(height * 0.95)
        left, top = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
        return saved_again(picture.crop((left, top, left + w, top + h)), 90)
    return picture


def square(picture: Image.Image, side: int) -> np.ndarray:
    """As the store keeps it: uint8 [3, side, side]."""
    return np.asarray(ImageOps.fit(picture, (side, side), Image.Resampling.BICUBIC)).transpose(2, 0, 1)


def copies(name: str, root: Path, sheet: bool = False) -> list[dict[str, Any]]:
    """Recall for each kind, precision over all, and the time."""
    with zipfile.ZipFile(root / COPY_SETS[name]) as archive:
        names = sorted(n for n in archive.namelist() if n.lower().endswith((".jpg", ".jpeg", ".png")))
        names = [n for n in names if "Faces_easy" not in n]
        pictures = [Image.open(io.BytesIO(archive.read(n))).convert("RGB") for n in names]
    side = min(192, int(np.median([min(p.size) for p in pictures])))
    rng = np.random.default_rng(0)
    stored = [square(p, side) for p in pictures]
    original: dict[int, tuple[int, str]] = {}
    for kind in KINDS:
        for row in rng.choice(len(pictures), PLANTED, replace=False):
            original[len(stored)] = int(row), kind
            stored.append(square(copy_of(pictures[row], kind, rng), side))
    begin = time.perf_counter()
    pairs = find_copies(from_array(np.stack(stored)))
    seconds = time.perf_counter() - begin
    roots = list(range(len(stored)))  # groups: copies that the set has of its own count as one picture

    def root_of(row: int) -> int:
        while roots[row] != row:
            row = roots[row]
        return row

    own = [p for p in pairs if p.first not in original and p.second not in original]
    for pair in own:
        roots[root_of(pair.second)] = root_of(pair.first)
    for row, (source, _) in original.items():
        roots[row] = source
    # an exact copy stands for its group: its pairs with near copies are made through the group's first picture
    found = {(p.first, p.second) for p in pairs}
    with_planted = [p for p in pairs if p.first in original or p.second in original]
    right = sum(root_of(p.first) == root_of(p.second) for p in with_planted)
    rows: list[dict[str, Any]] = []
    for kind in KINDS:
        mine = [(source, row) for row, (source, k) in original.items() if k == kind]
        hits = sum(linked(a, b, found) for a, b in mine)
        low, high = wilson(hits, len(mine))
        rows.append(
            {
                "what": "copies",
                "set": name,
                "kind": kind,
                "recall": hits / len(mine),
                "low": low,
                "high": high,
            }
        )
    rows.append(
        {
            "what": "copies", "set": name, "kind": "all", "precision": right / len(with_planted),
            "pairs with a planted copy": len(with_planted), "pairs of the set's own": len(own),
            "pictures": len(stored), "seconds": seconds,
        }
    )  # fmt: skip
    if sheet:
        draw_sheet(stored, [(p.likeness, p.first, p.second) for p in own], Path(f"copies-{name}.png"))
    return rows


def linked(a: int, b: int, found: set[tuple[int, int]]) -> bool:
    """Whether a and b are a pair, or both are pairs with a third picture (the first of a group of equal ones)."""
    if (a, b) in found or (b, a) in found:
        return True
    thirds = [{x for pair in found if row in pair for x in pair} for row in (a, b)]
    return bool(thirds[0] & thirds[1])


def draw_sheet(stored: list[np.ndarray], pairs: list[tuple[float, int, int]], path: Path) -> None:
    """Pairs side by side, least alike first."""
    pairs = sorted(pairs)[:60]
    sheet = Image.new("RGB", (6 * 200, -(-len(pairs) // 6) * 102), "white")
    for i, (_, *rows) in enumerate(pairs):
        for k, row in enumerate(rows):
            tile = Image.fromarray(np.ascontiguousarray(stored[row].transpose(1, 2, 0))).resize((97, 97))
            sheet.paste(tile, (i % 6 * 200 + k * 98, i // 6 * 102))
    sheet.save(path)


def table(d: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Features [n, D] and classes [n] of the pool, as a run computes them."""
    pool = np.sort(d.pool[permutation(len(d.pool), "audit")[:POOL]])
    one, rest = torch.from_numpy(pool[:1]), torch.from_numpy(pool[1:])
    task = Task(d.images, one, torch.from_numpy(d.y[pool[:1]]), rest, d.classes)
    workshop = Workshop(cache=cache_folder(), folder=RESULTS / "scratch")
    return space(task, workshop, spaces_for(task)[0]).table[torch.from_numpy(pool)].numpy(), d.y[pool]


def labels(name: str, root: Path, seeds: int) -> list[dict[str, Any]]:
    """False alarms, precision and recall for each number of labels, with flips and without."""
    d = DATASETS[name](root)
    x, y = table(d)
    k, rows = len(d.classes), []
    for per_class in (4, 10, 40):
        if np.bincount(y, minlength=k).min() < per_class:
            continue
        for share in (0.0, FLIPPED):
            counts = np.zeros(4, dtype=int)  # right labels, of them flagged, wrong labels, of them flagged
            rates, begin = [], time.perf_counter()
            for seed in range(seeds):
                chosen = draw(y, per_class, seed)
                given, wrong = y[chosen].copy(), np.zeros(len(chosen), dtype=bool)
                wrong[permutation(len(chosen), "flipped", seed)[: round(share * len(chosen))]] = True
                step = 1 + (uniform((int(wrong.sum()),), "to", seed).numpy() * (k - 1)).astype(int)
                given[wrong] = (given[wrong] + step) % k
                found = suspects(x[chosen], given, k, RATE)
                rates.append(found.rate)
                s = found.suspect
                counts += [(~wrong).sum(), s[~wrong].sum(), wrong.sum(), s[wrong].sum()]
            right, alarms, bad, hits = (int(c) for c in counts)
            low, high = wilson(alarms, right)
            rows.append(
                {
                    "what": "suspects", "set": name, "per class": per_class, "flipped": share, "draws": seeds,
                    "stated false-alarm rate": float(np.mean(rates)), "false-alarm rate": alarms / right,
                    "low": low, "high": high, "precision": hits / max(hits + alarms, 1) if share else None,
                    "recall": hits / bad if bad else None,
                    "seconds": (time.perf_counter() - begin) / seeds,
                }
            )  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = arguments("What the audit finds: planted copies, and flipped labels.")
    parser.add_argument("--only", choices=("copies", "suspects"))
    parser.add_argument("--sets", default="")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--sheet", action="store_true", help="draw the sets' own copies into copies-SET.png")
    given = parser.parse_args()
    wanted = tuple(filter(None, given.sets.split(",")))
    path = RESULTS / "audit.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    jobs = [("copies", name) for name in COPY_SETS] + [("suspects", name) for name in LABEL_SETS]
    for what, name in jobs:
        if given.only not in (None, what) or (wanted and name not in wanted):
            continue
        rows = [row for row in rows if (row["what"], row["set"]) != (what, name)]
        if what == "copies":
            rows += copies(name, given.data_root, given.sheet)
        else:
            rows += labels(name, given.data_root, given.seeds)
        record("audit", rows)


if __name__ == "__main__":
    main()
