"""Steps carried out: by the compiled loops of ``augment.compiled`` where they can be used, otherwise by tensor
operations, which give the same bits on any device: pictures that take the same kind of step are done together.

What each kind means is told in ``augment.steps``.

Legend: G pictures of a group, C channels, H height, W width; ``p`` int32 [G, 8, 1, 1, 1] their rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handful.augment import steps
from handful.augment.steps import BIAS, ONE

AT_ONCE = 1 << 18  # pixels of a chunk on the processor: what is in between has to stay in the cache


@cache
def compiled() -> Any:
    """The compiled loops of ``augment.compiled``, or None where numba is not installed."""
    try:
        import numba  # noqa: F401
    except ImportError:
        return None
    from handful.augment import compiled as module

    return module.run


def run(x: Tensor, rows: np.ndarray) -> Tensor:
    """Each picture through its own steps, in order.

    On the processor by compiled loops where numba is installed (``handful[fast]``), otherwise and on other devices
    by tensor operations; the bits are the same.

    Args:
        x: uint8 [B, C, H, W].
        rows: int32 [B, N, 8].

    Returns:
        uint8 [B, C, H, W]; x itself stays as it is.
    """
    loops = compiled() if x.device.type == "cpu" else None
    if loops is None:
        return by_tensors(x, rows)
    x = x.contiguous()
    out = torch.empty_like(x)
    loops(x.numpy(), np.ascontiguousarray(rows), out.numpy())
    return out


def by_tensors(x: Tensor, rows: np.ndarray) -> Tensor:
    """As ``run``, never by the compiled loops."""
    out = x.contiguous().clone()
    for n in range(rows.shape[1]):
        kinds = rows[:, n, 0]
        for kind in np.unique(kinds).tolist():
            if kind == steps.IDENTITY:
                continue
            members = torch.from_numpy(np.flatnonzero(kinds == kind)).to(x.device)
            some = len(members) if x.is_cuda else max(1, AT_ONCE // x[0].numel())
            for group in members.split(some):
                p = torch.from_numpy(rows[:, n]).to(x.device)[group].view(len(group), 8, 1, 1, 1)
                out.index_copy_(0, group, KINDS[kind](out.index_select(0, group), p))
    return out


def gray(x: Tensor) -> Tensor:
    """ITU-R 601 gray of [B, C, H, W] pictures, colour or gray, not rounded: float32 [B, 1, H, W]."""
    x = x.float()
    return torch.einsum("nchw,c->nhw", x, x.new_tensor(steps.LUMA)).unsqueeze(1) if x.shape[1] == 3 else x


def _byte(x: Tensor) -> Tensor:
    """16 bits behind the point cut off: int32 to uint8."""
    return (x >> 16).clamp_(0, 255).to(torch.uint8)


def _linear(x: Tensor, p: Tensor) -> Tensor:
    return _byte(x.int() * p[:, 1] + p[:, 2])


def whole_gray(x: Tensor) -> Tensor:
    """ITU-R 601 gray as Pillow rounds it: uint8 [G, C, H, W] to int32 [G, 1, H, W]."""
    if x.shape[1] != 3:
        return x[:, :1].int()
    red, green, blue = (part * weight for part, weight in zip(x.int().split(1, 1), steps.WHOLE_LUMA))
    return (red + green + blue + (1 << 15)) >> 16


def _contrast(x: Tensor, p: Tensor) -> Tensor:
    n = x[0, 0].numel()
    mean = ((2 * whole_gray(x).sum((1, 2, 3), keepdim=True) + n) // (2 * n)).int()
    return _byte(x.int() * p[:, 1] + ((ONE - p[:, 1]) * mean + BIAS))


def _color(x: Tensor, p: Tensor) -> Tensor:
    return _byte(x.int() * p[:, 1] + ((ONE - p[:, 1]) * whole_gray(x) + BIAS)) if x.shape[1] == 3 else x


def _sharpness(x: Tensor, p: Tensor) -> Tensor:
    if min(x.shape[2:]) < 3:
        return x
    wide = x.int()
    sums = wide[:, :, :-2] + wide[:, :, 1:-1] + wide[:, :, 2:]
    inner = wide[:, :, 1:-1, 1:-1]
    box = sums[..., :-2] + sums[..., 1:-1] + sums[..., 2:] + 4 * inner
    smooth = ((box + 6) * 20165) >> 18  # / 13, rounded
    x[:, :, 1:-1, 1:-1] = _byte(inner * p[:, 1] + (ONE - p[:, 1]) * smooth + BIAS)
    return x


def _mask(x: Tensor, p: Tensor) -> Tensor:
    return x & p[:, 1].to(torch.uint8)


def _solarize(x: Tensor, p: Tensor) -> Tensor:
    return torch.where(x.int() < p[:, 1], x, 255 - x)


def _autocontrast(x: Tensor, p: Tensor) -> Tensor:
    low, high = x.amin((2, 3), keepdim=True).int(), x.amax((2, 3), keepdim=True).int()
    spread = high - low
    flat = spread == 0
    spread = spread.clamp(min=1)
    scale = torch.where(flat, ONE, (255 * ONE + spread - 1) // spread)
    return _byte((x.int() - torch.where(flat, 0, low)) * scale)


def _equalize(x: Tensor, p: Tensor) -> Tensor:
    planes = x.flatten(2).long()  # [G, C, H W]
    count = torch.zeros(*planes.shape[:2], 256, dtype=torch.int64, device=x.device)
    count.scatter_add_(2, planes, torch.ones_like(planes))
    last = count.gather(2, planes.amax(2, keepdim=True))
    step = (planes.shape[2] - last) // 255
    before = count.cumsum(2) - count + step // 2
    table = (before // step.clamp(min=1)).clamp(max=255)
    table = torch.where(step == 0, torch.arange(256, device=x.device), table)
    return table.gather(2, planes).to(torch.uint8).view_as(x)


def _positions(x: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Input columns and lines, 16 bits behind the point, and which lie inside: [G, H, W] each."""
    h, w = x.shape[2:]
    i = torch.arange(h, dtype=torch.int32, device=x.device).view(h, 1)
    j = torch.arange(w, dtype=torch.int32, device=x.device)
    _, a, b, c, d, e, f, _ = p[:, :, 0].unbind(1)
    u, v = a * j + (b * i + c), d * j + (e * i + f)
    column, line = u >> 16, v >> 16
    return u, v, (column >= 0) & (column < w) & (line >= 0) & (line < h)


