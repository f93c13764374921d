"""Features of a frozen network: computed once, as fast as the machine can, and kept on disk.

The way of a picture: uint8 [B, C, H, W] -> gray repeated to the network's channels -> bicubic resize (with
antialias) to the network's size -> ``(x / 255 - mean) / std`` -> network -> float32 [B, D].

Legend: N pictures in all, B of a batch, C channels, S the network's pixels a side, D features.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import json
import logging
import os
import tempfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful import machine
from handful.files import beside
from handful.inference.fold import fold
from handful.types import HandfulError, InputSpec, Interrupted, UsageError

log = logging.getLogger(__name__)

PARITY = 0.99
"""Smallest cosine between a backend's features of a picture and those of fp32 eager that lets it be used."""

PARITY_PICTURES = 8

FORMAT = 1
"""Part of every cache key: raise it when the meaning of stored features changes."""


class Images(Protocol):
    """Pictures of one size, by number."""

    def __len__(self) -> int: ...
    def take(self, ids: Tensor) -> Tensor:
        """``ids [B]`` int64 -> uint8 [B, C, H, W]."""
        ...


class Features(NamedTuple):
    """What was extracted, and by which backend (a resumed run must use the same)."""

    values: Tensor  # [N, D] float32
    backend: str


Feed = Iterable[tuple[int, Tensor]]  # (first row, uint8 [B, C, S, S]); batches may come back in any order
Runner = Callable[[Feed, Tensor], None]  # adds each batch's features to its rows of a [N, D] tensor


class Backend(NamedTuple):
    """A way to run a network."""

    needs: tuple[str, ...]  # packages beyond the plain install
    batch: int  # pictures at once where the caller does not say
    start: Callable[[Frozen, Tensor, Path], Runner]  # (network, one full batch, folder to keep files in)


