"""An extension that is killed, and started again, ends with the same bits as one that was left alone."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from handful.api import write_digits
from kill.test_kill import Server, weights

POINTS = [
    ("in a step", 4),  # of the network that ships
    ("before renaming to done.safetensors", 4),  # of plain fine-tuning; all folds of the other are done
    ("writing the report", 1),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.process.kill()
    found.process.wait()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Digits 0, 1, 2 and digits 3, 4: 3 labelled and 2 test pictures of each."""
    whole, folder = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("digits")
    write_digits(whole, per_class=3, seed=0)
    for name, digits in (("old", "012"), ("new", "34")):
        for digit in digits:
            for part, most in ((digit, 3), (f"test/{digit}", 2)):
                (folder / name / part).mkdir(parents=True)
                for file in sorted((whole / part).iterdir())[:most]:
                    shutil.copy(file, folder / name / part)
    return {"old": folder / "old", "new": folder / "new"}


@pytest.fixture(scope="module")
def old(server: Server, data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished run of a network, and the cache."""
    folder = tmp_path_factory.mktemp("old")
    options = ["--recipe", "supervised", "--training.steps", "6", "--training.batch", "8"]
    assert (
        server.run(["fit", str(data["old"]), "--out", str(folder / "run"), *options], folder / "cache") == 0
    )
    return folder / "run", folder / "cache"


def words(run: Path, data: dict[str, Path], out: Path) -> list[str]:
    """Four trainings by Learning without Forgetting and four of plain fine-tuning, of 5 steps each."""
    options = ["--old-test", str(data["old"]), "--steps", "5", "--save-every", "2"]
    return ["extend", str(run), str(data["new"]), "--out", str(out), *options]


@pytest.fixture(scope="module")
def undisturbed(
    server: Server, old: tuple[Path, Path], data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> str:
    run, cache = old
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    assert server.run(words(run, data, out), cache) == 0
    return weights(out)


@pytest.mark.parametrize(("point", "nth"), POINTS)
def test_killed_at_a_point(
    point: str,
    nth: int,
    server: Server,
    old: tuple[Path, Path],
    data: dict[str, Path],
    undisturbed: str,
    tmp_path: Path,
) -> None:
    run, cache = old
    line, before = words(run, data, tmp_path / "run"), weights(run)
    assert server.run(line, cache, point, nth) == -signal.SIGKILL
    assert server.run(line, cache) == 0
    assert weights(tmp_path / "run") == undisturbed
    assert (tmp_path / "run" / "report.html").exists() and (tmp_path / "run" / "extension.json").exists()
    assert weights(run) == before
