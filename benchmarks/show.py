"""``python -m benchmarks.show`` writes ``docs/results.md``, the headlines, and ``docs/results/NAME.md``, a table for
every result in ``benchmarks/results``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import headlines
from benchmarks.common import RESULTS

DOCS = Path(__file__).parent.parent / "docs"
TITLES = {
    "digits": "Handwritten digits, 4 labels per class: does the shipped model beat labelled-only training?",
    "flowers": "tf_flowers at 1, 4, 16 and 64 labels per class",
    "caltech": "Caltech-101 at 1, 4 and 16 labels per class",
    "cifar_features": "CIFAR-10 at 1, 4, 25, 100 and 400 labels per class",
    "cifar_few": "CIFAR-10 from scratch, 25 labels per class",
    "cifar_many": "CIFAR-10 from scratch, 400 labels per class (CIFAR-10-4K), all labels, and a list of regularisers",
    "extend": "Adding classes without the old pictures: Learning without Forgetting, accuracy on old and new classes",
    "finetune": "Fine-tuning taken apart: tf_flowers, 16 labels per class",
    "audit": "Duplicates, suspect labels and the distance between two sets",
    "augment": "Speed of augmentation",
    "augment_pays": "What augmentation is worth: CIFAR-10 from scratch, tf_flowers fine-tuned",
    "bright_dark": "Learnt on bright pictures, tested on dark ones",
    "pointing": "Do class activation maps point at planted objects? No mixing, MixUp, CutMix",
    "fashion": "Fashion-MNIST at 4 and 25 labels per class, pool 60,000: small networks by every method",
    "fashion_long": "Fashion-MNIST, 25 labels per class, more steps",
    "fashion_rest": "Fashion-MNIST: the other methods, on one draw",
    "feature_matching": "Every method on frozen features: seconds a run",
    "matching": "How the recipes FixMatch and Meta Pseudo Labels were set: USPS and MNIST at 8 pixels",
    "norms": "Batch norm's statistics: from the training, or anew from pictures as they are",
    "semi_step": "One FixMatch step against the public benchmark's",
    "share": "Label propagation: how much of the labelled pictures' own regression in the head",
    "choice": "By how much must a candidate lead to ship?",
    "screening": "Screening of unlabelled pictures",
    "self_supervised": "Self-supervised starts on Fashion-MNIST: linear probe and fine-tuning against random weights",
    "imbalance": "Long-tailed labels (20 to 1) on Fashion-MNIST: with and without distribution alignment",
    "distill": "Distillation: CIFAR-10, 1,000 labels, a teacher thirty times as large",
    "distill_flowers": "Distillation: tf_flowers, a fine-tuned EfficientNet-Lite0 teaches a small network",
    "moons": "Two moons, every semi-supervised method",
    "moons_mpl": "Two moons: can the result of Meta Pseudo Labels be had?",
    "mpl_memory": "Memory of Meta Pseudo Labels, full and reduced",
    "fit_time": "How long a whole fit takes",
    "propagation": "Label propagation: the defaults against the plain form",
    "sweeps": "Label propagation: stopped after some sweeps, and the limit",
    "forecast": "Forecast from 1, 2, 4, 8, 16 labels per class: accuracy at larger sizes",
    "feature_size": "Input size and mirror of frozen features",
    "imagenet_check": "Packaged EfficientNet-Lite0 on 500 ImageNet pictures",
    "features": "Speed of frozen features",
    "overhead": "Share of a training step that is not the network",
    "calibration": "Temperature scaling: calibration error before and after, with and without a prior",
    "reject": "None of these: what the threshold catches",
    "precision": "bfloat16 against float32 training",
    "memory": "Memory against the number of pictures",
    "backbones": "Backbones: cost, receptive field, speed",
    "degradation": "Degradation: training error of plain and residual nets of 20 and 56 layers",
    "prior": "The prior of the automatic choice",
    "weights": "Final weights of nine trainers on the digits, as hashes: what a refactoring must not move",
}
PRECISE = ("cifar_few", "cifar_many", "fashion", "fashion_long", "fashion_rest", "matching", "norms")
PLAIN = (
    "Made with batch norm's statistics from plain pictures "
    "([decision 12](../decisions/0012-statistics-of-plain-pictures.md))."
)
HEAD = """# Measured results

What has been measured, on one page. Percentages are accuracies on test pictures. Differences are in percentage points,
paired by label draw, with Student's t interval over the draws: read the interval, not only the figure. From two or
three draws it says little. Speeds drift from machine to machine: trust the ratios.

This page and the raw tables are made by `python -m benchmarks.show` from `benchmarks/results/*.json`.
"""
TABLES = f"""
## All tables

Accuracies are in percent; spreads are sample standard deviations over label draws. Since [decision
12](decisions/0012-statistics-of-plain-pictures.md) batch norm's statistics come from plain pictures. Of the tables of
networks from scratch,
{", ".join(f"`{name}`" for name in PRECISE)}
were made with it; the others are older, and their labels-only rows may be too low by up to some points.
"""
OWN = {"rows", "command", "date", "machine", "versions"}


def pages() -> dict[str, str]:
    """Every page that is made here, by its path below ``docs``."""
    names = [
        *TITLES,
        *sorted(p.stem for p in RESULTS.glob("*.json") if "." not in p.stem and p.stem not in TITLES),
    ]
    found = {name: json.loads((RESULTS / f"{name}.json").read_text()) for name in names}
    made = {f"results/{name}.md": section(name, content) for name, content in found.items()}
    tables = [f"- [{TITLES.get(name, name)}](results/{name}.md), {found[name]['date']}" for name in names]
    return {"results.md": "\n".join([HEAD, *headlines.table(), TABLES, *tables, ""]), **made}


def section(name: str, found: dict[str, Any]) -> str:
    """The page of one result: title, provenance and table."""
    machine, versions = found.get("machine", {}), found.get("versions", {})
    about = [
        f"`{found['command']}`",
        found["date"],
        f"{machine.get('cpu', '')}, {machine.get('cores', '?')} cores, {' '.join(machine.get('flags', []))}",
        f"torch {versions.get('torch', '?')}",
        *(f"{key}: {cell(value)}" for key, value in found.items() if key not in OWN),
    ]
    columns = list(dict.fromkeys(key for row in found["rows"] for key in row))
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(cell(row.get(column, '')) for column in columns)} |" for row in found["rows"]]
    parts = [f"# {TITLES.get(name, name)}", "; ".join(about) + ".", "\n".join(lines)]
    if (DOCS / "figures" / f"{name}.svg").exists():
        parts.insert(2, f"![Accuracy against labels per class](../figures/{name}.svg)")
    if name in PRECISE:
        parts.insert(2, PLAIN)
    return "\n\n".join(parts) + "\n"


def cell(value: Any) -> str:
    """A value as a table shows it."""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, dict):
        return ", ".join(f"{k} {cell(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(cell(v) for v in value)
    return str(value).replace("|", "/")


if __name__ == "__main__":
    (DOCS / "results").mkdir(exist_ok=True)
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")
    print(DOCS / "results.md")
