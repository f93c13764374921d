"""Ctrl-C and SIGTERM: finish the step, save, stop; a second time, stop at once.

What a run was asked is its own affair: several may go on in one process, each in a thread.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import FrameType

from handful.files import holding
from handful.types import Interrupted


@dataclass
class _Run:
    """One that listens: the signal that it was asked to stop by, and how many it is in that wait for a step's end."""

    asked: int | None = None
    finishing: int = 0


_run: ContextVar[_Run | None] = ContextVar("the run of this thread", default=None)


def requested() -> int | None:
    """The number of the signal by which this thread's run was asked to stop, if it was."""
    run = _run.get()
    return run.asked if run else None


@contextmanager
def listening() -> Iterator[Callable[[int], None]]:
    """A run that can be asked to stop, and that gives back the folders which it holds, at its end.

    In the main thread SIGINT and SIGTERM ask it: they become ``Interrupted``, inside ``finishing`` at the step's end.
    In another one, signals are left to whoever has them. Gives a function by which any thread may ask this run, with
    the number of a signal: then it stops at the end of its step.
    """
    run = _Run()

    def ask(number: int = signal.SIGTERM) -> None:
        run.asked = number

    def on_signal(number: int, frame: FrameType | None) -> None:
        first, run.asked = run.asked is None, number
        if not (first and run.finishing):
            raise Interrupted(number)

    main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if main else ()
    outer = _run.set(run)
    with holding():
        before = {number: signal.signal(number, on_signal) for number in numbers}
        try:
            yield ask
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            _run.reset(outer)


@contextmanager
def finishing() -> Iterator[None]:
    """Work that looks at ``requested()`` often and saves its state by itself."""
    run = _run.get() or _Run()
    run.finishing += 1
    try:
        yield
    finally:
        run.finishing -= 1
