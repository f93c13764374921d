"""Counts against published figures and against loops over the layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models

from handful.models.backbones import create
from handful.models.classifier import Classifier, PixelComponents
from handful.models.count import activation_bytes, count, layers
from handful.models.heads import NearestNeighbours

PUBLISHED = {"alexnet": "alexnet", "vgg-16": "vgg16", "resnet-18": "resnet18", "googlenet": "googlenet",
             "efficientnet-b0": "efficientnet_b0", "vit-base": "vit_b_16"}  # fmt: skip


@pytest.mark.parametrize(("name", "theirs"), PUBLISHED.items())
def test_multiply_adds_are_torchvisions(name: str, theirs: str) -> None:
    """Its notes give billions of multiply-adds ("GFLOPS") at 224 px."""
    with torch.device("meta"):
        net = create(name, n_classes=1000)
    notes = models.get_model_weights(theirs)["IMAGENET1K_V1"].meta
    counted = count(net, (3, 224, 224))
    assert counted.multiply_adds / 1e9 == pytest.approx(notes["_ops"], rel=1e-3, abs=6e-4)
    assert counted.flops == 2 * counted.multiply_adds


def test_layers_against_a_loop() -> None:
    """Each convolution: outputs x filter entries; the sum over layers is the whole."""
    net = create("cifar-resnet-20", n_classes=7, size=17, channels=2)
    seen = {}

    def note(name):
        def hook(m, i, o):
            seen[name] = (m, o.shape)

        return hook

    for name, m in net.named_modules():
        if isinstance(m, (nn.Conv2d, nn.Linear)):
            m.register_forward_hook(note(name))
    net.eval()(torch.zeros(1, 2, 17, 17))
    table = {row.name: row for row in layers(net, (2, 17, 17))}
    for name, (m, shape) in seen.items():
        products = shape.numel() * m.weight[0].numel()
        assert table[name].counted.multiply_adds == products
        assert table[name].shape == tuple(shape)
    total = count(net, (2, 17, 17))
    assert sum(row.counted.flops for row in table.values()) == total.flops
    assert sum(row.counted.parameters for row in table.values()) == total.parameters
    assert not any(p.is_meta for p in net.parameters()), "the network itself is untouched"


def test_what_attention_holds_is_counted() -> None:
    """torchvision's attention calls its projection as a function; the sums still fit."""
    with torch.device("meta"):
        net = models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=5)
    rows = layers(net, (3, 32, 32))
    total = count(net, (3, 32, 32))
    assert sum(row.counted.parameters for row in rows) == total.parameters
    assert sum(row.counted.flops for row in rows) == total.flops


def test_products_of_a_block_that_has_parts_are_counted() -> None:
    """timm's attention: four linear layers and two products of tokens with tokens, by hand."""
    with torch.device("meta"):
        net = create("timm:vit_tiny_patch16_224", n_classes=10, size=224)
    rows = layers(net, (3, 224, 224))
    tokens, dim, depth = 197, 192, 12
    products = sum(row.counted.multiply_adds for row in rows if row.kind == "Attention")
    assert products == depth * 2 * tokens * tokens * dim
    assert sum(row.counted.flops for row in rows) == count(net, (3, 224, 224)).flops
    assert sum(row.counted.parameters for row in rows) == count(net, (3, 224, 224)).parameters


def test_auxiliary_heads_are_parameters_but_no_layers() -> None:
    with torch.device("meta"):
        net = create("googlenet", n_classes=1000)
    shown = sum(row.counted.parameters for row in layers(net, (3, 224, 224)))
    assert shown == 6_624_904  # torchvision's figure, without the heads
    assert count(net, (3, 224, 224)).parameters == 13_004_888


def test_activations_of_a_chain() -> None:
    """Kept for the backward pass: the input of each convolution and the output of each ReLU, 4 bytes a number."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1), nn.ReLU())
    by_hand = 4 * 16 * 16 * (3 + 8 + 4)
    assert activation_bytes(net, (3, 16, 16)) == by_hand
    assert activation_bytes(net, (5, 3, 16, 16)) == 5 * by_hand


def test_a_classifier_without_parameters_is_counted() -> None:
    """Components of 64 pixels and cosines with 20 stored pictures: buffers alone."""
    neighbours = NearestNeighbours(10, 3).fit(torch.randn(20, 10), torch.arange(20) % 3)
    components = PixelComponents(1, 8, 10)
    classifier = Classifier(components, neighbours, components.config())
    assert count(classifier, (1, 8, 8)) == (0, 2 * (64 * 10 + 10 * 20))
