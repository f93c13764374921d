"""Small networks of our own, for small pictures and short runs on a CPU.

All are a ``body`` (pictures to features), dropout, and a ``head`` (features to logits). They take any number
of channels and any size from 8 px on. Convolutional nets end in a mean over the map, or, where the class says
so, are tied to the size they were made for.

Legend: B pictures, C channels, S pixels a side, D features, K classes, F filters, L places, P patch entries.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.models.heads import LinearHead, NoHead
from handful.types import InputSpec, Output


class Net(nn.Module):
    """A body and a head: ``x [B, C, S, S] -> Output(features [B, D], logits [B, K])``.

    Attributes:
        spec: the input it wants.
        dim: feature width D.
        drop: dropout before the head; ``create`` sets its rate.
        head: D to K; an empty [B, 0] where ``n_classes`` is 0.
    """

    def __init__(self, body: nn.Module, dim: int, spec: InputSpec, n_classes: int = 0) -> None:
        super().__init__()
        self.spec, self.dim = spec, dim
        self.body = body
        self.drop = nn.Dropout(0.0)
        self.head: nn.Module = LinearHead(dim, n_classes) if n_classes else NoHead()

    @property
    def auxiliary_heads(self) -> tuple[nn.Module, ...]:
        """Heads that speak in training only."""
        return ()

    def forward(self, x: Tensor) -> Output:
        features = self.body(x)
        return Output(features, self.head(self.drop(features)))


def plain_spec(size: int, channels: int) -> InputSpec:
    """Pixels from -1 to 1 in every channel.

    Raises:
        ValueError: for pictures under 8 px.
    """
    if size < 8:
        raise ValueError(f"pictures must have at least 8 px a side, not {size}")
    return InputSpec(size, channels, (0.5,) * channels, (0.5,) * channels)


class Linear(Net):
    """One layer on pixels: the features are the pixels themselves (D = C S S)."""

    def __init__(self, n_classes: int = 0, channels: int = 3, size: int = 32) -> None:
        super().__init__(nn.Flatten(), channels * size * size, plain_spec(size, channels), n_classes)


class UnsharedConv(nn.Module):
    """A convolution whose weights differ from place to place: [B, C, S, S] -> [B, F, S', S'].

    ``weight`` is [L, F, P] with L = S' S' places and P = C kernel kernel patch entries.
    """

    def __init__(self, channels: int, filters: int, size: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, kernel // 2
        self.side = (size + 2 * self.padding - kernel) // stride + 1
        patch = channels * kernel * kernel
        self.weight = nn.Parameter(torch.randn(self.side**2, filters, patch) * (2 / patch) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(self.side**2, filters))

    def forward(self, x: Tensor) -> Tensor:
        patches = F.unfold(x, self.kernel, padding=self.padding, stride=self.stride)  # [B, P, L]
        out = torch.einsum("bpl,lfp->blf", patches, self.weight) + self.bias
        return out.transpose(1, 2).unflatten(2, (self.side, self.side))


class LocallyConnected(Net):
    """One layer of local filters that are not shared between places, then the head: what convolution adds is
    the difference between this and ``LeNet``. Tied to its size (D = filters * ceil(S / 2)^2)."""

    def __init__(
        self,
        n_classes: int = 0,
        channels: int = 3,
        size: int = 32,
        *,
        filters: int = 8,
        kernel: int = 5,
    ) -> None:
        spec = plain_spec(size, channels)
        local = UnsharedConv(channels, filters, size, kernel, stride=2)
        body = nn.Sequential(local, nn.ReLU(), nn.Flatten())
        super().__init__(body, filters * local.side**2, spec, n_classes)


class LeNet(Net):
    """LeNet-5 (LeCun et al. 1998, figure 2), tied to its size, D = 84.

    It differs from the paper in ReLU for tanh, max for mean pooling, all-to-all second convolution, and, for
    pictures under 12 px, a padded second convolution.
    """

    def __init__(self, n_classes: int = 0, channels: int = 3, size: int = 28) -> None:
        spec = plain_spec(size, channels)
        padding = 0 if size >= 12 else 2
        side = (size // 2 + 2 * padding - 4) // 2
        body = nn.Sequential(
            nn.Conv2d(channels, 6, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5, padding=padding),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * side * side, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
        )
        super().__init__(body, 84, spec, n_classes)


def conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size (divided by ``stride``), without bias: a norm follows."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


class Conv4(Net):
    """Four blocks of 3x3 convolution, batch norm, ReLU, 2x2 max-pooling (Vinyals et al. 2016, "Matching
    Networks", section 4.1.1; Snell et al. 2017). The features are the last map, flattened: 64 at 28 px,
    1600 at 84 px. A block pools only while its map is wider than 1 px. Tied to its size."""

    def __init__(self, n_classes: int = 0, channels: int = 3, size: int = 84, *, width: int = 64) -> None:
        spec = plain_spec(size, channels)
        blocks: list[nn.Module] = []
        for block in range(4):
            layers = [conv3(width if block else channels, width), nn.BatchNorm2d(width), nn.ReLU()]
            if size > 1:
                layers.append(nn.MaxPool2d(2))
                size //= 2
            blocks.append(nn.Sequential(*layers))
        super().__init__(nn.Sequential(*blocks, nn.Flatten()), width * size * size, spec, n_classes)


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016, equation 2): in training, a picture's whole branch becomes 0 with
    probability ``rate``; branches that stay are divided by 1 - rate, so that nothing changes in the mean.
    (timm's draws other branches from the same seed, and takes seconds to import.)

    Raises:
        ValueError: the rate is not in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"a rate of stochastic depth lies in [0, 1), not {rate}")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        stays = torch.rand(len(x), *[1] * (x.dim() - 1), device=x.device) >= self.rate
        return x * (stays.to(x.dtype) / (1 - self.rate))


def path_rates(last: float, blocks: int) -> list[float]:
    """Rates of ``blocks`` residual blocks, growing linearly to ``last`` (Huang et al. 2016, equation 4)."""
    return [last * (block + 1) / blocks for block in range(blocks)]


class PreActivation(nn.Module):
    """Norm, leaky ReLU, 3x3 convolution, twice, plus the input (He et al. 2016, "Identity Mappings").

    Where the shape changes, a 1x1 convolution of the activated input takes the input's place.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, momentum: float, eps: float, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.drop_path = DropPath(drop_path)
        self.norm1 = nn.BatchNorm2d(inputs, eps, momentum)
        self.conv1 = conv3(inputs, outputs, stride)
        self.norm2 = nn.BatchNorm2d(outputs, eps, momentum)
        self.conv2 = conv3(outputs, outputs)
        self.shortcut = (
            None if inputs == outputs and stride == 1 else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        active = F.leaky_relu(self.norm1(x), 0.1)
        out = self.conv2(F.leaky_relu(self.norm2(self.conv1(active)), 0.1))
        return self.drop_path(out) + (x if self.shortcut is None else self.shortcut(active))


class WideResNet(Net):
    """Wide residual network (Zagoruyko & Komodakis 2016, table 1) as semi-supervised papers use it: leaky
    ReLU of slope 0.1, batch norm with eps 0.001. D = 64 width.

    Those papers update the norm's averages by 0.001 a step, over 2^20 steps; ``momentum`` is 0.01 here:
    a run on few labels has a few hundred to a few thousand steps, and averages must be warm by then.

    Raises:
        ValueError: where ``depth`` is not 6 n + 4.
    """

    def __init__(
        self,
        n_classes: int = 0,
        channels: int = 3,
        size: int = 32,
        *,
        depth: int = 28,
        width: int = 2,
        momentum: float = 0.01,
        eps: float = 1e-3,
        drop_path: float = 0.0,
    ) -> None:
        if (depth - 4) % 6 or depth < 10:
            raise ValueError(f"the depth of a wide residual network is 6 n + 4, not {depth}")
        spec = plain_spec(size, channels)
        stages: list[nn.Module] = [conv3(channels, 16)]
        inputs = 16
        rates = iter(path_rates(drop_path, (depth - 4) // 2))
        for stage, outputs in enumerate((16 * width, 32 * width, 64 * width)):
            blocks = []
            for block in range((depth - 4) // 6):
                stride = 2 if stage and not block else 1
                blocks.append(PreActivation(inputs, outputs, stride, momentum, eps, next(rates)))
                inputs = outputs
            stages.append(nn.Sequential(*blocks))
        end = [nn.BatchNorm2d(inputs, eps, momentum), nn.LeakyReLU(0.1), *mean_pool()]
        super().__init__(nn.Sequential(*stages, *end), inputs, spec, n_classes)
        for module in self.body.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.1, mode="fan_out")


def mean_pool() -> tuple[nn.Module, nn.Module]:
    """The mean over the map: [B, D, H, W] -> [B, D]."""
    return nn.AdaptiveAvgPool2d(1), nn.Flatten()


class Unshuffle(nn.Module):
    """Each ``factor`` x ``factor`` square of pixels becomes channels: [B, C, H, W] -> [B, C f f, H/f, W/f].

    Sides that do not divide are first padded by repeating the border.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        right, below = -x.shape[3] % self.factor, -x.shape[2] % self.factor
        if right or below:
            x = F.pad(x, (0, right, 0, below), mode="replicate")
        return F.pixel_unshuffle(x, self.factor)


class Residual(nn.Module):
    """``x + f(x)`` with f two times 3x3 convolution, batch norm, ReLU."""

    def __init__(self, width: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.drop_path = DropPath(drop_path)
        self.inner = nn.Sequential(*conv_norm_relu(width, width), *conv_norm_relu(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.inner(x))


def conv_norm_relu(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    """3x3 convolution, batch norm, ReLU."""
    return conv3(inputs, outputs), nn.BatchNorm2d(outputs), nn.ReLU()


class Residual8(Net):
    """Seven convolutions and the head, two residual pairs: a strong small net for 8 to 64 px. D = 192.

    From 28 px on the picture is first folded 2x2 into channels (from 96 px on, 4x4): a quarter of the
    work, at little cost in accuracy.
    """

    def __init__(
        self,
        n_classes: int = 0,
        channels: int = 3,
        size: int = 32,
        *,
        widths: tuple[int, int, int] = (32, 96, 192),
        drop_path: float = 0.0,
    ) -> None:
        spec = plain_spec(size, channels)
        factor = 1 if size < 28 else 2 if size < 96 else 4
        first, second, third = widths
        rates = path_rates(drop_path, 2)
        body = nn.Sequential(
            Unshuffle(factor),
            nn.Sequential(*conv_norm_relu(channels * factor**2, first)),
            nn.Sequential(*conv_norm_relu(first, second), nn.MaxPool2d(2)),
            Residual(second, rates[0]),
            nn.Sequential(*conv_norm_relu(second, third), nn.MaxPool2d(2)),
            Residual(third, rates[1]),
            *mean_pool(),
        )
        super().__init__(body, third, spec, n_classes)
