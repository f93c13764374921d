"""Decoded pictures as one uint8 array [N, C, H, W], mapped from the user's cache, never copied whole.

Every picture is decoded once, its shorter side resized to S pixels and its middle cut out, and written to a
file in the cache; a run reads it through the page cache, so that memory does not grow with the data.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from handful.data.manifest import Manifest
from handful.files import beside, sync_folder
from handful.randomness import digest, key
from handful.types import HandfulError, Interrupted, UsageError

VERSION = 2  # of the store: its layout, and how pictures are decoded
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM")  # whatever a file is called
PHOTO_SIDE = 192  # pixels: what large photographs are stored at
RETRIED = 64  # pictures that could not be read, when a store is opened again
MAX_PIXELS = 64_000_000  # larger files are refused as decompression bombs


@dataclass(frozen=True)
class Images:
    """N pictures of equal size.

    Attributes:
        data: uint8 [N, C, H, W], usually mapped from a file.
        names: N names for messages (paths).
        fingerprint: identifies the pixels; part of every cache key.
    """

    data: Tensor
    names: Sequence[str]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.data)

    @property
    def channels(self) -> int:
        return int(self.data.shape[1])

    @property
    def side(self) -> int:
        return int(self.data.shape[2])

    def take(self, ids: Tensor | np.ndarray) -> Tensor:
        """Pictures by row number: uint8 [len(ids), C, H, W]."""
        return self.data.index_select(0, torch.as_tensor(ids, dtype=torch.int64))


def from_array(
    data: np.ndarray, names: Sequence[str] | None = None, fingerprint: str | None = None
) -> Images:
    """Pictures that are already in memory: uint8 [N, H, W] or [N, C, H, W]."""
    if data.ndim == 3:
        data = data[:, None]
    if data.dtype != np.uint8 or data.ndim != 4:
        raise UsageError(f"pictures must be uint8 [N, C, H, W], got {data.dtype} {list(data.shape)}")
    if fingerprint is None:
        fingerprint = f"{key(data.shape, digest(data)):016x}"
    numbers = [f"picture {i}" for i in range(len(data))]
    return Images(torch.from_numpy(np.ascontiguousarray(data)), names or numbers, fingerprint)


def open_store(
    manifest: Manifest,
    cache: Path,
    *,
    side: int | None = None,
    channels: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Images, Manifest, list[tuple[str, str]]]:
    """The pictures of a manifest, decoded now or found in the cache.

    Args:
        side, channels: how they are stored; None decides by the pictures.

    Returns:
        The pictures, the manifest without the files that could not be read, and those files with the reason.

    Raises:
        HandfulError: nothing could be read, or the cache cannot be written.
    """
    with warnings.catch_warnings():  # not in the threads: these filters are shared by all of them
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # decode has a limit of its own
        own, native = survey(manifest)
        channels, side = channels or own, side or native
        name = f"{key(VERSION, manifest.place, manifest.fingerprint, channels, side):016x}"
        folder = cache / "stores" / name
        if not _usable(folder, manifest, channels, side):
            shutil.rmtree(folder, ignore_errors=True)
            _build(manifest, folder, channels, side, progress)
    info = json.loads((folder / "store.json").read_text())
    kept = np.ones(len(manifest), dtype=bool)
    kept[info["bad_rows"]] = False
    manifest = manifest.keep(kept)
    shape = (len(manifest), channels, side, side)
    data = np.memmap(folder / "images.u8", dtype=np.uint8, mode="c", shape=shape)
    return Images(torch.from_numpy(data), manifest.paths, name), manifest, list(map(tuple, info["problems"]))


def _usable(folder: Path, manifest: Manifest, channels: int, side: int) -> bool:
    """Whether a store is there and whole, and what could not be read then cannot be read now: a drive that was away, or
    a file that was not allowed, is no reason to leave pictures out for ever."""
    try:
        bad = json.loads((folder / "store.json").read_text())["bad_rows"]
        size = (folder / "images.u8").stat().st_size
    except (OSError, ValueError, KeyError):
        return False
    if size != (len(manifest) - len(bad)) * channels * side * side:
        return False
    again = np.zeros(len(manifest), dtype=bool)
    again[bad[:RETRIED]] = True
    return all(isinstance(found, str) for found in _decoded(manifest.keep(again), channels, side))


def decode(source: Any, channels: int, side: int) -> np.ndarray:
    """One picture as uint8 [C, side, side]: turned upright, shorter side resized (bicubic), middle cut out.

    Animated pictures give their first frame, transparent parts are white, CMYK and palettes become RGB, and 16-bit
    pictures are scaled to 8 bits.

    Args:
        source: a file, a PIL picture, or a uint8 array [H, W] or [H, W, C].

    Raises:
        ValueError: with the reason in words, where it is not a picture that can be used.
    """
    mode = "RGB" if channels == 3 else "L"
    try:
        if isinstance(source, Path):
            picture = _from_file(source, mode, side)
        else:
            picture = header(source)
            _refuse_bombs(picture)
            picture = _to_mode(ImageOps.exif_transpose(picture), mode)
        if picture.size != (side, side):
            picture = ImageOps.fit(picture, (side, side), Image.Resampling.BICUBIC)
    except Interrupted:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError, ValueError) as error:
        raise ValueError(_reason(error, source) or "cannot be decoded") from error
    except Exception as error:  # a decoder may raise anything on a broken file
        raise ValueError(f"cannot be decoded ({_reason(error, source) or type(error).__name__})") from error
    pixels = np.asarray(picture, dtype=np.uint8)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _reason(error: Exception, source: Any) -> str:
    text = str(error)
    if isinstance(source, Path):
        text = text.replace(repr(str(source)), repr(source.name)).replace(str(source), source.name)
    return text[:300]


def _from_file(path: Path, mode: str, side: int) -> Image.Image:
    """A file as an upright 8-bit picture, at least twice ``side`` large where a JPEG can be decoded smaller."""
    if not path.stat().st_size:
        raise ValueError("is empty (zero bytes)")
    with Image.open(path, formats=FORMATS) as picture:
        _refuse_bombs(picture)
        picture.draft(mode, (2 * side, 2 * side))
        picture.load()
        ImageOps.exif_transpose(picture, in_place=True)
        return _to_mode(picture, mode)


def _refuse_bombs(picture: Image.Image) -> None:
    if picture.width * picture.height > MAX_PIXELS:
        size = f"{picture.width} x {picture.height}"
        raise ValueError(f"{size} pixels is more than is decoded ({MAX_PIXELS:,}): a decompression bomb?")


def _to_mode(picture: Image.Image, mode: str) -> Image.Image:
    """8-bit gray or colour; deeper pictures are scaled to their range, transparency is laid on white.

    16-bit values are divided by 257, unless none is above 255 (8-bit values in a wider file). 32-bit ones are scaled
    so that the largest is white, and fractions so that 1 is.
    """
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.nan_to_num(np.asarray(picture, dtype=np.float64), posinf=0.0, neginf=0.0)
        top = float(values.max())
        if picture.mode == "F" and top <= 1:
            full = 1.0
        elif top <= 255:
            full = 255.0
        else:
            full = 65535.0 if picture.mode.startswith("I") and top <= 65535 else top
        picture = Image.fromarray(np.clip(values * (255.0 / full) + 0.5, 0, 255).astype(np.uint8))
    if picture.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in picture.info:
        front = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", front.size, "white"), front)
    return picture if picture.mode == mode else picture.convert(mode)


def survey(manifest: Manifest, sample: int = 200) -> tuple[int, int]:
    """Channels (1 where all pictures looked at are gray) and the side to store at, from some headers."""
    rows = np.unique(np.linspace(0, len(manifest) - 1, min(sample, len(manifest))).astype(int))
    sides, gray = [], True
    for row in rows:
        try:
            with header(manifest.picture(int(row))) as picture:
                sides.append(min(picture.size))
                gray &= picture.mode in ("1", "L", "LA", "I", "I;16", "I;16B", "F")
        except Interrupted:
            raise
        except Exception:
            continue  # a decoder may raise anything on a broken file; _build lists those with the reason
    if not sides:
        raise HandfulError(
            "none of the pictures looked at can be read",
            file=manifest.root,
            fix="check that the files are pictures (JPEG, PNG, …) and not empty",
        )
    middle = int(np.median(sides))
    return (1 if gray else 3), min(max(middle, 8), PHOTO_SIDE)


def header(source: Any) -> Image.Image:
    """A picture of which only the size and the mode are wanted."""
    if isinstance(source, Path):
        return Image.open(source, formats=FORMATS)
    return source if isinstance(source, Image.Image) else Image.fromarray(np.asarray(source))


def _build(
    manifest: Manifest, folder: Path, channels: int, side: int, progress: Callable[[int, int], None] | None
) -> None:
    """Decode everything into a folder beside its final place, then rename it: a kill leaves no half store.

    Several may do this at once: each has a scratch folder of its own, and the first to finish wins.
    """
    try:
        with beside(folder) as scratch:
            scratch.mkdir()
            bad: list[int] = []
            problems: list[tuple[str, str]] = []
            with open(scratch / "images.u8", "wb") as out:
                for row, result in enumerate(_decoded(manifest, channels, side)):
                    if isinstance(result, str):
                        bad.append(row)
                        problems.append((manifest.paths[row], result))
                    else:
                        out.write(result.tobytes())
                    if progress and (row % 64 == 0 or row + 1 == len(manifest)):
                        progress(row + 1, len(manifest))
                out.flush()
                os.fsync(out.fileno())
            if len(bad) == len(manifest):
                path, reason = problems[0]
                raise HandfulError(
                    f"no picture can be read: {reason}", file=manifest.root / path, fix="check the files"
                )
            # makes no parents: the folder may have been removed by somebody
            with open(scratch / "store.json", "w") as out_text:
                json.dump({"bad_rows": bad, "problems": problems}, out_text)
                out_text.flush()
                os.fsync(out_text.fileno())
            try:
                os.replace(scratch, folder)
            except OSError:
                if not (folder / "store.json").exists():  # otherwise another builder was quicker
                    raise
        sync_folder(folder.parent)
    except OSError as error:
        fix = "free some space, or set HANDFUL_CACHE to a folder that can be written"
        raise HandfulError(
            f"the picture cache cannot be written ({error})", file=folder.parent, fix=fix
        ) from error


def _decoded(manifest: Manifest, channels: int, side: int, ahead: int = 256) -> Iterator[np.ndarray | str]:
    """Pictures in order, or why one cannot be used; decoded by a few threads, ``ahead`` at a time."""

    def one(row: int) -> np.ndarray | str:
        try:
            source = manifest.picture(row)
        except Interrupted:
            raise
        except Exception as error:  # another library's data set may raise anything on a broken picture
            return f"cannot be fetched ({error})"
        try:
            return decode(source, channels, side)
        except ValueError as error:
            return str(error)

    if manifest.pictures is not None:  # another library's data set may not like threads
        yield from map(one, range(len(manifest)))
        return
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for first in range(0, len(manifest), ahead):
            yield from pool.map(one, range(first, min(first + ahead, len(manifest))))
