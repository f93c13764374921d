"""Folded networks give what unfolded ones give."""

import pytest
import torch
from torch import nn

from handful.inference.fold import fold
from handful.models.backbones import create
from handful.types import HandfulError, InputSpec


def stir(model: nn.Module) -> None:
    """Statistics and scales as training leaves them: not 0 and 1."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.uniform_(module.bias, -1, 1)


@pytest.mark.parametrize(
    ("name", "size", "left"),
    [
        ("small-resnet", 16, 0),
        ("conv-4", 16, 0),
        ("wrn-28-2", 16, 12),  # after the first block, each norm that follows a sum
        ("lite0", 32, 0),
        ("timm:resnet18", 32, 0),
        ("torchvision:mobilenet_v3_small", 32, 0),
    ],
)
def test_equal(name: str, size: int, left: int) -> None:
    model = create(name, n_classes=3, size=size, seed=0)
    torch.manual_seed(0)
    stir(model)
    model.eval()
    folded = fold(model)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in folded.modules()) == left
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules())  # the original is untouched
    x = torch.randn(3, 3, size, size)
    expected, got = model(x), folded(x)
    for a, b in zip(expected[:2], got[:2]):
        torch.testing.assert_close(b, a, rtol=0, atol=1e-3 * float(a.detach().abs().max()))


def test_a_convolution_used_twice_is_noticed() -> None:
    class Twice(nn.Module):
        spec = InputSpec(8)

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return self.norm(y) + y

    model = Twice()
    stir(model)
    with pytest.raises(HandfulError, match="folding"):
        fold(model)
