"""The classic backbones: sizes that papers state, a training step, resuming to the bit, export."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.engine.state import TrainingState
from handful.methods.base import descend
from handful.methods.supervised import Supervised
from handful.models.backbones import CLASSICS, create, find
from handful.models.classics import GoogLeNet
from handful.models.count import count
from handful.models.maps import building_blocks
from handful.types import UsageError

SMALLEST = {  # one of each family, the cheapest; the others differ in numbers of blocks and channels alone
    "alexnet": 15, "alexnet-two-towers": 15, "vgg-11": 8, "googlenet": 16, "resnet-18": 8, "resnet-50": 8,
    "densenet-121": 8, "se-resnet-18": 8, "efficientnet-b0": 8, "efficientnet-0.5x0.4": 8, "vit-tiny": 8,
    "cifar-resnet-20": 8, "cifar-plain-20": 8,
}  # fmt: skip


def meta(name: str, **options: object) -> nn.Module:
    with torch.device("meta"):
        return create(name, **options)  # type: ignore[arg-type]


def parameters(name: str) -> int:
    return sum(p.numel() for p in meta(name, n_classes=1000).parameters())


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("alexnet", 61_100_840),  # these: torchvision's notes on its weights
        ("vgg-11", 132_863_336),
        ("vgg-16", 138_357_544),
        ("resnet-18", 11_689_512),
        ("resnet-50", 25_557_032),
        ("densenet-121", 7_978_856),
        ("efficientnet-b0", 5_288_548),
        ("efficientnet-b7", 66_347_960),
        ("alexnet-two-towers", 60_965_224),  # sum of the layers of Krizhevsky et al. 2012, weights and biases
        ("googlenet", 13_004_888),  # 6,624,904 and two auxiliary heads
    ],
)
def test_parameters_are_the_published_ones(name: str, published: int) -> None:
    assert parameters(name) == published


def test_the_largest_efficientnets_are_counted_without_memory() -> None:
    """L2 has the 480 million of Xie et al. 2020 (table 7). B6-Wide, by the multipliers that its authors state and
    release, equals timm's network: 317 million, not the 390 of their table."""
    from timm.models.efficientnet import _gen_efficientnet

    assert round(parameters("efficientnet-l2") / 1e6) == 480
    with torch.device("meta"):
        theirs = _gen_efficientnet("efficientnet_b6", channel_multiplier=5.0, depth_multiplier=2.6)
    assert parameters("efficientnet-b6-wide") == sum(p.numel() for p in theirs.parameters())


def test_cifar_nets_have_the_papers_parameters() -> None:
    """He et al. 2016, table 6: 0.27 and 0.85 million; plain nets have as many (no shortcut has parameters)."""
    for depth, millions in ((20, 0.27), (56, 0.85)):
        sizes = [
            sum(p.numel() for p in meta(f"cifar-{kind}-{depth}", n_classes=10).parameters())
            for kind in ("resnet", "plain")
        ]
        assert sizes[0] == sizes[1]
        assert round(sizes[0] / 1e6, 2) == millions


@pytest.mark.parametrize("name", [n for n in CLASSICS if not re.search("-b[2-7]$|-152|-19$", n)])
def test_every_classic_takes_every_size(name: str) -> None:
    """From the least size on, with one channel; each stem on its own sizes. What differs from a name of ``SMALLEST`` in
    numbers alone is built at one size."""
    sizes = (find(name).least, 64, 65) if name in SMALLEST else (33,)
    for size in sizes:
        net = meta(name, n_classes=3, size=size, channels=1)
        assert (net.spec.size, net.spec.channels) == (size, 1)
        out = net.eval()(torch.zeros(2, 1, size, size, device="meta"))
        assert out.features.shape == (2, net.dim)
        assert out.logits.shape == (2, 3)


def test_stems_leave_a_map_of_small_pictures() -> None:
    """By hand: the side is divided by 8 up to 32 px, by 16 up to 64 px, by 32 above."""
    for name in ("resnet-18", "efficientnet-b0", "googlenet"):
        for size, side in ((32, 4), (64, 4), (96, 3)):
            net = meta(name, size=size)
            shapes = building_blocks(net, (3, size, size)).values()
            assert min(s[-1] for s in shapes if len(s) == 4 and s[-1] > 1) == side, name


