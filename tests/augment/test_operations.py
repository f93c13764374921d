"""Operations against Pillow and torchvision, on real pictures and odd sizes; compiled loops against tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import SHAPES, from_pillow, photographs, to_pillow
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage
from torchvision.transforms.v2 import functional as TV

from handful.augment import filters, steps, tensors
from handful.augment.drawn import affine_from_points, perspective_from_points
from handful.augment.operations import OPERATIONS, Canvas, apply
from handful.augment.tensors import by_tensors
from handful.types import UsageError

every_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s[0]}x{s[1]}")
gray_and_colour = pytest.mark.parametrize("gray", [False, True], ids=["colour", "gray"])
FACTORS = (0.0, 0.1, 0.65, 1.0, 1.3, 1.9, 3.4)

# name: (numbers, by Pillow, by torchvision)
POINT: dict[str, tuple[tuple[float, ...], Callable[..., Any], Callable[..., Any]]] = {
    "brightness": (FACTORS, lambda p, v: ImageEnhance.Brightness(p).enhance(v), TV.adjust_brightness),
    "contrast": (FACTORS, lambda p, v: ImageEnhance.Contrast(p).enhance(v), TV.adjust_contrast),
    "color": (FACTORS, lambda p, v: ImageEnhance.Color(p).enhance(v), TV.adjust_saturation),
    "sharpness": (FACTORS, lambda p, v: ImageEnhance.Sharpness(p).enhance(v), TV.adjust_sharpness),
    "posterize": (
        (1, 3, 4, 8),
        lambda p, v: ImageOps.posterize(p, int(v)),
        lambda x, v: TV.posterize(x, int(v)),
    ),
    "solarize": ((0, 1, 77.5, 128, 255), lambda p, v: ImageOps.solarize(p, v), TV.solarize),
    "invert": ((0,), lambda p, v: ImageOps.invert(p), lambda x, v: TV.invert(x)),
    "autocontrast": ((0,), lambda p, v: ImageOps.autocontrast(p), lambda x, v: TV.autocontrast(x)),
    "equalize": ((0,), lambda p, v: ImageOps.equalize(p), lambda x, v: TV.equalize(x)),
    "grayscale": (
        (0,),
        lambda p, v: p.convert("L").convert("RGB") if p.mode == "RGB" else p,
        lambda x, v: TV.rgb_to_grayscale(x, 3) if len(x) == 3 else x,
    ),
}
GEOMETRY: dict[str, tuple[tuple[float, ...], Callable[..., Any]]] = {
    "rotate": ((-135, -20, 0, 7.5, 30, 90, 180), lambda x, v, how: TV.rotate(x, v, **how)),
    "shear-x": (
        (-0.3, 0.1, 0.9),
        lambda x, v, how: TV.affine(x, 0, [0, 0], 1, [math.degrees(math.atan(v)), 0], center=[0, 0], **how),
    ),
    "shear-y": (
        (-0.3, 0.1, 0.9),
        lambda x, v, how: TV.affine(x, 0, [0, 0], 1, [0, math.degrees(math.atan(v))], center=[0, 0], **how),
    ),
    "zoom": ((0.6, 1.0, 1.7), lambda x, v, how: TV.affine(x, 0, [0, 0], v, [0, 0], **how)),
}


def difference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a.int() - b.int()).abs()


@pytest.mark.parametrize("name", POINT)
@gray_and_colour
@every_shape
def test_point_operations_equal_pillow_and_torchvision(name: str, gray: bool, shape: tuple[int, int]) -> None:
    values, pillow, torchvision = POINT[name]
    x = photographs(*shape, gray=gray)
    for value in values:
        ours = apply(name, x, value)
        assert ours.shape == x.shape
        for i in range(len(x)):
            theirs = from_pillow(pillow(to_pillow(x[i]), value))
            assert difference(ours[i], theirs).max() <= 1, value
            if value == 3.4 or (gray and name == "color"):
                continue  # torchvision does not round means and grays, which large factors show; gray it calls colour
            theirs = torchvision(x[i], value)
            # torchvision cuts off what Pillow rounds in the mean gray: up to 1.5 levels of the mean
            assert difference(ours[i], theirs).max() <= (2 if name == "contrast" else 1), value


@pytest.mark.parametrize("name", ["posterize", "solarize", "invert", "equalize", "grayscale"])
def test_operations_of_whole_numbers_equal_pillow_exactly(name: str) -> None:
    values, pillow, _ = POINT[name]
    x = photographs(48, 48)
    for value in values:
        for one, out in zip(x, apply(name, x, value)):
            assert torch.equal(out, from_pillow(pillow(to_pillow(one), value)))


def test_autocontrast_is_the_exact_fraction_cut_off() -> None:
    """Pillow's floating point falls one short of some whole numbers."""
    x = photographs(33, 65)
    low, high = (
        x.numpy().min((2, 3), keepdims=True).astype(int),
        x.numpy().max((2, 3), keepdims=True).astype(int),
    )
    assert np.array_equal(apply("autocontrast", x).numpy(), (x.numpy() - low) * 255 // (high - low))


@pytest.mark.parametrize("name", ["brightness", "contrast", "color", "sharpness"])
def test_factors_are_seldom_off_by_a_level(name: str) -> None:
    x = photographs(48, 48)
    for value in (0.3, 1.72):
        theirs = torch.stack([from_pillow(POINT[name][1](to_pillow(one), value)) for one in x])
        assert (apply(name, x, value) != theirs).float().mean() < 0.02


@pytest.mark.parametrize("levels", [-300, -31, 0, 8, 100.0, 255])
def test_added_brightness_is_clipped(levels: float) -> None:
    x = photographs(33, 65)
    expected = np.clip(x.numpy().astype(int) + int(levels), 0, 255)
    assert np.array_equal(apply("brightness-add", x, levels).numpy(), expected)


@pytest.mark.parametrize("bilinear", [False, True], ids=["nearest", "bilinear"])
@pytest.mark.parametrize("name", GEOMETRY)
@gray_and_colour
@pytest.mark.parametrize("shape", [(33, 65), (48, 48)], ids=["33x65", "48x48"])
def test_geometry_equals_torchvision(name: str, gray: bool, shape: tuple[int, int], bilinear: bool) -> None:
    """Lines of one pixel are left to Pillow below: there every position lies on an edge, and the libraries round
    halves in different ways."""
    values, torchvision = GEOMETRY[name]
    x = photographs(*shape, gray=gray)
    mode = TV.InterpolationMode.BILINEAR if bilinear else TV.InterpolationMode.NEAREST
    for value in values:
        ours = apply(name, x, value, bilinear=bilinear, fill=99)
        theirs = torchvision(x, value, {"interpolation": mode, "fill": [99.0]})
        apart = difference(ours, theirs).float()
        if bilinear:
            apart = apart[:, :, covered(partial(torchvision, v=value), shape)]
        assert apart.numel() > 500
        assert apart.mean() <= 1, (value, float(apart.mean()))


def covered(torchvision: Callable[..., Any], shape: tuple[int, int]) -> torch.Tensor:
    """Where torchvision does not mix in the fill: it fades out over the last half pixel, Pillow and ours do not."""
    white = torch.full((1, 1, *shape), 255.0)
    how = {"interpolation": TV.InterpolationMode.BILINEAR, "fill": [0.0]}
    return torchvision(white, how=how)[0, 0] > 254.9


@pytest.mark.parametrize(
    "resample", [Image.Resampling.NEAREST, Image.Resampling.BILINEAR], ids=["nearest", "bilinear"]
)
@gray_and_colour
@every_shape
def test_any_affine_map_equals_pillow(gray: bool, shape: tuple[int, int], resample: Any) -> None:
    x = photographs(*shape, gray=gray)
    h, w = shape
    for seed in range(6):
        noise = np.random.RandomState(seed).uniform(-0.4, 0.4, 6)
        m = np.array([1, 0, 0, 0, 1, 0]) + noise * [1, 1, w / 2, 1, 1, h / 2]
        bilinear = resample == Image.Resampling.BILINEAR
        rows = steps.affine(np.broadcast_to(m.reshape(1, 2, 3), (len(x), 2, 3)), bilinear=bilinear)
        ours = tensors.run(x, rows[:, None])
        for i in range(len(x)):
            theirs = from_pillow(
                to_pillow(x[i]).transform((w, h), Image.Transform.AFFINE, tuple(m), resample)
            )
            apart = difference(ours[i], theirs)
            assert torch.equal(ours[i], theirs) if not bilinear else apart.float().mean() <= 1


@pytest.mark.parametrize("pixels", [-5, -1, 0, 3, 100])
def test_translation_moves_whole_pixels_by_hand(pixels: int) -> None:
    x = photographs(33, 65)
    across = apply("translate-x", x, pixels / 65, fill=7)
    down = apply("translate-y", x, pixels / 33, fill=7)
    expected_across, expected_down = torch.full_like(x, 7), torch.full_like(x, 7)
    for j in range(65):
        if 0 <= j - pixels < 65:
            expected_across[..., j] = x[..., j - pixels]
    for i in range(33):
        if 0 <= i - pixels < 33:
            expected_down[..., i, :] = x[..., i - pixels, :]
    assert torch.equal(across, expected_across)
    assert torch.equal(down, expected_down)


@every_shape
def test_flips_and_right_angles_are_exact(shape: tuple[int, int]) -> None:
    x = photographs(*shape)
    assert torch.equal(apply("flip", x), x.flip(3))
    assert torch.equal(apply("flip-vertical", x), x.flip(2))
    assert torch.equal(apply("flip", apply("flip", x)), x)
    assert torch.equal(apply("rotate", x, 180.0), x.flip(2, 3))
    if shape[0] == shape[1]:
        assert torch.equal(apply("rotate", x, 90.0), torch.rot90(x, 1, (2, 3)))
        assert torch.equal(apply("rotate", x, -90.0, bilinear=True), torch.rot90(x, -1, (2, 3)))


@pytest.mark.parametrize("name", [n for n, o in OPERATIONS.items() if o.identity is not None])
@gray_and_colour
@every_shape
def test_the_identity_number_leaves_the_picture(name: str, gray: bool, shape: tuple[int, int]) -> None:
    x = photographs(*shape, gray=gray)
    for bilinear in (False, True):
        assert torch.equal(apply(name, x, OPERATIONS[name].identity, bilinear=bilinear), x)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(OPERATIONS)),
    st.sampled_from([(1, 1), (1, 6), (5, 4), (9, 17)]),
    st.sampled_from([1, 3]),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_compiled_loops_and_tensors_give_the_same_bits(
    name: str, shape: tuple[int, int], channels: int, bilinear: bool, seed: int
) -> None:
    if tensors.compiled() is None:
        pytest.skip("numba is not installed: there are no compiled loops to compare with")
    draw = np.random.RandomState(seed)
    x = torch.from_numpy(draw.randint(0, 256, (3, channels, *shape)).astype(np.uint8))
    operation = OPERATIONS[name]
    spread = 2 * (operation.high - operation.low)
    v = draw.uniform(operation.low - spread, operation.high + spread, 3)
    v = np.abs(v) + 0.1 if name == "zoom" else v
    canvas = Canvas(*shape, bilinear, int(draw.randint(256)))
    window = steps.row(steps.WINDOW, 3, *(draw.randint(1 - n, n, 3) for n in shape), draw.randint(0, 2, 3))
    hole = steps.row(steps.ERASE, 3, 0, draw.randint(shape[1]), draw.randint(shape[0] + 1), 1, fill=9)
    rows = np.stack([operation.encode(v, canvas), window, hole, operation.encode(v[::-1], canvas)], 1)
    before = x.clone()
    assert torch.equal(tensors.run(x, rows), by_tensors(x, rows))
    assert torch.equal(x, before)


