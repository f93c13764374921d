"""Distributions of RandAugment and its relatives, and what their magnitudes mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pictures import photographs
from scipy import stats
from torchvision.transforms import v2

from handful.augment.operations import OPERATIONS
from handful.augment.randaugment import SCALES, AugMix, RandAugment
from handful.randomness import uniform
from handful.types import UsageError

DRAWS = 10_000
# torchvision's names for ours
NAMES = {
    "Identity": "identity", "ShearX": "shear-x", "ShearY": "shear-y", "TranslateX": "translate-x",
    "TranslateY": "translate-y", "Rotate": "rotate", "Brightness": "brightness", "Color": "color",
    "Contrast": "contrast", "Sharpness": "sharpness", "Posterize": "posterize", "Solarize": "solarize",
    "AutoContrast": "autocontrast", "Equalize": "equalize",
}  # fmt: skip


def draws(view: RandAugment, h: int = 32, w: int = 48):  # type: ignore[no-untyped-def]
    return view.draw(uniform((DRAWS, view.n_draws), "draws").double().numpy(), h, w)


def chi_square(counts: np.ndarray, expected: np.ndarray | None = None) -> float:
    return float(stats.chisquare(counts, expected).pvalue)


@pytest.mark.parametrize("scale", ["paper", "torchvision", "fixmatch", "wide"])
def test_operations_come_equally_often_and_steps_do_not_depend_on_each_other(scale: str) -> None:
    drawn = draws(RandAugment(2, scale=scale))
    assert len(drawn.names) == 14
    for step in range(2):
        assert chi_square(np.bincount(drawn.which[:, step], minlength=14)) > 1e-3
    pairs = np.bincount(14 * drawn.which[:, 0] + drawn.which[:, 1], minlength=196)
    assert chi_square(pairs) > 1e-3
    neighbours = np.bincount(14 * drawn.which[:-1, 0] + drawn.which[1:, 0], minlength=196)
    assert chi_square(neighbours) > 1e-3, "pictures of one batch do not get independent draws"


def test_signs_are_fair() -> None:
    drawn = draws(RandAugment(2, 9))
    for name in ("rotate", "shear-x", "translate-y", "brightness", "sharpness"):
        value = drawn.value[drawn.which == drawn.names.index(name)] - OPERATIONS[name].identity
        assert stats.binomtest(int((value > 0).sum()), len(value)).pvalue > 1e-3
        assert len(np.unique(np.abs(value).round(9))) == 1


@pytest.mark.parametrize("m", [0, 1, 9, 17, 30])
def test_numbers_of_the_torchvision_scale_are_torchvisions(m: int) -> None:
    h, w = 32, 48
    space = v2.RandAugment._AUGMENTATION_SPACE
    assert set(NAMES) == set(space)
    drawn = draws(RandAugment(2, m, "torchvision"), h, w)
    for theirs, ours in NAMES.items():
        table, signed = space[theirs]
        numbers = table(31, h, w)
        got = drawn.value[drawn.which == drawn.names.index(ours)]
        check(ours, got, None if numbers is None else float(numbers[m]), signed, h, w)


def check(name: str, got: np.ndarray, number: float | None, signed: bool, h: int, w: int) -> None:
    """``number`` of torchvision's table in our units: factors 1 +- number, shares of the side, thresholds of 255."""
    if number is None:
        assert not got.any()
        return
    if name.startswith("translate"):
        number = int(number) / (w if name.endswith("x") else h)
    if name == "solarize":
        number *= 255
    identity = OPERATIONS[name].identity or 0.0
    expected = {identity + number, identity - number} if signed else {number}
    assert sorted({round(float(v), 4) for v in got}) == sorted({round(float(v), 4) for v in expected})


def test_numbers_of_the_wide_scale_are_torchvisions_and_its_bins_come_equally_often() -> None:
    h, w = 32, 48
    space = v2.TrivialAugmentWide._AUGMENTATION_SPACE
    drawn = draws(RandAugment(2, scale="wide"), h, w)
    for theirs, ours in NAMES.items():
        table, signed = space[theirs]
        numbers = table(31, h, w)
        got = drawn.value[drawn.which == drawn.names.index(ours)]
        if numbers is None or ours in ("posterize", "translate-x", "translate-y"):
            continue
        identity = OPERATIONS[ours].identity if signed else 0.0
        size = np.abs(got - identity) / (255 if ours == "solarize" else 1)
        nearest = np.abs(size[:, None] - numbers.double().numpy()).argmin(1)
        np.testing.assert_allclose(size, numbers.double().numpy()[nearest], atol=1e-5)
        assert chi_square(np.bincount(nearest, minlength=31)) > 1e-3
    bits = drawn.value[drawn.which == drawn.names.index("posterize")]
    assert sorted(set(bits)) == sorted(set(space["Posterize"][0](31, h, w).tolist()))


