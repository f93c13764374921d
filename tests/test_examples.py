"""Every script in examples/ runs as it stands, in a process and a cache of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXPECTED = {
    "fit_folder.py": [
        "propagation@pixels",
        "measured on a test part of 200 pictures",
        "report.html",
        "test/",
    ],
    "compare_recipes.py": ["logistic", "propagation", "difference"],
}


def test_every_example_is_run_here() -> None:
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_runs(tmp_path: Path, name: str) -> None:
    environment = {
        **os.environ,
        "HANDFUL_CACHE": str(tmp_path / "cache"),
        "TMPDIR": str(tmp_path),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, str(ROOT / "examples" / name)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    for words in EXPECTED[name]:
        assert words in done.stdout, done.stdout
    assert not list(tmp_path.glob("tmp*")), "an example left its temporary folder behind"
