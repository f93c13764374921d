"""Pictures that a CSV, TSV or Parquet table lists: ``path,label[,split][,domain]``."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from handful.data.manifest import Manifest, checked, fingerprint, printable, split_of
from handful.types import UsageError, did_you_mean

COLUMNS = ("path", "label", "split", "domain")
ANY_TABLE = frozenset(
    ["labels", "label", "table", "data", "index", "train", "images", "annotations", "metadata"]
)
SHOWN = 3  # wrong rows that a message names


def read_table(path: Path) -> Manifest:
    """The manifest of a table. Paths are relative to the table's folder, an empty label means unlabelled.

    Raises:
        UsageError: it cannot be read, a column is missing or unknown, a file is missing, a path comes twice with
            different labels or splits, or see ``manifest.checked``.
    """
    header, rows = _parquet(path) if path.suffix.lower() == ".parquet" else _text(path)
    where = _columns(path, header)
    paths: list[str] = []
    words: list[str] = []
    splits: list[str] = []
    domains: list[str] = []
    seen: dict[str, tuple[int, str, str]] = {}
    missing: list[str] = []
    for number, row in rows:
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            fix = "put quotes around names that hold the separator"
            raise UsageError(
                f"row {number} has {len(row)} columns instead of {len(header)}", file=path, fix=fix
            )
        file, word, split, domain = (row[where[c]].strip() if c in where else "" for c in COLUMNS)
        try:
            part = split_of(split)
            word.encode()
        except UsageError as error:
            raise UsageError(f"row {number}: {error.reason}", file=path, fix=error.fix) from error
        except UnicodeEncodeError as error:
            fix = "save the table as UTF-8"
            raise UsageError(f"row {number}: the label is not UTF-8 text", file=path, fix=fix) from error
        if not file:
            raise UsageError(f"row {number} has no path", file=path, fix="fill it in, or remove the row")
        if "\\" in file and not _is_file(path.parent, file):  # a table from Windows
            file = file.replace("\\", "/")
        file = os.path.normpath(file)
        if file in seen:
            first, label, other = seen[file]
            if label != word:
                reason = (
                    f"rows {first} and {number} give '{printable(file)}' two labels, '{label}' and '{word}'"
                )
                raise UsageError(reason, file=path, fix="keep the right one")
            if other != part:
                reason = f"rows {first} and {number} put '{printable(file)}' into two splits"
                raise UsageError(reason, file=path, fix="keep one: what is tested must not be learnt from")
            continue
        seen[file] = (number, word, part)
        if not _is_file(path.parent, file):
            missing.append(f"row {number}: {printable(file)}")
            continue
        for column, cell in ((paths, file), (words, word), (splits, part), (domains, printable(domain))):
            column.append(cell)
    if missing:
        listed = ", ".join(name[:200] for name in missing[:SHOWN]) + (", …" if len(missing) > SHOWN else "")
        raise UsageError(
            f"{'a listed file is' if len(missing) == 1 else f'{len(missing)} listed files are'} missing ({listed})",
            file=path,
            fix=f"write paths relative to {path.parent}, or remove the rows",
        )
    classes, labels, found = checked(path, paths, words, splits)
    notes = [f"{w}/{s}/{d}" for w, s, d in zip(words, found, domains)]
    return Manifest(
        root=path.parent,
        classes=classes,
        paths=tuple(paths),
        labels=labels,
        splits=np.array(found),
        fingerprint=fingerprint(path.parent, paths, notes),
        name=_name(path),
        domains=np.array(domains) if "domain" in where else None,
    )


def _name(path: Path) -> str:
    """Of the data, for titles: the table's, or its folder's where the table's says nothing."""
    name = path.resolve().parent.name if path.stem.lower() in ANY_TABLE else path.stem
    return printable(name) or "pictures"


def _columns(path: Path, header: Sequence[str]) -> dict[str, int]:
    names = [name.strip().lower() for name in header]
    for name in names:
        if name not in COLUMNS:
            hint = did_you_mean(name, COLUMNS)
            fix = f"{hint} The columns are path,label and, if wanted, split,domain".strip()
            raise UsageError(f"has an unknown column '{printable(name)[:80]}'", file=path, fix=fix)
        if names.count(name) > 1:
            raise UsageError(f"has two columns '{name}'", file=path, fix="keep one")
    for name in COLUMNS[:2]:
        if name not in names:
            raise UsageError(f"has no column '{name}'", file=path, fix="begin it with the line path,label")
    return {name: i for i, name in enumerate(names)}


def _text(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header and numbered rows of a CSV; comma, semicolon and tab are told apart by the first line."""
    text = path.read_bytes().decode("utf-8-sig", "surrogateescape")  # a path may hold any byte, a label not
    first = text.split("\n", 1)[0]
    separator = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise UsageError(
            f"row {reader.line_num} cannot be read ({error})", file=path, fix="check its quotes"
        ) from error
    if not rows:
        raise UsageError("is empty", file=path, fix="begin it with the line path,label")
    return rows[0][1], rows[1:]


def _parquet(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        fix = "pip install 'handful[parquet]', or save the table as CSV"
        raise UsageError("Parquet tables need pyarrow, which is not installed", file=path, fix=fix) from error
    try:
        table = parquet.read_table(path)
    except (ArrowException, OSError, ValueError) as error:
        raise UsageError(
            f"cannot be read ({error})", file=path, fix="write it again, or save it as CSV"
        ) from error
    columns = [[_cell(value) for value in column.to_pylist()] for column in table.columns]
    return list(table.column_names), list(enumerate(map(list, zip(*columns)), start=1))


def _cell(value: Any) -> str:
    """A value of a Parquet table as text: nothing for None and NaN, "3" for 3.0."""
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _is_file(folder: Path, name: str) -> bool:
    try:
        return (folder / name).is_file()
    except (OSError, ValueError):  # too long for the system, or with a zero byte
        return False
