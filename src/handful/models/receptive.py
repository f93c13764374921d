"""What a unit of a layer sees of the picture: in theory, from the geometry of the layers, and in effect, by gradients.

A layer's unit number i along an axis sees the pixels

    start + i jump  …  start + i jump + size - 1

(Araujo, Norris & Sim 2019, "Computing Receptive Fields of Convolutional Neural Networks", equations 2 to 6). A layer of
kernel k, stride s, padding p and dilation d makes of (size, jump, start)

    (size + d (k - 1) jump,  s jump,  start - p jump).

Where branches meet (GoogLeNet's concatenations, the sums of a residual net), the field covers those of all branches.
Pixels below 0 and beyond the last are padding.

The rule is applied to the operations as they run, so that branches, loops and functions need no special case.

Legend: B pictures, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from handful.models.count import is_layer, on_meta, run
from handful.models.maps import outputs
from handful.models.modes import evaluation, watching


class Reach(NamedTuple):
    """The receptive field along one axis, in pixels."""

    size: int = 1
    jump: int = 1
    start: int = 0

    @property
    def offset(self) -> float:
        """Where the middle of the first unit's field lies; 0 is the middle of the first pixel."""
        return self.start + (self.size - 1) / 2

    def through(self, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> Reach:
        """After a layer with such a window."""
        return Reach(
            self.size + dilation * (kernel - 1) * self.jump,
            self.jump * stride,
            self.start - padding * self.jump,
        )

    def joined(self, other: Reach) -> Reach:
        """What covers both. Of two spacings (a branch was enlarged) the coarser is told."""
        start = min(self.start, other.start)
        end = max(self.start + self.size, other.start + other.size)
        return Reach(end - start, max(self.jump, other.jump), start)


class Field(NamedTuple):
    """The receptive field of a layer's units.

    ``whole``: something on the way looks at the whole picture (a mean over the map, a gate of squeeze-and-excitation,
    attention). ``rows`` and ``columns`` are then the field of the other ways, if there are any.
    """

    rows: Reach = Reach()
    columns: Reach = Reach()
    whole: bool = False

    @property
    def size(self) -> int:
        """The larger of both sides."""
        return max(self.rows.size, self.columns.size)

    def through(self, kernel: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> Field:
        """After a layer with such a window; each argument is one number, or one per axis."""
        settings = [pair(x) for x in (kernel, stride, padding, dilation)]
        rows, columns = (
            reach.through(*(s[i] for s in settings)) for i, reach in enumerate((self.rows, self.columns))
        )
        return Field(rows, columns, self.whole)

    def joined(self, other: Field) -> Field:
        """What covers both."""
        return Field(
            self.rows.joined(other.rows), self.columns.joined(other.columns), self.whole or other.whole
        )


def pair(x: Any) -> tuple[int, int]:
    """One number or a list of one or two to (rows, columns)."""
    values = [int(v) for v in x] if isinstance(x, (list, tuple)) else [int(x)]
    return (values[0], values[-1])


def fields(model: nn.Module, shape: Sequence[int]) -> dict[str, Field]:
    """The theoretical receptive field of every layer of ``models.count.layers``, by name, and of every module that
    gives a map [B, C, H, W], such as a residual block.

    Args:
        shape: of the input, [C, H, W].
    """
    model = on_meta(model)
    found: dict[str, Field] = {}
    follow = FieldTracker()

    def begin(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        follow.known[inputs[0]] = Field()

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output in follow.known and (output.dim() == 4 or is_layer(module)):
            found.setdefault(names[module], follow.known[output])

    names = {module: name for name, module in model.named_modules()}
    model.register_forward_pre_hook(begin)
    with watching(names, note), follow:
        run(model, shape)
    return found


class FieldTracker(TorchDispatchMode):
    """Carries the field of every tensor through the operations that run under it."""

    def __init__(self) -> None:
        super().__init__()
        self.known: Any = WeakTensorKeyDictionary()
        self.lined: Any = WeakTensorKeyDictionary()  # whose last axis runs over places, as in [B, C, H W]

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        inputs = [x for x in tree_leaves(args) if isinstance(x, Tensor) and x in self.known]
        if inputs:
            name = function.overloadpacket.__name__.removesuffix("_")
            field, lined = self.after(name, args, inputs, out), self.line(name, args, inputs[0], out)
            for x in tree_leaves(out):
                if isinstance(x, Tensor):
                    self.known[x] = field
                    self.lined[x] = lined
        return out

    def line(self, name: str, args: Any, x: Tensor, out: Any) -> bool:
        """Whether the last axis of ``out`` runs over places: a map's two became one, or two axes were exchanged."""
        if not isinstance(out, Tensor) or out.dim() not in (2, 3):
            return False
        if x.dim() == 4:
            return out.dim() == 3 and out.shape[1:] == (x.shape[1], x.shape[2] * x.shape[3])
        lined: bool = self.lined.get(x, False)
        if name in ("transpose", "permute") and x.dim() == 3:
            order = [axis % 3 for axis in args[1]] if name == "permute" else [0, 1, 2]
            if name == "transpose":
                one, other = args[1:]
                order[one], order[other] = order[other], order[one]
            return lined == (order[2] == 2)
        return lined

    def after(self, name: str, args: Any, inputs: list[Tensor], out: Any) -> Field:
        """The field of what the operation ``name`` gives."""
        x = inputs[0]
        field: Field = self.known[x]
        for other in inputs[1:]:
            field = merged(field, self.known[other], x, other)
        if name == "convolution" and not args[6]:
            return field.through(args[1].shape[2:], args[3], args[4], args[5])
        if name in ("max_pool2d_with_indices", "avg_pool2d"):
            stride, padding = (args[i] if len(args) > i else default for i, default in ((2, []), (3, 0)))
            dilation = args[4] if name.startswith("max") and len(args) > 4 else 1
            return field.through(args[1], stride or args[1], padding, dilation)
        if name == "_adaptive_avg_pool2d":
            (h, w), (rows, columns) = x.shape[2:], pair(args[1])
            if h % rows == w % columns == 0 and (rows, columns) != (1, 1):
                return field.through((h // rows, w // columns), (h // rows, w // columns))
            return field._replace(whole=True)
        if name == "pixel_unshuffle":
            return field.through(args[1], args[1])
        if name == "im2col":  # the patches of an unshared convolution
            kernel, dilation, padding, stride = args[1:]
            return field.through(kernel, stride, padding, dilation)
        if name in ("constant_pad_nd", "replication_pad2d", "reflection_pad2d") and x.dim() == 4:
            left, _, above, _ = (*args[1], 0, 0)[:4]
            return field._replace(
                rows=field.rows.through(1, 1, above), columns=field.columns.through(1, 1, left)
            )
        if name == "slice" and x.dim() == 4 and len(args) > 2 and args[1] in (2, 3):
            begin, step = args[2] or 0, args[4] if len(args) > 4 else 1
            if args[1] == 2:
                return field._replace(rows=field.rows.through(1, step, -begin))
            return field._replace(columns=field.columns.through(1, step, -begin))
        mixed = mixes(name, args, inputs, out) or (name in PRODUCTS and self.lined.get(x, False))
        return field._replace(whole=True) if mixed else field


def merged(a: Field, b: Field, x: Tensor, y: Tensor) -> Field:
    """Of two inputs of one operation: a gate or a number of one place [B, C, 1, 1] beside a map brings no geometry."""
    if x.dim() == y.dim() == 4:
        single = [t.shape[2] * t.shape[3] == 1 for t in (x, y)]
        if single[0] != single[1]:
            return (b if single[0] else a)._replace(whole=a.whole or b.whole)
    return a.joined(b)


def mixes(name: str, args: Any, inputs: list[Tensor], out: Any) -> bool:
    """Whether an operation looks at all places at once: a mean, a maximum or a norm over them, a product of places with
    places (attention), a map that becomes a vector, or one that becomes larger (where places have no pixels of their
    own any more)."""
    x = inputs[0]
    places = x.dim() == 4 and x.shape[2] * x.shape[3] > 1
    if name in ("mean", "sum", "amax", "adaptive_max_pool2d"):
        axes = args[1] if len(args) > 1 and isinstance(args[1], (list, tuple)) else ()
        channels_alone = x.dim() == 4 and axes and all(axis % 4 < 2 for axis in axes)
        return not channels_alone and (places or x.dim() == 3)
    if name == "native_group_norm":
        return places
    if name == "native_layer_norm":
        return places and len(args[1]) > 1
    if name in ("convolution", "pixel_shuffle"):  # a plain convolution has been dealt with
        return places
    if "attention" in name or (len(inputs) > 1 and name in ("bmm", "mm", "baddbmm")):
        return True
    if name in ("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d", "roll"):
        return True
    return (
        places and isinstance(out, Tensor) and out.dim() == 2 and out.shape[0] == x.shape[0] and name in VIEWS
    )


PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")  # with weights: over places where these are lined up (MLP-Mixer)
VIEWS = ("view", "_unsafe_view", "reshape", "flatten", "_reshape_alias")


def effective(
    model: nn.Module,
    layer: str,
    shape: Sequence[int],
    *,
    pictures: Tensor | None = None,
    n: int = 8,
    seed: int = 0,
) -> Tensor:
    """The effective receptive field (Luo et al. 2016, "Understanding the Effective Receptive Field", section 3): the
    size of the gradient of a layer's middle unit with respect to each pixel, largest entry 1.

    A random weighting of the channels is differentiated, absolute values are averaged over pictures and summed over the
    picture's channels.

    Args:
        layer: name of a module that gives a map [B, C, H, W].
        shape: of a picture, [C, H, W].
        pictures: prepared [n, C, H, W]; by default ``n`` of noise.

    Returns:
        float32 [H, W]; all 0 where no gradient arrives.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *shape, generator=generator) if pictures is None else pictures.detach().clone()
    x = x.to(next(model.parameters())).requires_grad_()
    with evaluation(model), torch.enable_grad():
        seen = outputs(model, [layer], x)[0][layer]
        middle = seen[:, :, seen.shape[2] // 2, seen.shape[3] // 2]
        weight = torch.randn(middle.shape, generator=generator).to(middle)
        (gradient,) = torch.autograd.grad((middle * weight).sum(), x)
    field = gradient.abs().sum(1).mean(0).float()
    return field / field.max().clamp(min=torch.finfo(torch.float32).tiny)


def places(field: Field, unit: tuple[int, int], side: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """First and one past the last pixel that ``unit`` (row, column) sees along each axis, cut to the picture."""
    for reach, i, n in zip((field.rows, field.columns), unit, side, strict=True):
        first = reach.start + i * reach.jump
        yield max(first, 0), min(first + reach.size, n)
