"""The table of backbones for the docs, from the figures of ``benchmarks.backbones``: ``python -m
benchmarks.backbone_table``."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.show import cell

RESULT = Path(__file__).parent / "results" / "backbones.json"


def table() -> str:
    """Markdown: a row a network, and where the figures come from."""
    if not RESULT.exists():
        return "Not measured here yet: `python -m benchmarks.backbones` makes this table.\n"
    found = json.loads(RESULT.read_text())
    columns = list(dict.fromkeys(key for row in found["rows"] for key in row))
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for row in found["rows"]:
        lines.append(f"| {' | '.join(cell(row.get(column, '–')) for column in columns)} |")
    about = [f"`{found['command']}`", found["date"], found["machine"]["cpu"]]
    source = f"{', '.join(about)}, threads: {found['threads']}, batches of {found['batch']}."
    return "\n".join([*lines, "", source]) + "\n"


if __name__ == "__main__":
    print(table())
