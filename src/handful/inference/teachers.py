"""Teachers from all that can answer: saved runs, published networks, ONNX files, stored predictions.

Legend: B pictures, C channels, S pixels a side, n stored predictions, K classes.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handful.augment.views import to_input
from handful.inference.backends import fingerprint
from handful.inference.model_file import Saved, load_model
from handful.inference.onnx import open_session
from handful.models.backbones import BACKBONES, create
from handful.models.classifier import Classifier
from handful.models.libraries import timm_config
from handful.models.teacher import Answer, FrozenTeacher, gray
from handful.types import HandfulError, InputSpec, Interrupted, Output, UsageError, did_you_mean

KINDS = "a run's folder, lite0, timm:NAME, torchvision:NAME, a .onnx file, or predictions as .csv or .npz"
OWN = "handful.classes"  # in the metadata of our ONNX files
LEAST = 1e-30  # of a probability, before its logarithm is taken


@dataclass(frozen=True)
class Onnx:
    """How to use an ONNX file that handful did not make.

    Attributes:
        classes: names in the order of its output, separated by commas; or a text file with one a line.
        size: pixels a side of its input; 0 takes what the file says.
        mean, std: of its input, (x / 255 - mean) / std.
        gives: "logits" or "probabilities".
    """

    classes: str = ""
    size: int = 0
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    gives: str = "logits"


@dataclass(frozen=True)
class Stored:
    """Predictions by a picture's name: ``log_p`` [n, K], and where each name stands."""

    log_p: Tensor
    row_of: dict[str, int]
    file: Path

    def of(self, names: Sequence[str]) -> Tensor:
        """log p [len(names), K].

        Raises:
            UsageError: a picture has no prediction.
        """
        missing = [name for name in names if name not in self.row_of]
        if missing:
            raise UsageError(
                f"has no prediction for {len(missing):,} of {len(names):,} pictures, such as {missing[0]}",
                file=self.file,
                fix="give one row for every picture, with paths relative to the data's folder",
            )
        return self.log_p[torch.tensor([self.row_of[name] for name in names], dtype=torch.int64)]


@dataclass(frozen=True)
class Teacher:
    """Someone who answers for pictures.

    Attributes:
        name: as the user gave it.
        fingerprint: identifies its answers.
        side: pixels that it wants pictures decoded at, as ``handful predict`` would; 0: any.
        answer: of decoded pictures; None where only ``stored`` predictions are known.
        saved: the network and how it is fed, where it is one of PyTorch; for its size and speed.
        file, onnx: where it is a file, and how it is used.
    """

    name: str
    classes: tuple[str, ...]
    fingerprint: str
    side: int = 0
    answer: Answer | None = None
    saved: Saved | None = None
    stored: Stored | None = None
    file: Path | None = None
    onnx: Onnx | None = None


def read_teacher(
    word: str | Path, onnx: Onnx | None = None, device: str = "cpu", threads: int = 0
) -> Teacher:
    """The teacher of this name or at this place.

    Args:
        threads: of an ONNX file; 0 leaves their number to the runtime.

    Raises:
        UsageError: there is none, or it cannot be used as given.
        HandfulError: it is damaged, or its weights cannot be had.
    """
    name, path = str(word), Path(word)
    ending = path.suffix.lower()
    if os.path.isdir(path) or (os.path.isfile(path) and ending == ".safetensors"):
        return _network(name, load_model(path), device)
    if os.path.isfile(path):
        if ending == ".onnx":
            return _onnx(path, onnx or Onnx(), threads)
        if ending in (".csv", ".npz"):
            return _stored(path)
        raise UsageError("is not a kind of teacher that is read", file=path, fix=f"give {KINDS}")
    if name in BACKBONES or name.partition(":")[0] in ("timm", "torchvision"):
        return _published(name, device)
    fix = f"{did_you_mean(name, BACKBONES)} Give {KINDS}".strip()
    raise UsageError("there is no such run, file or network", file=name, fix=fix)


def _network(name: str, saved: Saved, device: str) -> Teacher:
    store = saved.store
    answer = FrozenTeacher(saved.classifier, saved.classifier.spec, store["channels"], device)
    return Teacher(name, saved.classes, saved.sha256, store["side"], answer, saved)


