"""``handful augment``: the gallery, the search, augmented copies."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from handful.augment.named import make, with_policies
from handful.augment.views import View
from handful.choose.policy_search import SearchOptions, search
from handful.data.images import Images, open_store
from handful.data.manifest import LABELLED, UNLABELLED, Manifest
from handful.data.sources import read_data
from handful.randomness import permutation, uniform
from handful.recipes.task import Task, Workshop
from handful.report import gallery
from handful.run.begin import at_work, device
from handful.run.pictures import Pictures
from handful.run.places import cache_folder, downloads, folder_for
from handful.run.teller import Teller
from handful.types import UsageError

SHOWN = 12  # pictures that the gallery draws from


@dataclass(frozen=True)
class AugmentOptions:
    """What ``augment`` shows, searches and writes.

    Attributes:
        view: the policy that is shown and applied: a view such as weak+randaugment:n=2:m=9, or a policy file.
        search: what is searched; the view found takes the place of ``view``. None: nothing.
        copies: of each picture, where a folder for them is given.
        side: pixels that pictures are stored at, and copies written at (default: by the pictures).
        seed: of every random draw.
    """

    view: str = "weak+randaugment"
    search: SearchOptions | None = None
    copies: int = 5
    side: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Augmented:
    """What was made.

    Attributes:
        folder: gallery.html; after a search also policy.toml and search.jsonl.
        view: the policy shown and applied.
        policy: the policy file of a search.
        written: how many copies.
    """

    folder: Path
    view: str
    policy: Path | None
    written: int


def augment(
    data: Any,
    options: AugmentOptions | None = None,
    *,
    out: str | Path | None = None,
    apply: str | Path | None = None,
    teller: Teller | None = None,
) -> Augmented:
    """A gallery of augmentations on the user's own pictures; where asked for, the policy that suits them (a killed
    search goes on), and augmented copies of the labelled and unlabelled pictures.

    Args:
        data: what ``fit`` takes; only read.
        out: for the gallery and the search; by default ``runs/NAME-augment``.
        apply: folder for the copies.

    Raises:
        UsageError: the data or the options cannot be used as given.
        Interrupted: told to stop; what was measured is kept.
    """
    options = options or AugmentOptions()
    with at_work(teller) as teller:
        manifest = read_data(data, seed=options.seed, downloads=downloads())
        folder = folder_for(out, data, manifest.name, "augment")
        copies = folder_for(apply, data) if apply else None
        view = str(with_policies({"view": options.view})["view"])
        make(view)
        if copies and options.copies < 1:
            raise UsageError("nothing would be written", fix="--copies 1 or more")
        progress = partial(teller.progress, "reading pictures")
        images, manifest, _ = open_store(
            manifest, cache_folder(), side=options.side or None, progress=progress
        )
        pictures = Pictures.of(images, manifest, options.seed)
        task, about = pictures.task, list[tuple[str, str]]()
        teller.tell(pictures.census())
        if options.search:
            workshop = Workshop(cache_folder(), folder, device(), tell=teller.tell, progress=teller.progress)
            found = search(task, workshop, options.search, folder)
            view, about = found.chosen, found.sentences()
            for what, said in about:
                teller.tell(f"{what}: {said}")
        some = classes_in_turn(task, options.seed)[:SHOWN]
        flip = images.channels == 3
        gallery.write(
            folder / "gallery.html",
            images.take(task.labelled[some]),
            [task.classes[int(k)] for k in task.y[some]],
            name=manifest.name,
            view=view,
            about=about,
            flip=flip,
            seed=options.seed,
        )
        written = write_copies(images, manifest, make(view, flip=flip), copies, options) if copies else 0
        return Augmented(folder, view, folder / "policy.toml" if options.search else None, written)


def classes_in_turn(task: Task, seed: int) -> Tensor:
    """Places of the labelled pictures in a random order that shows a picture of each class before a second of any."""
    ranks, seen = [], Counter[int]()
    for place in permutation(len(task.y), seed, "gallery").tolist():
        k = int(task.y[place])
        ranks.append((seen[k], k, place))
        seen[k] += 1
    return torch.tensor([place for _, _, place in sorted(ranks)])


def inside(path: str) -> Path:
    """A picture's path as one that cannot leave the folder it is put below: no root, and "up" for each ".."."""
    parts = Path(path).parts
    return Path(*("up" if part == ".." else part for part in parts if part != Path(path).anchor))


def write_copies(
    images: Images, manifest: Manifest, view: View, folder: Path, options: AugmentOptions
) -> int:
    """Augmented copies as PNG files, in folders named as theirs: ``rose/7.jpg`` becomes ``rose/7-1.png`` and so on
    (``rose/7.jpg-1.png`` where there is a ``rose/7.png`` too). Returns how many."""
    rows = np.sort(np.concatenate([manifest.ids(LABELLED), manifest.ids(UNLABELLED)]))
    paths = [inside(manifest.paths[row]) for row in rows]
    named = Counter(path.with_suffix("") for path in paths)
    for copy in range(1, options.copies + 1):
        u = uniform((len(rows), view.n_draws), options.seed, "copies", copy)
        for first in range(0, len(rows), 256):
            part = slice(first, first + 256)
            for path, x in zip(paths[part], view(images.take(rows[part]), u[part]).numpy()):
                stem = path.with_suffix("") if named[path.with_suffix("")] == 1 else path
                target = folder / f"{stem.as_posix()}-{copy}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(x[0] if len(x) == 1 else x.transpose(1, 2, 0)).save(target)
    return len(rows) * options.copies