def batches(size: int, n: int = 4) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {"x": torch.randn(4, 3, size, size, generator=generator), "y": torch.arange(4) % 3} for _ in range(n)
    ]


def state(name: str, size: int) -> TrainingState:
    net = create(name, n_classes=3, size=size, seed=0).train()
    groups = [{"params": list(net.parameters()), "lr": 0.01, "base_lr": 0.01}]
    return TrainingState({"student": net}, {"student": torch.optim.SGD(groups, momentum=0.9)})


def run(s: TrainingState, some: list[dict[str, Tensor]]) -> list[float]:
    update, losses = descend(Supervised()), []
    for batch in some:
        torch.manual_seed(s.step)  # dropout inside
        losses.append(float(update(s, batch)["loss"]))
        s.step += 1
    return losses


@pytest.mark.parametrize(("name", "size"), SMALLEST.items())
def test_trains_and_resumes_to_the_bit(name: str, size: int) -> None:
    some, whole = batches(size), state(name, size)
    before = {k: v.clone() for k, v in whole.models["student"].state_dict().items()}
    losses = run(whole, some[:2])
    saved = {k: v.clone() if isinstance(v, Tensor) else v for k, v in flat(whole.state_dict())}
    assert all(torch.isfinite(torch.tensor(losses)))
    after = whole.models["student"].state_dict()
    assert all(
        not torch.equal(before[k], after[k]) for k in before if k.endswith("weight") and before[k].dim() > 1
    )
    resumed = state(name, size)
    resumed.load_state_dict(unflat(saved))
    run(whole, some[2:]), run(resumed, some[2:])
    for (key, a), (_, b) in zip(flat(whole.state_dict()), flat(resumed.state_dict()), strict=True):
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b, key


def flat(tree: dict) -> list[tuple[tuple, object]]:
    return [
        pair
        for key, value in tree.items()
        for pair in (
            [((key, *inner), leaf) for inner, leaf in flat(value)]
            if isinstance(value, dict) and value
            else [((key,), value)]
        )
    ]


def unflat(leaves: dict[tuple, object]) -> dict:
    tree: dict = {}
    for path, leaf in leaves.items():
        here = tree
        for word in path[:-1]:
            here = here.setdefault(word, {})
        here[path[-1]] = leaf
    return tree


EXPORTED = (
    "alexnet-two-towers",
    "googlenet",
    "efficientnet-0.5x0.4",
    "vit-tiny",
    "cifar-resnet-20",
)


@pytest.mark.parametrize("name", EXPORTED)
def test_exports_with_parity(name: str, tmp_path) -> None:
    """The file of ``handful export``; the other rows of the table are compared by ``benchmarks.backbones``."""
    onnx = pytest.importorskip("onnx", reason="the ONNX packages are not installed")
    from handful.inference.model_file import Saved
    from handful.inference.onnx import export_onnx
    from handful.models.classifier import Classifier

    size = 16
    net = create(name, n_classes=3, size=size, seed=0).eval()
    config = {"name": name, "n_classes": 3, "channels": 3, "size": size}
    saved = Saved(Classifier(net, None, config).eval(), ("a", "b", "c"), {"channels": 3, "side": size}, "")
    assert export_onnx(saved, tmp_path / "net.onnx") < 1e-4
    graph = onnx.load(str(tmp_path / "net.onnx")).graph
    stored = sum(torch.Size(i.dims).numel() for i in graph.initializer)
    running = sum(p.numel() for n, p in net.named_parameters() if ".aux" not in n)
    assert stored < running + 10_000  # what resizes pictures is small; an auxiliary head has 3 million
    assert not any("aux" in i.name for i in graph.initializer)


def test_auxiliary_heads_count_in_training_alone() -> None:
    net = create("googlenet", n_classes=3, size=32, seed=0)
    assert isinstance(net, GoogLeNet)
    batch = batches(32, 1)[0]
    assert net.eval()(batch["x"]).auxiliary == ()
    net.train()
    for aux in (net.body.aux1, net.body.aux2):
        aux.dropout.p = 0.0
    out = net(batch["x"])
    assert [tuple(z.shape) for z in out.auxiliary] == [(4, 3), (4, 3)]
    main, early, late = (F.cross_entropy(z, batch["y"]) for z in (out.logits, *out.auxiliary))
    loss = Supervised(auxiliary_weight=0.3)({"student": net}, batch, 0)
    torch.testing.assert_close(loss.total, main + 0.3 * early + 0.3 * late)
    torch.testing.assert_close(loss.terms["auxiliary"], (early + late).detach())
    torch.testing.assert_close(Supervised(auxiliary_weight=0.0)({"student": net}, batch, 0).total, main)
    assert net.body.aux1.fc2.weight.shape == (3, 1024)
    features = create("googlenet", size=32).train()(batch["x"])
    assert features.auxiliary == () and features.logits.shape == (4, 0)


