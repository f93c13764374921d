"""The automatic choice in several processes, of which the last one lags: all take the same way.

They are four: the first one's word reaches the fourth through the third, so that the first need not wait for it (gloo
sends along a tree); of two, the first waits for the second each time that it says something.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.choose.conftest import digits

from handful import parallel
from handful.choose.auto import choose
from handful.choose.evidence import Evidence, HeldOut
from handful.choose.prior import PriorTable
from handful.recipes.candidate import Candidate
from handful.recipes.table import find
from handful.recipes.task import Workshop

AMONG = [
    Candidate("logistic", "pixels"),
    Candidate("knn", "pixels"),
    Candidate("supervised", "pixels", training={"steps": 2, "batch": 4, "backbone": "linear"}),
]
WORLD = 4
PATIENCE = 10.0  # seconds that the last process lags at most


def choice(folder: Path) -> dict[str, Any]:
    """What came out, in plain values."""
    told: list[str] = []
    workshop = Workshop(folder / "cache", folder / "run", tell=told.append)
    outcome = choose(digits()[0], workshop, among=AMONG, prior=PriorTable())
    right = {key: torch.from_numpy(trial.right) for key, trial in outcome.trials.items()}
    return {"plan": workshop.plan, "chosen": outcome.chosen, "right": right, "told": told}


def one_of_four(rank: int, folder: str) -> None:
    """A choice, and the same again by a run that goes on."""
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD)
    measure = HeldOut.measure

    def late(self: HeldOut, candidate: Candidate, *rest: Any, **more: Any) -> Evidence:
        """The last process comes to a head when the first has measured it and written the figures."""
        end = time.monotonic() + PATIENCE
        done = self.workshop.folder / "stages" / f"measured-{candidate.key}.safetensors"
        while not find(candidate.recipe).trains and not done.exists() and time.monotonic() < end:
            time.sleep(0.02)
        return measure(self, candidate, *rest, **more)

    if rank == WORLD - 1:
        HeldOut.measure = late  # type: ignore[method-assign]
    result = [choice(Path(folder)), choice(Path(folder))]
    torch.save(result, Path(folder) / f"{rank}.pt")
    parallel.stop()


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("group")
    processes = torch.multiprocessing.spawn(one_of_four, (str(folder),), nprocs=WORLD, join=False)
    end = time.monotonic() + 300
    try:
        while not processes.join(timeout=1):
            assert time.monotonic() < end, "they wait for each other"
    finally:
        for process in processes.processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


def test_a_late_process_takes_the_way_of_the_first(group: list[list[dict[str, Any]]]) -> None:
    first, late = (result[0] for result in (group[0], group[-1]))
    assert first["plan"] == late["plan"]
    assert set(first["plan"]) >= {"repeats of logistic@pixels", "repeats of knn@pixels"}
    assert first["chosen"] == late["chosen"]
    for key, right in first["right"].items():
        assert torch.equal(right, late["right"][key])


def test_all_take_up_what_a_killed_run_measured(group: list[list[dict[str, Any]]]) -> None:
    for before, again in group:
        assert again["chosen"] == before["chosen"]
        assert all(torch.equal(right, before["right"][key]) for key, right in again["right"].items())
        assert not any(name.startswith("repeats of") for name in again["plan"]), "measured again"
