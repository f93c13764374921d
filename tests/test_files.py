"""Several writers of one file, what killed ones leave, decisions that all obey, locks of runs."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from handful.files import agree, beside, hold, holding, write_atomic
from handful.recipes.task import Workshop
from handful.types import HandfulError

WRITERS = 4


def at_once(work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What ``work(number, …)`` gives in four processes that begin together."""
    start = multiprocessing.get_context("fork").Barrier(WRITERS)
    pipes, processes = [], []
    for number in range(WRITERS):
        ours, theirs = multiprocessing.Pipe()

        def run(number: int = number, theirs: Any = theirs) -> None:
            start.wait()
            theirs.send(work(number, *arguments))

        pipes.append(ours)
        processes.append(multiprocessing.get_context("fork").Process(target=run))
        processes[-1].start()
        theirs.close()
    try:
        return [pipe.recv() for pipe in pipes]  # EOFError where one failed
    finally:
        for process in processes:
            process.join()


def write_often(number: int, path: Path) -> bool:
    """Each writer's content is one figure again and again; what is read is always one writer's, and whole."""
    for _ in range(100):
        write_atomic(path, str(number) * 5000)
        found = path.read_text()
        if found != found[0] * 5000:
            return False
    return True


def test_four_writers_of_one_file_at_once(tmp_path: Path) -> None:
    assert at_once(write_often, tmp_path / "plan.json") == [True] * WRITERS
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def decide(number: int, path: Path) -> dict[str, int]:
    """As a worker of ``compare`` plans: a decision of its own, and 20 that all take."""
    plan = agree(path, {})
    workshop = Workshop(path.parent, path.parent, plan=plan, keep_plan=lambda: plan.update(agree(path, plan)))
    workshop.planned(f"of {number}", lambda: number)
    return {name: workshop.planned(name, lambda: number) for name in (f"steps of {i}" for i in range(20))}


def test_four_processes_obey_the_first_that_decides_and_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "plans" / "x.json"
    first, *others = at_once(decide, path)
    assert others == [first] * (WRITERS - 1)
    kept = json.loads(path.read_text())
    assert kept == {**first, **{f"of {number}": number for number in range(WRITERS)}}
    assert [found.name for found in path.parent.iterdir()] == ["x.json"]


KILLED = """
import os, sys
from pathlib import Path
from handful.files import beside
with beside(Path(sys.argv[1])) as scratch:
    scratch.write_text("half")
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_writer_leaves_goes_with_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    [left] = tmp_path.iterdir()
    assert left.suffix == ".tmp" and left.name.startswith("report.html.")
    (tmp_path / "report.html.bak").write_text("mine")
    (tmp_path / "other.html.0.00000000.1.tmp").write_text("another file's")
    with beside(path) as scratch:  # a writer that is at work keeps its own
        scratch.mkdir()
        write_atomic(path, "whole")
        assert not left.exists() and scratch.exists()
    found = {file.name for file in tmp_path.iterdir()}
    assert found == {"report.html", "report.html.bak", "other.html.0.00000000.1.tmp"}


def test_a_lock_is_given_back_by_the_run_that_took_it(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    with holding():
        hold(path)
        hold(path)  # its own
        with holding(), pytest.raises(HandfulError, match="another run is at work"):  # a run inside
            hold(path)
        assert path.exists() and refused(path)
    assert not path.exists() and not refused(path)


def refused(path: Path) -> bool:
    """Whether another process is refused."""
    code = "import sys; from pathlib import Path; from handful.files import hold; hold(Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0 or "another run is at work in this folder" in done.stderr, done.stderr
    return done.returncode != 0