def test_every_smoothed_value_is_the_rounded_thirteenth() -> None:
    total = np.arange(255 * 13 + 1)
    assert np.array_equal(((total + 6) * 20165) >> 18, (2 * total + 13) // 26)


def test_three_points_give_the_map_that_opencv_documents() -> None:
    """OpenCV's tutorial rule: the map that takes each point to its image."""
    points = np.array([[[0.0, 0], [47, 0], [0, 31]]])
    images = np.array([[[3.0, 5], [40, 9], [7, 28]]])
    found = affine_from_points(points, images)[0]
    for p, q in zip(points[0], images[0]):
        np.testing.assert_allclose(found @ [*p, 1], q, atol=1e-9)


@gray_and_colour
@pytest.mark.parametrize("shape", [(33, 65), (48, 48)], ids=["33x65", "48x48"])
def test_perspective_equals_torchvision_and_pillow(gray: bool, shape: tuple[int, int]) -> None:
    x = photographs(*shape, gray=gray)
    h, w = shape
    corners = np.array([[0.0, 0], [w, 0], [0, h], [w, h]])
    seen = corners + np.random.RandomState(0).uniform(-0.15, 0.15, (4, 2)) * [w, h]
    m = perspective_from_points(corners[None], seen[None])
    for p, q in zip(corners, seen):
        image = m[0] @ [*p, 1]
        np.testing.assert_allclose(image[:2] / image[2], q, atol=1e-9)
    ours = filters.perspective(x, np.repeat(m, len(x), 0))
    for i in range(len(x)):
        theirs = from_pillow(
            to_pillow(x[i]).transform(
                (w, h), Image.Transform.PERSPECTIVE, tuple(m.ravel()[:8]), Image.Resampling.BILINEAR
            )
        )
        assert difference(ours[i], theirs).float().mean() <= 1
    theirs = TV.perspective(x, None, None, coefficients=m.ravel()[:8].tolist(), fill=[0.0])
    whole = covered(
        lambda y, how: TV.perspective(y, None, None, coefficients=m.ravel()[:8].tolist(), **how), shape
    )
    assert whole.float().mean() > 0.3
    assert difference(ours, theirs).float()[:, :, whole].mean() <= 1


@gray_and_colour
def test_blur_equals_scipy_and_torchvision(gray: bool) -> None:
    x = photographs(33, 65, gray=gray)
    sigma = torch.tensor([0.0, 0.4, 1.0, 2.3])
    ours = filters.blur(x, sigma)
    assert torch.equal(ours[0], x[0])
    for i in range(1, 4):
        reach = math.ceil(3 * float(sigma[i]))
        theirs = ndimage.gaussian_filter(
            x[i].numpy().astype(float),
            (0, float(sigma[i]), float(sigma[i])),
            mode="mirror",
            radius=(0, reach, reach),
        )
        assert np.abs(ours[i].numpy() - theirs).max() <= 1
        theirs = TV.gaussian_blur(x[i], [2 * reach + 1] * 2, [float(sigma[i])] * 2)
        assert difference(ours[i], theirs).max() <= 1
    alone = torch.cat([filters.blur(x[i : i + 1], sigma[i : i + 1]) for i in range(4)])
    assert torch.equal(ours, alone), "a picture's blur depends on its neighbours"
    assert torch.equal(filters.blur(photographs(1, 1), sigma), photographs(1, 1))


@pytest.mark.parametrize("turn", [-0.5, -0.2, 0.0, 0.07, 0.33])
def test_hue_equals_torchvision(turn: float) -> None:
    x = photographs(33, 65)
    assert difference(filters.hue(x, torch.full((4,), turn)), TV.adjust_hue(x, turn)).max() <= 1
    gray = photographs(5, 5, gray=True)
    assert torch.equal(filters.hue(gray, torch.full((4,), turn)), gray)


def test_each_picture_has_a_number_of_its_own() -> None:
    x = photographs(48, 48)
    v = torch.tensor([0.2, 1.0, 1.5, 0.7])
    for name in ("brightness", "contrast", "color", "sharpness", "rotate"):
        whole = apply(name, x, v)
        for i in range(4):
            assert torch.equal(whole[i : i + 1], apply(name, x[i : i + 1], v[i]))


def test_an_unknown_operation_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'rotate'"):
        apply("rotat", photographs(5, 5))
