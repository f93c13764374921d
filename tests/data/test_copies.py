"""Copies: planted ones are found, pictures that merely look alike are not, and the geometry is what it says."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from handful.data.copies import NEAR, SAME_DETAIL, candidates, descriptors, detail, find_copies
from handful.data.images import Images, from_array

SIDE = 64


def scene(seed: int, detail_seed: int | None = None) -> Image.Image:
    """A picture of 96 px with coarse shapes (by ``seed``) and fine texture (by ``detail_seed``)."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(40, 216, (4, 4, 3), dtype=np.uint8)).resize(
        (96, 96), Image.Resampling.BICUBIC
    )
    fine = np.random.default_rng(1000 + (seed if detail_seed is None else detail_seed)).normal(
        0, 1, (32, 32, 1)
    )
    big = np.asarray(Image.fromarray(np.float32(fine[..., 0])).resize((96, 96), Image.Resampling.BICUBIC))[
        ..., None
    ]
    return Image.fromarray(np.clip(np.asarray(coarse) + 25 * big, 0, 255).astype(np.uint8))


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return Image.open(io.BytesIO(out.getvalue())).convert("RGB")


def stored(pictures: list[Image.Image], side: int = SIDE) -> Images:
    small = [np.asarray(p.resize((side, side), Image.Resampling.BICUBIC)) for p in pictures]
    return from_array(np.stack(small).transpose(0, 3, 1, 2))


def test_planted_copies_are_found_and_nothing_else() -> None:
    originals = [scene(k) for k in range(12)]
    changed = [
        originals[0],
        jpeg(originals[1], 50),
        jpeg(originals[2].resize((60, 60), Image.Resampling.BICUBIC), 85),
        originals[3].crop((5, 0, 96, 91)),  # 5 % of each side
        originals[4].crop((2, 3, 93, 94)),
        Image.fromarray((np.asarray(originals[5]) * 0.8 + 30).astype(np.uint8)),
        scene(6, detail_seed=77),  # the same coarse picture with other detail: another photograph
    ]
    images = stored([*originals, *changed])
    found = find_copies(images)
    assert [(p.first, p.second, p.exact) for p in found] == [
        (0, 12, True),
        *((k, 12 + k, False) for k in range(1, 6)),
    ]
    assert all(SAME_DETAIL <= p.likeness <= 1.0001 for p in found)
    pairs = candidates(images, torch.arange(len(images))).tolist()
    assert [6, 18] in pairs, "its detail decided, not its descriptor"


def test_groups_of_equal_pixels_hang_on_their_first_picture() -> None:
    images = stored([scene(k) for k in (0, 1, 0, 2, 0, 1)])
    assert [(p.first, p.second) for p in find_copies(images)] == [(0, 2), (0, 4), (1, 5)]


def test_small_pictures_are_only_compared_for_equality() -> None:
    images = stored([scene(0), scene(0), jpeg(scene(0), 60)], side=32)
    assert [(p.first, p.second, p.exact) for p in find_copies(images)] == [(0, 1, True)]


def test_blank_pictures_are_no_near_copies() -> None:
    x = np.full((4, 3, SIDE, SIDE), 200, np.uint8)
    x[1:] += np.arange(1, 4, dtype=np.uint8)[:, None, None, None]
    assert find_copies(from_array(x)) == []
    assert find_copies(from_array(x[:1])) == []


def test_near_copies_are_sought_among_the_given_rows_only() -> None:
    images = stored([scene(0), jpeg(scene(0), 50), scene(1), jpeg(scene(1), 50)])
    assert [(p.first, p.second) for p in find_copies(images, np.array([0, 1, 2]))] == [(0, 1)]


def test_descriptors_equal_a_naive_cosine_transform() -> None:
    images = stored([scene(3)], side=128)
    x = images.data[0].numpy().astype(np.float64)
    gray = 0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2]
    small = torch.nn.functional.interpolate(
        torch.from_numpy(gray)[None, None], (32, 32), mode="bilinear", antialias=True
    )[0, 0].numpy()
    waves = np.zeros((8, 8))
    for u in range(8):
        for v in range(8):
            for i in range(32):
                for j in range(32):
                    waves[u, v] += (
                        small[i, j] * np.cos(np.pi / 32 * u * (i + 0.5)) * np.cos(np.pi / 32 * v * (j + 0.5))
                    )
    expected = waves.ravel()[1:] / np.linalg.norm(waves.ravel()[1:])
    assert descriptors(images, torch.tensor([0]))[0][0].numpy() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("shift", [0, 2, 4])
def test_detail_is_compared_where_it_lies(shift: int) -> None:
    """Unmoved detail that is compared would not agree: the correlation of the same pictures without laying over."""
    whole = scene(8)
    a, b = whole.crop((0, 0, 90, 90)), whole.crop((shift, shift, 90 + shift, 90 + shift))
    images = stored([a, b])
    likeness = float(detail(images, torch.tensor([[0, 1]]))[0])
    assert likeness > 0.95
    if shift == 4:
        gray = images.data.float().mean(1).numpy()
        rough = gray - gray.mean((1, 2), keepdims=True)
        plain = float((rough[0] * rough[1]).sum() / np.linalg.norm(rough[0]) / np.linalg.norm(rough[1]))
        assert plain < likeness
    assert NEAR < 1
