"""Each of pytest-xdist's workers has its own share of the cores, so that two never wait for one another's threads."""

import os
from typing import Any

import pytest

NUMBER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))

if WORKERS > 1 and hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    share = cores[NUMBER::WORKERS] or [cores[NUMBER % len(cores)]]
    os.sched_setaffinity(0, share)
    for library in ("OMP", "MKL", "OPENBLAS"):  # read when torch and NumPy are imported, which is later
        os.environ[f"{library}_NUM_THREADS"] = str(len(share))


@pytest.fixture
def caught(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """States that ``fit`` was called with, in order (they are at their last step when the test looks)."""
    import handful.recipes.train as train  # not before the variables above are set

    states: list[Any] = []
    fit = train.fit

    def wrapped(state: Any, *arguments: Any, **options: Any) -> None:
        states.append(state)
        fit(state, *arguments, **options)

    monkeypatch.setattr(train, "fit", wrapped)
    return states
