"""What can be checked about the machine without knowing it."""

import subprocess
import sys

import pytest
import torch

from handful import machine


def test_allocator_can_be_tuned_and_memory_still_works() -> None:
    code = (
        "import torch; from handful import machine; done = machine.tune_allocator(); "
        "import sys; assert done or sys.platform != 'linux'; "
        "print(sum(int(torch.ones(1 << 20).sum()) for _ in range(50)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == str(50 << 20)


def test_figures_are_plausible() -> None:
    assert machine.cores() >= 1
    assert isinstance(machine.has_fast_bf16(), bool)
    peak = machine.peak_memory()
    assert peak is None or 10e6 < peak < 1e12


def test_threads_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    for asked, threads in (("1", 1), ("1,2", 1), ("", machine.cores()), ("many", machine.cores())):
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        assert machine.set_threads() == threads, asked
    torch.set_num_threads(before)


def test_threads() -> None:
    before = torch.get_num_threads()
    assert machine.set_threads(1) == 1
    assert machine.set_threads() == machine.cores()
    machine.set_threads(before)
