"""The networks of the degradation experiment: plain and residual stacks of 6 n + 2 layers for pictures of 32 px (He et
al. 2016, "Deep Residual Learning", section 4.2), with and without batch norm.

Legend: B pictures, C channels, S pixels a side, D features.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from handful.models.small import Net, mean_pool, plain_spec


class Block(nn.Module):
    """``relu(f(x) + shortcut(x))`` with f two times 3x3 convolution and norm, the first with ReLU; without ``skip``,
    ``relu(f(x))``.

    The shortcut has no parameters: where the side halves it takes every other pixel, and new channels are 0 (the
    paper's option A).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, skip: bool, norm: bool) -> None:
        super().__init__()
        self.stride, self.more, self.skip = stride, outputs - inputs, skip
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=not norm)
        self.norm1 = nn.BatchNorm2d(outputs) if norm else nn.Identity()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=not norm)
        self.norm2 = nn.BatchNorm2d(outputs) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x) if self.skip else out)

    def shortcut(self, x: Tensor) -> Tensor:
        """The input in the output's shape."""
        x = x[:, :, :: self.stride, :: self.stride] if self.stride > 1 else x
        return F.pad(x, (0, 0, 0, 0, 0, self.more)) if self.more else x


class CifarNet(Net):
    """One convolution, three stages of n blocks at sides S, S / 2, S / 4 and widths w, 2 w, 4 w, mean over the map,
    head: 6 n + 2 layers. D = 4 ``width``.

    Args:
        skip: with shortcuts (residual) or without (plain).
        norm: with batch norm; without, convolutions have a bias.
        init: "he": variance 2 / fan-out (He et al. 2015, which keeps gradients' size through ReLUs in the mean);
            "glorot": 2 / (fan-in + fan-out) (Glorot & Bengio 2010), half of it.

    Raises:
        ValueError: where ``depth`` is not 6 n + 2, or of an unknown ``init``.
    """

    def __init__(
        self,
        n_classes: int = 0,
        channels: int = 3,
        size: int = 32,
        *,
        depth: int = 20,
        width: int = 16,
        skip: bool = True,
        norm: bool = True,
        init: str = "he",
    ) -> None:
        if (depth - 2) % 6 or depth < 8:
            raise ValueError(f"the depth of this network is 6 n + 2, not {depth}")
        if init not in ("he", "glorot"):
            raise ValueError(f"init is 'he' or 'glorot', not {init!r}")
        spec = plain_spec(size, channels)
        stem = nn.Conv2d(channels, width, 3, padding=1, bias=not norm)
        stages: list[nn.Module] = [stem, nn.BatchNorm2d(width) if norm else nn.Identity(), nn.ReLU()]
        inputs = width
        for stage in range(3):
            outputs, blocks = width << stage, []
            for block in range((depth - 2) // 6):
                stride = 2 if stage and not block else 1
                blocks.append(Block(inputs, outputs, stride, skip, norm))
                inputs = outputs
            stages.append(nn.Sequential(*blocks))
        super().__init__(nn.Sequential(*stages, *mean_pool()), inputs, spec, n_classes)
        for module in self.body.modules():
            if isinstance(module, nn.Conv2d):
                if init == "he":
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                else:
                    nn.init.xavier_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
