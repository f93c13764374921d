"""Operations beside the steps, rarer ones: perspective, Gaussian blur, hue. Tensor operations on any device.

Legend: B pictures, C channels, H height, W width.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def perspective(x: Tensor, maps: np.ndarray, *, fill: int = 0) -> Tensor:
    """A perspective map of each picture, bilinear.

    Args:
        x: uint8 [B, C, H, W].
        maps: float [B, 3, 3] from output to input positions (pixel (i, j) covers the square from (i, j) on).
        fill: gray value of what comes from outside.
    """
    b, c, h, w = x.shape
    m = torch.from_numpy(np.asarray(maps, np.float64)).to(x.device).view(b, 9, 1, 1)
    i = torch.arange(h, device=x.device, dtype=torch.float64).view(h, 1) + 0.5
    j = torch.arange(w, device=x.device, dtype=torch.float64) + 0.5
    depth = m[:, 6] * j + m[:, 7] * i + m[:, 8]
    u = (m[:, 0] * j + m[:, 1] * i + m[:, 2]) / depth
    v = (m[:, 3] * j + m[:, 4] * i + m[:, 5]) / depth
    inside = (u >= 0) & (u < w) & (v >= 0) & (v < h) & (depth > 0)
    u, v = u - 0.5, v - 0.5
    left, top = u.floor(), v.floor()
    across, down = (u - left).unsqueeze(1), (v - top).unsqueeze(1)

    def pick(line: Tensor, column: Tensor) -> Tensor:
        index = line.clamp(0, h - 1).long() * w + column.clamp(0, w - 1).long()
        return x.flatten(2).gather(2, index.view(b, 1, h * w).expand(b, c, h * w)).view(b, c, h, w)

    upper = pick(top, left) * (1 - across) + pick(top, left + 1) * across
    lower = pick(top + 1, left) * (1 - across) + pick(top + 1, left + 1) * across
    mixed = (upper * (1 - down) + lower * down + 0.5).to(torch.uint8)
    return torch.where(inside.unsqueeze(1), mixed, torch.tensor(fill, dtype=torch.uint8, device=x.device))


def blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur, 3 sigma to either side, reflected at the edges.

    Args:
        x: uint8 [B, C, H, W].
        sigma: float [B], pixels; a picture with 0 stays.
    """
    sigma = sigma.double().clamp(min=1e-6)
    most = min(int(torch.ceil(3 * sigma.max())), *(n - 1 for n in x.shape[2:])) if len(x) else 0
    distance = torch.arange(-most, most + 1, device=x.device, dtype=torch.float64)
    reach = torch.ceil(3 * sigma).unsqueeze(1)
    weight = torch.exp(-0.5 * (distance / sigma.unsqueeze(1)) ** 2) * (distance.abs() <= reach)
    weight = (weight / weight.sum(1, keepdim=True)).float()  # [B, 2 most + 1]
    out = x.float()
    for axis in (2, 3):
        pad = (0, 0, most, most) if axis == 2 else (most, most, 0, 0)
        wide = F.pad(out, pad, mode="reflect")
        out = torch.zeros_like(out)
        for k in range(2 * most + 1):
            out += wide.narrow(axis, k, x.shape[axis]) * weight[:, k].view(-1, 1, 1, 1)
    return out.add_(0.5).clamp_(0, 255).to(torch.uint8)


def hue(x: Tensor, turn: Tensor) -> Tensor:
    """The hue of every pixel turned (in HSV); gray pictures stay.

    Args:
        x: uint8 [B, C, H, W].
        turn: float [B], as a share of the circle.
    """
    if x.shape[1] != 3:
        return x
    rgb = x.float()
    value, least = rgb.amax(1), rgb.amin(1)
    chroma = value - least
    red, green, blue = rgb.unbind(1)
    safe = chroma.clamp(min=1)  # where the chroma is 0, so is what it divides
    sector = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    sector = sector + 6 * turn.float().view(-1, 1, 1)
    # a channel is value - chroma * clamp(min(k, 4 - k), 0, 1) with k = (n + sector) mod 6, n = 5, 3, 1 for R, G, B
    k = torch.stack([(n + sector) % 6 for n in (5, 3, 1)], 1)
    lacking = torch.minimum(k, 4 - k).clamp(0, 1)
    return (value.unsqueeze(1) - chroma.unsqueeze(1) * lacking).add_(0.5).to(torch.uint8)
