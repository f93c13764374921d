"""The engines that run a frozen network, and the check that each gives what the network itself gives.

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
import tempfile
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful import machine
from handful.files import write_atomic
from handful.inference.fold import fold
from handful.inference.onnx import graph, open_session
from handful.types import HandfulError, InputSpec, Interrupted, UsageError

log = logging.getLogger(__name__)

FORMAT = 1
"""Part of every cache key: raise it when the meaning of stored features changes."""

PARITY = 0.99
"""Smallest cosine between a backend's features of a picture and those of fp32 eager that lets it be used."""

PARITY_PICTURES = 8


class Images(Protocol):
    """Pictures of one size, by number."""

    def __len__(self) -> int: ...
    def take(self, ids: Tensor) -> Tensor:
        """``ids [B]`` int64 -> uint8 [B, C, H, W]."""
        ...


Feed = Iterable[tuple[int, Tensor]]  # (first row, uint8 [B, C, S, S]); batches may come back in any order
Runner = Callable[[Feed, Tensor], None]  # adds each batch's features to its rows of a [N, D] tensor


class Backend(NamedTuple):
    """A way to run a network."""

    needs: tuple[str, ...]  # packages beyond the plain install
    batch: int  # pictures at once where the caller does not say
    # (network, one full batch, folder to keep files in)
    start: Callable[[FeatureExtractor, Tensor, Path], Runner]


class FeatureExtractor(nn.Module):
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


def order(device: torch.device) -> list[str]:
    """Backends that are installed, best first: on CUDA only torch; on a CPU as measured in benchmarks."""
    if device.type != "cpu":
        return ["torch", "torch-eager-fp32"]
    middle = ["torch", "onnxruntime"] if machine.has_fast_bf16() else ["onnxruntime", "torch"]
    return [name for name in ["openvino", *middle, "torch-eager-fp32"] if not missing(name)]


def missing(name: str) -> list[str]:
    """Packages that a backend needs and that are not installed."""
    return [package for package in BACKENDS[name].needs if importlib.util.find_spec(package) is None]


def reference(model: nn.Module, images: Images, spec: InputSpec) -> tuple[Tensor, Tensor]:
    """Up to ``PARITY_PICTURES`` pictures, evenly spread and prepared, and their features by the network itself in fp32:
    what backends must match.

    Raises:
        UsageError: where there are no pictures.
    """
    n = len(images)
    if not n:
        raise UsageError("there are no pictures to take features of")
    x = prepare(images.take(torch.linspace(0, n - 1, min(n, PARITY_PICTURES)).round().long()), spec)
    device = device_of(model)
    with torch.inference_mode():
        return x, FeatureExtractor(model, spec).to(device)(x.to(device)).cpu()


def start(
    name: str,
    model: nn.Module,
    spec: InputSpec,
    batch: int | None,
    cache: Path | None,
    some: Tensor,
    expected: Tensor,
) -> tuple[Runner, int]:
    """A backend ready to run and its batch size, after its features of ``some`` pictures have matched ``expected``.

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
    full = some[torch.arange(size) % len(some)]
    got = torch.zeros_like(expected)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = cache or Path(scratch)
            runner = BACKENDS[name].start(FeatureExtractor(model, spec), full, folder)
        runner(((i, some[i : i + size]) for i in range(0, len(some), size)), got)
    except Interrupted:
        raise
    except Exception as error:  # any failure of a foreign runtime: told in full, and another can be used
        raise HandfulError(f"backend {name!r} failed ({type(error).__name__}: {error})") from error
    cosine = F.cosine_similarity(got, expected).min().item()
    if not cosine >= PARITY and not torch.allclose(got, expected, rtol=1e-3, atol=1e-5):
        raise HandfulError(
            f"backend {name!r} gives other features than fp32 eager (cosine {cosine:.4f} < {PARITY})",
            fix="use backend 'torch-eager-fp32'",
        )
    return runner, size


def start_eager(network: FeatureExtractor, full: Tensor, folder: Path) -> Runner:
    """The network as it is, in fp32: the reference."""
    device = device_of(network.net)
    return torch_runner(network.to(device), device, torch.contiguous_format)


def start_torch(network: FeatureExtractor, full: Tensor, folder: Path) -> Runner:
    """Batch norm folded, channels last, bfloat16 where the processor has it (CUDA: 16-bit autocast)."""
    device = device_of(network.net)
    example = (network.scale * full[:2].float() + network.shift).to(device)
    try:
        net = fold(network.net, example)
    except Interrupted:
        raise
    except HandfulError as error:
        log.warning("features: batch norm is not folded: %s", error.reason)
        net = copy.deepcopy(network.net)
    bf16 = device.type == "cpu" and machine.has_fast_bf16()
    dtype = torch.bfloat16 if bf16 else torch.float32
    fast = FeatureExtractor(net.to(dtype).to(memory_format=torch.channels_last), network.spec, dtype)
    return torch_runner(fast.to(device), device, torch.channels_last, autocast=device.type == "cuda")


def torch_runner(
    network: FeatureExtractor, device: torch.device, layout: torch.memory_format, autocast: bool = False
) -> Runner:
    """Run with torch on ``device``."""
    half = torch.bfloat16 if device.type == "cpu" or torch.cuda.is_bf16_supported() else torch.float16

    def runner(feed: Feed, out: Tensor) -> None:
        with torch.inference_mode(), torch.autocast(device.type, half, enabled=autocast):
            for first, x in feed:
                x = x.to(device).contiguous(memory_format=layout)
                out[first : first + len(x)] += network(x).float().cpu()

    return runner


def start_openvino(network: FeatureExtractor, full: Tensor, folder: Path) -> Runner:
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
    compiled = core.compile_model(core.read_model(exported(network, full, folder)), "CPU", options)
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


def start_onnxruntime(network: FeatureExtractor, full: Tensor, folder: Path) -> Runner:
    """ONNX Runtime on the CPU, in fp32."""
    file = exported(network, full, folder)
    session = open_session(file, file.read_bytes(), machine.cores())

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


def exported(network: FeatureExtractor, full: Tensor, folder: Path) -> Path:
    """The network as an ONNX file for batches like ``full``, written once for each network and shape."""
    path = folder / f"network-{digest([FORMAT, fingerprint(network), list(full.shape)])}.onnx"
    if not path.exists():
        write_atomic(path, graph(network.cpu(), full, "x", output="features").SerializeToString())
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
