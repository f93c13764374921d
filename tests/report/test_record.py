"""The line-by-line record survives kills and resumes; a summary survives JSON."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handful.report.record import (
    ConfusedPair,
    Recorder,
    Summary,
    Thumb,
    Tried,
    curves,
    read,
)
from handful.types import HandfulError


def fill(path: Path, *rows: tuple[str, int]) -> None:
    with Recorder(path, clock=lambda: 7.0) as recorder:
        for stage, step in rows:
            recorder.write(stage, step, {"loss": step / 10})


def places(path: Path) -> list[tuple[str, int]]:
    return [(row["stage"], row["step"]) for row in read(path)]


def test_lines_are_on_disk_at_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "metrics.jsonl"
    recorder = Recorder(path, clock=lambda: 7.0)
    recorder.write("train", 3, {"loss": np.float32(0.5), "best": True, "note": "warm", "rate": math.inf})
    expected = {
        "stage": "train",
        "step": 3,
        "time": 7.0,
        "loss": 0.5,
        "best": True,
        "note": "warm",
        "rate": None,
    }
    assert read(path) == [expected]
    recorder.close()


def test_every_cut_of_the_file_reads_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    fill(path, ("train", 1), ("train", 2))
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        expected = [("train", 1), ("train", 2)]
        complete = whole[:length].count(b"\n")
        assert len(read(path)) == complete
        fill(path, ("train", 9))
        assert places(path) == [*expected[:complete], ("train", 9)]


def test_only_the_last_line_may_be_broken(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"stage": "a", "step": 1}\n{"sta\n{"stage": "a", "step": 2}\n')
    with pytest.raises(HandfulError, match=r"jsonl:2"):
        read(path)


def test_names_of_the_recorder_are_taken(tmp_path: Path) -> None:
    with Recorder(tmp_path / "m.jsonl") as recorder, pytest.raises(ValueError, match="step"):
        recorder.write("train", 1, {"step": 2})


@pytest.mark.parametrize(
    ("stage", "step", "left"),
    [
        ("b", 20, [("a", 10), ("b", 10), ("b", 20)]),
        ("b", 25, [("a", 10), ("b", 10), ("b", 20)]),
        ("b", 5, [("a", 10)]),
        ("b", 99, [("a", 10), ("b", 10), ("b", 20), ("b", 30)]),  # the later stage goes
        ("a", 0, []),
        ("c", 10, [("a", 10), ("b", 10), ("b", 20), ("b", 30), ("c", 10)]),
        ("never", 10, [("a", 10), ("b", 10), ("b", 20), ("b", 30), ("c", 10)]),
    ],
)
def test_resumed_run_does_not_repeat_rows(
    tmp_path: Path, stage: str, step: int, left: list[tuple[str, int]]
) -> None:
    path = tmp_path / "metrics.jsonl"
    fill(path, ("a", 10), ("b", 10), ("b", 20), ("b", 30), ("c", 10))
    with Recorder(path) as recorder:
        recorder.truncate_after(stage, step)
        assert places(path) == left
        recorder.write(stage, step + 1, {})
    assert places(path) == [*left, (stage, step + 1)]


def test_curves_leave_out_what_is_not_a_number() -> None:
    rows = [
        {"stage": "a", "step": 1, "time": 5.0, "loss": 2.0, "note": "x", "ok": True},
        {"stage": "a", "step": 2, "time": 6.0, "loss": None},
        {"stage": "b", "step": 1, "time": 7.0, "loss": 1},
    ]
    assert curves(rows) == {"a": {"loss": [(1, 2.0)]}, "b": {"loss": [(1, 1)]}}


def test_summary_round_trip(example: Summary, tmp_path: Path) -> None:
    text = example.to_json()
    assert Summary.from_json(text) == example
    assert Summary.from_json(text).to_json() == text
    example.save(tmp_path / "summary.json")
    assert Summary.load(tmp_path / "summary.json") == example
    assert Summary.from_json(Summary().to_json()) == Summary()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_thumbs_keep_every_pixel(channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (channels, 9, 7), dtype=np.uint8)
    back = Summary.from_json(Summary(mistakes=[Thumb(image)]).to_json()).mistakes[0].image
    assert back.dtype == np.uint8
    assert np.array_equal(back, image)


def test_not_finite_becomes_absent_and_odd_names_survive() -> None:
    odd = "caf\udce9 </script> \u202e"  # a file name that is not UTF-8, as Python shows it
    pair = ConfusedPair(odd, "b", 2, [])
    s = Summary(tried=[Tried(odd, cv_accuracy=math.nan, cv_interval=(math.nan, 1.0))], confused_pairs=[pair])
    text = s.to_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    back = Summary.from_json(text)
    assert back.tried == [Tried(odd)]
    assert back.confused_pairs == [pair]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}', '{"format": 2, "tried": 3}'])
def test_other_files_are_refused(text: str) -> None:
    with pytest.raises(HandfulError, match="summary"):
        Summary.from_json(text)


def test_thumb_refuses_other_shapes() -> None:
    for bad in (np.zeros((8, 8), np.uint8), np.zeros((3, 8, 8), np.float32), np.zeros((2, 8, 8), np.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            Thumb(bad)  # type: ignore[arg-type]
    assert Thumb(np.zeros((3, 300, 200), np.uint8)).to_pil(largest=90).size == (60, 90)
    assert isinstance(Thumb(np.zeros((1, 8, 8), np.uint8)).to_pil(), Image.Image)
