"""Receptive fields: values worked out by hand, and gradients that agree."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from handful.models.backbones import create
from handful.models.receptive import Field, Reach, effective, fields, places


def meta(name: str, size: int = 224) -> nn.Module:
    with torch.device("meta"):
        return create(name, n_classes=10, size=size)


def test_vgg_16() -> None:
    """conv1: 3, 5; pool 6; conv2: 10, 14; pool 16; conv3: 24, 32, 40; pool 44; conv4: 60, 76, 92; pool 100; conv5:
    132, 164, 196; pool 212. Starts: less the jump for each padded convolution, -(2 + 2 x 2 + 3 x 4 + 3 x 8 + 48)."""
    found = fields(meta("vgg-16"), (3, 224, 224))
    names = [f"body.features.{i}" for i in (0, 2, 4, 5, 7, 9, 10, 12, 14, 16, 17, 19, 21, 23, 24, 26, 28, 30)]
    sizes = [3, 5, 6, 10, 14, 16, 24, 32, 40, 44, 60, 76, 92, 100, 132, 164, 196, 212]
    assert [found[n].size for n in names] == sizes
    assert found["body.features.28"].rows == Reach(196, 16, -90)
    assert found["body.features.30"] == Field(Reach(212, 32, -90), Reach(212, 32, -90), False)
    assert found["body.features.30"].rows.offset == 15.5
    assert found["head"].whole


def test_resnet_50_with_the_stride_in_the_3x3() -> None:
    """7; pool 11 (jump 4); three 3x3 at jump 4: 35; the first of layer2 at jump 4: 43, three at jump 8: 91; layer3: 91
    + 16 + 5 x 32 = 267; layer4: 267 + 32 + 2 x 64 = 427. With the stride at the end of a stage it would be 483 (Araujo
    et al. 2019): 35, 35 + 4 x 16, 99 + 6 x 32, 291 + 3 x 64."""
    found = fields(meta("resnet-50"), (3, 224, 224))
    expected = {
        "conv1": (7, 2),
        "maxpool": (11, 4),
        "layer1": (35, 4),
        "layer2": (91, 8),
        "layer3": (267, 16),
    }
    for name, (size, jump) in expected.items():
        assert found[f"body.{name}"].rows[:2] == (size, jump)
    assert found["body.layer4"].rows == Reach(427, 32, -213)


def test_googlenet_takes_the_widest_branch() -> None:
    """7 (jump 2); pool 11 (4); 3x3 19; pool 27 (8); two inceptions + 2 x 8 each: 43, 59; pool 75 (16); five + 2 x 16:
    235; pool 251 (32); two + 2 x 32: 379. (torchvision has 3x3 where the paper has 5x5.)"""
    found = fields(meta("googlenet"), (3, 224, 224))
    sizes = {"conv3": 19, "maxpool2": 27, "inception3a": 43, "inception3b": 59, "maxpool3": 75, "inception4a": 107,
             "inception4e": 235, "maxpool4": 251, "inception5b": 379}  # fmt: skip
    assert {name: found[f"body.{name}"].size for name in sizes} == sizes
    assert found["body.inception3a.branch1"].size == 27
    assert found["body.inception3a.branch4"].size == 43


def test_small_stems_and_option_a_shortcuts() -> None:
    """cifar-resnet-20: 3, + 6 x 2 = 15, + 2 + 5 x 4 = 37, + 4 + 5 x 8 = 81; strided slices in the shortcut."""
    found = fields(meta("cifar-resnet-20", 32), (3, 32, 32))
    assert [found[f"body.{i}"].rows[:2] for i in (0, 3, 4, 5)] == [(3, 1), (15, 1), (37, 2), (81, 4)]
    # resnet-18: 3; four 3x3: 11; layer2: + 2 + 3 x 4 = 25; layer3: + 4 + 3 x 8 = 53; layer4: + 8 + 3 x 16 = 109
    found = fields(meta("resnet-18", 32), (3, 32, 32))
    assert [found[f"body.layer{i}"].rows[:2] for i in (1, 2, 3, 4)] == [(11, 1), (25, 2), (53, 4), (109, 8)]


def test_gates_and_attention_see_the_whole_picture() -> None:
    """EfficientNet-B0: 851 px on the ways past its gates (Araujo et al. 2019, table 1)."""
    found = fields(meta("efficientnet-b0"), (3, 224, 224))
    assert not found["body.features.0"].whole
    assert found["body.features.8"].whole and found["body.features.8"].size == 851
    vit = fields(meta("vit-tiny"), (3, 224, 224))
    assert vit["body.patch_embed.proj"] == Field(Reach(16, 16, 0), Reach(16, 16, 0), False)
    assert not vit["body.blocks.0.norm1"].whole and vit["body.blocks.0.mlp.fc1"].whole


class Mixer(nn.Module):
    """A map as tokens [B, H W, C], a layer over channels, a layer over tokens, a layer over channels."""

    def __init__(self, exchange: str) -> None:
        super().__init__()
        self.exchange = exchange
        self.stem, self.before, self.after = nn.Conv2d(3, 4, 2, 2), nn.Linear(4, 4), nn.Linear(4, 4)
        self.over = nn.Linear(16, 16)

    def turned(self, x: Tensor) -> Tensor:
        return x.transpose(-1, 1) if self.exchange == "transpose" else x.permute(0, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(self.turned(self.stem(x).flatten(2)))
        x = self.turned(self.over(self.turned(x)))
        return self.after(x)


@pytest.mark.parametrize("exchange", ["transpose", "permute"])
def test_a_layer_over_tokens_sees_the_whole_picture_and_one_over_channels_does_not(exchange: str) -> None:
    """By gradient: which pixels reach the first token?"""
    net = Mixer(exchange)
    found = fields(net, (3, 8, 8))
    assert [found[name].whole for name in ("stem", "before", "over", "after")] == [False, False, True, True]
    assert found["before"].size == 2
    seen = {}
    for name in ("before", "over"):
        kept: list[Tensor] = []
        hook = getattr(net, name).register_forward_hook(lambda m, i, out, kept=kept: kept.append(out))
        x = torch.rand(1, 3, 8, 8, requires_grad=True)
        net(x)
        hook.remove()
        kept[0][0, 0, 0].backward()
        assert x.grad is not None
        seen[name] = int((x.grad.abs().sum(1) > 0).sum())
    assert seen == {"before": 4, "over": 64}


@pytest.mark.parametrize(
    ("part", "whole"),
    [
        (nn.GroupNorm(2, 4), True),
        (nn.LayerNorm([4, 8, 8]), True),
        (nn.BatchNorm2d(4), False),
        (nn.ConvTranspose2d(4, 4, 2, 2), True),
        (nn.PixelShuffle(2), True),
        (nn.Softmax(1), False),
    ],
)
def test_norms_over_places_see_them_and_what_grows_has_no_pixels_of_its_own(
    part: nn.Module, whole: bool
) -> None:
    """By gradient: which pixels reach the middle unit? For what grows, "whole" says that the geometry is not known."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), part).eval()
    assert fields(net, (3, 8, 8))["1"].whole is whole
    grows = isinstance(part, (nn.ConvTranspose2d, nn.PixelShuffle))
    if not grows:
        assert bool((effective(net, "1", (3, 8, 8)) > 0).all()) is whole


