"""A trained classifier as files that deploy: ``model.safetensors`` with its side-car ``model.json``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from handful.files import write_atomic
from handful.models.classifier import Classifier, build_classifier
from handful.types import HandfulError, UsageError

FORMAT = "handful-model-1"
WEIGHTS, SIDE_CAR = "model.safetensors", "model.json"
NONE = "none of these"


@dataclass(frozen=True)
class Saved:
    """A classifier from disk.

    Attributes:
        classes: names in the order of the logits.
        store: how pictures are decoded: {"channels": C, "side": S}.
        sha256: of the weights' file.
        reject: an answer with a smaller probability counts as "none of these"; 0: every answer counts.
        info: the side-car, for what else it says.
    """

    classifier: Classifier
    classes: tuple[str, ...]
    store: dict[str, int]
    sha256: str
    reject: float = 0.0
    info: dict[str, Any] = field(default_factory=dict)

    def answer(self, k: int, probability: float) -> str:
        """The name of class ``k``, or ``NONE`` where the model is not sure enough."""
        return NONE if probability < self.reject else self.classes[k]


def save_model(
    folder: Path,
    classifier: Classifier,
    classes: tuple[str, ...],
    channels: int,
    side: int,
    *,
    reject: Mapping[str, Any] | None = None,
) -> str:
    """Write weights and side-car; returns the weights' SHA-256.

    Args:
        reject: {"threshold": …, "rule": …}: when an answer is "none of these" (``stats.reject``).
    """
    content = save(_state(classifier))
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
        "reject": dict(reject or {"threshold": 0.0}),
        "sha256": digest,
    }
    write_atomic(folder / WEIGHTS, content)
    write_atomic(folder / SIDE_CAR, json.dumps(side_car, indent=1, ensure_ascii=False) + "\n")
    return digest


def load_model(path: str | Path) -> Saved:
    """The classifier of a run folder, or of one exported file, in evaluation mode on the CPU.

    Raises:
        UsageError: not a run folder.
        HandfulError: another version's model, or files that were changed (the hash does not fit).
    """
    path = Path(path)
    if path.is_file():
        content, text, weights, side_car = *_read_single(path), path, path
        fix = "export it again"
    else:
        weights, side_car = path / WEIGHTS, path / SIDE_CAR
        if not (weights.exists() and side_car.exists()):
            fix = "give the folder that 'handful fit' made (it holds model.safetensors and model.json)"
            raise UsageError("is not a finished run", file=path, fix=fix)
        content, text = weights.read_bytes(), side_car.read_bytes()
        fix = "restore the file, or train again"
    info = _side_car(text, side_car)
    if hashlib.sha256(content).hexdigest() != info.get("sha256"):
        fix += "; do not use weights from a source you do not trust"
        raise HandfulError("is not the file that was saved (its SHA-256 differs)", file=weights, fix=fix)
    return _build(content, info, weights)


def write_single(saved: Saved, out: Path) -> None:
    """Weights, classes and preprocessing in one safetensors file that ``load_model`` takes: the side-car stands in its
    header."""
    header = {"handful": json.dumps(saved.info, ensure_ascii=False)}
    write_atomic(out, save(_state(saved.classifier), metadata=header))


def size_on_disk(classifier: Classifier) -> int:
    """Bytes of its weights' file."""
    return len(save(_state(classifier)))


def _state(classifier: Classifier) -> dict[str, Tensor]:
    """Its weights as safetensors takes them."""
    return {name: x.detach().cpu().contiguous().clone() for name, x in classifier.state_dict().items()}


def _read_single(path: Path) -> tuple[bytes, bytes]:
    """A file of ``write_single``: the plain weights, which its hash is of, and the side-car from its header."""
    content = path.read_bytes()
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return save(load(content)), header["__metadata__"]["handful"].encode()
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        fix = "give a run folder, or a file of 'handful export --format safetensors'"
        raise UsageError("is not a model that handful exported", file=path, fix=fix) from error


def _side_car(text: bytes, file: Path) -> dict[str, Any]:
    """The side-car's content, if it is one of this version."""
    try:
        info = json.loads(text)
    except ValueError as error:
        fix = "train again or restore the file"
        raise HandfulError(f"is damaged ({error})", file=file, fix=fix) from error
    found = info.get("format") if isinstance(info, dict) else None
    if found != FORMAT:
        raise HandfulError(
            f"was made by another version (format {found!r}, this one reads {FORMAT!r})",
            file=file,
            fix="train again with this version, or use the version that made it",
        )
    return dict(info)


def _build(content: bytes, info: dict[str, Any], weights: Path) -> Saved:
    """Weights into the network that the side-car describes."""
    try:
        state = load(content)
        classifier = build_classifier(info["classifier"])
        classifier.load_state_dict(state)
        classes, store = tuple(info["classes"]), info["store"]
        store = {"channels": int(store["channels"]), "side": int(store["side"])}
        reject = float(info.get("reject", {}).get("threshold", 0.0))
    except (
        SafetensorError,
        RuntimeError,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        UsageError,
    ) as error:
        raise HandfulError(f"does not fit its side-car ({error})", file=weights, fix="train again") from error
    return Saved(classifier.eval(), classes, store, info["sha256"], reject, info)
