"""``handful inspect --model``: a network's cost, sight and gradients as one page; on pictures, which of its layers
transfer and where it looks.

Legend: n pictures, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.augment.views import to_input
from handful.data.images import Images, open_store
from handful.data.manifest import LABELLED, TEST, printable
from handful.data.sources import read_data
from handful.files import write_atomic
from handful.inference.model_file import load_model
from handful.methods.probe import LogisticRegression
from handful.models.backbones import create, find
from handful.models.count import activation_bytes, count, layers
from handful.models.heads import LinearHead
from handful.models.maps import activation_maps, building_blocks, last_map, outputs, pooled, stages
from handful.models.modes import evaluation
from handful.models.paths import gradient_norms, n_joins, paths, train_a_little, without_norms
from handful.models.receptive import Field, effective, fields, places
from handful.models.small import Net
from handful.randomness import generator, permutation
from handful.report.model_figures import overlay
from handful.report.model_page import Effective, ModelLook, Row, render
from handful.report.record import Thumb
from handful.run.begin import at_work
from handful.run.file import versions
from handful.run.places import cache_folder, check_no_run, downloads, folder_for
from handful.run.teller import Teller
from handful.types import InputSpec, UsageError

BATCH, BATCH_OF_PHOTOS, STEPS = 16, 8, 10  # of the short training after which gradients are measured again
PICTURES_OF_PATHS = 4
MOST_PATHS = 60  # shortcuts; with more, path lengths are not measured
PROBED = 600  # labelled pictures, and as many of the test part, that the linear probes see
MAPPED = 8  # pictures with an activation map
AUXILIARY = 0.3  # weight of the auxiliary heads' loss (Szegedy et al. 2015, section 5)
FIELDS = 4  # layers whose effective receptive field is shown


@dataclass(frozen=True)
class ModelInspected:
    """What was measured.

    Attributes:
        folder: holds report.html.
        look: all that the page shows.
    """

    folder: Path
    look: ModelLook


def inspect_model(
    model: str | Path,
    data: Any = None,
    *,
    size: int = 0,
    channels: int = 0,
    pretrained: bool = False,
    seed: int = 0,
    out: str | Path | None = None,
    teller: Teller | None = None,
    command: str = "",
) -> ModelInspected:
    """Look at a network, and write ``report.html``.

    Args:
        model: a name of ``models.backbones``, or the folder of a finished run.
        data: labelled pictures (what ``fit`` takes), for the linear probes and the activation maps; gradients are then
            measured on them, and on handwritten digits otherwise.
        size, channels: of the pictures that the network sees; 0: what it was made for, and colour. A run has its own.
        pretrained: with trained weights.
        out: folder of the page; by default ``runs/NAME-inspect``.

    Raises:
        UsageError: no such network, or one that cannot take such pictures; data without labels.
    """
    with at_work(teller) as teller:
        folder = folder_for(out, data, str(model), "inspect")
        check_no_run(folder)
        pictures = read_pictures(data, seed, teller) if data is not None else digits(seed)
        net, name, weights, own = network(model, len(pictures.classes), size, channels, pretrained, seed)
        look = look_at(net, name, weights, own, pictures, data is not None, teller, printable(command))
        write_atomic(folder / "report.html", render(look))
        return ModelInspected(folder, look)


@dataclass(frozen=True)
class Pictures:
    """Labelled pictures: row numbers and labels of those to learn from and of those to test on (perhaps none)."""

    images: Images
    name: str
    classes: tuple[str, ...]
    rows: Tensor
    y: Tensor
    test: Tensor
    y_test: Tensor


def read_pictures(data: Any, seed: int, teller: Teller) -> Pictures:
    """The labelled and the test pictures of the user's data, at most ``PROBED`` of each."""
    manifest = read_data(data, downloads=downloads())
    images, manifest, _ = open_store(
        manifest, cache_folder(), progress=lambda d, t: teller.progress("reading pictures", d, t)
    )
    labels, parts = torch.from_numpy(manifest.labels), []
    for split in (LABELLED, TEST):
        ids = manifest.ids(split)
        parts.append(torch.from_numpy(ids[np.sort(permutation(len(ids), seed, "probed", split)[:PROBED])]))
    if len(parts[0]) < 2:
        raise UsageError("has no labelled pictures", file=manifest.root, fix="give pictures in class folders")
    rows, test = parts
    return Pictures(images, manifest.name, tuple(manifest.classes), rows, labels[rows], test, labels[test])


