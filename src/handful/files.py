"""Files that are either whole or not there: write beside, flush to disk, rename."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from handful.types import HandfulError


def write_atomic(path: str | Path, content: bytes | str) -> None:
    """Replace ``path`` by ``content``; whoever is killed meanwhile leaves the old file or the new one.

    Text becomes UTF-8; what has no code there (a byte of an odd file name) is spelled out, as ``\\udce9``.

    Raises:
        HandfulError: the disk is full or the folder cannot be written; the old file is still there.
    """
    path = Path(path)
    scratch = path.with_name(f"{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(scratch, "wb") as out:
            out.write(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)
            out.flush()
            os.fsync(out.fileno())
        os.replace(scratch, path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise HandfulError(
            f"cannot be written ({error.strerror or error})",
            file=path,
            fix="free some space or choose another folder",
        ) from error


_held: dict[Path, int] = {}  # locks of this process, and their open files


def hold(path: Path) -> None:
    """Lock a folder for this process by a file in it, until ``release`` or the process's end, however it ends (a kill
    leaves the file, which then locks nothing).

    Where the system has no such locks nothing is locked.

    Raises:
        HandfulError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:
        return
    path = path.resolve()
    if path in _held:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        fix = "free some space or choose another folder"
        raise HandfulError(f"cannot be written ({error.strerror or error})", file=path, fix=fix) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        fix = "wait until it has finished, or choose another folder with --out"
        raise HandfulError("another process is at work in this folder", file=path.parent, fix=fix) from error
    except OSError:  # a file system without locks
        os.close(handle)
        return
    _held[path] = handle


def release(path: Path) -> None:
    """Give a lock back that ``hold`` took; nothing where there is none."""
    handle = _held.pop(path.resolve(), None)
    if handle is not None:
        with suppress(OSError):
            path.unlink()
        os.close(handle)


def release_all() -> None:
    """Give back every lock of this process."""
    for path in list(_held):
        release(path)


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` last through a power cut (where the system can)."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
