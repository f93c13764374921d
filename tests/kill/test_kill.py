"""Killed at any moment and started again, a run ends with the same bits as one that was left alone."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handful.api import write_digits

POINTS = [
    *[("in a step", n) for n in (1, 7, 13, 31, 49)],
    *[("in the backward pass", n) for n in (2, 11, 29, 47)],
    *[("in evaluation", n) for n in (1, 2, 3)],
    *[("while decoding", n) for n in (1, 40, 119)],
    ("store written, not renamed", 1),
    *[("before renaming to last.safetensors", n) for n in (1, 2, 5, 8)],
    *[("after renaming to last.safetensors", n) for n in (1, 3, 6)],
    *[("before renaming to done.safetensors", n) for n in (1, 2, 3)],
    *[("after renaming to done.safetensors", n) for n in (1, 3)],
    *[("before renaming to run.toml", n) for n in (1, 2)],
    ("before renaming to measured-supervised@pixels.safetensors", 1),
    ("before renaming to model.safetensors", 1),
    ("after renaming to model.safetensors", 1),
    ("writing the report", 1),
]
RANDOM_KILLS = 6
# Of a run whose networks start from a jigsaw: its 10 steps come first, a checkpoint after 5, then those of two folds.
STARTED = [
    "--init",
    "jigsaw",
    "--training.init-steps",
    "10",
    "--training.ratio",
    "2",
    "--training.backbone",
    "lenet",
]
STARTED_POINTS = [
    ("in a step", 14),  # the 7th of two optimisers: the student's and the projector's
    ("after renaming to last.safetensors", 1),
    ("before renaming to done.safetensors", 1),
    ("after renaming to done.safetensors", 1),
]


class Server:
    """Talks to ``server.py``."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("server.py"))]
        pipe, environment = subprocess.PIPE, {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)

    def send(self, words: list[str], cache: Path, point: str = "", nth: int = 0, tell: bool = False) -> None:
        assert self.process.stdin
        environment = {"HANDFUL_CACHE": str(cache)}
        job = {"words": words, "point": point, "nth": nth, "environment": environment, "tell": tell}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def run(self, words: list[str], cache: Path, point: str = "", nth: int = 0) -> int:
        self.send(words, cache, point, nth)
        return int(self.answer()["code"])


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.process.kill()
    found.process.wait()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 labelled digits, 60 unlabelled ones and 40 for the test."""
    whole, folder = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("digits")
    write_digits(whole, per_class=2, seed=0)
    for part, most in (
        *((str(k), 2) for k in range(10)),
        ("unlabeled", 60),
        *((f"test/{k}", 4) for k in range(10)),
    ):
        (folder / part).mkdir(parents=True)
        for file in sorted((whole / part).iterdir())[:most]:
            shutil.copy(file, folder / part)
    return folder


def words(pictures: Path, out: Path, steps: int = 20) -> list[str]:
    """Two folds and the final training, each of ``steps``, a checkpoint every 5 steps."""
    options = ["--training.steps", str(steps), "--training.batch", "16", "--save-every", "5"]
    return ["fit", str(pictures), "--out", str(out), "--recipe", "supervised", *options]


def weights(out: Path) -> str:
    digest: str = json.loads((out / "model.json").read_text())["sha256"]
    return digest


@pytest.fixture(scope="module")
def undisturbed(server: Server, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert server.run(words(pictures, folder / "run"), folder / "cache") == 0
    return weights(folder / "run"), folder / "cache"


@pytest.fixture(scope="module")
def undisturbed_started(server: Server, pictures: Path, undisturbed: tuple[str, Path]) -> tuple[str, Path]:
    _, cache = undisturbed
    out = cache.parent / "started"
    assert server.run([*words(pictures, out), *STARTED], cache) == 0
    assert weights(out) != undisturbed[0]
    return weights(out), cache


LONG = 200  # steps: long enough for a signal to arrive while the run is under way


@pytest.fixture(scope="module")
def undisturbed_long(server: Server, pictures: Path, undisturbed: tuple[str, Path]) -> tuple[str, Path]:
    _, cache = undisturbed
    out = cache.parent / "long"
    assert server.run(words(pictures, out, LONG), cache) == 0
    return weights(out), cache


def cache_for(point: str, tmp_path: Path, warm: Path) -> Path:
    """Kills during the store's building need an empty cache; the others share one, to save time."""
    return tmp_path / "cache" if "decoding" in point or "store" in point else warm


@pytest.mark.parametrize(("point", "nth"), POINTS)
def test_killed_at_a_point(
    point: str, nth: int, server: Server, pictures: Path, undisturbed: tuple[str, Path], tmp_path: Path
) -> None:
    expected, warm = undisturbed
    line, cache = words(pictures, tmp_path / "run"), cache_for(point, tmp_path, warm)
    assert server.run(line, cache, point, nth) == -signal.SIGKILL
    assert server.run(line, cache) == 0
    assert weights(tmp_path / "run") == expected
    assert not list(cache.rglob("*.tmp")), "a scratch file was left in the cache"
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize(("point", "nth"), STARTED_POINTS)
def test_killed_in_or_after_a_self_supervised_start(
    point: str,
    nth: int,
    server: Server,
    pictures: Path,
    undisturbed_started: tuple[str, Path],
    tmp_path: Path,
) -> None:
    expected, cache = undisturbed_started
    line = [*words(pictures, tmp_path / "run"), *STARTED]
    assert server.run(line, cache, point, nth) == -signal.SIGKILL
    assert server.run(line, cache) == 0
    assert weights(tmp_path / "run") == expected
    logged = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [x["step"] for x in logged if x.get("stage") == "init-jigsaw"]
    assert steps == sorted(set(steps)) and steps[-1] == 10, "made once, and no step of it twice"


def start_training(server: Server, line: list[str], cache: Path, metrics: Path) -> int:
    """Start a run and wait until it has logged its first steps; returns its process number."""
    server.send(line, cache, tell=True)
    child = int(server.answer()["child"])
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return child


@pytest.mark.parametrize("seed", range(RANDOM_KILLS))
def test_killed_at_random(
    seed: int, server: Server, pictures: Path, undisturbed_long: tuple[str, Path], tmp_path: Path
) -> None:
    expected, cache = undisturbed_long
    line = words(pictures, tmp_path / "run", LONG)
    child = start_training(server, line, cache, tmp_path / "run" / "metrics.jsonl")
    time.sleep(random.Random(seed).uniform(0, 1.0))
    os.kill(child, signal.SIGKILL)
    assert server.answer()["code"] == -signal.SIGKILL
    assert server.run(line, cache) == 0
    assert weights(tmp_path / "run") == expected


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_told_to_stop(
    number: signal.Signals,
    code: int,
    server: Server,
    pictures: Path,
    undisturbed_long: tuple[str, Path],
    tmp_path: Path,
) -> None:
    expected, cache = undisturbed_long
    line = words(pictures, tmp_path / "run", LONG)
    child = start_training(server, line, cache, tmp_path / "run" / "metrics.jsonl")
    os.kill(child, number)
    assert server.answer()["code"] == code
    assert server.run(line, cache) == 0
    assert weights(tmp_path / "run") == expected
