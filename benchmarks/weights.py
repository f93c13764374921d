"""Do the trainers end with the same weights as before? A hash of the final weights of several recipes on the digits.

    python -m benchmarks.weights                 # writes results/weights.json
    python -m benchmarks.weights --check         # compares with it; exit code 1 where one differs

A refactoring leaves every hash as it is. They are of all weights and buffers but those that calibration sets
afterwards, and belong to one machine (the order of sums) and one thread.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from safetensors.numpy import load_file

os.environ["OMP_NUM_THREADS"] = "1"

from benchmarks.common import RESULTS, arguments, record
from handful import api

STEPS = 24
CALIBRATED = ("temperature", "temperatures", "likeness.limit")  # ends of names
RECIPES = ("supervised", "fixmatch", "mpl", "noisy-student", "fine-tune", "distill", "propagation")


def fitted(recipe: str, digits: Path, out: Path) -> Path:
    """A run of ``recipe`` with fixed steps."""
    training = {} if recipe == "propagation" else {"steps": STEPS}
    options = api.FitOptions(recipe=recipe, training=training, without_priors=("digits",))
    return api.fit(digits, options, out=out).folder


def classes(folder: Path, digits: Path, names: str) -> Path:
    """The same pictures, of some classes alone."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(digits / name)
    return folder


def extended(digits: Path, out: Path) -> Path:
    """A network for the digits 0 to 7, then 8 and 9 added to it."""
    options = api.FitOptions(recipe="supervised", training={"steps": STEPS})
    old = api.fit(classes(out / "old", digits, "01234567"), options, out=out / "first").folder
    more = api.ExtendOptions(training={"steps": STEPS})
    return api.extend(old, classes(out / "new", digits, "89"), more, out=out / "run").run.folder


def distilled(digits: Path, out: Path) -> Path:
    """``handful distill`` from a run of FixMatch on one label a class, which can be held out from nothing: calibration
    does not change what it teaches."""
    alone = api.FitOptions(recipe="fixmatch", training={"steps": STEPS}, labels_per_class=1)
    teacher = api.fit(digits, alone, out=out / "teacher").folder
    options = api.DistillOptions(student="lenet", training={"steps": STEPS})
    return api.distill(teacher, digits, options, out=out / "run").run.folder


def hash_of(run: Path) -> str:
    """SHA-256 of a run's weights, by name."""
    sha = hashlib.sha256()
    for name, value in sorted(load_file(run / "model.safetensors").items()):
        if not name.endswith(CALIBRATED):
            sha.update(f"{name} {value.dtype} {value.shape}".encode() + value.tobytes())
    return sha.hexdigest()


def main() -> int:
    """Write the hashes, or compare them."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--check", action="store_true", help="compare with the committed hashes")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        digits = folder / "digits"
        api.write_digits(digits, per_class=4, seed=0)
        trainers: dict[str, Callable[[Path], Path]] = {
            name: lambda out, name=name: fitted(name, digits, out) for name in RECIPES
        }
        trainers |= {
            "verb distill": lambda out: distilled(digits, out),
            "verb extend": lambda out: extended(digits, out),
        }
        rows = []
        for name, train in trainers.items():
            run = train(folder / name.replace(" ", "-"))
            rows.append({"trainer": name, "sha256": hash_of(run)})
            print(rows[-1], flush=True)
    if not given.check:
        record("weights", rows, steps=STEPS, threads=1)
        return 0
    known = {
        row["trainer"]: row["sha256"] for row in json.loads((RESULTS / "weights.json").read_text())["rows"]
    }
    moved = [row["trainer"] for row in rows if known.get(row["trainer"]) != row["sha256"]]
    print(f"moved: {', '.join(moved)}" if moved else "all as they were")
    return int(bool(moved))


if __name__ == "__main__":
    sys.exit(main())
