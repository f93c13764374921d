"""``moons``: every semi-supervised method on two moons."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from handful.engine.interrupt import listening
from handful.report.moons import write as write_moons
from handful.run.file import versions
from handful.run.teller import Teller
from handful.study.moons import Moons, Played, entries, play, summary
from handful.types import UsageError


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
