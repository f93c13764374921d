"""Views by their words, and the views that draw one operation's parameters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import photographs
from scipy import stats

from handful.augment import tensors
from handful.augment.drawn import Cutout, Draw, Erasing, ResizedCrop
from handful.augment.named import PARTS, SHORT, make, read_policy, with_policies, words
from handful.augment.randaugment import RandAugment
from handful.augment.tensors import by_tensors
from handful.augment.views import Chain, Plain, Strong, Weak
from handful.randomness import uniform
from handful.types import UsageError


def test_the_old_names_are_the_old_views() -> None:
    assert make("plain") == Plain()
    assert make("weak") == Weak(flip=True)
    assert make("weak", flip=False) == Weak(flip=False)
    assert make("strong", flip=False) == Strong(flip=False)


def test_settings_and_lists_are_read() -> None:
    view = make("weak:shift=0.25+randaugment:n=3:m=7.5:scale=paper:operations=rotate|equalize:bilinear=true")
    assert view == Chain(
        (Weak(shift=0.25), RandAugment(3, 7.5, "paper", ("rotate", "equalize"), bilinear=True))
    )
    assert make("fixmatch-strong") == Chain((Weak(), RandAugment(scale="fixmatch"), Cutout(0.5)))
    assert make("fixmatch-strong+blur", flip=False).views[0] == Weak(flip=False)  # type: ignore[attr-defined]
    assert make("brightness:low=0.5:high=1.5") == Draw("brightness", 0.5, 1.5)


@pytest.mark.parametrize("name", [*PARTS, *SHORT])
@pytest.mark.parametrize("gray", [False, True], ids=["colour", "gray"])
def test_every_name_makes_a_view_that_works_on_each_picture_alone(name: str, gray: bool) -> None:
    view = make(name, flip=not gray)
    for shape in ((1, 1), (1, 7), (33, 20)):
        x = photographs(*shape, gray=gray)
        for u in (
            uniform((4, view.n_draws), name),
            torch.zeros(4, view.n_draws),
            torch.full((4, view.n_draws), 1 - 2**-24),
        ):
            out = view(x, u)
            assert out.shape == x.shape
            assert out.dtype == torch.uint8
            alone = torch.cat([view(x[i : i + 1], u[i : i + 1]) for i in range(4)])
            assert (out.int() - alone.int()).abs().max() <= (1 if "strong" in name else 0)


def test_a_chain_is_its_views_one_after_the_other() -> None:
    x = photographs(33, 65)
    chain = make("weak+randaugment+blur:chance=1+cutout+rotate")
    u = uniform((4, chain.n_draws), "chain")
    expected, start = x, 0
    for view in chain.views:  # type: ignore[attr-defined]
        expected = view(expected, u[:, start : start + view.n_draws])
        start += view.n_draws
    assert start == chain.n_draws
    assert torch.equal(chain(x, u), expected)


def test_a_whole_policy_has_the_same_bits_by_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    x = photographs(33, 65)
    view = make("weak+randaugment:n=4+erasing:chance=1")
    u = uniform((4, view.n_draws), "policy")
    loops = view(x, u)
    monkeypatch.setattr(tensors, "compiled", lambda: None)
    assert torch.equal(view(x, u), loops)
    assert tensors.run(x, np.zeros((4, 0, 8), np.int32)).data_ptr() != x.data_ptr()
    assert torch.equal(by_tensors(x, np.zeros((4, 0, 8), np.int32)), x)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("randaugmnt", "did you mean 'randaugment'"),
        ("weak+", "there is no view ''"),
        ("randaugment:q=3", "'q=3' is not a setting"),
        ("randaugment:n=two", "a whole number is needed"),
        ("randaugment:m=nan", "a finite number is needed"),
        ("randaugment:bilinear=yes", "true or false"),
        ("rotate:operation=flip", "is not a setting"),
        ("weak:n_draws=9", "is not a setting"),
        ("cutout:side=3", "a share lies within 0 and 1"),
        ("randaugment:operations=rotate|spin", "no operation 'spin'"),
    ],
)
def test_what_cannot_be_read_is_told(text: str, said: str) -> None:
    with pytest.raises(UsageError) as told:
        make(text)
    assert said in str(told.value)


def test_words_are_read_back() -> None:
    for name, view in (
        ("randaugment", RandAugment()),
        ("randaugment", RandAugment(3, 12.0, "paper", ("rotate", "color"), True, 128)),
        ("fixmatch", RandAugment(scale="fixmatch")),
        ("brightness", Draw("brightness", 0.25)),
        ("cutout", Cutout(0.125)),
    ):
        assert str(make(words(name, view))) == str(view)
    assert words("randaugment", RandAugment()) == "randaugment"


def test_policy_files(tmp_path: Path) -> None:
    good = tmp_path / "good.toml"
    good.write_text('view = "weak+randaugment:n=1"\n')
    assert read_policy(good) == "weak+randaugment:n=1"
    changed = with_policies({"view": str(good), "smoothing": 0.1})
    assert changed == {"view": "weak+randaugment:n=1", "smoothing": 0.1}
    for text, said in (
        ("view = 3", "says no view"),
        ("view", "is not a policy file"),
        ('view = "wek"', "no view 'wek'"),
    ):
        bad = tmp_path / "bad.toml"
        bad.write_text(text)
        with pytest.raises(UsageError, match=said) as told:
            read_policy(bad)
        assert "bad.toml" in str(told.value)
    with pytest.raises(UsageError, match="cannot be read"):
        read_policy(tmp_path / "none.toml")


def test_cutout_and_erasing_by_counting() -> None:
    x = torch.full((3000, 1, 20, 30), 9, dtype=torch.uint8)
    holes = (Cutout(0.5)(x, uniform((3000, 2), "cutout")) == 127).sum((1, 2, 3))
    assert holes.max() == 100  # 10 x 10 where the edge does not cut it
    assert holes.min() == 25
    view = Erasing(0.5, 0.1, 0.3)
    share = (view(x, uniform((3000, 5), "erasing")) == 127).double().mean((1, 2, 3))
    assert stats.binomtest(int((share > 0).sum()), 3000, 0.5).pvalue > 1e-3
    assert 0.07 < share[share > 0].min() < 0.12
    assert 0.25 < share.max() < 0.34


def test_resized_crop_sees_a_window_of_the_drawn_area() -> None:
    """On a ramp the difference between neighbours tells how much the window was enlarged."""
    ramp = (torch.arange(64) * 4).to(torch.uint8).expand(200, 1, 64, 64)
    u = uniform((200, 4), "window")
    seen = ResizedCrop(0.25, shape=1.0)(ramp, u).double()
    width = (seen[:, 0, 0, 60] - seen[:, 0, 0, 4]) / (56 * 4)
    np.testing.assert_allclose(width, np.sqrt(0.25 + 0.75 * u[:, 0].numpy()), atol=0.02)
    whole = u.clone()
    whole[:, 0] = 1.0
    assert torch.equal(ResizedCrop(shape=1.0)(ramp, whole), ramp)
