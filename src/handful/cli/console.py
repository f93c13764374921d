"""What all commands share: the person who waits is told how far it is; times are read; the last lines."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from handful import api
from handful.types import UsageError

T = TypeVar("T")


@dataclass(kw_only=True)
class Printed:
    """What every command that makes something lets a person choose."""

    json: bool = False
    """print the result as JSON"""
    quiet: bool = False
    """say nothing until the result"""


def parse(kind: type[T], command: str, words: Sequence[str]) -> T:
    """The words after ``handful COMMAND``; ends the program where they cannot be read."""
    return tyro.cli(kind, args=list(words), prog=f"handful {command}")


def said(command: str, words: Sequence[str]) -> str:
    """The whole line again, for the report."""
    return shlex.join(["handful", command, *words])


def print_json(about: Any) -> None:
    """One line."""
    print(json.dumps(about, ensure_ascii=False))


class ConsoleTeller(api.Teller):
    """Plain lines, and on a terminal a progress bar with the time left; ``quiet`` says nothing at all."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet, self.begun = quiet, time.perf_counter()
        self.console = Console(stderr=True, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
        self.bars = Progress(*columns, TimeRemainingColumn(), console=self.console, transient=True)
        self.task: TaskID | None = None
        self.what = ""

    @property
    def elapsed(self) -> float:
        """Seconds since it was made."""
        return time.perf_counter() - self.begun

    def __enter__(self) -> ConsoleTeller:
        if self.console.is_terminal and not self.quiet:
            self.bars.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.bars.live.is_started:  # stopping what never started would print an empty line
            self.bars.stop()

    def tell(self, line: str) -> None:
        if not self.quiet:
            self.console.print(line, markup=False, soft_wrap=True)

    def progress(self, what: str, done: int, total: int) -> None:
        if self.quiet or not self.console.is_terminal:
            return
        if what != self.what:
            if self.task is not None:
                self.bars.remove_task(self.task)
            self.task, self.what = self.bars.add_task(what, total=total), what
        assert self.task is not None
        self.bars.update(self.task, completed=done, total=total)


def seconds(text: str) -> float:
    """ "90s", "5m", "1.5h" or a plain number of seconds.

    Raises:
        UsageError: anything else, or nothing left of it.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if not found or float(found[1]) <= 0:
        raise UsageError(f"'{text}' is not a time", fix="write it as 90s, 5m or 1h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def as_time(value: float) -> str:
    """300 as "5m"; ``seconds`` reads it."""
    return f"{value / 60:g}m" if value >= 60 and value % 60 == 0 else f"{value:g}s"


def closing(run: api.Run, elapsed: float, as_json: bool = False) -> None:
    """What came out, and what to do next."""
    if as_json:
        print_json(run.as_dict() | {"seconds": round(elapsed, 1)})
        return
    console = Console(highlight=False)
    if run.accuracy is None:
        headline = f"accuracy not known: measured on {run.measured_on}"
    else:
        headline = f"{100 * run.accuracy:.1f} % right"
        if run.interval:
            headline += f" (95 % interval {100 * run.interval[0]:.1f} to {100 * run.interval[1]:.1f})"
        headline += f", measured on {run.measured_on}"
    lines = [
        f"{run.chosen}: {headline}",
        f"report:   {run.folder / 'report.html'}",
        f"classify: handful predict {shlex.quote(str(run.folder))} PICTURES…",
        f"({elapsed:.0f} s)",
    ]
    console.print("\n".join(lines), markup=False, soft_wrap=True)
