"""``demo`` and ``moons``: the main job and the methods on data that need no download."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from handful.data.split import draw
from handful.engine.interrupt import listening
from handful.randomness import permutation
from handful.report.moons import write as write_moons
from handful.run.file import FitOptions, Run, versions
from handful.run.ground import Teller
from handful.study.moons import Moons, Played, entries, play, summary
from handful.types import UsageError
from handful.verbs.fit import fit


def demo(
    folder: str | Path = "runs/demo-digits", *, seed: int = 0, teller: Teller | None = None, **options: Any
) -> Run:
    """The main job on handwritten digits that ship with scikit-learn: 4 labels per class, the rest unlabelled,
    450 pictures held out. The pictures are written to ``folder/digits`` as PNG files first."""
    pictures = Path(folder) / "digits"
    write_digits(pictures, per_class=4, seed=seed)
    choices = FitOptions(seconds=90, seed=seed, without_priors=("digits",))
    return fit(
        pictures, replace(choices, **options), out=Path(folder) / "run", teller=teller, command="handful demo"
    )


def write_digits(folder: Path, *, per_class: int, seed: int) -> None:
    """The digits as a folder: <class>/ with ``per_class`` pictures each, unlabeled/, test/<class>/ (450)."""
    from PIL import Image
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    pictures = np.round(x * 255 / 16).astype(np.uint8).reshape(-1, 8, 8)
    order = permutation(len(y), "digits")
    test, pool = np.sort(order[:450]), np.sort(order[450:])
    labelled = set(pool[draw(y[pool].astype(np.int64), per_class, seed)].tolist())
    in_test = set(test.tolist())
    for row in range(len(y)):
        if row in in_test:
            place = folder / "test" / str(y[row])
        else:
            place = folder / (str(y[row]) if row in labelled else "unlabeled")
        path = place / f"{row:04d}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pictures[row]).save(path)


def moons_methods() -> list[str]:
    """What ``moons`` can show."""
    return list(entries())


def moons(
    methods: Sequence[str] = (),
    setting: Moons | None = None,
    *,
    seeds: int = 1,
    out: str | Path = "runs/moons",
    teller: Teller | None = None,
) -> Path:
    """Every semi-supervised method on two moons; a page with its decision regions and a table over the draws.

    Args:
        methods: names of ``moons_methods()``; by default all.
        seeds: draws 0, 1, …; the first is drawn.

    Raises:
        UsageError: there is no such method, or no draw is asked for.
    """
    setting, teller = setting or Moons(), teller or Teller()
    names = list(methods) or moons_methods()
    if seeds < 1:
        raise UsageError("at least one draw is needed", fix="--seeds 1")
    shown: list[Played] = []
    right: dict[str, list[float]] = {}
    with listening():
        for name in names:
            for seed in range(seeds):
                played = play(
                    name,
                    setting,
                    seed,
                    partial(_tell_step, teller, name, seed * setting.steps, seeds * setting.steps),
                )
                right.setdefault(name, []).append(played.right)
                shown += [played] if seed == 0 else []
            teller.tell(f"{name}: {100 * sum(right[name]) / seeds:.1f} % of the points right")
    about = {
        "set": f"{setting.points} points, {setting.labels} + {setting.labels} labelled, {seeds} draws",
        "setting": str(setting),
        "versions": ", ".join(f"{k} {v}" for k, v in versions().items()),
    }
    return write_moons(Path(out), summary(right), shown, about)


def _tell_step(teller: Teller, name: str, before: int, total: int, step: int) -> None:
    teller.progress(name, before + step, total)
