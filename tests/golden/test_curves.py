"""Loss curves of every method on the toy task against committed ones: a refactor must not move them.

Between machines the order of sums differs, hence the tolerance of 1e-3. After a
change that is *meant* to move a curve, write it anew and say why in the commit::

    python tests/golden/test_curves.py NAME ...    # of these methods; without a name, of all
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))
import toy

CURVES = Path(__file__).with_name("curves.json")
STEPS = 12


def curve(name: str, kind: str) -> dict[str, list[float]]:
    """Every logged figure of each step, in float64, which keeps differences between machines small."""
    table: dict[str, list[float]] = {}

    def log(step: int, scalars: dict[str, float]) -> None:
        for key, value in scalars.items():
            table.setdefault(key, []).append(float(f"{value:.9g}"))

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        state = toy.start(toy.NETWORKS[kind], toy.method(name), dtype=torch.float64, steps=STEPS)
        toy.train(state, toy.method(name), steps=STEPS, log=log)
    finally:
        torch.set_num_threads(threads)
    return table


@pytest.mark.parametrize("kind", toy.NETWORKS)
@pytest.mark.parametrize("name", toy.METHODS)
def test_the_curve_is_the_committed_one(name: str, kind: str) -> None:
    golden = json.loads(CURVES.read_text())[f"{name}.{kind}"]
    now = curve(name, kind)
    assert now.keys() == golden.keys()
    for key, values in golden.items():
        assert len(values) == STEPS
        assert now[key] == pytest.approx(values, rel=1e-3, abs=1e-6), key


def test_no_curve_is_left_over() -> None:
    expected = {f"{name}.{kind}" for name in toy.METHODS for kind in toy.NETWORKS}
    assert set(json.loads(CURVES.read_text())) == expected


if __name__ == "__main__":
    names = sys.argv[1:] or list(toy.METHODS)
    if strange := set(names) - set(toy.METHODS):
        sys.exit(f"no row of the table: {', '.join(sorted(strange))}")
    table = json.loads(CURVES.read_text())
    table |= {f"{name}.{kind}": curve(name, kind) for name in names for kind in toy.NETWORKS}
    keys = [f"{name}.{kind}" for name in toy.METHODS for kind in toy.NETWORKS]
    lines = [f"{json.dumps(key)}: {json.dumps(table[key])}" for key in keys if key in table]
    CURVES.write_text("{\n" + ",\n".join(lines) + "\n}\n")
