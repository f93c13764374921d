"""The self-supervised methods: what they compute, that the network hears it, and what they leave alone."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from handful.augment.tiles import cut, normalized, permutations
from handful.methods.jigsaw import Jigsaw
from handful.methods.patch_contrast import PatchContrast
from handful.methods.self_supervised import Projector, SelfSupervised
from handful.methods.simclr import SimCLR
from handful.methods.supervised import Supervised
from handful.models.backbones import create
from handful.types import Output, UsageError

N_X, N_U, K, SIDE = 4, 6, 3, 8
METHODS = [SimCLR(), Jigsaw(), PatchContrast()]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)


def pictures(n: int, seed: int) -> Tensor:
    return 2 * torch.rand(n, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)).double() - 1


def batch() -> dict[str, Tensor]:
    names = {name: pictures(N_U, i) for i, name in enumerate(("first", "second", "uncut"))}
    return {"x": pictures(N_X, 9), "y": torch.tensor([0, 1, 2, 1]), "draw": torch.tensor(5), **names}


def models_for(method: Any, name: str = "lenet") -> dict[str, Any]:
    student = create(name, n_classes=0 if method.alone else K, channels=1, size=SIDE, seed=3).double().train()
    return {"student": student, **method.roles(student, K, torch.arange(N_U))}


def test_simclr_compares_the_two_views_of_each_picture() -> None:
    method = SimCLR(temperature=0.2, alone=True)
    models, given = models_for(method), batch()
    z = [F.normalize(models["projector"](models["student"](given[v]).features)) for v in ("first", "second")]
    every = torch.cat(z)
    total = torch.zeros((), dtype=torch.float64)
    for i in range(2 * N_U):
        others = [j for j in range(2 * N_U) if j != i]
        s = torch.stack([every[i] @ every[j] / 0.2 for j in others])
        total += F.cross_entropy(s, torch.tensor(others.index((i + N_U) % (2 * N_U))))
    torch.testing.assert_close(method(models, given, 0).total, total / (2 * N_U))


def test_the_jigsaw_shows_tiles_in_the_order_that_it_asks_for() -> None:
    """A student whose features are the tile itself, and a projector that knows the picture, solve it always."""
    method = Jigsaw(orders=6, gap=0.0, alone=True, grid=2)
    u = batch()["uncut"]
    tiles = normalized(cut(u, 2, 0.0, torch.zeros(N_U, 4, 2)))
    orders = permutations(4, 6)

    class Itself(torch.nn.Module):
        def forward(self, x: Tensor) -> Any:
            return Output(x.flatten(1), x[:, :0].flatten(1))

    class Knows(torch.nn.Module):
        def forward(self, shown: Tensor) -> Tensor:
            logits = torch.zeros(len(shown), 6, dtype=torch.float64)
            for j in range(len(shown)):
                for s, order in enumerate(orders.tolist()):
                    wanted = torch.cat([enlarge(tiles[j, t]) for t in order])
                    logits[j, s] = 1000 * float(torch.allclose(shown[j], wanted))
            return logits

    def enlarge(tile: Tensor) -> Tensor:
        return F.interpolate(tile[None], size=(SIDE, SIDE), mode="bilinear").flatten()

    loss = method({"student": Itself(), "projector": Knows()}, batch(), 0)
    assert float(loss.total) == pytest.approx(0, abs=1e-9)


def test_patches_of_one_picture_are_its_positives() -> None:
    """Where every picture has one colour pattern of its own that any patch shows, the loss is as small as it can be."""
    method = PatchContrast(patches=3, side=0.5, temperature=0.05, alone=True)
    stripes = torch.zeros(2, 1, SIDE, SIDE, dtype=torch.float64)
    stripes[0, 0, ::2] = 1  # lying ones, and standing ones
    stripes[1, 0, :, ::2] = 1

    class Direction(torch.nn.Module):
        """How much brightness changes downwards and to the right."""

        def forward(self, x: Tensor) -> Any:
            down, right = (x.diff(dim=d).abs().mean((1, 2, 3)) for d in (2, 3))
            return Output(torch.stack([down, right], 1), x[:, :0].flatten(1))

    models = {"student": Direction(), "projector": torch.nn.Identity()}
    found = float(method(models, {"uncut": stripes, "draw": torch.tensor(3)}, 0).total)
    # two positives with cosine 1 and three negatives with cosine 0
    assert found == pytest.approx(-math.log(math.exp(20) / (2 * math.exp(20) + 3)), rel=1e-6)


@every_method
@pytest.mark.parametrize("name", ["lenet", "conv-4"])
@pytest.mark.parametrize("alone", [True, False])
def test_the_gradient_reaches_the_whole_network(method: SelfSupervised, name: str, alone: bool) -> None:
    method = replace(method, alone=alone)
    models = models_for(method, name)
    method(models, batch(), 0).total.backward()
    for role, model in models.items():
        for where, p in model.named_parameters():
            assert p.grad is not None and float(p.grad.abs().sum()) > 0, f"{role}.{where}"


@every_method
def test_beside_the_labels_it_is_the_sum_and_with_weight_0_the_labels_alone(method: SelfSupervised) -> None:
    models, given = models_for(method), batch()
    loss = replace(method, weight=0.7, smoothing=0.1)(models, given, 0)
    supervised = F.cross_entropy(models["student"](given["x"]).logits, given["y"], label_smoothing=0.1)
    own = replace(method, alone=True)(models, given, 0).total
    torch.testing.assert_close(loss.total, supervised + 0.7 * own)
    nothing = replace(method, weight=0.0)(models, given, 0).total
    assert torch.equal(nothing, Supervised()(models, given, 0).total)


@pytest.mark.parametrize("method", [Jigsaw(), PatchContrast()], ids=["jigsaw", "patch"])
def test_parts_of_pictures_leave_the_running_statistics_alone(method: SelfSupervised) -> None:
    both, only = models_for(method, "conv-4"), models_for(method, "conv-4")
    method(both, batch(), 0)
    only["student"](batch()["x"])
    ours, theirs = both["student"].state_dict(), only["student"].state_dict()
    for key, value in theirs.items():
        if "running" in key:
            assert torch.equal(ours[key], value), key
            assert not torch.equal(value, create("conv-4", size=SIDE, channels=1).double().state_dict()[key])


def test_the_projectors_first_weights_are_the_same_for_everybody_and_not_zero() -> None:
    torch.rand(3)
    a, b = Projector(5, 4, 3), Projector(5, 4, 3)
    assert torch.equal(a.first.weight, b.first.weight) and torch.equal(a.last.weight, b.last.weight)
    assert float(a.last.weight.detach().abs().min()) > 0


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (SimCLR, {"temperature": 0.0}),
        (Jigsaw, {"grid": 4}),
        (Jigsaw, {"orders": 25}),
        (Jigsaw, {"gap": 1.0}),
        (PatchContrast, {"patches": 1}),
        (PatchContrast, {"side": 0.0}),
        (PatchContrast, {"temperature": -1.0}),
    ],
)
def test_settings_that_mean_nothing_are_refused(kind: type[Any], wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"--method.{next(iter(wrong))}"):
        kind(**wrong)
