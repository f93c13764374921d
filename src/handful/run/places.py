"""Where things lie: the cache, data sets known by name, the folders that results go to."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import Any

from handful.data.sources import TABLES
from handful.data.tables import read_table
from handful.types import UsageError


def cache_folder() -> Path:
    """Where decoded pictures and features are kept: HANDFUL_CACHE, or the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("HANDFUL_CACHE") or platformdirs.user_cache_dir("handful"))


def downloads() -> Path:
    """Where data sets that are known by name are kept."""
    return cache_folder() / "datasets"


def slug(text: str) -> str:
    """A name as part of a path: small letters, numbers and hyphens; accents are taken off."""
    text = unicodedata.normalize("NFKD", text.replace("ß", "ss")).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower() or "pictures"


def folder_for(out: str | Path | None, data: Any, *words: str) -> Path:
    """The folder ``out`` that was asked for, or else one below ``runs/`` that is named by ``words``.

    Raises:
        UsageError: it lies in the folder of the pictures ``data``, or in one with pictures of a table (other than the
            table's own).
    """
    folder = Path(out) if out else Path("runs") / "-".join(map(slug, words))
    check_outside(folder, data)
    return folder


def check_outside(folder: Path, data: Any) -> None:
    """Raises UsageError where ``folder`` lies among the pictures ``data``."""
    if not isinstance(data, (str, Path)):
        return
    own = Path(data).resolve()
    closed = {own} if own.is_dir() else set[Path]()
    if own.is_file() and own.suffix.lower() in TABLES:
        listed = {os.path.dirname(path) for path in read_table(own).paths}
        closed = {(own.parent / place).resolve() for place in listed} - {own.parent}
    if any(folder.resolve().is_relative_to(place) for place in closed):
        fix = f"choose another folder with --out, such as --out ../{'/'.join(folder.parts[-2:])}"
        raise UsageError("lies in the folder of pictures, which is only read", file=folder, fix=fix)


def check_no_run(folder: Path) -> None:
    """Raises UsageError where a page would replace the report of a run."""
    if (folder / "run.toml").exists():
        fix = "choose another folder with --out"
        raise UsageError("is the folder of a run, whose report this would replace", file=folder, fix=fix)