def digits(seed: int) -> Pictures:
    """Handwritten digits of scikit-learn, 8 px, for gradients on real pictures without any data."""
    from sklearn.datasets import load_digits

    from handful.data.images import from_array

    x, y = load_digits(return_X_y=True)
    images = from_array(np.round(x * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8))
    rows, labels = torch.arange(len(y)), torch.from_numpy(y.astype(np.int64))
    return Pictures(images, "handwritten digits", tuple("0123456789"), rows, labels, rows[:0], labels[:0])


def network(
    model: str | Path, n_classes: int, size: int, channels: int, pretrained: bool, seed: int
) -> tuple[Net, str, str, tuple[str, ...]]:
    """The network, its name, where its weights come from, and the classes that it knows. A run's keeps its head.

    Raises:
        UsageError: there is no such network, or a run is to be another one than it is.
    """
    if Path(model).is_dir():
        if size or channels or pretrained:
            fix = "leave --size, --channels and --pretrained out, or name the network"
            raise UsageError("a run's network is as it was trained", file=model, fix=fix)
        saved = load_model(model)
        if not isinstance(saved.classifier.backbone, Net):
            raise UsageError(
                "has no network: its features are the pixels", file=model, fix="inspect another run"
            )
        net = saved.classifier.backbone
        if isinstance(saved.classifier.head, nn.Module):
            net.head = saved.classifier.head
        name = f"{saved.classifier.backbone_config['name']} of {Path(model).name}"
        return net, name, "the run's own", saved.classes
    name = str(model)
    if ":" not in name:
        find(name)
    net = create(
        name, n_classes=n_classes, size=size or None, channels=channels or 3, pretrained=pretrained, seed=seed
    )
    return net, name, "pretrained" if pretrained else f"fresh (seed {seed})", ()


def look_at(
    net: Net,
    name: str,
    weights: str,
    own: tuple[str, ...],
    pictures: Pictures,
    given: bool,
    teller: Teller,
    command: str,
) -> ModelLook:
    """Measure everything that the page shows. ``own``: the classes of a run's head; ``given``: the pictures are the
    user's."""
    spec: InputSpec = net.spec
    shape = (spec.channels, spec.size, spec.size)
    tell = steps_told(teller, 5 if given else 4)
    known = fields(net, shape)
    every = layers(net, shape)
    rows = [Row(one.name, one.kind, one.shape, one.counted, known.get(one.name)) for one in every]
    total = count(net, shape)
    held = total.parameters - sum(row.counted.parameters for row in rows)
    tell("effective receptive fields")
    sight = sights(net, shape, known)
    tell("gradients")
    batches = few_batches(pictures, spec, STEPS)
    with evaluation(net), torch.no_grad():
        n_heads = net(batches[0][0][:1]).logits.shape[1]
    if n_heads < len(pictures.classes):
        batches = [(x, y % n_heads) for x, y in batches]
    start, later, losses = gradients(net, shape, batches)
    tell("paths")
    x, y = batches[0]
    few = (x[:PICTURES_OF_PATHS], y[:PICTURES_OF_PATHS])
    fit_for_paths = 0 < n_joins(net.train(), few[0]) <= MOST_PATHS
    found = paths(net, *few) if fit_for_paths else []
    probes: dict[str, float] = {}
    thumbs: list[tuple[Thumb, Thumb]] = []
    probed = kind = ""
    if given:
        tell("linear probes and activation maps")
        probes, probed, head = probe(net, shape, pictures)
        thumbs, kind = looks(net, shape, pictures, own or pictures.classes, None if own else head)
    return ModelLook(
        name, weights, spec.size, spec.channels, total, held, activation_bytes(net, (2, *shape)) // 2,
        blocks_of(net, shape, rows, known), rows, sight, start, later, losses,
        f"{len(x)} pictures of {pictures.name} at {spec.size} px; the second figure after up to {STEPS} steps of SGD",
        found, probes, probed, 1 / len(pictures.classes), thumbs, kind, command, versions(),
    )  # fmt: skip


def steps_told(teller: Teller, n: int) -> Callable[[str], None]:
    """A function that tells which of ``n`` steps begins."""
    done = iter(range(n + 1))
    return lambda what: teller.progress(what, next(done), n)


