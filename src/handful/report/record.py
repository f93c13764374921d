"""What a run leaves behind for its report: ``metrics.jsonl``, line by line, and ``summary.json``.

Legend: C channels, H height, W width, K classes. Accuracies and confidences are fractions in [0, 1], gains
are differences of accuracies, durations are seconds.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from types import UnionType
from typing import (
    IO,
    Any,
    NamedTuple,
    TypedDict,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from handful.files import write_atomic
from handful.types import HandfulError

T = TypeVar("T")
Row = dict[str, Any]
Curves = dict[str, dict[str, list[tuple[float, float]]]]
"""{stage: {metric: [(step, value)]}}"""

_OWN = ("stage", "step", "time")
FORMAT = 2


class Recorder:
    """Appends one JSON object a line to ``path``: stage, step, time (seconds since 1970) and scalars.

    A line counts once its newline is written, and each is handed to the system at once, so that a killed
    process loses at most the line it was writing. Opening again cuts such a torn line off. In a run of
    many processes only the first may write. Numbers that JSON cannot say (NaN, infinity) become null.
    """

    def __init__(self, path: str | Path, clock: Callable[[], float] = time.time) -> None:
        self.path, self._clock = Path(path), clock
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            os.truncate(self.path, _whole(self.path.read_bytes()))
        self._file: IO[bytes] = open(self.path, "ab")  # noqa: SIM115 - open as long as the recorder

    def write(self, stage: str, step: int, scalars: Mapping[str, Any]) -> None:
        """One line. Values are numbers (or tensors of one element), strings, booleans or None.

        Raises ValueError for a scalar named ``stage``, ``step`` or ``time``.
        """
        taken = [name for name in scalars if name in _OWN]
        if taken:
            raise ValueError(f"these names belong to the recorder: {', '.join(taken)}")
        row = {"stage": stage, "step": int(step), "time": round(self._clock(), 3)}
        row |= {name: _scalar(value) for name, value in scalars.items()}
        self._file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def truncate_after(self, stage: str, step: int) -> None:
        """Forget what was written after ``step`` of ``stage``, which is about to be run again from there.

        Lines stand in the order of events: what follows the last line of ``stage`` at or before ``step``
        goes, later stages too. Without such a line, the cut is before the stage's first one.
        """
        end = offset = 0
        found = False
        for line in self.path.read_bytes().splitlines(keepends=True):
            row = _row(line, self.path)
            offset += len(line)
            mine = row["stage"] == stage
            if mine and row["step"] > step:
                break
            if (mine and row["step"] <= step) or not found:
                end = offset
            found = found or mine
        self._file.flush()
        os.truncate(self.path, end)

    def close(self) -> None:
        """Write to the disk itself and close."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def read(path: str | Path) -> list[Row]:
    """The rows of a ``metrics.jsonl``; a last line without its newline is ignored, as a kill left it.

    Raises HandfulError with the line's number where any other line is not a JSON object.
    """
    data = Path(path).read_bytes()
    return [_row(line, f"{path}:{n}") for n, line in enumerate(data[: _whole(data)].splitlines(), start=1)]


def curves(rows: Iterable[Row]) -> Curves:
    """Rows of ``metrics.jsonl`` regrouped for drawing; what is not a finite number is left out."""
    out: Curves = {}
    for row in rows:
        for name, value in row.items():
            if name not in _OWN and _is_number(value):
                series = out.setdefault(str(row.get("stage", "")), {}).setdefault(name, [])
                series.append((row.get("step", 0), value))
    return out


@dataclass
class Tried:
    """One recipe that was tried. ``None`` means "not measured", and the page leaves it out."""

    name: str
    uses_unlabelled: bool = False
    cv_accuracy: float | None = None
    cv_interval: tuple[float, float] | None = None
    difference: float | None = None
    """Paired gain over the labelled-only baseline in cross-validation."""
    difference_interval: tuple[float, float] | None = None
    prior_mean: float | None = None
    """Gain over the baseline that is expected before looking at these pictures."""
    prior_sd: float | None = None
    posterior_mean: float | None = None
    """Prior and cross-validation together, in the same unit as ``prior_mean``."""
    posterior_sd: float | None = None
    seconds: float | None = None
    chosen: bool = False
    baseline: bool = False
    test_accuracy: float | None = None
    """Measured after the choice, never used for it."""
    note: str = ""
    words: str = ""
    """The recipe in plain words."""


