"""A distillation that is killed, and started again, ends with the same bits as one that was left alone."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from kill.test_kill import Server, pictures, weights

__all__ = ["pictures"]  # a fixture

POINTS = [
    ("in a step", 13),  # of the student
    ("before renaming to done.safetensors", 2),  # the student is trained, its twin is not kept yet
]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.process.kill()
    found.process.wait()


@pytest.fixture(scope="module")
def teacher(server: Server, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished run, and the cache."""
    folder = tmp_path_factory.mktemp("teacher")
    line = [
        "fit",
        str(pictures),
        "--out",
        str(folder / "run"),
        "--recipe",
        "logistic",
        "--features",
        "pixels",
    ]
    assert server.run(line, folder / "cache") == 0
    return folder / "run", folder / "cache"


def words(teacher: Path, out: Path) -> list[str]:
    options = ["--training.batch", "8", "--training.ratio", "2", "--save-every", "5", "--steps", "18"]
    return ["distill", str(teacher), "--student", "conv-4", "--out", str(out), *options]


@pytest.fixture(scope="module")
def undisturbed(server: Server, teacher: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    run, cache = teacher
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    assert server.run(words(run, out), cache) == 0
    return weights(out)


@pytest.mark.parametrize(("point", "nth"), POINTS)
def test_killed_at_a_point(
    point: str, nth: int, server: Server, teacher: tuple[Path, Path], undisturbed: str, tmp_path: Path
) -> None:
    run, cache = teacher
    line = words(run, tmp_path / "run")
    assert server.run(line, cache, point, nth) == -signal.SIGKILL
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert server.run(line, cache) == 0
    assert weights(tmp_path / "run") == undisturbed
    assert (tmp_path / "run" / "report.html").exists()