def blocks_of(net: Net, shape: Sequence[int], rows: Sequence[Row], known: dict[str, Field]) -> list[Row]:
    """The building blocks, each with the sums of its layers."""
    named, blocks = dict(net.named_modules()), []
    for name, out in building_blocks(net, shape).items():
        inner = [r for r in rows if r.name == name or r.name.startswith(f"{name}.")]
        total = type(rows[0].counted)(
            sum(r.counted.parameters for r in inner), sum(r.counted.flops for r in inner)
        )
        field = known.get(name) or (inner[-1].field if inner else None)
        blocks.append(Row(name, type(named[name]).__name__, out, total, field))
    return blocks


def sights(net: Net, shape: tuple[int, int, int], known: dict[str, Field]) -> list[Effective]:
    """Effective receptive fields of up to ``FIELDS`` layers that give a map."""
    shapes = building_blocks(net, shape)
    maps = [
        n
        for n in stages(net, shape)
        if len(shapes[n]) == 4 and shapes[n][2] * shapes[n][3] > 1 and n in known
    ]
    n = min(FIELDS, len(maps))
    chosen = [maps[round((i + 1) * len(maps) / n) - 1] for i in range(n)]
    found = []
    for name in chosen:
        middle = (shapes[name][2] // 2, shapes[name][3] // 2)
        rows, columns = (0, shape[1]), (0, shape[2])
        if not known[name].whole:
            rows, columns = places(known[name], middle, (shape[1], shape[2]))
        values = effective(net, name, shape, n=4).double().numpy()
        found.append(Effective(name, values, rows, columns))
    return found


def few_batches(pictures: Pictures, spec: InputSpec, n: int) -> list[tuple[Tensor, Tensor]]:
    """``n`` batches of prepared pictures; in sets of few pictures they come again."""
    batches, size = [], BATCH if spec.size <= 64 else BATCH_OF_PHOTOS
    for step in range(n):
        chosen = torch.randint(len(pictures.rows), (size,), generator=generator("inspect", step))
        x = to_input(pictures.images.take(pictures.rows[chosen]), spec)
        batches.append((x, pictures.y[chosen]))
    return batches


def gradients(
    net: Net, shape: tuple[int, int, int], batches: list[tuple[Tensor, Tensor]]
) -> tuple[dict[str, list[float]], dict[str, list[float]], dict[str, list[float]]]:
    """Gradient norms by layer before and after a short training, and its losses, each by variant of the network."""
    start, later, losses = {}, {}, {}
    x, y = batches[0]
    norms = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules())
    with torch.no_grad():
        heads = bool(deepcopy(net).train()(x[:2]).auxiliary)
    shortcuts = n_joins(net.train(), x[:2]) > 0
    variants: list[tuple[str, bool, bool, float]] = [("as it is", False, False, AUXILIARY if heads else 0.0)]
    if shortcuts:
        variants.append(("without shortcuts", True, False, 0.0))
    if norms:
        variants.append(("without batch norm", False, True, AUXILIARY if heads else 0.0))
    if shortcuts and norms:
        variants.append(("without both", True, True, 0.0))
    if heads:
        variants.append(("without auxiliary heads", False, False, 0.0))
    for name, plain, bare, weight in variants:
        model = (without_norms(net) if bare else deepcopy(net)).train()
        start[name] = [g.flow for g in gradient_norms(model, x, y, plain=plain, auxiliary_weight=weight)]
        losses[name] = [
            v for v in train_a_little(model, batches, plain=plain, auxiliary_weight=weight) if np.isfinite(v)
        ]
        later[name] = [g.flow for g in gradient_norms(model, x, y, plain=plain, auxiliary_weight=weight)]
    return start, later, losses