def _pick(x: Tensor, line: Tensor, column: Tensor) -> Tensor:
    """Pixels of every channel at [G, H, W] positions inside the picture."""
    g, c, h, w = x.shape
    index = (line.long() * w + column).view(g, 1, h * w).expand(g, c, h * w)
    return x.flatten(2).gather(2, index).view_as(x)


def _nearest(x: Tensor, p: Tensor) -> Tensor:
    h, w = x.shape[2:]
    u, v, inside = _positions(x, p)
    found = _pick(x, (v >> 16).clamp_(0, h - 1), (u >> 16).clamp_(0, w - 1))
    return torch.where(inside.unsqueeze(1), found, p[:, 7].to(torch.uint8))


def _bilinear(x: Tensor, p: Tensor) -> Tensor:
    h, w = x.shape[2:]
    u, v, inside = _positions(x, p)
    u, v = u - (1 << 15), v - (1 << 15)  # pixels' values stand at their middles
    left, top = u >> 16, v >> 16
    right, bottom = (left + 1).clamp_(0, w - 1), (top + 1).clamp_(0, h - 1)
    left, top = left.clamp_(0, w - 1), top.clamp_(0, h - 1)
    across, down = ((u >> 8) & 255).unsqueeze(1), ((v >> 8) & 255).unsqueeze(1)
    upper = _pick(x, top, left).int() * (256 - across) + _pick(x, top, right).int() * across
    lower = _pick(x, bottom, left).int() * (256 - across) + _pick(x, bottom, right).int() * across
    mixed = (upper * (256 - down) + lower * down + (1 << 15)) >> 16
    return torch.where(inside.unsqueeze(1), mixed.to(torch.uint8), p[:, 7].to(torch.uint8))


def _erase(x: Tensor, p: Tensor) -> Tensor:
    h, w = x.shape[2:]
    i, j = torch.arange(h, device=x.device).view(h, 1), torch.arange(w, device=x.device)
    inside = (i >= p[:, 1]) & (i < p[:, 1] + p[:, 3]) & (j >= p[:, 2]) & (j < p[:, 2] + p[:, 4])
    return torch.where(inside, p[:, 7].to(torch.uint8), x)


def _window(x: Tensor, p: Tensor) -> Tensor:
    h, w = x.shape[2:]
    j = torch.arange(w, device=x.device)
    line = _reflect(torch.arange(h, device=x.device).view(h, 1) + p[:, 1, 0], h)
    column = _reflect(torch.where(p[:, 3, 0] != 0, w - 1 - j, j) + p[:, 2, 0], w)
    return _pick(x, *torch.broadcast_tensors(line, column))


def _reflect(position: Tensor, n: int) -> Tensor:
    position = position.abs()
    return torch.where(position < n, position, 2 * (n - 1) - position)


KINDS: dict[int, Callable[[Tensor, Tensor], Tensor]] = {
    steps.LINEAR: _linear,
    steps.CONTRAST: _contrast,
    steps.COLOR: _color,
    steps.SHARPNESS: _sharpness,
    steps.MASK: _mask,
    steps.SOLARIZE: _solarize,
    steps.AUTOCONTRAST: _autocontrast,
    steps.EQUALIZE: _equalize,
    steps.NEAREST: _nearest,
    steps.BILINEAR: _bilinear,
    steps.ERASE: _erase,
    steps.WINDOW: _window,
}
