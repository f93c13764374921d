"""Views against numpy, scipy and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.datasets import load_sample_image

from handful.augment.views import Plain, Strong, Weak, to_input
from handful.randomness import uniform
from handful.types import InputSpec

MIDDLE = torch.full((1, 12), 0.5)  # every signed draw of Strong is 0


def batch(b: int = 6, c: int = 3, side: int = 16) -> torch.Tensor:
    return torch.randint(
        256, (b, c, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def photograph(side: int = 80) -> torch.Tensor:
    """A real picture that ships with scikit-learn: uint8 [1, 3, S, S]."""
    x = load_sample_image("china.jpg")[50 : 50 + 4 * side, 150 : 150 + 4 * side]
    x = ndimage.uniform_filter(x.astype(float), (4, 4, 1))[::4, ::4]
    return torch.from_numpy(x.astype(np.uint8).transpose(2, 0, 1).copy()).unsqueeze(0)


def test_plain_is_the_picture_itself() -> None:
    x = batch()
    assert Plain()(x, torch.empty(6, 0)) is x


@pytest.mark.parametrize("flip", [True, False])
def test_weak_equals_numpy_pad_crop_flip(flip: bool) -> None:
    view, x, u = Weak(flip=flip, shift=0.125), batch(b=40), uniform((40, 3), "weak")
    got = view(x, u).numpy()
    for i in range(len(x)):
        padded = np.pad(x[i].numpy(), ((0, 0), (2, 2), (2, 2)), mode="reflect")  # 0.125 * 16 = 2
        top, left = int(float(u[i, 1]) * 5), int(float(u[i, 2]) * 5)
        expected = padded[:, top : top + 16, left : left + 16]
        if flip and u[i, 0] < 0.5:
            expected = expected[:, :, ::-1]
        assert np.array_equal(got[i], expected)
    assert 5 < int((u[:, 0] < 0.5).sum()) < 35


@pytest.mark.parametrize("view", [Weak(shift=0.5), Weak(shift=1.0), Strong()])
@pytest.mark.parametrize("extreme", [0.0, 1 - 2**-24])
def test_extreme_draws_stay_inside_the_picture(view: Weak | Strong, extreme: float) -> None:
    x = batch()
    out = view(x, torch.full((6, view.n_draws), extreme))
    assert out.shape == x.shape
    assert out.dtype == torch.uint8


def test_weak_without_strength_is_the_identity() -> None:
    x = batch()
    u = uniform((6, 3), "any")
    assert torch.equal(Weak(flip=False, shift=0)(x, u), x)
    u[:, 0], u[:, 1:] = 0.9, 0.5  # no flip, and the middle of the range of shifts
    assert torch.equal(Weak(shift=0.25)(x, u), x)


@pytest.mark.parametrize(
    ("view", "strict"),
    [
        (Strong(flip=False, rotate=0, scale=0, shear=0, shift=0, light=0, hole=0), False),
        (Strong(hole=0), True),
    ],
)
def test_strong_without_strength_is_the_identity(view: Strong, strict: bool) -> None:
    x = batch()
    u = MIDDLE.expand(6, 12) if strict else uniform((6, 12), "any")
    assert (view(x, u).int() - x.int()).abs().max() <= 1


def turned(degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """The photograph turned by Strong and by scipy, without the border: [S', S'] each, gray."""
    x = photograph()
    u = MIDDLE.clone()
    u[0, 0] = 0.5 + degrees / 80  # of rotate=40, either way
    ours = Strong(rotate=40, hole=0)(x, u)[0].numpy().mean(0)
    theirs = ndimage.rotate(
        x[0].numpy().astype(float), degrees, (2, 1), reshape=False, order=1, mode="mirror"
    )
    inner = slice(20, -20)
    return ours[inner, inner], theirs.mean(0)[inner, inner]


@pytest.mark.parametrize("degrees", [-30.0, -10.0, 20.0])
def test_strong_turns_as_scipy_does(degrees: float) -> None:
    ours, theirs = turned(degrees)
    wrong_way = turned(-degrees)[1]
    assert np.abs(ours - theirs).mean() < 1
    assert np.abs(ours - wrong_way).mean() > 8


def test_strong_mirrors_shifts_and_zooms_by_the_stated_amounts() -> None:
    x = photograph()
    plain = x[0].float()
    u = MIDDLE.clone()
    u[0, 2] = 0.2
    assert (Strong(hole=0)(x, u)[0].float() - plain.flip(2)).abs().max() <= 1
    u = MIDDLE.clone()
    u[0, 4] = 1.0  # the whole shift: S / 8 pixels from the right
    assert (Strong(hole=0)(x, u)[0, :, :, :-10].float() - plain[:, :, 10:]).abs().max() <= 1
    u = MIDDLE.clone()
    u[0, 1] = 1.0  # (1 + 1)^1: what is seen is twice as large, mirrored outside
    zoomed = Strong(hole=0, scale=1.0)(x, u)[0].float()[:, 20:60, 20:60]
    halved = torch.nn.functional.avg_pool2d(x.float(), 2)[0]
    assert (zoomed - halved).abs().mean() < 1


def test_strong_light_by_hand() -> None:
    x = torch.full((1, 1, 8, 8), 100, dtype=torch.uint8)
    x[..., :4] = 60  # mean 80
    u = MIDDLE.clone()
    u[0, 6], u[0, 7] = 1.0, 0.0  # contrast 1.5, brightness 0.5
    out = Strong(light=0.5, hole=0)(x, u)
    assert out[0, 0, 0, 7] == 55  # (80 + 1.5 * 20) * 0.5
    assert out[0, 0, 0, 0] == 25  # (80 - 1.5 * 20) * 0.5


def test_strong_hole_is_a_gray_square_of_the_drawn_side_and_place() -> None:
    x = torch.full((1, 3, 20, 20), 9, dtype=torch.uint8)
    u = MIDDLE.clone()
    u[0, 8], u[0, 9], u[0, 10] = 0.5, 0.25, 0.6  # side 0.5 * 0.4 * 20 = 4 px around row 5, column 12
    out = Strong(hole=0.4)(x, u)[0]
    gray = (out == 127).all(0)
    rows, columns = torch.nonzero(gray, as_tuple=True)
    assert rows.unique().tolist() == [3, 4, 5, 6]
    assert columns.unique().tolist() == [10, 11, 12, 13]
    assert int(gray.sum()) == 16
    assert (out[:, ~gray] == 9).all()


@pytest.mark.parametrize("view", [Weak(), Strong()])
def test_pictures_of_a_batch_are_augmented_each_by_its_own_numbers(view: Weak | Strong) -> None:
    x, u = batch(b=8), uniform((8, view.n_draws), "draws")
    whole = view(x, u)
    assert torch.equal(whole, view(x, u))
    alone = torch.cat([view(x[i : i + 1], u[i : i + 1]) for i in range(8)])
    assert (whole.int() - alone.int()).abs().max() == 0
    same = view(x[:1].expand(8, -1, -1, -1), u)
    assert len({same[i].numpy().tobytes() for i in range(8)}) > 4
    other = view(x, uniform((8, view.n_draws), "other draws"))
    assert not torch.equal(whole, other)


def test_the_pictures_given_are_not_changed() -> None:
    x = batch()
    before = x.clone()
    for view in (Weak(), Strong()):
        view(x, uniform((6, view.n_draws), "u"))
    to_input(x, InputSpec(8))
    assert torch.equal(x, before)


def test_to_input_in_closed_form() -> None:
    x = batch(side=8)
    spec = InputSpec(8, 3, (0.1, 0.2, 0.3), (0.5, 0.25, 2.0))
    mean, std = (np.array(v).reshape(1, 3, 1, 1) for v in (spec.mean, spec.std))
    out = to_input(x, spec)
    assert out.dtype == torch.float32
    np.testing.assert_allclose(out.numpy(), (x.numpy() / 255 - mean) / std, rtol=1e-5, atol=1e-6)


def test_to_input_turns_gray_to_colour_and_back() -> None:
    colour, gray = batch(side=8), batch(c=1, side=8)
    out = to_input(gray, InputSpec(8, 3))
    assert torch.equal(out, out[:, :1].expand(-1, 3, -1, -1))
    luma = np.tensordot(colour.numpy(), [0.299, 0.587, 0.114], (1, 0))[:, None]
    got = to_input(colour, InputSpec(8, 1, (0.5,), (0.5,)))
    np.testing.assert_allclose(got.numpy(), luma / 127.5 - 1, atol=1e-5)


def test_to_input_resizes_as_pillow_does() -> None:
    from PIL import Image

    x = photograph()
    got = (to_input(x, InputSpec(40))[0] + 1) * 127.5
    picture = Image.fromarray(x[0].permute(1, 2, 0).numpy()).resize((40, 40), Image.Resampling.BICUBIC)
    theirs = np.asarray(picture).transpose(2, 0, 1).astype(float)
    assert np.abs(got.numpy() - theirs).max() <= 1.01
    assert got.min() >= -1e-4
    assert got.max() <= 255 + 1e-4
    assert math.isclose(float(got.mean()), float(x.float().mean()), rel_tol=0.01)
