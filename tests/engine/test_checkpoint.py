"""Checkpoints: bit-exact, whole or not there, and honest about damage."""

import errno
import math
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from handful.engine import checkpoint
from handful.files import write_atomic
from handful.types import HandfulError


def same(a: Any, b: Any) -> bool:
    """Equal to the last bit, with types and shapes; tuples come back as lists."""
    if isinstance(a, torch.Tensor):
        if not isinstance(b, torch.Tensor) or a.dtype != b.dtype or a.shape != b.shape:
            return False
        raw = [t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b)]
        return torch.equal(*raw)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and math.isnan(a):
        return isinstance(b, float) and math.isnan(b)
    return type(a) is type(b) and a == b


def test_the_round_trip_is_bit_exact(tmp_path: Path) -> None:
    tree: dict[str, Any] = {
        "step": 3,
        "nothing": None,
        "yes": True,
        "word": 'é\n"',
        "floats": [0.1, 1e-300, math.inf, -0.0, math.nan, 1 / 3],
        "nested": [[torch.tensor(1.5), []], {"deep": ({"x": torch.arange(3)},)}],
        "tensors": {
            "nan": torch.tensor([math.nan, -0.0, math.inf]),
            "half": torch.randn(2, 3).bfloat16(),
            "empty": torch.empty(0, 4),
            "bool": torch.tensor([True, False]),
            "double": torch.randn(2, dtype=torch.float64),
            "last": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
            "tied": torch.ones(4)[1:3],
        },
    }
    checkpoint.write(tmp_path / "x", tree)
    assert same(tree, checkpoint.read(tmp_path / "x"))


def test_names_with_slashes_do_not_collide(tmp_path: Path) -> None:
    tree = {"a/b": torch.zeros(2), "a": {"b": torch.ones(2)}}
    checkpoint.write(tmp_path / "x", tree)
    assert same(tree, checkpoint.read(tmp_path / "x"))


leaves = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(max_size=5)
trees = st.recursive(
    leaves | st.integers(0, 5).map(lambda n: torch.arange(n, dtype=torch.float32)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(tree=st.dictionaries(st.text(max_size=4), trees, max_size=3))
def test_any_tree_comes_back(tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("trees") / "x"
    checkpoint.write(path, tree)
    assert same(tree, checkpoint.read(path))


def test_what_it_cannot_hold_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="set"):
        checkpoint.write(tmp_path / "x", {"a": {1, 2}})
    assert not list(tmp_path.iterdir())


def test_every_kind_of_damage_is_a_message_with_the_file_and_a_fix(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.write(path, {"step": 1, "w": torch.arange(64.0)})
    good = path.read_bytes()
    damaged = [good[:n] for n in (0, 4, 20, len(good) // 2, len(good) - 1)]
    for at in range(0, len(good), 7):  # one bit of the length, the header, the values
        damaged.append(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
    for content in [*damaged, b"not a checkpoint at all", os.urandom(200)]:
        path.write_bytes(content)
        with pytest.raises(HandfulError) as caught:
            checkpoint.read(path)
        assert str(path) in str(caught.value)
        assert "Fix:" in str(caught.value)
    path.unlink()
    with pytest.raises(HandfulError):
        checkpoint.read(path)


def test_another_format_is_named_as_such(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"w": torch.ones(1)}, tmp_path / "x")
    with pytest.raises(HandfulError, match="not a checkpoint of this version"):
        checkpoint.read(tmp_path / "x")


@pytest.mark.parametrize("at", ["fsync", "replace", "open"])
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    path = tmp_path / "x"
    checkpoint.write(path, {"step": 1})

    def full(*args: object, **options: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        if at == "open":
            patch.setattr("builtins.open", full)
        else:
            patch.setattr(os, at, full)
        with pytest.raises(HandfulError, match="No space left") as caught:
            checkpoint.write(path, {"step": 2})
    assert caught.value.exit_code == 1
    assert checkpoint.read(path) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x"], "a scratch file was left"


def test_a_folder_that_cannot_be_made_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HandfulError, match="cannot be written"):
        write_atomic(tmp_path / "file" / "x", b"1")