def test_two_towers_do_not_meet_before_the_third_convolution() -> None:
    """A change of the first tower's first filters leaves the second tower's maps as they are, up to there."""
    net = create("alexnet-two-towers", n_classes=3, size=32, seed=0).eval()
    convolutions = net.body[0]
    x = torch.randn(1, 3, 32, 32)
    before = [
        convolutions[:n](x) for n in (6, 10)
    ]  # after the second and the third convolution with its ReLU
    with torch.no_grad():
        convolutions[0].weight[:40] = (
            0  # local response normalization reaches two channels further, not to 48
        )
    after = [convolutions[:n](x) for n in (6, 10)]
    assert torch.equal(before[0][:, 128:], after[0][:, 128:])
    assert not torch.equal(before[0][:, :128], after[0][:, :128])
    assert not torch.equal(before[1][:, 192:], after[1][:, 192:])


def test_any_multiplier_by_name() -> None:
    """Width 1.1 and depth 1.2 by name are B2, count for count; the nearest multiple of 8 channels by hand."""
    a, b = (
        count(meta(name, n_classes=10, size=32), (3, 32, 32))
        for name in ("efficientnet-1.1x1.2", "efficientnet-b2")
    )
    assert a == b
    net = meta("efficientnet-0.5x0.4", size=32)
    assert net.body.features[0][0].out_channels == 16  # 0.5 x 32
    assert [len(stage) for stage in net.body.features[1:8]] == [
        1,
        1,
        1,
        2,
        2,
        2,
        1,
    ]  # ceil(0.4 x 1, 2, 2, 3, 3, 4, 1)


def test_wrong_names_and_sizes_say_what_is_right() -> None:
    with pytest.raises(UsageError, match="did you mean 'resnet-50'"):
        create("resnet50")
    with pytest.raises(UsageError, match="no backbone 'efficientnet-2x'"):
        create("efficientnet-2x")
    with pytest.raises(UsageError, match="at least 15 px a side, not 12"):
        create("alexnet", size=12)
    with pytest.raises(UsageError, match="more than 64 px, not 32"):
        create("resnet-18", size=32, pretrained=True)
    with pytest.raises(UsageError, match="cannot take pictures of 8 px"):
        create("torchvision:alexnet", size=8)
    with pytest.raises(UsageError, match="no stochastic depth"):
        create("vgg-11", size=32, drop_path=0.1)
    with pytest.raises(UsageError, match="no pretrained weights"):
        create("efficientnet-1.3x1.3", pretrained=True)


def test_pretrained_loading_is_the_librarys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights that are asked for are torchvision's and timm's for this name, at a size of photographs."""
    import timm
    from torchvision import models

    asked: list[object] = []
    real, real_timm = models.get_model, timm.create_model

    def get_model(name: str, weights: object = None, **options: object) -> nn.Module:
        asked.append(weights)
        return real(name, weights=None, **options)

    def create_model(name: str, pretrained: bool = False, **options: object) -> nn.Module:
        asked.append((name, pretrained))
        return real_timm(name, **options)

    monkeypatch.setattr(models, "get_model", get_model)
    monkeypatch.setattr(timm, "create_model", create_model)
    with torch.device("meta"):
        for name in ("densenet-121", "efficientnet-b0", "googlenet", "resnet-50"):
            net = create(name, n_classes=4, pretrained=True, size=96)
            again = create(name, n_classes=4, size=96)  # as a saved network is built again
            assert net.spec == again.spec
            assert {k: v.shape for k, v in net.state_dict().items()} == {
                k: v.shape for k, v in again.state_dict().items()
            }
    assert asked[0] is models.DenseNet121_Weights.DEFAULT
    assert asked[2] is models.EfficientNet_B0_Weights.DEFAULT
    assert asked[4] is models.GoogLeNet_Weights.DEFAULT
    assert asked[6:] == [("resnet50", True), ("resnet50", False)]
