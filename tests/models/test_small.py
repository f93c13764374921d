"""Small nets: shapes at every size, a training step, and an unshared convolution against a naive loop."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from handful.models.backbones import OURS, create
from handful.models.small import Conv4, DropPath, UnsharedConv, WideResNet
from handful.types import UsageError

SMALL = [name for name in OURS if not name.endswith("-56")]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 28, 32])
@pytest.mark.parametrize("name", SMALL)
def test_a_few_steps_lower_the_loss(name: str, size: int, channels: int) -> None:
    net = create(name, n_classes=4, channels=channels, size=size, seed=0)
    assert (net.spec.size, net.spec.channels, len(net.spec.mean)) == (size, channels, channels)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, channels, size, size, generator=generator)
    y = torch.arange(8) % 4
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    losses = []
    for _ in range(6):
        out = net(x)
        assert out.features.shape == (8, net.dim)
        assert out.logits.shape == (8, 4)
        loss = F.cross_entropy(out.logits, y)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", SMALL)
def test_odd_sizes_and_no_classes(name: str) -> None:
    net = create(name, channels=2, size=29)
    features, logits, _ = net(torch.randn(3, 2, 29, 29))
    assert features.shape == (3, net.dim)
    assert logits.shape == (3, 0)


def test_unshared_convolution_equals_a_loop() -> None:
    torch.manual_seed(0)
    layer = UnsharedConv(channels=2, filters=3, size=9, kernel=5, stride=2)
    x = torch.randn(4, 2, 9, 9)
    out = layer(x)
    padded = F.pad(x, (2, 2, 2, 2))
    for place in range(25):
        i, j = divmod(place, 5)
        patch = padded[:, :, 2 * i : 2 * i + 5, 2 * j : 2 * j + 5].reshape(4, -1)
        expected = patch @ layer.weight[place].T + layer.bias[place]
        torch.testing.assert_close(out[:, :, i, j], expected, rtol=1e-4, atol=1e-5)


def test_unshared_convolution_with_equal_weights_is_a_convolution() -> None:
    layer = UnsharedConv(channels=3, filters=4, size=8, kernel=5, stride=2)
    kernel = torch.randn(4, 3, 5, 5)
    with torch.no_grad():
        layer.weight.copy_(kernel.flatten(1).expand_as(layer.weight))
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(layer(x), F.conv2d(x, kernel, padding=2, stride=2), rtol=1e-4, atol=1e-4)


def test_known_sizes() -> None:
    assert Conv4(size=84).dim == 1600  # the width the few-shot papers state
    assert Conv4(size=28, channels=1).dim == 64
    wide = WideResNet(n_classes=10)
    assert wide.dim == 128
    assert round(sum(p.numel() for p in wide.parameters()) / 1e6, 1) == 1.5  # Zagoruyko & Komodakis: 1.5 M
    assert sum(isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3) for m in wide.modules()) == 25


def test_too_small_pictures_are_an_error() -> None:
    with pytest.raises(UsageError, match="at least 8 px"):
        create("lenet", size=7)
    with pytest.raises(ValueError, match="6 n \\+ 4"):
        WideResNet(depth=27)


def test_stochastic_depth_leaves_whole_branches_out_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    drop = DropPath(0.3)
    x = torch.ones(20000, 2, 3)
    out = drop(x)
    per_picture = out.flatten(1)
    assert torch.equal(per_picture.amin(1), per_picture.amax(1)), (
        "a picture's branch is there or not, as a whole"
    )
    assert per_picture[:, 0].unique().tolist() == [0.0, pytest.approx(1 / 0.7)]
    assert float((per_picture[:, 0] == 0).double().mean()) == pytest.approx(0.3, abs=0.015)  # over 4 sigma
    assert torch.equal(drop.eval()(x), x)
    with pytest.raises(ValueError, match="stochastic depth"):
        DropPath(1.0)


@pytest.mark.parametrize("name", ["small-resnet", "wrn-28-2"])
def test_stochastic_depth_grows_linearly_and_changes_training_alone(name: str) -> None:
    net, plain = (create(name, n_classes=3, size=8, drop_path=rate, seed=0) for rate in (0.4, 0.0))
    rates = [m.rate for m in net.modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0.4 * (i + 1) / len(rates) for i in range(len(rates))])
    assert len(rates) == {"small-resnet": 2, "wrn-28-2": 12}[name]
    x = torch.randn(6, 3, 8, 8)
    assert torch.equal(net.eval()(x).logits, plain.eval()(x).logits)
    assert not torch.equal(net.train()(x).logits, plain.train()(x).logits)


def test_networks_without_skips_have_no_stochastic_depth() -> None:
    for name in ("conv-4", "lenet", "torchvision:resnet18", "timm:vgg11"):
        with pytest.raises(UsageError, match="no stochastic depth"):
            create(name, n_classes=2, size=32, drop_path=0.1)


def test_dropout_is_before_the_head_in_training_alone() -> None:
    net = create("conv-4", n_classes=3, size=8, dropout=0.5, seed=0)
    x = torch.randn(4, 3, 8, 8)
    net.train()
    net.head = nn.Identity()
    features, dropped, _ = net(x)
    zero = dropped == 0
    assert 0.2 < float(zero[features != 0].double().mean()) < 0.8
    torch.testing.assert_close(dropped[~zero], 2 * features[~zero])
    features, kept, _ = net.eval()(x)
    assert torch.equal(features, kept)
