"""``handful inspect``: the audit, the distributions and, against another set, the gap, as one page."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from handful.augment.tensors import gray
from handful.data import gap as gaps
from handful.data.audit import audit, in_order, save_issues
from handful.data.gap import Gap, Measures
from handful.data.images import Images, from_array, header, open_store
from handful.data.manifest import LABELLED, UNLABELLED, Issue, Manifest, printable, read_pile
from handful.data.sources import read_data
from handful.files import write_atomic
from handful.randomness import key, permutation
from handful.recipes.task import Task, Workshop
from handful.report.inspect import Look, Side, render
from handful.run.begin import at_work
from handful.run.file import versions
from handful.run.issues import doubted
from handful.run.places import cache_folder, check_no_run, check_outside, downloads, folder_for
from handful.run.teller import Teller
from handful.types import Interrupted, UsageError

MEASURED = 5000  # pictures that the distributions are of
JUDGED = 2000  # labelled pictures whose labels are judged
COMPARED, COMPARED_PHOTOS = 2000, 500  # pictures of each set that a gap is measured on
FEWEST = 20
PHOTO_INPUT = 128  # pixels of photographs for the gap

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Inspected:
    """What was found.

    Attributes:
        folder: report.html and issues.csv.
        issues: gravest first.
        gap: where another set was given.
    """

    folder: Path
    issues: tuple[Issue, ...]
    gap: Gap | None


def read_any(data: Any) -> tuple[Manifest, list[Issue]]:
    """What ``read_data`` reads; a folder that cannot be learnt from is still looked at, and the reason is an issue."""
    try:
        return read_data(data, downloads=downloads()), []
    except UsageError as error:
        if not isinstance(data, (str, Path)) or not Path(data).is_dir():
            raise
        return read_pile(data), [Issue(str(error.file or data), error.reason, error.fix, "fatal")]


def inspect(
    data: Any,
    against: Any = None,
    *,
    out: str | Path | None = None,
    teller: Teller | None = None,
    command: str = "",
) -> Inspected:
    """Look at data before anything is trained: a page, ``issues.csv``, and the distance to another set.

    Args:
        data: what ``fit`` takes, or a folder of pictures without classes.
        against: another set.
        out: folder of the page; by default ``runs/NAME-inspect``.

    Raises:
        UsageError: there are no pictures, or too few to compare; or ``out`` is a run's folder, or among the pictures.
    """
    with at_work(teller) as teller:
        cache, progress = cache_folder(), teller.progress
        manifest, issues = read_any(data)
        other = None if against is None else read_any(against)[0]
        folder = folder_for(out, data, manifest.name, "inspect")
        check_outside(folder, against)
        check_no_run(folder)
        images, manifest, unreadable = open_store(manifest, cache, progress=partial(progress, "reading"))
        issues += audit(manifest, images, unreadable, partial(progress, "looking for copies"))
        if len(manifest.classes) > 1:
            workshop = Workshop(cache=cache, folder=folder, progress=progress)
            issues += _doubted(manifest, images, workshop)
        issues = in_order(issues)
        rows = sample(len(images), MEASURED, "measured")
        found = None
        if other is not None:
            images_2, other, _ = open_store(other, cache, progress=partial(progress, "reading the other"))
            sides = (
                Side(manifest, images, sample(len(images), COMPARED, "gap")),
                Side(other, images_2, sample(len(images_2), COMPARED, "gap")),
            )
            found = compare_sets(*sides, cache, progress)
        measures = gaps.measures(images, torch.from_numpy(rows))
        sizes = original_sizes(manifest, rows)
        look = Look(
            manifest, images, issues, rows, measures, sizes, found, printable(command), versions()
        )  # fmt: skip
        save_issues(issues, folder / "issues.csv")
        write_atomic(folder / "report.html", render(look))
        return Inspected(folder, tuple(issues), found[0] if found else None)


def sample(n: int, most: int, name: str) -> NDArray[np.int64]:
    """At most ``most`` of n row numbers, sorted; always the same."""
    return np.sort(permutation(n, name)[:most])


def _doubted(manifest: Manifest, images: Images, workshop: Workshop) -> list[Issue]:
    """Suspect labels among at most ``JUDGED`` labelled pictures."""
    labelled = manifest.ids(LABELLED)
    judged = labelled[sample(len(labelled), JUDGED, "judged")]
    at, y = torch.from_numpy(judged), torch.from_numpy(manifest.labels[judged])
    whole = Task(images, at, y, at[:0], manifest.classes)
    others = np.empty(0, np.int64)
    if not whole.photographs:  # as in a run, the components of plain pixels come from all that is learnt from
        rest = np.setdiff1d(np.flatnonzero(np.isin(manifest.splits, (LABELLED, UNLABELLED))), judged)
        others = rest[sample(len(rest), MEASURED, "others")]
    rows = np.concatenate([judged, others])
    some = from_array(
        images.take(rows).numpy(),
        [manifest.paths[row] for row in rows],
        f"{key(images.fingerprint, rows.tobytes()):016x}",
    )
    numbers, n = torch.arange(len(rows)), len(judged)
    task = replace(whole, images=some, labelled=numbers[:n], unlabelled=numbers[n:])
    return doubted(task, judged, manifest, workshop)


def compare_sets(first: Side, second: Side, cache: Path, progress: Progress) -> tuple[Gap, Side, Side]:
    """Both sets brought to one size and kind of colour, and the gap between equally many of each.

    Raises:
        UsageError: one has too few pictures.
    """
    channels = min(first.images.channels, second.images.channels)
    side = min(first.images.side, second.images.side)
    photographs = channels == 3 and side >= 64
    n = min(len(first.rows), len(second.rows), COMPARED_PHOTOS if photographs else COMPARED)
    if n < FEWEST:
        few = first if len(first.rows) < len(second.rows) else second
        raise UsageError(
            f"{few.manifest.name} has {len(few.rows)} pictures: too few to compare sets",
            fix=f"give at least {FEWEST} of each",
        )
    sides = [replace(one, rows=one.rows[sample(len(one.rows), n, "equal")]) for one in (first, second)]
    pixels = [from_array(_common(one.images, one.rows, side, channels)) for one in sides]
    everything = torch.arange(n)
    figures = [gaps.measures(images, everything) for images in pixels]
    names = list(figures[0])
    looks = gaps.components(*(gaps.looks(images, everything) for images in pixels))
    features = [torch.cat([x, gaps.as_features(f, names)], 1) for x, f in zip(looks, figures)]
    if photographs:
        deep = [_deep(images, cache, progress) for images in pixels]
        features = [torch.cat([x, d], 1) for x, d in zip(features, deep)]
    for f, one in zip(figures, sides):
        sizes = original_sizes(one.manifest, one.rows)
        f |= {f"{name} of the files, pixels": values for name, values in sizes.items() if len(values) == n}
    return gaps.gap((features[0], figures[0]), (features[1], figures[1])), sides[0], sides[1]


def _common(images: Images, rows: NDArray[np.int64], side: int, channels: int) -> NDArray[np.uint8]:
    out = []
    for some in torch.from_numpy(rows).split(512):
        x = images.take(some)
        if x.shape[1] > channels:
            x = gray(x).round().to(torch.uint8)
        if images.side != side:
            x = F.interpolate(x, (side, side), mode="bicubic", antialias=True)
        out.append(x)
    return np.asarray(torch.cat(out).numpy())


def _deep(images: Images, cache: Path, progress: Progress) -> Tensor:
    """Features of the packaged pretrained network, float32 [n, 1280]."""
    from handful.inference.features import extract
    from handful.models.backbones import create

    return extract(
        create("lite0", n_classes=0, pretrained=True, size=PHOTO_INPUT),
        images,
        key=f"lite0 {images.fingerprint}",
        cache=cache / "features",
        progress=lambda d, t: progress("features (lite0)", d, t),
    ).values


def original_sizes(manifest: Manifest, rows: NDArray[np.int64]) -> Measures:
    """Width and height of the originals of some rows, where their headers can be read, float64."""
    sizes = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for row in rows:
            try:
                with header(manifest.picture(int(row))) as picture:
                    sizes.append(picture.size)
            except Interrupted:
                raise
            except Exception:
                continue  # gone since it was decoded; a figure of sizes can do without it
    table = np.array(sizes, dtype=np.float64).reshape(-1, 2)
    return {"width": table[:, 0], "height": table[:, 1]}
