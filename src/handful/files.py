"""Files that are either whole or not there: write beside, flush to disk, rename. Locks of runs on their folders."""

from __future__ import annotations

import csv
import glob
import io
import itertools
import json
import os
import platform
import shutil
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from handful.types import HandfulError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# this machine, or container: process numbers mean nothing on another one
HERE = f"{zlib.crc32(platform.node().encode()):08x}"
_numbers = itertools.count()  # of this process's scratch names


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A name next to ``path`` that no other writer has, for a file or a folder that is renamed to it when it is whole.
    What is left there is removed at the end, and what writers of ``path`` that were killed have left, at the beginning.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for other in path.parent.glob(f"{glob.escape(path.name)}.*.tmp"):
        if not _at_work(other):
            _remove(other)
    scratch = path.with_name(f"{path.name}.{next(_numbers)}.{HERE}.{os.getpid()}.tmp")
    try:
        yield scratch
    finally:
        _remove(scratch)


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _at_work(scratch: Path) -> bool:
    """Whether the process that a scratch is named after still runs; on another machine, for a day."""
    *_, host, process, _ = scratch.name.split(".")
    try:
        if host != HERE:
            return time.time() - scratch.stat().st_mtime < 24 * 3600
        if os.name != "nt":  # there, signal 0 would end it
            os.kill(int(process), 0)
    except (ProcessLookupError, FileNotFoundError, ValueError):
        return False
    except OSError:  # it runs, under another user
        return True
    return True


def write_atomic(path: str | Path, content: bytes | str) -> None:
    """Replace ``path`` by ``content``; whoever is killed meanwhile leaves the old file or the new one. Of several
    writers at once the last one's content stays.

    Text becomes UTF-8; what has no code there (a byte of an odd file name) is spelled out, as ``\\udce9``.

    Raises:
        HandfulError: the disk is full or the folder cannot be written; the old file is still there.
    """
    path = Path(path)
    try:
        with beside(path) as scratch:
            with open(scratch, "wb") as out:
                out.write(
                    content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
                )
                out.flush()
                os.fsync(out.fileno())
            os.replace(scratch, path)
        sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error


def as_csv(rows: Iterable[Iterable[object]]) -> str:
    """Rows as the text of a table, a line each."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def agree(path: Path, mine: Mapping[str, Any]) -> dict[str, Any]:
    """Decisions that several processes share in a JSON file: those of ``mine`` that nobody has taken are added, for the
    others what is there holds. Gives all of them.

    Raises:
        HandfulError: as ``write_atomic``.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _turn(path.parent):
            found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
            if mine.keys() - found.keys():
                write_atomic(path, json.dumps({**mine, **found}, indent=1))
            return {**mine, **found}
    except OSError as error:
        raise _unwritable(path, error) from error


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """One process and one thread at a time; where the system has no locks nobody waits."""
    handle = os.open(folder, os.O_RDONLY) if fcntl else None
    try:
        if fcntl and handle is not None:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        if handle is not None:
            os.close(handle)


_outside_runs: dict[Path, int] = {}
_locks = ContextVar("locks of this run, and their open files", default=_outside_runs)


@contextmanager
def holding() -> Iterator[None]:
    """A run: the locks that it takes inside are given back at the end, and no others."""
    before = _locks.set({})
    try:
        yield
    finally:
        for path in list(_locks.get()):
            release(path)
        _locks.reset(before)


def hold(path: Path) -> None:
    """Lock a folder for this run by a file in it, until ``release``, the end of ``holding`` or the process's, however
    it ends (a kill leaves the file, which then locks nothing).

    Where the system has no such locks nothing is locked.

    Raises:
        HandfulError: another run holds it, of another process or of another thread.
    """
    path = path.resolve()
    if fcntl is None or path in _locks.get():
        return
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise _unwritable(path, error) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            fix = "wait until it has finished, or choose another folder with --out"
            raise HandfulError("another run is at work in this folder", file=path.parent, fix=fix) from error
        except OSError:  # a file system without locks
            os.close(handle)
            return
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                _locks.get()[path] = handle
                return
        os.close(handle)  # whoever had it has removed the file meanwhile: it locks nothing


def release(path: Path) -> None:
    """Give a lock back that this run took by ``hold``; nothing where there is none."""
    handle = _locks.get().pop(path.resolve(), None)
    if handle is not None:
        with suppress(OSError):
            path.unlink()
        os.close(handle)


def _unwritable(path: Path, error: OSError) -> HandfulError:
    fix = "free some space or choose another folder"
    return HandfulError(f"cannot be written ({error.strerror or error})", file=path, fix=fix)


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` last through a power cut (where the system can)."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
