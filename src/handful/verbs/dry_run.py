"""``handful fit --dry-run``: what a run would do, from names and headers alone; nothing is written."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from handful.data.images import from_array, survey
from handful.data.manifest import LABELLED, SPLITS, UNLABELLED
from handful.recipes.table import candidates, find
from handful.recipes.task import Task
from handful.verbs.fit import FitOptions, manifest_of, place_of


@dataclass(frozen=True)
class Planned:
    """What a run would do.

    Attributes:
        folder: where it would go, and its ``state`` there: "new", "goes on", "is finished" or "refused".
        counts: pictures per split; ``per_class`` the labelled ones per class.
        channels, side: how pictures would be stored.
        candidates: (name, title, note) of what would be tried, in this order.
        seconds: the time that was given.
    """

    folder: str
    state: str
    counts: dict[str, int]
    per_class: dict[str, int]
    channels: int
    side: int
    candidates: list[tuple[str, str, str]]
    seconds: float

    def text(self) -> str:
        """For a person."""
        numbers = ", ".join(f"{n:,} {split}" for split, n in self.counts.items())
        few = sorted(self.per_class.items(), key=lambda item: item[1])
        kind = "gray" if self.channels == 1 else "colour"
        lines = [
            f"pictures:   {numbers} ({kind}, stored at {self.side} px)",
            f"classes:    {len(few)}, labelled pictures from {few[0][1]} ({few[0][0]}) to {few[-1][1]} ({few[-1][0]})",
            f"run folder: {self.folder} ({self.state})",
            f"time:       {self.seconds:g} s",
            "would try:",
        ]
        width = max(len(name) for name, _, _ in self.candidates)
        lines += [
            f"  {name:<{width}}  {title}{f' ({note})' if note else ''}"
            for name, title, note in self.candidates
        ]
        return "\n".join([*lines, "nothing was read but names and headers, and nothing was written"])


def dry_run(data: Any, options: FitOptions | None = None, *, out: str | Path | None = None) -> Planned:
    """What ``fit`` would do, from names and headers alone; nothing is written.

    Raises:
        UsageError: the data or the options cannot be used as given.
        HandfulError: none of the pictures looked at can be read.
    """
    options = (options or FitOptions()).with_policies()
    only = options.asked()
    manifest = manifest_of(data, options)
    folder, identity = place_of(manifest, data, options, out)
    channels, side = survey(manifest)
    side = options.side or side
    labelled, unlabelled = manifest.ids(LABELLED), manifest.ids(UNLABELLED)
    y = manifest.labels[labelled]
    blank = np.zeros((1, channels, side, side), np.uint8)  # tells recipes what kind the pictures are
    rows = torch.from_numpy
    task = Task(
        from_array(blank, fingerprint="dry run"), rows(labelled), rows(y), rows(unlabelled), manifest.classes
    )
    tried = []
    for candidate in [only] if only else candidates(task):
        recipe = find(candidate.recipe)
        on = candidate.on or recipe.space(task)
        notes = ["learns from unlabelled pictures"] if recipe.uses_unlabelled else []
        if recipe.uses_unlabelled and not len(unlabelled):
            notes = ["not tried: there are no unlabelled pictures"]
        elif recipe.trains:
            notes.append("trains a network, if time and prior give it a chance")
        tried.append((f"{candidate.recipe}@{on}", recipe.title, "; ".join(notes)))
    counts = {split: int((manifest.splits == split).sum()) for split in SPLITS}
    per_class = {name: int((y == k).sum()) for k, name in enumerate(manifest.classes)}
    return Planned(
        str(folder), _state(folder, identity), counts, per_class, channels, side, tried, options.seconds
    )


def _state(folder: Path, identity: str) -> str:
    """What a run would find at its place."""
    book = folder / "run.toml"
    try:
        found = tomllib.loads(book.read_text())
    except OSError:
        return "refused: not empty and not a run" if folder.is_dir() and any(folder.iterdir()) else "new"
    except tomllib.TOMLDecodeError:
        return "refused: its run.toml is damaged"
    if found.get("identity") != identity:
        return "refused: holds a run on other data, with other options, or of another version"
    return "is finished" if "result" in found else "goes on"