def _published(name: str, device: str) -> Teacher:
    """A network with the weights and the classes that its authors trained."""
    source, _, inner = name.partition(":")
    n_classes = timm_config(inner).num_classes if source == "timm" else 1000
    if not n_classes:
        fix = "choose one with classes, or fit one on your classes: handful fit DATA --features timm:…"
        raise UsageError(f"'{name}' has features, but no classes to teach", fix=fix)
    net = create(name, n_classes=n_classes, pretrained=True)
    classes = imagenet_classes() if n_classes == 1000 else tuple(f"class-{k:05d}" for k in range(n_classes))
    config = {"name": name, "n_classes": n_classes, "channels": net.spec.channels, "size": net.spec.size}
    classifier = Classifier(net, None, config)  # net keeps its own classifier: n_classes is its authors'
    saved = Saved(classifier, classes, {"channels": 3, "side": net.spec.size}, fingerprint(net))
    found = _network(name, saved, device)
    return Teacher(name, classes, found.fingerprint, 0, found.answer, saved)


def imagenet_classes() -> tuple[str, ...]:
    """The names of ImageNet's 1,000 classes in their usual order; two that are alike get a number."""
    from torchvision.models import ResNet18_Weights

    seen: dict[str, int] = {}
    names = []
    for name in ResNet18_Weights.DEFAULT.meta["categories"]:
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(names)


def _onnx(path: Path, options: Onnx, threads: int) -> Teacher:
    """An ONNX file: ours says everything itself, another one needs ``options``."""
    content = path.read_bytes()
    session, digest = open_session(path, content, threads), hashlib.sha256(content).hexdigest()
    about = session.get_modelmeta().custom_metadata_map
    first = session.get_inputs()[0]
    if OWN in about:
        classes = tuple(json.loads(about[OWN]))
        answer = _own_file(session, int(first.shape[1]))
        return Teacher(str(path), classes, digest, answer=answer, file=path, onnx=options)
    classes = class_names(options.classes)
    fix = "--onnx.classes rose,tulip --onnx.size 224 --onnx.mean … --onnx.std … --onnx.gives logits"
    if not classes:
        raise UsageError("does not say its classes: handful did not make it", file=path, fix=fix)
    shape = list(first.shape)
    if len(shape) != 4 or first.type != "tensor(float)" or shape[1] not in (1, 3):
        raise UsageError(
            f"takes {first.type} {shape}, not pictures float [N, 1 or 3, S, S]",
            file=path,
            fix="export it with such an input, or store its predictions in a table and give that",
        )
    fixed = shape[2] if isinstance(shape[2], int) else 0
    if options.size and fixed and options.size != fixed:
        raise UsageError(
            f"takes pictures of {fixed} px, not of {options.size}", file=path, fix="leave --onnx.size out"
        )
    if min(options.std) <= 0:
        raise UsageError("--onnx.std must be above 0: pictures are divided by it", fix=fix)
    size = options.size or fixed
    if not size:
        raise UsageError("does not say the size of its input", file=path, fix=fix)
    if options.gives not in ("logits", "probabilities"):
        fix = "--onnx.gives logits or probabilities"
        raise UsageError(f"'{options.gives}' is nothing that it can give", fix=fix)
    channels = int(shape[1])
    mean, std = (_per_channel(values, channels) for values in (options.mean, options.std))
    batch = shape[0] if isinstance(shape[0], int) else 0
    spec = InputSpec(size, channels, mean, std)
    answer = _foreign_file(session, spec, batch, options.gives == "logits", classes, path)
    mark = hashlib.sha256(f"{digest}{options}".encode()).hexdigest()
    return Teacher(str(path), classes, mark, answer=answer, file=path, onnx=options)


def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return values if len(values) == channels else (sum(values) / len(values),) * channels


def _own_file(session: Any, channels: int) -> Answer:
    def answer(pixels: Tensor) -> Output:
        x = gray(pixels) if channels == 1 else pixels.expand(-1, 3, -1, -1)
        (p,) = session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(x.cpu().numpy())})
        return _nameless(torch.from_numpy(p).clamp_min(LEAST).log(), pixels)

    return answer


def _foreign_file(
    session: Any, spec: InputSpec, batch: int, logits: bool, classes: tuple[str, ...], path: Path
) -> Answer:
    """``batch``: how many pictures it takes at once, no more and no fewer; 0: any number."""
    name = session.get_inputs()[0].name

    def answer(pixels: Tensor) -> Output:
        x = to_input(pixels.cpu(), spec)
        short = -len(x) % batch if batch else 0
        whole = torch.cat([x, x[-1:].expand(short, -1, -1, -1)]) if short else x
        try:
            parts = [session.run(None, {name: part.numpy()})[0] for part in whole.split(batch or len(x))]
        except Interrupted:
            raise
        except Exception as error:  # the runtime has classes of its own for each reason; it is passed on
            first = str(error).strip().splitlines()[0]
            raise HandfulError(f"cannot answer for these pictures ({first})", file=path) from error
        z = torch.from_numpy(np.concatenate(parts)).float().flatten(1)[: len(x)]
        if z.shape[1] != len(classes):
            fix = "name all of them, in the order of its output, with --onnx.classes"
            raise UsageError(f"gives {z.shape[1]} numbers for {len(classes)} classes", file=path, fix=fix)
        return _nameless(z.log_softmax(1) if logits else z.clamp_min(LEAST).log(), pixels)

    return answer


