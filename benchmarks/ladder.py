"""The ladder of baselines as a table, from figures that other benchmarks wrote: ``python -m benchmarks.ladder``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
STEPS = (
    ("nearest-mean", "nearest class mean", "the mean of each class's features"),
    ("knn", "nearest neighbours", "the most similar labelled pictures"),
    ("logistic", "logistic regression", "one linear layer on frozen features, from the labels alone"),
    ("supervised", "small network from scratch", "a network that learns everything from the labels alone"),
    ("fine-tune", "fine-tuning", "a pretrained network, from the labels alone"),
    ("propagation", "label propagation", "the unlabelled pictures join in: labels flow between neighbours"),
    ("pseudo-label", "pseudo-labels", "a network learns what label propagation says"),
    ("fixmatch", "FixMatch", "that network goes on with its own confident answers"),
    (
        "fine-tune-pseudo",
        "fine-tuning with pseudo-labels",
        "a pretrained network learns what label propagation says",
    ),
    ("auto", "automatic choice", "tries, compares and chooses"),
)


def table(labels: int = 4) -> str:
    """Markdown: a row a step, a column a data set; percent right, ± the standard deviation over label draws."""
    digits, flowers = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("digits", "flowers"))
    on_digits, on_flowers = figures(digits["rows"], labels), figures(flowers["rows"], labels)
    lines = ["| Step | What it adds | Digits | Flowers |", "|---|---|---|---|"]
    for name, title, words in STEPS:
        if name in on_digits or name in on_flowers:
            cells = [on.get(name, "–") for on in (on_digits, on_flowers)]
            lines.append(f"| {title} (`{name}`) | {words} | {' | '.join(cells)} |")
    source = f"Digits: `{digits['command']}`, {digits['date']}. Flowers: `{flowers['command']}`, {flowers['date']}."
    return "\n".join([*lines, "", source]) + "\n"


def figures(rows: list[dict[str, Any]], labels: int) -> dict[str, str]:
    """Accuracy ± spread of each recipe; of several settings the one that stands last (most steps)."""
    return {
        row["recipe"].partition("@")[0]: f"{row['accuracy']:.1f} ± {row['sd']:.1f}"
        for row in rows
        if row["labels"] == labels and "sd" in row
    }


if __name__ == "__main__":
    print(table())
