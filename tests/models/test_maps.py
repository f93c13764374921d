"""Activation maps against their defining identities; building blocks and probes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from handful.models.backbones import create
from handful.models.heads import LinearHead
from handful.models.maps import activation_maps, as_grid, building_blocks, last_map, outputs, pooled, stages


def test_a_class_activation_map_is_the_logit_spread_over_places() -> None:
    """Zhou et al. 2016: the map's mean plus the bias is the logit."""
    net = create("resnet-18", n_classes=4, size=32, seed=0).eval()
    x, classes = torch.randn(3, 3, 32, 32), torch.tensor([0, 3, 1])
    maps, kind = activation_maps(net, x, classes)
    assert kind == "CAM" and maps.shape == (3, 4, 4)
    logits = net(x).logits.gather(1, classes[:, None])[:, 0].detach()
    torch.testing.assert_close(
        maps.mean((1, 2)) + net.head.bias[classes].detach(), logits, rtol=1e-4, atol=1e-5
    )
    other = LinearHead(512, 6)
    mapped, _ = activation_maps(net, x, classes, head=other)
    logits = other(net(x).features).gather(1, classes[:, None])[:, 0].detach()
    torch.testing.assert_close(
        mapped.mean((1, 2)) + other.bias[classes].detach(), logits, rtol=1e-4, atol=1e-5
    )


def test_grad_cam_is_the_relu_of_the_class_activation_map_for_a_mean_head() -> None:
    """Selvaraju et al. 2017, section 3.1: equal up to the number of places. A head that is no ``nn.Linear`` takes the
    other way through the code."""
    net = create("resnet-18", n_classes=4, size=32, seed=0).eval()
    x, classes = torch.randn(2, 3, 32, 32), torch.tensor([2, 1])
    cam, _ = activation_maps(net, x, classes)
    head = torch.nn.Sequential(net.head)
    grad_cam, kind = activation_maps(net, x, classes, head=head)
    assert kind == "Grad-CAM"
    torch.testing.assert_close(grad_cam * 16, cam.relu(), rtol=1e-4, atol=1e-4)


def test_grad_cam_of_a_net_with_hidden_layers_against_a_loop() -> None:
    net = create("vgg-11", n_classes=3, size=16, seed=0).eval()
    x, classes = torch.randn(2, 3, 16, 16), torch.tensor([2, 0])
    layer = last_map(net, (3, 16, 16))
    maps, kind = activation_maps(net, x, classes)
    assert kind == "Grad-CAM"
    for i in range(2):
        kept, out = outputs(net, [layer], x[i : i + 1])
        (g,) = torch.autograd.grad(out.logits[0, classes[i]], kept[layer])
        expected = sum(g[0, c].mean() * kept[layer][0, c] for c in range(g.shape[1])).clamp(min=0)
        torch.testing.assert_close(maps[i], expected.detach(), rtol=1e-3, atol=1e-6)


def test_a_vision_transformer_has_a_map_of_patches() -> None:
    net = create("vit-tiny", n_classes=3, size=16, seed=0)
    maps, kind = activation_maps(net, torch.randn(2, 3, 16, 16), torch.tensor([0, 1]))
    assert (kind, tuple(maps.shape)) == ("Grad-CAM", (2, 4, 4))
    tokens = torch.arange(10.0).reshape(1, 10, 1)
    assert as_grid(tokens)[0, 0].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


def test_building_blocks_and_stages() -> None:
    net = create("resnet-18", n_classes=3, size=64, seed=0)
    found = building_blocks(net, (3, 64, 64))
    blocks = [n for n in found if "layer" in n]
    assert blocks == [f"body.layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1)]
    assert found["body.layer4.1"] == (1, 512, 4, 4)
    for name, most in (("resnet-18", 5), ("vit-tiny", 6), ("lenet", 10), ("linear", 4)):
        net = create(name, n_classes=3, size=16, seed=0)
        chosen = stages(net, (3, 16, 16), most)
        order = [n for n in building_blocks(net, (3, 16, 16)) if n in chosen]
        assert chosen == order and len(set(chosen)) == len(chosen) <= most


def test_no_map_is_said() -> None:
    with pytest.raises(LookupError, match="no layer"):
        last_map(create("linear", n_classes=3, size=8), (3, 8, 8))


def test_pooling_keeps_the_width() -> None:
    out = torch.randn(2, 64, 9, 9)
    assert torch.equal(pooled(out), F.adaptive_avg_pool2d(out, 4).flatten(1))
    assert pooled(torch.randn(2, 600, 9, 9)).shape == (2, 600)
    tokens = torch.randn(2, 5, 7)
    assert torch.equal(pooled(tokens), tokens.mean(1))
