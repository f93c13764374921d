"""Features of a frozen network: computed once, by the fastest backend that works, and kept on disk.

Legend: N pictures, D features.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from handful.files import beside
from handful.inference.backends import (
    FORMAT,
    Images,
    Runner,
    device_of,
    digest,
    fingerprint,
    order,
    prepare,
    reference,
    start,
)
from handful.types import HandfulError, InputSpec, Interrupted

log = logging.getLogger(__name__)


class Features(NamedTuple):
    """What was extracted, and by which backend (a resumed run must use the same)."""

    values: Tensor  # [N, D] float32
    backend: str


def extract(
    model: nn.Module,
    images: Images,
    *,
    backend: str = "auto",
    batch: int | None = None,
    mirror: bool = False,
    progress: Callable[[int, int], None] | None = None,
    cache: Path | None = None,
    key: str = "",
) -> Features:
    """The features of all pictures.

    Args:
        model: a network that returns ``Output``, with its input as ``spec``; on CUDA it runs there.
        images: the pictures.
        backend: a key of ``BACKENDS``, or ``"auto"`` for the first of ``order()`` that works.
        batch: pictures at once.
        mirror: average the features of a picture and of its left-right mirror image.
        progress: called with (pictures done, pictures to do).
        cache: folder for exported networks and, with ``key``, for the features themselves.
        key: what tells these pictures from others (the network's name and the store's fingerprint). With it and
            ``cache``, features are read from disk where they have been computed before; a damaged file is
            computed again.

    Raises:
        UsageError: for a backend that does not exist or is not installed, or channels that do not fit.
        HandfulError: where a backend named by the caller fails, or no backend works.
    """
    spec = cast(InputSpec, model.spec)
    device = device_of(model)
    names = order(device) if backend == "auto" else [backend]
    identity = [FORMAT, key, len(images), fingerprint(model), spec, mirror]
    if cache:
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(cache, error) from error
    check: tuple[Tensor, Tensor] | None = None
    was_training = model.training
    model.eval()
    try:
        for name in names:
            path = cache / f"features-{digest([*identity, name])}.npy" if cache and key else None
            values = read(path) if path else None
            if values is not None and len(values) == len(images):
                return Features(values, name)
            check = check or reference(model, images, spec)
            try:
                runner, size = start(name, model, spec, batch, cache, *check)
            except Interrupted:
                raise
            except HandfulError as error:
                if backend != "auto":
                    raise
                log.info("features: backend %s is not used: %s", name, error)
                continue
            values = run(runner, images, spec, size, mirror, check[1].shape[1], progress)
            if path:
                write(path, values)
                return Features(cast(Tensor, read(path)), name)
            return Features(values, name)
    finally:
        model.train(was_training)
    raise HandfulError("no backend can run this network", fix="see the reasons in the log")


def run(
    runner: Runner,
    images: Images,
    spec: InputSpec,
    batch: int,
    mirror: bool,
    dim: int,
    progress: Callable[[int, int], None] | None,
) -> Tensor:
    """All pictures through a backend: [N, D]. The mirror images are a second pass."""
    n, passes = len(images), 1 + mirror
    out = torch.zeros(n, dim)

    def feed(flip: bool) -> Iterator[tuple[int, Tensor]]:
        for first in range(0, n, batch):
            x = prepare(images.take(torch.arange(first, min(first + batch, n))), spec)
            yield first, x.flip(3) if flip else x
            if progress:
                progress(min(first + batch, n) + flip * n, passes * n)

    for flip in range(passes):
        runner(feed(bool(flip)), out)
    return out.div_(passes)


def write(path: Path, values: Tensor) -> None:
    """Store features as ``.npy`` with a CRC-32 of the file after it; whole or not at all."""
    try:
        with beside(path) as scratch:
            with scratch.open("wb") as file:
                np.save(file, values.numpy())
            checksum = crc(scratch, scratch.stat().st_size)
            with scratch.open("ab") as file:
                file.write(checksum.to_bytes(4, "little"))
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, path)
    except OSError as error:
        raise unwritable(path.parent, error) from error


def unwritable(folder: Path, error: OSError) -> HandfulError:
    """A cache that cannot be written, as an error for the user."""
    fix = "free some space, or set HANDFUL_CACHE to a folder that can be written"
    return HandfulError(f"the feature cache cannot be written ({error})", file=folder, fix=fix)


def read(path: Path) -> Tensor | None:
    """Stored features, mapped into memory; None where there are none or the file is damaged (logged)."""
    if not path.exists():
        return None
    size = path.stat().st_size - 4
    if size >= 0:
        with path.open("rb") as file:
            file.seek(size)
            stored = int.from_bytes(file.read(), "little")
        if crc(path, size) == stored:
            return torch.from_numpy(np.load(path, mmap_mode="c"))  # "c": changes stay off the file
    log.warning("features: %s is damaged and is computed again", path)
    return None


def crc(path: Path, size: int) -> int:
    """CRC-32 of a file's first ``size`` bytes."""
    value = 0
    with path.open("rb") as file:
        while size > 0 and (block := file.read(min(size, 1 << 22))):
            value, size = zlib.crc32(block, value), size - len(block)
    return value
