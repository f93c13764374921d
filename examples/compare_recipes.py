"""Do the unlabelled pictures help? Two recipes on the same labels, compared picture by picture.

    python examples/compare_recipes.py

Both learn from the same 4 labelled digits of each class; label propagation also looks at the unlabelled ones. The
comparison is *paired*: each test picture is answered by both, and the interval is that of the difference, which is
narrower than two intervals held side by side.
"""

import csv
import tempfile
from pathlib import Path

from handful import api
from handful.stats.intervals import accuracy, paired_difference


def right_or_wrong(run: api.Run) -> list[bool]:
    """One value for each test picture, in the order of ``predictions.csv``, from the folder that it lies in."""
    with open(run.folder / "predictions.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    return [row["label"] == Path(row["path"]).parent.name for row in rows]


def main(folder: Path) -> None:
    pictures = folder / "digits"
    api.write_digits(pictures, per_class=4, seed=0)
    right = {}
    for recipe in ("logistic", "propagation"):
        options = api.FitOptions(recipe=recipe, features="pixels")
        right[recipe] = right_or_wrong(api.fit(pictures, options, out=folder / recipe))
        share = accuracy(right[recipe])
        print(f"{recipe:<12} {share.value:.1%} right (95 % interval {share.low:.1%} to {share.high:.1%})")

    gain = paired_difference(right["propagation"], right["logistic"])
    print(f"difference   {100 * gain.value:+.1f} points ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})")
    print("This is one draw of labels. Other labels would give another difference: see docs/results.md.")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(scratch))