@dataclass(eq=False)
class Thumb:
    """A small picture: ``image`` uint8 [C, H, W] (C = 1, 3, 4). Raises ValueError for another kind."""

    image: NDArray[np.uint8]
    caption: str = ""
    label: str = ""
    """What the model says."""
    truth: str | None = None
    confidence: float | None = None

    def __post_init__(self) -> None:
        if self.image.dtype != np.uint8 or self.image.ndim != 3 or self.image.shape[0] not in (1, 3, 4):
            raise ValueError(f"expected uint8 [1, 3 or 4, H, W], got {self.image.dtype} {self.image.shape}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Thumb):
            return NotImplemented
        mine, theirs = ((t.caption, t.label, t.truth, t.confidence) for t in (self, other))
        return mine == theirs and np.array_equal(self.image, other.image)

    @classmethod
    def of_mean(cls, pictures: Tensor, label: str) -> Thumb:
        """The mean of pictures, uint8 [n, C, H, W]."""
        mean = pictures.float().mean(0).round().to(torch.uint8)
        return cls(mean.numpy(), caption=f"mean of {len(pictures)}", label=label)

    def to_pil(self, largest: int | None = None) -> Image.Image:
        """As a Pillow picture, shrunk so that no side is longer than ``largest`` px."""
        array = self.image[0] if self.image.shape[0] == 1 else self.image.transpose(1, 2, 0)
        picture = Image.fromarray(np.ascontiguousarray(array))
        if largest is not None:
            picture.thumbnail((largest, largest), Image.Resampling.LANCZOS)
        return picture


class ConfusedPair(NamedTuple):
    """``n`` pictures of class ``truth`` were called ``predicted``; some of them as thumbnails."""

    truth: str
    predicted: str
    n: int
    thumbs: list[Thumb]


class Reliability(TypedDict):
    """Bins (mean confidence, accuracy, n) and expected calibration error, before and after scaling."""

    before: list[tuple[float, float, int]]
    after: list[tuple[float, float, int]]
    ece_before: float
    ece_after: float
    temperature: float


class Audit(TypedDict, total=False):
    """What became of the unlabelled pictures. Leave out what is not known."""

    n_unlabelled: int
    n_used: int
    threshold: float
    mean_confidence: float
    accuracy: float
    """Of the used pseudo-labels, where truth is known."""
    interval: tuple[float, float]
    bins: list[tuple[float, float, int, float | None]]
    """(confidence from, to, pictures used, fraction right or None)"""
    per_class: dict[str, tuple[int, float | None]]
    """{class: (pictures used, fraction right or None)}"""
    n_checked: int
    """How many pictures ``accuracy`` was measured on, where those are others than the used ones."""
    note: str


class Round(TypedDict):
    """One network of a chain in which each labels pictures for the next, on labelled pictures that none of it saw."""

    name: str
    right: float
    interval: tuple[float, float]
    n: int
    gain: tuple[float, float, float] | None
    """Over the network that taught it, with the ends of its 95 % interval; None for the first."""
    sure: int
    """So many of the n would have been labels for the next network, if the confidence alone decided."""
    sure_right: float | None
    """Share of those that are right; None for fewer than a few."""


class OwnCurve(TypedDict):
    """Accuracy of one cheap recipe against labels per class on the user's own pictures, and what more would bring."""

    name: str
    measured: list[tuple[int, float]]
    """(labels per class, accuracy in cross-validation)"""
    expected: list[tuple[int, float, float, float]]
    """(labels per class, accuracy, ends of its 95 % interval)"""
    more: list[tuple[int, float, float, float]]
    """(further labels in all, gain over now, ends of its 95 % interval)"""
    advice: str


class Problem(NamedTuple):
    """Something about a file that a person should look at, with the pictures that it is about."""

    file: str
    reason: str
    suggestion: str = ""
    kind: str = ""
    thumbs: list[Thumb] = []  # noqa: RUF012 - never changed


class Extra(NamedTuple):
    """A section of its own: a table with words before and after it. Cells are text."""

    title: str
    words: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""


@dataclass
class Summary:
    """Everything that the report shows. An empty or ``None`` field leaves its section out."""

    title: str = "Image classifier"
    data_name: str = ""
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """{class: {split: pictures}}; unlabelled pictures have no class and are not in here."""
    n_labelled: int = 0
    n_unlabelled: int = 0
    n_validation: int = 0
    n_test: int = 0
    classes: list[str] = field(default_factory=list)
    headline_accuracy: float | None = None
    headline_interval: tuple[float, float] | None = None
    measured_on: str = ""
    """Completes "right ... of the time, measured by/on": "cross-validation on 40 labelled pictures"."""
    tried_on: str = "cross-validation"
    """What the recipes in ``tried`` were compared by: that, or "validation pictures"."""
    verdict: str = ""
    """One paragraph. Empty: the page words one from ``tried``."""
    decision_rule: str = ""
    asked_for: bool = False
    """The recipe was named by the user; nothing was chosen."""
    tried: list[Tried] = field(default_factory=list)
    curves: Curves = field(default_factory=dict)
    confusion: list[list[int]] | None = None
    """[K, K] counts: row = true class, column = predicted class, in the order of ``classes``."""
    confusion_on: str = ""
    balanced_accuracy: float | None = None
    macro_f1: float | None = None
    """Both of what ``confusion`` counts."""
    confused_pairs: list[ConfusedPair] = field(default_factory=list)
    mistakes: list[Thumb] = field(default_factory=list)
    """Wrong ones, the most confident first."""
    least_sure: list[Thumb] = field(default_factory=list)
    """Unlabelled ones worth a label, the most useful first."""
    mean_pictures: dict[str, Thumb] = field(default_factory=dict)
    reliability: Reliability | None = None
    reliability_on: str = ""
    audit: Audit | None = None
    rounds: list[Round] = field(default_factory=list)
    next_steps: list[str] = field(default_factory=list)
    issues: list[Problem] = field(default_factory=list)
    """The first of the data's problems; ``n_issues`` counts all of them by kind."""
    n_issues: dict[str, int] = field(default_factory=dict)
    own_curve: OwnCurve | None = None
    extras: list[Extra] = field(default_factory=list)
    """What only some verbs tell; after the table of what was tried."""
    reject: dict[str, Any] = field(default_factory=dict)
    """When an answer is "none of these": {"threshold": …, "right_answers": …, "rule": …}."""
    provenance: dict[str, str] = field(default_factory=dict)
    command: str = ""

    def to_json(self) -> str:
        """Plain JSON; pictures as base64 PNG; NaN and infinity as null."""
        return json.dumps({"format": FORMAT} | _plain(self), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Summary:
        """The inverse of ``to_json``. Raises HandfulError for another format or unknown fields."""
        try:
            d = json.loads(text)
            found = d.pop("format", None)
            if found != FORMAT:
                raise HandfulError(
                    f"summary of format {found}, this version reads {FORMAT}", fix="run it again"
                )
            d["curves"] = {
                stage: {name: [pair for pair in pairs if None not in pair] for name, pairs in metrics.items()}
                for stage, metrics in d["curves"].items()
            }
            summary: Summary = typed(cls, d)
            return summary
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise HandfulError(
                f"not a summary of a run ({error})", fix="run the same command again"
            ) from error

    def save(self, path: str | Path) -> None:
        """``to_json`` into a file, whole or not at all."""
        write_atomic(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Summary:
        """``from_json`` of a file."""
        return cls.from_json(Path(path).read_text("utf-8"))


def _whole(data: bytes) -> int:
    """Length of the part of ``data`` that ends with a newline."""
    return data.rfind(b"\n") + 1


def _row(line: bytes, place: object) -> Row:
    """One line of ``metrics.jsonl`` as a dictionary. Raises HandfulError."""
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        fix = "remove that line, or the file: it only feeds the curves of the report"
        raise HandfulError("this line is not a JSON object", file=place, fix=fix)
    return row


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _scalar(value: Any) -> float | int | str | bool | None:
    """A number, also out of a NumPy scalar or a tensor of one element; not finite: None."""
    if hasattr(value, "item"):
        value = value.item()
    if value is None or isinstance(value, (str, bool, int)):
        return value
    return float(value) if math.isfinite(value) else None


def _plain(value: Any) -> Any:
    """Dataclasses, tuples and NumPy values as what JSON knows."""
    if isinstance(value, Thumb):
        png = io.BytesIO()
        value.to_pil().save(png, "PNG", optimize=True)
        image = base64.b64encode(png.getvalue()).decode("ascii")
        return vars(value) | {"image": image, "confidence": _scalar(value.confidence)}
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return _plain(value.tolist()) if isinstance(value, np.ndarray) else _scalar(value)


def typed(kind: Any, value: Any) -> Any:
    """What ``json.loads`` gives as the type that it was written from: dataclasses, named tuples, typed and other
    dictionaries, lists, tuples, and optional ones of these. A tuple with a null in it was not finite: None.

    Raises:
        KeyError, TypeError, ValueError: it is of another type.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        known = value is not None and not (get_origin(inner[0]) is tuple and None in value)
        return typed(inner[0], value) if known else None
    if origin is tuple:
        return kind(map(typed, repeat(inner[0]) if inner[-1] is Ellipsis else inner, value))
    if origin is list:
        return kind(typed(inner[0], one) for one in value)
    if origin is dict:
        return kind({name: typed(inner[1], one) for name, one in value.items()})
    if kind is Thumb:
        with Image.open(io.BytesIO(base64.b64decode(value["image"])), formats=["PNG"]) as picture:
            array = np.asarray(picture)
        image = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
        return kind(**{**value, "image": np.ascontiguousarray(image)})
    if dataclasses.is_dataclass(kind) or is_typeddict(kind):
        hints = get_type_hints(kind)
        return kind(**{name: typed(hints[name], one) for name, one in value.items()})
    if isinstance(kind, type) and issubclass(kind, tuple):
        return kind(*map(typed, get_type_hints(kind).values(), value))
    return value


def read_typed(kind: type[T], file: Path, fix: str) -> T:
    """A JSON file as the type that it was written from.

    Raises:
        HandfulError: it is missing or damaged; ``fix`` says what to do.
    """
    try:
        found: T = typed(kind, json.loads(file.read_text("utf-8")))
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise HandfulError(f"is damaged ({error})", file=file, fix=fix) from error