class Frozen(nn.Module):
    """Normalization and network in one: uint8 [B, C, S, S] -> features float32 [B, D]."""

    scale: Tensor
    shift: Tensor

    def __init__(self, net: nn.Module, spec: InputSpec, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.net, self.spec, self.dtype = net, spec, dtype
        mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
        self.register_buffer("scale", (1 / (255 * std))[:, None, None])
        self.register_buffer("shift", (-mean / std)[:, None, None])
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.float() * self.scale + self.shift
        return cast(Tensor, self.net(pixels.to(self.dtype)).features).float()


def prepare(x: Tensor, spec: InputSpec) -> Tensor:
    """Pictures as the network wants them, still uint8: ``[B, C', H, W] -> [B, C, S, S]``.

    Raises:
        UsageError: where the channels do not fit and are not gray.
    """
    if x.shape[1] != spec.channels:
        if x.shape[1] != 1:
            raise UsageError(f"the network wants {spec.channels} channels, the pictures have {x.shape[1]}")
        return prepare(x, spec._replace(channels=1)).expand(-1, spec.channels, -1, -1).contiguous()
    if x.shape[2:] != (spec.size, spec.size):
        x = F.interpolate(x, (spec.size, spec.size), mode="bicubic", antialias=True)
    return x.contiguous()


def extract(
    model: nn.Module,
    images: Images,
    *,
    spec: InputSpec | None = None,
    backend: str = "auto",
    batch: int | None = None,
    mirror: bool = False,
    progress: Callable[[int, int], None] | None = None,
    cache: Path | None = None,
    key: str = "",
) -> Features:
    """The features of all pictures.

    Args:
        model: a network that returns ``Output``; on CUDA it runs there.
        images: the pictures.
        spec: the input the network wants, by default ``model.spec``.
        backend: a key of ``BACKENDS``, or ``"auto"`` for the first of ``order()`` that works.
        batch: pictures at once.
        mirror: average the features of a picture and of its left-right mirror image.
        progress: called with (pictures done, pictures to do).
        cache: folder for exported networks and, with ``key``, for the features themselves.
        key: what tells these pictures from others (the store's fingerprint). With it and ``cache``, features
            are read from disk where they have been computed before.

    Raises:
        UsageError: for a backend that does not exist or is not installed, or channels that do not fit.
        HandfulError: where a backend named by the caller fails, or no backend works.
    """
    spec = spec or cast(InputSpec, model.spec)
    device = device_of(model)
    names = order(device) if backend == "auto" else [backend]
    identity = [FORMAT, key, len(images), fingerprint(model), spec, mirror]
    if cache:
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(cache, error) from error
    reference: Tensor | None = None
    was_training = model.training
    model.eval()
    try:
        for name in names:
            path = cache / f"features-{digest([*identity, name])}.npy" if cache and key else None
            values = read(path) if path else None
            if values is not None and len(values) == len(images):
                return Features(values, name)
            if reference is None:
                reference = few(model, images, spec)
            try:
                runner, size = start(name, model, images, spec, batch, cache, reference)
            except Interrupted:
                raise
            except HandfulError as error:
                if backend != "auto":
                    raise
                log.info("features: backend %s is not used: %s", name, error)
                continue
            values = run(runner, images, spec, size, mirror, reference.shape[1], progress)
            if path:
                write(path, values)
                return Features(cast(Tensor, read(path)), name)
            return Features(values, name)
    finally:
        model.train(was_training)
    raise HandfulError("no backend can run this network", fix="see the reasons in the log")


def cached_features(
    name: str,
    model: nn.Module,
    images: Images,
    *,
    fingerprint: str,
    cache: Path,
    spec: InputSpec | None = None,
    backend: str = "auto",
    mirror: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Features:
    """``extract``, once for each (network's name and weights, pictures, size, mirror, backend).

    Later calls map the stored file into memory. A file that is damaged is computed again.
    """
    key = f"{name} {fingerprint}"
    return extract(
        model,
        images,
        spec=spec,
        backend=backend,
        mirror=mirror,
        progress=progress,
        cache=Path(cache),
        key=key,
    )


def order(device: torch.device) -> list[str]:
    """Backends that are installed, best first: on CUDA only torch; on a CPU as measured in benchmarks."""
    if device.type != "cpu":
        return ["torch", "torch-eager-fp32"]
    middle = ["torch", "onnxruntime"] if machine.has_fast_bf16() else ["onnxruntime", "torch"]
    return [name for name in ["openvino", *middle, "torch-eager-fp32"] if not missing(name)]


def missing(name: str) -> list[str]:
    """Packages that a backend needs and that are not installed."""
    return [package for package in BACKENDS[name].needs if importlib.util.find_spec(package) is None]


def few(model: nn.Module, images: Images, spec: InputSpec) -> Tensor:
    """Features of a few pictures, evenly spread, by the network itself in fp32: what backends must match.

    Raises:
        UsageError: where there are no pictures.
    """
    if not len(images):
        raise UsageError("there are no pictures to take features of")
    device = device_of(model)
    x = prepare(images.take(spread(len(images))), spec)
    with torch.inference_mode():
        return Frozen(model, spec).to(device)(x.to(device)).cpu()


def spread(n: int) -> Tensor:
    """Up to ``PARITY_PICTURES`` numbers from 0 to n - 1, evenly spread."""
    return torch.linspace(0, n - 1, min(n, PARITY_PICTURES)).round().long()


def start(
    name: str,
    model: nn.Module,
    images: Images,
    spec: InputSpec,
    batch: int | None,
    cache: Path | None,
    reference: Tensor,
) -> tuple[Runner, int]:
    """A backend ready to run and its batch size, after it has matched ``reference``.

    Raises:
        UsageError: where it is unknown or not installed.
        HandfulError: where it fails, or its features differ too much.
    """
    if name not in BACKENDS:
        raise UsageError(f"there is no backend {name!r}", fix=f"one of auto, {', '.join(BACKENDS)}")
    if missing(name):
        packages = " ".join(missing(name))
        raise UsageError(f"backend {name!r} needs {packages}", fix="pip install 'handful[fast]'")
    size = batch or BACKENDS[name].batch
    few_x = prepare(images.take(spread(len(images))), spec)
    full = few_x[torch.arange(size) % len(few_x)]
    got = torch.zeros_like(reference)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = cache or Path(scratch)
            runner = BACKENDS[name].start(Frozen(model, spec), full, folder)
        runner(((i, few_x[i : i + size]) for i in range(0, len(few_x), size)), got)
    except Interrupted:
        raise
    except Exception as error:  # any failure of a foreign runtime: told in full, and another can be used
        raise HandfulError(f"backend {name!r} failed ({type(error).__name__}: {error})") from error
    cosine = F.cosine_similarity(got, reference).min().item()
    if not cosine >= PARITY and not torch.allclose(got, reference, rtol=1e-3, atol=1e-5):
        raise HandfulError(
            f"backend {name!r} gives other features than fp32 eager (cosine {cosine:.4f} < {PARITY})",
            fix="use backend 'torch-eager-fp32'",
        )
    return runner, size


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


def start_eager(frozen: Frozen, full: Tensor, folder: Path) -> Runner:
    """The network as it is, in fp32: the reference."""
    device = device_of(frozen.net)
    return torch_runner(frozen.to(device), device, torch.contiguous_format)


def start_torch(frozen: Frozen, full: Tensor, folder: Path) -> Runner:
    """Batch norm folded, channels last, bfloat16 where the processor has it (CUDA: 16-bit autocast)."""
    device = device_of(frozen.net)
    example = (frozen.scale * full[:2].float() + frozen.shift).to(device)
    try:
        net = fold(frozen.net, example)
    except Interrupted:
        raise
    except HandfulError as error:
        log.warning("features: batch norm is not folded: %s", error.reason)
        net = copy.deepcopy(frozen.net)
    bf16 = device.type == "cpu" and machine.has_fast_bf16()
    dtype = torch.bfloat16 if bf16 else torch.float32
    fast = Frozen(net.to(dtype).to(memory_format=torch.channels_last), frozen.spec, dtype)
    return torch_runner(fast.to(device), device, torch.channels_last, autocast=device.type == "cuda")


def torch_runner(
    frozen: Frozen, device: torch.device, layout: torch.memory_format, autocast: bool = False
) -> Runner:
    """Run with torch on ``device``."""
    half = torch.bfloat16 if device.type == "cpu" or torch.cuda.is_bf16_supported() else torch.float16

    def runner(feed: Feed, out: Tensor) -> None:
        with torch.inference_mode(), torch.autocast(device.type, half, enabled=autocast):
            for first, x in feed:
                x = x.to(device).contiguous(memory_format=layout)
                out[first : first + len(x)] += frozen(x).float().cpu()

    return runner


def start_openvino(frozen: Frozen, full: Tensor, folder: Path) -> Runner:
    """OpenVINO on the CPU: a batch for each core at work, one waiting; bfloat16 where it is fast.

    The graph comes from ONNX: OpenVINO's own converter for torch reports its use over the network. Requests
    are waited for in order, without Python callbacks: a callback's thread may want the interpreter's lock
    while the network's end, which holds it, waits for that thread (seen on a loaded machine).
    """
    import openvino

    core = openvino.Core()
    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if machine.has_fast_bf16() else "f32",
        "INFERENCE_NUM_THREADS": machine.cores(),
        "NUM_STREAMS": machine.cores(),
        "CACHE_DIR": str(folder / "openvino"),
    }
    compiled = core.compile_model(core.read_model(export(frozen, full, folder)), "CPU", options)
    shape = full.shape

    def runner(feed: Feed, out: Tensor) -> None:
        idle = [compiled.create_infer_request() for _ in range(machine.cores() + 1)]
        flying: deque[tuple[Any, int, int]] = deque()

        def land() -> None:
            request, first, count = flying.popleft()
            request.wait()
            out[first : first + count] += torch.from_numpy(request.get_output_tensor(0).data[:count])
            idle.append(request)

        for first, x in feed:
            if not idle:
                land()
            request = idle.pop()
            request.start_async({0: padded(x, shape).numpy()})
            flying.append((request, first, len(x)))
        while flying:
            land()

    return runner


def start_onnxruntime(frozen: Frozen, full: Tensor, folder: Path) -> Runner:
    """ONNX Runtime on the CPU, in fp32."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = machine.cores()
    session = onnxruntime.InferenceSession(
        str(export(frozen, full, folder)), options, providers=["CPUExecutionProvider"]
    )

    def runner(feed: Feed, out: Tensor) -> None:
        for first, x in feed:
            features = session.run(None, {"x": padded(x, full.shape).numpy()})[0]
            out[first : first + len(x)] += torch.from_numpy(features[: len(x)])

    return runner


BACKENDS: dict[str, Backend] = {
    "openvino": Backend(("openvino", "onnx", "onnxscript"), 8, start_openvino),
    "onnxruntime": Backend(("onnxruntime", "onnx", "onnxscript"), 8, start_onnxruntime),
    "torch": Backend((), 32, start_torch),
    "torch-eager-fp32": Backend((), 32, start_eager),
}


def padded(x: Tensor, shape: torch.Size) -> Tensor:
    """A last, shorter batch filled up with zeros: exported networks have one batch size."""
    return x if len(x) == shape[0] else torch.cat([x, x.new_zeros(shape[0] - len(x), *shape[1:])])


def export(frozen: Frozen, full: Tensor, folder: Path) -> Path:
    """The network as an ONNX file for batches like ``full``, written once for each network and shape."""
    path = folder / f"network-{digest([FORMAT, fingerprint(frozen), list(full.shape)])}.onnx"
    if not path.exists():
        with torch.no_grad():
            program = torch.onnx.export(
                frozen.cpu(),
                (full,),
                dynamo=True,
                verbose=False,
                input_names=["x"],
                output_names=["features"],
            )
        assert program is not None  # with dynamo it is what export returns
        with beside(path) as scratch:
            program.save(scratch, external_data=False)
            os.replace(scratch, path)
    return path


def device_of(model: nn.Module) -> torch.device:
    """Where the network is; the CPU for one without weights."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def fingerprint(model: nn.Module) -> str:
    """A digest of a network: its layout as printed, and every weight and buffer."""
    sha = hashlib.sha256(repr(model).encode())
    for name, tensor in model.state_dict().items():
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return sha.hexdigest()


def digest(parts: list[Any]) -> str:
    """A short name for what a stored file depends on."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


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
