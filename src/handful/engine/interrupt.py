"""Ctrl-C and SIGTERM: finish the step, save, stop; a second time, stop at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from handful.files import release_all
from handful.types import Interrupted

_requested: int | None = None
_can_wait = 0


def requested() -> int | None:
    """The number of the signal that asked to stop, if one did."""
    return _requested


@contextmanager
def listening() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into ``Interrupted``; inside ``finishing`` they wait for the step's end.
    Folders that were held meanwhile are given back at the end.

    Only the main thread may do that; in another one, signals are left to whoever has them.
    """
    if threading.current_thread() is not threading.main_thread():
        try:
            yield
        finally:
            release_all()
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        global _requested
        first, _requested = _requested is None, number
        if not (first and _can_wait):
            raise Interrupted(number)

    global _requested
    _requested = None
    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _requested = None
        release_all()


@contextmanager
def finishing() -> Iterator[None]:
    """Work that looks at ``requested()`` often and saves its state by itself."""
    global _can_wait
    _can_wait += 1
    try:
        yield
    finally:
        _can_wait -= 1