def _nameless(log_p: Tensor, like: Tensor) -> Output:
    """An answer without features, on the device of the pictures."""
    log_p = log_p.to(like.device)
    return Output(log_p[:, :0], log_p)


def class_names(text: str) -> tuple[str, ...]:
    """Names separated by commas, or the lines of a file."""
    if text and os.path.isfile(text):
        return tuple(line.strip() for line in Path(text).read_text("utf-8").splitlines() if line.strip())
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _stored(path: Path) -> Teacher:
    """Predictions: a table with a column ``path`` and one for each class, or arrays ``paths``, ``p``, ``classes``."""
    names, classes, p = _from_csv(path) if path.suffix.lower() == ".csv" else _from_npz(path)
    if len(set(names)) != len(names):
        raise UsageError("has two rows for one picture", file=path, fix="leave one row for each")
    bad = ~np.isfinite(p).all(1) | (p < 0).any(1) | (np.abs(p.sum(1) - 1) > 0.01)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        reason = f"the row of {names[row]} holds no probabilities (they are at least 0, and 1 in sum)"
        raise UsageError(reason, file=path, fix="store probabilities, not logits or percent")
    log_p = torch.from_numpy(p).clamp_min(LEAST).log().float()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    stored = Stored(log_p, {name: row for row, name in enumerate(names)}, path)
    return Teacher(str(path), tuple(classes), digest, stored=stored, file=path)


def _from_csv(path: Path) -> tuple[list[str], list[str], np.ndarray]:
    fix = "write a header 'path,CLASS,CLASS,…' and a probability in each cell"
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header, *rows = [row for row in csv.reader(file, strict=True) if row]
        if "path" not in header or len(header) < 3:
            raise UsageError("has no column 'path' with two classes or more beside it", file=path, fix=fix)
        at = header.index("path")
        names = [row[at] for row in rows]
        cells = [[float(cell) for i, cell in enumerate(row) if i != at] for row in rows]
        p = np.array(cells, dtype=np.float64).reshape(len(rows), len(header) - 1)
    except (csv.Error, ValueError, IndexError) as error:
        raise UsageError(f"is not a table of predictions ({error})", file=path, fix=fix) from error
    return names, [name for i, name in enumerate(header) if i != at], p


def _from_npz(path: Path) -> tuple[list[str], list[str], np.ndarray]:
    fix = "np.savez(FILE, paths=names [n], p=probabilities [n, K], classes=names [K])"
    try:
        with np.load(path, allow_pickle=False) as table:
            names, classes = ([str(x) for x in table[key]] for key in ("paths", "classes"))
            p = np.asarray(table["p"], dtype=np.float64)
    except (KeyError, ValueError, OSError) as error:
        raise UsageError(f"is not a table of predictions ({error})", file=path, fix=fix) from error
    if p.shape != (len(names), len(classes)):
        raise UsageError(
            f"has p {list(p.shape)} for {len(names)} paths and {len(classes)} classes", file=path, fix=fix
        )
    return names, classes, p


def agreed_classes(teachers: Sequence[Teacher]) -> tuple[str, ...]:
    """The classes of the first teacher, which all must have, in any order.

    Raises:
        UsageError: one has others.
    """
    first, *others = teachers
    for other in others:
        if set(other.classes) != set(first.classes):
            odd = sorted(set(other.classes) ^ set(first.classes))[0]
            raise UsageError(
                f"has other classes than {first.name} ('{odd}' is in one of them only)",
                file=other.name,
                fix="teachers of one student must know the same classes",
            )
    return first.classes


def reordered(log_p: Tensor, have: Sequence[str], want: Sequence[str]) -> Tensor:
    """log p [n, K] with its columns in another order of the same classes."""
    if tuple(have) == tuple(want):
        return log_p
    place = {name: k for k, name in enumerate(have)}
    return log_p[:, torch.tensor([place[name] for name in want])]


def in_order(answer: Answer, have: Sequence[str], want: Sequence[str]) -> Answer:
    """The same answers with their classes in another order."""

    def answer_in_order(pixels: Tensor) -> Output:
        out = answer(pixels)
        return Output(out.features, reordered(out.logits, have, want))

    return answer if tuple(have) == tuple(want) else answer_in_order