def test_a_mean_over_channels_alone_is_no_view_of_the_whole() -> None:
    class Mean(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(1, keepdim=True)

    found = fields(nn.Sequential(nn.Conv2d(3, 4, 3), Mean()), (3, 8, 8))["1"]
    assert found == Field(Reach(3), Reach(3), False)


def test_axes_dilation_and_unshuffle() -> None:
    net = nn.Sequential(
        nn.PixelUnshuffle(2), nn.Conv2d(4, 1, (1, 7), padding=(0, 3)), nn.Conv2d(1, 1, 3, dilation=2)
    )
    found = fields(net, (1, 32, 32))
    assert found["0"] == Field(Reach(2, 2, 0), Reach(2, 2, 0))
    assert found["1"] == Field(Reach(2, 2, 0), Reach(14, 2, -6))
    assert found["2"] == Field(Reach(10, 2, 0), Reach(22, 2, -6))
    unshared = fields(create("local", size=16, n_classes=2), (3, 16, 16))
    assert unshared["body.0"].rows == Reach(5, 2, -2)


POSITIVE = [("resnet-18", 64, "body.layer2.0"), ("googlenet", 64, "body.inception3b"),
            ("densenet-121", 48, "body.features.denseblock1"),
            ("cifar-resnet-20", 48, "body.4")]  # fmt: skip


@pytest.mark.parametrize(("name", "size", "layer"), POSITIVE)
def test_gradients_reach_as_far_as_the_theory_says(name: str, size: int, layer: str) -> None:
    """With positive weights nothing cancels: the gradient of the middle unit is not 0 up to the edge of the theoretical
    field, and 0 beyond."""
    net = create(name, n_classes=2, size=size, seed=0).double()
    with torch.no_grad():
        for p in net.parameters():
            p.abs_()
    seen = effective(net, layer, (3, size, size), n=6)
    field = fields(net, (3, size, size))[layer]
    out = []
    net.get_submodule(layer).register_forward_hook(lambda m, i, o: out.append(o.shape))
    net.eval()(torch.zeros(1, 3, size, size, dtype=torch.float64))
    unit = (out[0][2] // 2, out[0][3] // 2)
    (top, bottom), (left, right) = places(field, unit, (size, size))
    assert bottom - top < size, "the field must end inside the picture for this to say anything"
    lit = (seen > 0).nonzero()
    assert (lit.amin(0).tolist(), (lit.amax(0) + 1).tolist()) == ([top, left], [bottom, right])
    assert float(seen.max()) == 1


def test_the_effective_field_is_smaller_than_the_theoretical_one() -> None:
    """Luo et al. 2016: it falls off from the middle like a Gaussian."""
    net = nn.Sequential(*[nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(10)])
    for conv in net:
        nn.init.constant_(conv.weight, 1 / 9)
    seen = effective(net, "9", (1, 41, 41), n=1)
    one = torch.tensor([1.0])
    for _ in range(10):
        one = nn.functional.conv1d(one[None, None], torch.ones(1, 1, 3), padding=2)[0, 0]
    expected = torch.outer(one, one) / one.max() ** 2
    torch.testing.assert_close(seen[10:31, 10:31], expected, rtol=1e-4, atol=1e-6)
    assert float(seen.sum() - seen[10:31, 10:31].sum()) == 0


def test_a_plain_torchvision_model_works_too() -> None:
    with torch.device("meta"):
        net = models.resnet18()
    assert (
        fields(net, (3, 224, 224))["layer4"].size == 435
    )  # 11 + 4 x 8, + 8 + 3 x 16, + 16 + 3 x 32, + 32 + 3 x 64
