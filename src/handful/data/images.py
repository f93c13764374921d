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

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from handful.data.manifest import Manifest
from handful.files import sync_folder, write_atomic
from handful.randomness import key
from handful.types import HandfulError, Interrupted, UsageError

VERSION = 1  # of the store's layout
PHOTO_SIDE = 192  # pixels: what large photographs are stored at
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
        fingerprint = f"{key(data.shape, hash_of(data)):016x}"
    return Images(torch.from_numpy(np.ascontiguousarray(data)), names or _Numbers(len(data)), fingerprint)


def hash_of(data: np.ndarray) -> str:
    """A hash over the bytes of an array."""
    import hashlib

    return hashlib.blake2b(np.ascontiguousarray(data).view(np.uint8).data, digest_size=8).hexdigest()


def open_store(
    manifest: Manifest,
    cache: Path,
    *,
    side: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Images, Manifest, list[tuple[str, str]]]:
    """The pictures of a manifest, decoded now or found in the cache.

    Returns:
        The pictures, the manifest without the files that could not be read, and those files with the reason.

    Raises:
        HandfulError: nothing could be read, or the cache cannot be written.
    """
    with warnings.catch_warnings():  # not in the threads: these filters are shared by all of them
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # decode has a limit of its own
        return _open_store(manifest, cache, side, progress)


def _open_store(
    manifest: Manifest, cache: Path, side: int | None, progress: Callable[[int, int], None] | None
) -> tuple[Images, Manifest, list[tuple[str, str]]]:
    channels, native = _survey(manifest)
    side = side or native
    name = f"{key(VERSION, manifest.root.resolve(), manifest.fingerprint, channels, side):016x}"
    folder = cache / "stores" / name
    if not (folder / "store.json").exists():
        _build(manifest, folder, channels, side, progress)
    info = json.loads((folder / "store.json").read_text())
    kept = np.ones(len(manifest), dtype=bool)
    kept[info["bad_rows"]] = False
    manifest = manifest.keep(kept)
    shape = (len(manifest), channels, side, side)
    data = np.memmap(folder / "images.u8", dtype=np.uint8, mode="c", shape=shape)
    problems = [(path, reason) for path, reason in info["problems"]]
    return Images(torch.from_numpy(data), manifest.paths, name), manifest, problems


def decode(path: Path, channels: int, side: int) -> np.ndarray:
    """One file as uint8 [C, side, side]: turned upright, shorter side resized (bicubic), middle cut out.

    Raises:
        ValueError: with the reason in words, where the file is not a picture that can be used.
    """
    mode = "RGB" if channels == 3 else "L"
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                size = f"{picture.width} x {picture.height}"
                raise ValueError(f"{size} pixels is more than is decoded ({MAX_PIXELS:,})")
            picture.draft(mode, (2 * side, 2 * side))
            upright = _to_mode(ImageOps.exif_transpose(picture), mode)
        if upright.size != (side, side):
            upright = ImageOps.fit(upright, (side, side), Image.Resampling.BICUBIC)
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ValueError(str(error).replace(str(path), path.name)) from error
    except ValueError:
        raise
    except Exception as error:  # a decoder may raise anything on a broken file
        raise ValueError(f"cannot be decoded ({str(error).replace(str(path), path.name)})") from error
    pixels = np.asarray(upright, dtype=np.uint8)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _to_mode(picture: Image.Image, mode: str) -> Image.Image:
    """8-bit gray or colour; 16-bit pictures are scaled to their range, transparency is laid on white."""
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture, dtype=np.float64)
        full = 65535.0 if picture.mode.startswith("I") and values.max() <= 65535 else max(values.max(), 1.0)
        if values.max() > 255:
            values = values * (255.0 / full)
        picture = Image.fromarray(np.clip(values + 0.5, 0, 255).astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        front = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", front.size, "white"), front)
    return picture.convert(mode)


def _survey(manifest: Manifest, sample: int = 200) -> tuple[int, int]:
    """Channels (1 where all pictures looked at are gray) and the side to store at, from some headers."""
    rows = np.unique(np.linspace(0, len(manifest) - 1, min(sample, len(manifest))).astype(int))
    sides, gray = [], True
    for row in rows:
        try:
            with Image.open(manifest.root / manifest.paths[row]) as picture:
                sides.append(min(picture.size))
                gray &= picture.mode in ("1", "L", "LA", "I", "I;16", "F")
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


def _build(
    manifest: Manifest, folder: Path, channels: int, side: int, progress: Callable[[int, int], None] | None
) -> None:
    """Decode everything into a folder beside its final place, then rename it: a kill leaves no half store.

    Several processes may do this at once: each has a scratch folder of its own, and the first to finish wins.
    """
    scratch = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left_over in folder.parent.glob(f"{folder.name}.*.tmp"):
            if left_over == scratch or not _alive(left_over):
                shutil.rmtree(left_over, ignore_errors=True)
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
        write_atomic(scratch / "store.json", json.dumps({"bad_rows": bad, "problems": problems}))
        try:
            os.replace(scratch, folder)
        except OSError:
            if not (folder / "store.json").exists():  # otherwise another process was quicker
                raise
        sync_folder(folder.parent)
    except OSError as error:
        fix = "free some space, or set HANDFUL_CACHE to a folder that can be written"
        raise HandfulError(
            f"the picture cache cannot be written ({error})", file=folder.parent, fix=fix
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _alive(scratch: Path) -> bool:
    """Whether the process that a scratch folder is named after still runs."""
    if os.name == "nt":  # there, signal 0 would end it
        return True
    try:
        os.kill(int(scratch.name.split(".")[-2]), 0)
    except (ProcessLookupError, ValueError):
        return False
    except OSError:  # it runs, under another user
        return True
    return True


def _decoded(manifest: Manifest, channels: int, side: int, ahead: int = 256) -> Iterator[np.ndarray | str]:
    """Pictures in order, or why one cannot be used; decoded by a few threads, ``ahead`` at a time."""

    def one(path: str) -> np.ndarray | str:
        try:
            return decode(manifest.root / path, channels, side)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for first in range(0, len(manifest), ahead):
            yield from pool.map(one, manifest.paths[first : first + ahead])


class _Numbers(Sequence[str]):
    """Names for pictures that have none: "picture 0", "picture 1", …"""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> str:  # type: ignore[override]
        return f"picture {i}"
