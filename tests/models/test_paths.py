"""Shortcuts, paths and gradients, against closed forms and networks written without shortcuts."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.models.backbones import create
from handful.models.cifar import CifarNet
from handful.models.paths import (
    BRANCH,
    PLAIN,
    SKIP,
    Joins,
    gradient_norms,
    n_joins,
    paths,
    train_a_little,
    without_norms,
)
from handful.types import Output


class Scales(nn.Module):
    """x -> x + a_i x, one after another (1x1 convolutions of weight a_i): the gradient of every path is a product."""

    def __init__(self, *scales: float) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Conv2d(2, 2, 1, bias=False) for _ in scales)
        for part, a in zip(self.parts, scales):
            part.weight.data = a * torch.eye(2)[:, :, None, None]

    def forward(self, x: Tensor) -> Output:
        for part in self.parts:
            x = x + part(x)
        return Output(x.flatten(1), x.mean((2, 3)))


def batch(channels: int = 2, size: int = 4) -> tuple[Tensor, Tensor]:
    return torch.randn(3, channels, size, size, generator=torch.Generator().manual_seed(0)), torch.tensor(
        [0, 1, 1]
    )


def test_a_linear_chain_has_the_gradients_of_its_products() -> None:
    """n equal blocks of scale a: the gradient down a path through k of them is a^k times that past all, there are
    C(n, k) such paths, and the shares are those of (1 + a)^n."""
    n, a = 5, 0.5
    found = paths(Scales(*[a] * n), *batch())
    assert [p.paths for p in found] == [math.comb(n, k) for k in range(n + 1)] == [1, 5, 10, 10, 5, 1]
    for k, p in enumerate(found):
        assert p.norm == pytest.approx(found[0].norm * a**k, rel=1e-5)
        assert p.share == pytest.approx(math.comb(n, k) * a**k / (1 + a) ** n, rel=1e-5)


def test_gates_leave_values_alone_and_split_the_gradient() -> None:
    net, (x, y) = Scales(0.5, -2.0), batch()
    wanted = net(x).logits
    gradients = {}
    for first in (BRANCH, SKIP):
        for second in (BRANCH, SKIP):
            z = x.clone().requires_grad_()
            with Joins(z, lambda number, rules=(first, second): rules[number]) as joins:
                logits = net(z).logits
            torch.testing.assert_close(logits, wanted)
            assert joins.number == 2
            (gradients[first, second],) = torch.autograd.grad(F.cross_entropy(logits, y), z)
    z = x.clone().requires_grad_()
    (whole,) = torch.autograd.grad(F.cross_entropy(net(z).logits, y), z)
    torch.testing.assert_close(sum(gradients.values()), whole)
    torch.testing.assert_close(gradients[BRANCH, BRANCH], -1.0 * gradients[SKIP, SKIP])


@pytest.mark.parametrize(
    ("name", "size", "shortcuts"),
    [
        ("resnet-18", 16, 8),  # two in each of four stages
        ("efficientnet-b0", 16, 9),  # sixteen blocks less the seven that change the shape
        ("vit-tiny", 8, 24),  # two in each of twelve
        ("small-resnet", 8, 2),
        ("wrn-28-2", 8, 12),
        ("cifar-resnet-20", 8, 9),
        ("cifar-plain-20", 8, 0),
        ("densenet-121", 8, 0),  # it joins by concatenation
        ("lenet", 8, 0),
    ],
)
def test_shortcuts_are_found_in_anyones_network(name: str, size: int, shortcuts: int) -> None:
    net = create(name, n_classes=3, size=size, seed=0).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    assert n_joins(net, torch.randn(2, 3, size, size)) == shortcuts
    after = net.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before if "num_batches" not in k)


def test_without_shortcuts_it_is_the_plain_net() -> None:
    """The residual net with its sums replaced by the branch equals the plain net that has its weights."""
    residual, plain = (CifarNet(3, 3, 8, depth=8, width=4, skip=skip) for skip in (True, False))
    plain.load_state_dict(residual.state_dict())
    x, y = batch(3, 8)
    with Joins(x, lambda number: PLAIN):
        torch.testing.assert_close(residual.eval()(x).logits, plain.eval()(x).logits, rtol=0, atol=0)
    a = gradient_norms(residual.train(), x, y, plain=True)
    b = gradient_norms(plain.train(), x, y)
    assert a == b
    assert a != gradient_norms(residual, x, y)


def test_gradient_norms_against_backward() -> None:
    net = create("cifar-resnet-20", n_classes=3, size=8, seed=0).train()
    x, y = batch(3, 8)
    found = gradient_norms(net, x, y)
    F.cross_entropy(net(x).logits, y).backward()
    weights = {
        name: m.weight.grad.norm() for name, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))
    }
    assert [g.name for g in found] == list(weights)
    assert [g.norm for g in found] == pytest.approx([float(v) for v in weights.values()])
    p = net(x).logits.detach().softmax(1) - F.one_hot(y, 3)  # d loss / d logits, times the number of pictures
    assert found[-1].flow == pytest.approx(float(p.norm()) / len(x))


def test_deep_plain_nets_vanish_without_norm_and_not_with_it() -> None:
    """Glorot's variance halves the gradient's square at each ReLU layer: 54 layers of it leave next to nothing. Batch
    norm keeps it, with shortcuts and without."""

    def ratio(**options: bool | str) -> float:
        torch.manual_seed(0)
        net = CifarNet(3, 3, 16, depth=56, width=4, **options).train()  # type: ignore[arg-type]
        flow = [g.flow for g in gradient_norms(net, *batch(3, 16))][:-1]
        return flow[0] / flow[-1]

    assert ratio(skip=False, norm=False, init="glorot") < 1e-4
    assert ratio(skip=False, norm=True) > 0.1
    assert ratio(skip=True, norm=True) > 0.1


def test_leaving_norms_out_keeps_activations() -> None:
    net = create("lite0", n_classes=3, size=32, seed=0)
    bare = without_norms(net)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in bare.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    assert sum(isinstance(m, nn.ReLU6) for m in bare.modules()) == sum(
        isinstance(m, nn.ReLU6) for m in net.modules()
    )


def test_auxiliary_heads_feed_the_first_layers() -> None:
    net = create("googlenet", n_classes=3, size=16, seed=0).train()
    for m in net.modules():
        if isinstance(m, nn.Dropout):
            m.p = 0.0
    x, y = batch(3, 16)
    with_heads, without = gradient_norms(net, x, y, auxiliary_weight=0.3), gradient_norms(net, x, y)
    assert {g.name for g in with_heads} - {g.name for g in without} == {
        f"body.aux{i}.{part}" for i in (1, 2) for part in ("conv.conv", "fc1", "fc2")
    }
    change = {g.name: g.norm for g in without}
    assert change["body.conv1.conv"] != {g.name: g.norm for g in with_heads}["body.conv1.conv"]


def test_a_little_training_stops_where_it_explodes() -> None:
    net = create("lenet", n_classes=2, channels=2, size=8, seed=0)
    x, y = batch(2, 8)
    losses = train_a_little(net, [(x, y)] * 4)
    assert len(losses) == 4 and losses[-1] < losses[0]
    assert math.isnan(train_a_little(net, [(x * math.nan, y)] * 4)[0])
