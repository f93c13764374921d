"""splits.csv: written, obeyed by a resumed run, and refused where it is of other pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from handful.data.manifest import Manifest
from handful.data.sources import read_data
from handful.run.splits import differences, obey_splits, save_splits
from handful.types import HandfulError

X = np.zeros((8, 4, 4), np.uint8)
Y = [0, 1, 0, 1, 0, 1, 0, 1]


def drawn(seed: int) -> Manifest:
    return read_data((X, Y), labels_per_class=2, seed=seed)


def test_what_was_drawn_is_what_a_resumed_run_gets(tmp_path: Path) -> None:
    first, other = drawn(0), drawn(1)
    assert first.splits.tolist() != other.splits.tolist()
    save_splits(first, tmp_path / "splits.csv")
    again = obey_splits(other, tmp_path / "splits.csv")
    assert again.splits.tolist() == first.splits.tolist()
    assert again.labels.tolist() == first.labels.tolist()
    assert differences(first, tmp_path / "splits.csv") == ""


def test_other_pictures_are_named(tmp_path: Path) -> None:
    whole = drawn(0)
    save_splits(whole.keep(np.arange(8) != 2), tmp_path / "splits.csv")
    fewer = whole.keep(np.arange(8) != 5)
    assert (
        differences(fewer, tmp_path / "splits.csv") == "1 picture is new (000002); 1 picture is gone (000005)"
    )
    with pytest.raises(HandfulError, match=r"is of other pictures: 1 picture is new \(000002\)"):
        obey_splits(fewer, tmp_path / "splits.csv")
    assert differences(whole, tmp_path / "none.csv") == ""


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"path,split\n",
        b"path,split,label\na,b\n",
        b"path,split,label\na,elsewhere,0\n",
        b"\xff\xfe",
        b'"',
    ],
)
def test_a_damaged_table_is_an_error_with_a_fix(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "splits.csv").write_bytes(content)
    with pytest.raises(HandfulError, match="is damaged") as caught:
        obey_splits(drawn(0), tmp_path / "splits.csv")
    assert "--out" in caught.value.fix


def test_an_unknown_class_is_an_error(tmp_path: Path) -> None:
    save_splits(drawn(0), tmp_path / "splits.csv")
    text = (tmp_path / "splits.csv").read_text().replace(",labelled,0", ",labelled,zebra")
    (tmp_path / "splits.csv").write_text(text)
    with pytest.raises(HandfulError, match="knows a class 'zebra'"):
        obey_splits(drawn(0), tmp_path / "splits.csv")