def test_numbers_of_the_papers_scale_by_hand() -> None:
    """The released code's formulas at M = 9 of 10: 0.1 + 1.8 * 0.9 and so on."""
    drawn = draws(RandAugment(2, 9, "paper"), 224, 224)
    expected = {
        "brightness": {1.72}, "color": {1.72}, "contrast": {1.72}, "sharpness": {1.72}, "rotate": {-27, 27},
        "shear-x": {-0.27, 0.27}, "translate-x": {-90 / 224, 90 / 224}, "posterize": {3}, "solarize": {230},
        "identity": {0}, "equalize": {0},
    }  # fmt: skip
    for name, numbers in expected.items():
        got = set(drawn.value[drawn.which == drawn.names.index(name)].round(6))
        assert got == {round(float(v), 6) for v in numbers}, name
    beyond = draws(RandAugment(1, 27, "paper"), 224, 224)
    assert set(beyond.value[beyond.which == beyond.names.index("rotate")].round(6)) == {-81.0, 81.0}


def test_strengths_of_fixmatch_are_uniform_over_its_table() -> None:
    table = {
        "brightness": (0.05, 0.95), "color": (0.05, 0.95), "contrast": (0.05, 0.95), "sharpness": (0.05, 0.95),
        "rotate": (-30, 30), "shear-x": (-0.3, 0.3), "shear-y": (-0.3, 0.3), "translate-x": (-0.3, 0.3),
        "translate-y": (-0.3, 0.3), "solarize": (0, 256),
    }  # fmt: skip
    drawn = draws(RandAugment(2, scale="fixmatch"))
    for name, (low, high) in table.items():
        got = drawn.value[drawn.which == drawn.names.index(name)]
        assert stats.kstest(got, "uniform", (low, high - low)).pvalue > 1e-3, name
    bits = drawn.value[drawn.which == drawn.names.index("posterize")].astype(int)
    assert chi_square(np.bincount(bits, minlength=9)[4:]) > 1e-3


def test_a_list_of_operations_is_all_that_is_drawn_from() -> None:
    drawn = draws(RandAugment(3, 5, operations=("rotate", "equalize")))
    assert chi_square(np.bincount(drawn.which.ravel(), minlength=2)) > 1e-3
    assert drawn.names == ("rotate", "equalize")


def test_augmix_weights_and_chains() -> None:
    view = AugMix()
    rows, weights = view.draw(uniform((DRAWS, view.n_draws), "augmix").double().numpy(), 32, 32)
    np.testing.assert_allclose(weights.sum(1), 1)
    assert stats.kstest(weights[:, 0], "uniform").pvalue > 1e-3  # Beta(1, 1)
    among = weights[:, 1:] / weights[:, 1:].sum(1, keepdims=True)
    assert stats.kstest(among[:, 0], "beta", (1, 2)).pvalue > 1e-3  # a share of Dirichlet(1, 1, 1)
    assert rows.shape == (DRAWS, 3, 3, 8)
    depth = (rows[..., 0] != 0).sum(2)
    names = len(SCALES["augmix"].strengths)
    assert names == 9
    assert chi_square(np.bincount(depth.ravel(), minlength=4)[1:]) > 1e-3
    x = photographs(32, 32)
    out = view(x, uniform((4, view.n_draws), "augmix"))
    assert not torch.equal(out, x)
    u = uniform((4, view.n_draws), "augmix")
    u[:, -1] = 0.0  # the picture's own weight is 1
    assert torch.equal(view(x, u), x)


@pytest.mark.parametrize("view", [RandAugment(2, 9), RandAugment(scale="fixmatch"), AugMix()])
@pytest.mark.parametrize("gray", [False, True])
def test_pictures_of_one_batch_are_augmented_each_by_itself(view: RandAugment | AugMix, gray: bool) -> None:
    x = photographs(33, 65, gray=gray).repeat(3, 1, 1, 1)
    u = uniform((12, view.n_draws), "batch")
    whole = view(x, u)
    assert torch.equal(whole, torch.cat([view(x[i : i + 1], u[i : i + 1]) for i in range(12)]))
    same = view(x[:1].expand(12, -1, -1, -1), u)
    assert len({picture.numpy().tobytes() for picture in same}) > 5


def test_nothing_is_done_by_no_steps() -> None:
    x = photographs(5, 5)
    assert torch.equal(RandAugment(0)(x, torch.empty(4, 0)), x)


def test_wrong_settings_are_told() -> None:
    with pytest.raises(UsageError, match="no scale 'timm'"):
        RandAugment(scale="timm")
    with pytest.raises(UsageError, match="no operation 'invert'"):
        RandAugment(operations=("invert",))
    with pytest.raises(UsageError, match="m of 0 or more"):
        RandAugment(m=-2)
    with pytest.raises(UsageError, match="severity"):
        AugMix(severity=0)
