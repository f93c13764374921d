"""A folder of pictures becomes a classifier, and the classifier answers for pictures it has not seen.

    python examples/fit_folder.py [FOLDER]

The pictures are handwritten digits that ship with scikit-learn: 4 labelled pictures of each, 300 without a label,
and 200 kept for the test. Without FOLDER everything goes to a temporary folder and is removed at the end.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from handful import api


def write_pictures(folder: Path) -> None:
    """digits/3/0013.png … (labelled), digits/unlabeled/…, digits/test/3/…: the layout that ``fit`` reads."""
    images, classes = load_digits(return_X_y=True)
    labelled = dict.fromkeys(range(10), 0)
    # shuffled, since neighbours in the data set are by the same hand
    for turn, number in enumerate(np.random.default_rng(0).permutation(len(images))[:540]):
        pixels, k = images[number], int(classes[number])
        if turn < 200:
            place = folder / "test" / str(k)
        elif labelled[k] < 4:
            place = folder / str(k)
            labelled[k] += 1
        else:
            place = folder / "unlabeled"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels.reshape(8, 8) * 255 / 16).astype("uint8")).save(place / f"{number:04d}.png")


class Printer(api.Teller):
    """Shows what ``fit`` says while it works."""

    def tell(self, line: str) -> None:
        print(line)


def main(folder: Path) -> None:
    write_pictures(folder / "digits")

    # One recipe by name keeps this short; the default, FitOptions(), tries several and chooses.
    options = api.FitOptions(recipe="propagation", features="pixels")
    run = api.fit(folder / "digits", options, out=folder / "run", teller=Printer())

    assert run.accuracy is not None and run.interval is not None  # there is a test part
    low, high = run.interval
    print(f"{run.chosen}: {run.accuracy:.1%} right, 95 % interval {low:.1%} to {high:.1%}")
    print(f"measured on {run.measured_on}")

    print("files of the run:", *sorted(path.name for path in run.folder.iterdir()))

    unseen = sorted((folder / "digits" / "test").rglob("*.png"))[::40]
    answers, unreadable = api.predict(run.folder, unseen)
    for file, label, probability in answers:
        print(f"{Path(file).relative_to(folder / 'digits')}: {label} ({probability:.2f})")
    for file, reason in unreadable:
        print(f"{file} cannot be read: {reason}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