def probe(
    net: Net, shape: tuple[int, int, int], pictures: Pictures
) -> tuple[dict[str, float], str, nn.Module]:
    """Logistic regression on each of the ``stages`` and on the features; share right on the test part, or in five-fold
    cross-validation. Also the head that was solved on the features."""
    names, k = stages(net, shape), len(pictures.classes)
    train, test = (
        vectors(net, names, pictures.images, rows) if len(rows) else {}
        for rows in (pictures.rows, pictures.test)
    )
    found: dict[str, float] = {}
    head: nn.Module | None = None
    for name, x in train.items():
        head = solved(x, pictures.y, k)
        found[name] = right(head, test[name], pictures.y_test) if test else crossed(x, pictures.y, k)
    assert head is not None
    how = f"its {len(pictures.test)} test pictures" if test else "five-fold cross-validation"
    told = (
        f"Logistic regression on what each layer gives (maps as means over a grid), {len(pictures.rows)} labelled "
        f"pictures of {pictures.name}; share right on {how}. Layers near the input see edges and colours, layers near "
        "the output what the network was trained to tell apart."
    )
    return found, told, head


def vectors(net: Net, names: list[str], images: Images, rows: Tensor) -> dict[str, Tensor]:
    """What each layer gives, pooled to vectors [n, D], by name; the features last."""
    parts: dict[str, list[Tensor]] = {name: [] for name in [*names, "features"]}
    with evaluation(net), torch.inference_mode():
        for some in rows.split(64):
            found, out = outputs(net, names, to_input(images.take(some), net.spec))
            for name, seen in found.items():
                parts[name].append(pooled(seen))
            parts["features"].append(out.features)
    return {name: torch.cat(some).clone() for name, some in parts.items()}


def solved(x: Tensor, y: Tensor, k: int) -> LinearHead:
    """Logistic regression on vectors [n, D], centred and scaled to length 1 in the mean; the head takes the vectors as
    they are, so that activation maps can be read from its weights."""
    mean = x.mean(0)
    scale = (x - mean).norm(dim=1).mean().clamp(min=1e-12)
    inner = LogisticRegression().fit((x - mean) / scale, y, k)
    assert isinstance(inner, LinearHead)
    head = LinearHead(x.shape[1], k)
    with torch.no_grad():
        head.weight.copy_(inner.weight / scale)
        head.bias.copy_(inner.bias - head.weight @ mean)
    return head


def right(head: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share that a head gets right."""
    with torch.no_grad():
        return float((head(x).argmax(1) == y).double().mean())


def crossed(x: Tensor, y: Tensor, k: int, folds: int = 5) -> float:
    """Share right of a logistic regression in cross-validation."""
    order = torch.from_numpy(permutation(len(y), "folds").copy())
    hits = 0.0
    for fold in range(min(folds, len(y))):
        held = order[fold::folds]
        rest = order[torch.isin(order, held, invert=True)]
        hits += right(solved(x[rest], y[rest], k), x[held], y[held]) * len(held)
    return hits / len(y)


def looks(
    net: Net,
    shape: tuple[int, int, int],
    pictures: Pictures,
    classes: tuple[str, ...],
    head: nn.Module | None,
) -> tuple[list[tuple[Thumb, Thumb]], str]:
    """Pictures with the activation map of the class that they are called; test pictures where there are any.

    ``head``: the probe on the features; None: the network's own head. ``classes``: those that it gives.
    """
    pool = pictures.test if len(pictures.test) else pictures.rows
    rows = pool[torch.from_numpy(permutation(len(pool), "maps")[:MAPPED].copy())]
    raw = pictures.images.take(rows)
    x = to_input(raw, net.spec)
    with evaluation(net), torch.no_grad():
        out = net(x)
        logits = head(out.features) if head is not None else out.logits
    try:
        layer = last_map(net, shape)
    except LookupError as error:
        return [], f"{error}"
    called = logits.argmax(1)
    maps, kind = activation_maps(net, x, called, layer=layer, head=head)
    side = raw.shape[-1]
    grown = F.interpolate(maps[:, None], (side, side), mode="bilinear")[:, 0]
    grown = grown - grown.amin((1, 2), keepdim=True)
    shares = (grown / grown.amax((1, 2), keepdim=True).clamp(min=1e-12)).double().numpy()
    thumbs = []
    for i, picture in enumerate(raw.numpy()):
        caption = classes[int(called[i])]
        thumbs.append(
            (Thumb(picture, caption=caption), Thumb(overlay(picture, shares[i]), caption=f"{caption}: map"))
        )
    own = "the network’s own head" if head is None else "the linear probe on its features"
    return (
        thumbs,
        f"{kind} of {layer}, for the class that {own} gives (below the picture). The more orange, the more a place "
        "spoke for it; each picture has its own scale.",
    )
