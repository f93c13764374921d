"""A trained classifier as files that deploy: ``model.safetensors`` with its side-car ``model.json``."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from handful.files import write_atomic
from handful.models.classifier import Classifier, build_classifier
from handful.types import HandfulError, UsageError

FORMAT = "handful-model-1"
WEIGHTS, SIDE_CAR = "model.safetensors", "model.json"


@dataclass(frozen=True)
class Saved:
    """A classifier from disk.

    Attributes:
        classes: names in the order of the logits.
        store: how pictures are decoded: {"channels": C, "side": S}.
        sha256: of the weights' file.
    """

    classifier: Classifier
    classes: tuple[str, ...]
    store: dict[str, int]
    sha256: str


def save_model(
    folder: Path, classifier: Classifier, classes: tuple[str, ...], channels: int, side: int
) -> str:
    """Write weights and side-car; returns the weights' SHA-256."""
    state = {
        name: tensor.detach().cpu().contiguous().clone() for name, tensor in classifier.state_dict().items()
    }
    content = save(state)
    digest = hashlib.sha256(content).hexdigest()
    spec = classifier.spec
    side_car: dict[str, Any] = {
        "format": FORMAT,
        "classes": list(classes),
        "classifier": classifier.config(),
        "store": {"channels": channels, "side": side},
        "preprocessing": {
            "steps": "upright by EXIF; shorter side to 'side' px (bicubic), middle cut out; repeat or convert to "
            "'channels'; resize to 'size' px (bicubic, antialiased); (x / 255 - mean) / std",
            "side": side,
            "size": spec.size,
            "channels": spec.channels,
            "mean": list(spec.mean),
            "std": list(spec.std),
        },
        "sha256": digest,
    }
    write_atomic(folder / WEIGHTS, content)
    write_atomic(folder / SIDE_CAR, json.dumps(side_car, indent=1, ensure_ascii=False) + "\n")
    return digest


def load_model(folder: str | Path) -> Saved:
    """The classifier of a run folder, in evaluation mode on the CPU.

    Raises:
        UsageError: not a run folder.
        HandfulError: another version's model, or files that were changed (the hash does not fit).
    """
    folder = Path(folder)
    weights, side_car = folder / WEIGHTS, folder / SIDE_CAR
    if not (weights.exists() and side_car.exists()):
        fix = "give the folder that 'handful fit' made (it holds model.safetensors and model.json)"
        raise UsageError("is not a finished run", file=folder, fix=fix)
    try:
        info = json.loads(side_car.read_text())
    except ValueError as error:
        raise HandfulError(
            f"is damaged ({error})", file=side_car, fix="train again or restore the file"
        ) from error
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        raise HandfulError("was made by another version", file=side_car, fix="train again with this version")
    content = weights.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != info.get("sha256"):
        fix = "restore the file, or train again; do not use weights from a source you do not trust"
        raise HandfulError("is not the file that was saved (its SHA-256 differs)", file=weights, fix=fix)
    try:
        state = load(content)
        classifier = build_classifier(info["classifier"])
        classifier.load_state_dict(state)
        classes, store = tuple(info["classes"]), info["store"]
        store = {"channels": int(store["channels"]), "side": int(store["side"])}
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError, UsageError) as error:
        raise HandfulError(f"does not fit its side-car ({error})", file=weights, fix="train again") from error
    return Saved(classifier.eval(), classes, store, digest)
