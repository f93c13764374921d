"""A saved classifier as one ONNX file that takes decoded pictures of any size and gives probabilities.

The graph holds everything between the decoded file and the answer: both resizes with the rounding of those who make
them elsewhere (Pillow and torch), the normalisation, the network, the temperature, the softmax. Class names, the
reject threshold and a description of the input stand in the file's metadata.

Legend: N pictures, C channels, H height, W width, S pixels a side, K classes.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from handful.augment.steps import LUMA
from handful.data.images import decode
from handful.files import write_atomic
from handful.inference.classify import probabilities
from handful.inference.model_file import Saved
from handful.types import HandfulError, Interrupted, UsageError

NEEDS = ("onnx", "onnxscript", "onnxruntime")
OPSET = 18
LIMIT = 1e-4  # largest difference of a probability between the file and PyTorch
PILLOW_BITS = 22  # Pillow rounds its resize weights to this many binary places


class Deployed(nn.Module):
    """Decoded pictures to probabilities: uint8 [N, C, H, W] -> float32 [N, K].

    Args:
        saved: the classifier; C is ``saved.store["channels"]``.
    """

    luma: Tensor
    scale: Tensor
    offset: Tensor

    def __init__(self, saved: Saved) -> None:
        super().__init__()
        self.classifier, spec, side = saved.classifier, saved.classifier.spec, saved.store["side"]
        self.side, self.channels = side, spec.channels
        self.shrink: nn.Module = ByteResize(side, spec.size) if spec.size != side else nn.Identity()
        self.register_buffer("luma", torch.tensor(LUMA).view(1, 3, 1, 1))
        mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
        self.register_buffer("scale", (1 / (255 * std)).view(1, -1, 1, 1))
        self.register_buffer("offset", (-mean / std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        x = self.shrink(middle_square(images, self.side).float())
        if x.shape[1] == 1:
            x = x.expand(-1, self.channels, -1, -1)
        elif self.channels == 1:
            x = (x * self.luma).sum(1, keepdim=True)
        probabilities: Tensor = self.classifier(x * self.scale + self.offset).logits.softmax(1)
        return probabilities


def middle_square(x: Tensor, side: int) -> Tensor:
    """What ``ImageOps.fit(picture, (side, side), BICUBIC)`` makes of each picture, to the gray value.

    The shorter side becomes ``side`` px and the middle is cut out; columns first, then rows, each rounded to whole gray
    values, with weights rounded as Pillow rounds them. In float64 all sums are exact. (Pillow 13 does the rows first
    where more than twice as many rows as columns go; then gray values can differ by some rounding.)

    Args:
        x: uint8 [N, C, H, W].

    Returns:
        Whole gray values, float64 [N, C, side, side].
    """
    h, w = (torch.full((), n, dtype=torch.float64) for n in x.shape[2:])
    square = torch.minimum(h, w)
    columns = pillow_weights(x.shape[3], (w - square) / 2, square, side)
    rows = pillow_weights(x.shape[2], (h - square) / 2, square, side)
    return to_gray_values(rows @ to_gray_values(x.double() @ columns.T, PILLOW_BITS), PILLOW_BITS)


def pillow_weights(n: int, first: Tensor, length: Tensor, out: int) -> Tensor:
    """Weights [out, n], times 2^22, that resize ``length`` pixels from position ``first`` of a row of n to ``out``."""
    step = length / out
    width = step.clamp(min=1)  # of the filter: wider where the picture shrinks
    centre = first + (torch.arange(out, dtype=torch.float64) + 0.5) * step
    weights = cubic((torch.arange(n, dtype=torch.float64) + 0.5 - centre.unsqueeze(1)) * (1 / width))
    return round_half_away(weights / weights.sum(1, keepdim=True) * 2**PILLOW_BITS)


class ByteResize(nn.Module):
    """``F.interpolate(x, size, mode="bicubic", antialias=True)`` of uint8 pictures, to the gray value.

    torch rounds the weights to 16 bits and each pass to whole gray values; float32 holds these sums exactly.
    """

    weights: Tensor

    def __init__(self, side: int, size: int) -> None:
        super().__init__()
        step = side / size
        centre = (torch.arange(size, dtype=torch.float64) + 0.5) * step
        away = torch.arange(side, dtype=torch.float64) + 0.5 - centre.unsqueeze(1)
        weights = cubic(away * (1 / max(step, 1.0)))
        weights = weights / weights.sum(1, keepdim=True)
        most = float(weights.max())
        self.bits = next(b for b in range(23) if b == 22 or int(0.5 + most * 2 ** (b + 1)) >= 1 << 15)
        self.register_buffer("weights", round_half_away(weights * 2**self.bits).float())

    def forward(self, x: Tensor) -> Tensor:
        return to_gray_values(self.weights @ to_gray_values(x @ self.weights.T, self.bits), self.bits)


def cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -1/2 ("Cubic convolution interpolation", 1981, equation 15)."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def round_half_away(x: Tensor) -> Tensor:
    """Rounded, halves away from zero."""
    return x.sign() * (x.abs() + 0.5).floor()


def to_gray_values(x: Tensor, bits: int) -> Tensor:
    """Weighted sums, times 2^bits, as whole gray values from 0 to 255."""
    return ((x + 2 ** (bits - 1)) / 2**bits).floor().clamp(0, 255)


def export_onnx(saved: Saved, path: Path) -> float:
    """Write the file; returns the largest difference of a probability from PyTorch's, on made-up pictures of
    three sizes, as ``handful predict`` would have seen them.

    Raises:
        UsageError: packages are missing.
        HandfulError: the network cannot be exported, or the file's answers are not PyTorch's. Nothing is written.
    """
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"export to ONNX needs {', '.join(missing)}", fix="pip install 'handful[fast]'")
    content = to_onnx(saved)
    difference = parity(saved, content)
    if not difference <= LIMIT:
        raise HandfulError(
            f"the ONNX file gives other probabilities than PyTorch (largest difference {difference:.1e}, more than "
            f"{LIMIT:.0e}); it was not written",
            file=path,
            fix="use --format safetensors, and report this with the name of the network",
        )
    write_atomic(path, content)
    return difference


def to_onnx(saved: Saved) -> bytes:
    """The graph of ``Deployed`` with N, H and W left open, and its metadata."""
    channels, side = saved.store["channels"], saved.store["side"]
    example = torch.zeros(2, channels, side + 3, side + 5, dtype=torch.uint8)
    axes = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    model = graph(Deployed(saved).eval(), example, "images", axes)
    for name, value in metadata(saved).items():
        model.metadata_props.add(key=name, value=value)
    return bytes(model.SerializeToString())


def graph(
    module: nn.Module,
    example: Tensor,
    name: str,
    axes: dict[int, Any] | None = None,
    output: str = "probabilities",
) -> Any:
    """A module from one tensor called ``name`` to one called ``output`` as an ONNX model; ``axes`` are left open.

    Raises:
        HandfulError: it cannot be exported.
    """
    loud = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter, about its own insides
            program: Any = torch.onnx.export(
                module, (example,), dynamo=True, verbose=False, opset_version=OPSET,
                input_names=[name], output_names=[output], dynamic_shapes=(axes,) if axes else None,
            )  # fmt: skip
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        fix = "use --format safetensors, and report this with the name of the network"
        raise HandfulError(f"this network cannot be exported to ONNX ({first})", fix=fix) from error
    finally:
        logging.getLogger("torch.onnx").setLevel(loud)
    return program.model_proto


def open_session(file: object, content: bytes, threads: int = 0) -> Any:
    """An ONNX model in ONNX Runtime on the processor; ``threads`` 0 leaves their number to it.

    Raises:
        UsageError: the package is missing, or it is no such file.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise UsageError(
            "ONNX files need onnxruntime", file=file, fix="pip install 'handful[fast]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = options.inter_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Interrupted:
        raise
    except Exception as error:  # the runtime has classes of its own for each reason; it is passed on
        first = str(error).strip().splitlines()[0]
        raise UsageError(
            f"is not an ONNX file that can be used ({first})", file=file, fix="export it again"
        ) from error


def metadata(saved: Saved) -> dict[str, str]:
    """What a program needs to know to use the file."""
    channels = saved.store["channels"]
    kind = "red, green, blue" if channels == 3 else "gray (ITU-R 601 luma of colour pictures)"
    return {
        "handful.classes": json.dumps(list(saved.classes), ensure_ascii=False),
        "handful.input": f"images: uint8 [N, {channels}, H, W], {kind}, upright, any H and W of 1 or more; one size a "
        "batch. Resizing, cutting and normalisation are inside.",
        "handful.output": "probabilities: float32 [N, K], calibrated, in the order of handful.classes",
        "handful.reject_below": f"{saved.reject:g}",
        "handful.weights_sha256": saved.sha256,
    }


def parity(saved: Saved, content: bytes) -> float:
    """Largest absolute difference of a probability between the file in ONNX Runtime and ``handful predict``'s way."""
    session = open_session("the exported network", content)
    differences = []
    for x in some_pictures(saved.store["channels"], saved.store["side"]):
        found = session.run(None, {"images": x})[0]
        differences.append(np.abs(found - reference(saved, x)).max())
    return float(np.max(differences))  # a NaN stays one, which no limit lets through


def reference(saved: Saved, x: np.ndarray) -> np.ndarray:
    """Probabilities as ``handful predict`` has them: Pillow, then torch. uint8 [N, C, H, W] to float32 [N, K]."""
    channels, side = saved.store["channels"], saved.store["side"]
    pictures = x[:, 0] if channels == 1 else x.transpose(0, 2, 3, 1)
    stored = np.stack([decode(picture, channels, side) for picture in pictures])
    return probabilities(saved, torch.from_numpy(stored)).numpy()


def some_pictures(channels: int, side: int) -> list[np.ndarray]:
    """Made-up pictures: as stored, wide, and tall; smooth blots with some grain, always the same ones. None is so
    tall that Pillow's newer versions would resize rows first."""
    random = np.random.RandomState(0)
    batches = []
    for n, h, w in ((3, side, side), (1, side + 7, 2 * side + 3), (2, 3 * side, 2 * side)):
        blots = random.randint(0, 256, (n * channels, 4, 4)).astype(np.uint8)
        smooth = [
            np.asarray(Image.fromarray(b).resize((w, h), Image.Resampling.BICUBIC), np.float64) for b in blots
        ]
        grain = random.standard_normal((n, channels, h, w)) * 8
        batches.append(np.clip(np.stack(smooth).reshape(n, channels, h, w) + grain, 0, 255).astype(np.uint8))
    return batches
