"""Feature spaces: frozen features of every picture of a task, and a head on them as a classifier of pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from scipy import sparse
from torch import Tensor, nn

from handful.augment.views import to_input
from handful.inference.features import extract
from handful.models.backbones import create
from handful.models.classifier import Classifier, PixelComponents
from handful.models.heads import Centre, Chain
from handful.randomness import digest, permutation
from handful.recipes.task import Fitted, Task, Workshop

GRAPH_LIMIT = 20_000  # pictures in a neighbour graph; a larger pool is sampled
PHOTO_INPUT = 192  # pixels that frozen backbones see of photographs (benchmarks/results/feature_size.json)
PIXEL_COMPONENTS = 64
PIXEL_SIDE = 32  # larger pictures are shrunk before their pixels are compared


@dataclass
class Space:
    """Features of every picture of the task, centred on the pool and of length 1, and the way to make more.

    Attributes:
        table: float32 [N, D], rows as in ``task.images``.
        backbone: pictures to raw features; ``centre``: raw features to those of the table.
        length: mean length of the centred raw features, before they were scaled to 1.
        graphs: neighbour graphs made so far, by their settings.
    """

    table: Tensor
    backbone: nn.Module
    config: dict[str, Any]
    centre: Centre
    mirror: bool
    length: float
    graphs: dict[tuple[object, ...], tuple[Tensor, sparse.csr_matrix]]


def space(task: Task, workshop: Workshop, name: str, size: int = 0) -> Space:
    """The feature space ``name``: "pixels", or a pretrained backbone that sees pictures of ``size`` px (0: what
    was measured to be best). Made once per run."""
    size = size or (PHOTO_INPUT if task.photographs else 0)
    key = (name, size, digest(task.pool()))
    if key not in workshop.spaces:
        workshop.spaces[key] = _pixels(task) if name == "pixels" else _frozen(task, workshop, name, size)
    found = workshop.spaces[key]
    assert isinstance(found, Space)
    return found


def _frozen(task: Task, workshop: Workshop, name: str, size: int) -> Space:
    config = {"name": name, "n_classes": 0, "channels": 3, "size": size or None}
    backbone = create(name, n_classes=0, pretrained=True, size=size or None).to(workshop.device)
    mirror = task.photographs
    raw = extracted(name, backbone, task, workshop, key=name, mirror=mirror)
    centre = Centre(raw.shape[1]).fit(raw[task.pool()])
    return Space(centre(raw), backbone, config, centre, mirror, _length(raw, centre), {})


def extracted(
    name: str, backbone: nn.Module, task: Task, workshop: Workshop, *, key: str, mirror: bool
) -> Tensor:
    """What a frozen network says of every picture of the task, [N, D]; a resumed run has the same backend again.

    Args:
        name: of the network, in the plan and for the person who waits; ``key``: under which features are kept.
        mirror: average with the features of the mirror images.
    """
    asked = workshop.planned("feature backend asked for", lambda: workshop.feature_backend)
    raw, backend = extract(
        backbone,
        task.images,
        key=f"{key} {task.images.fingerprint}",
        cache=workshop.cache / "features",
        backend=str(workshop.plan.get(f"feature backend of {name}", asked)),
        mirror=mirror,
        progress=lambda done, total: workshop.progress(f"features ({name})", done, total),
    )
    workshop.planned(f"feature backend of {name}", lambda: backend)
    return raw


def _pixels(task: Task) -> Space:
    pool = task.pool()
    some = pool[torch.from_numpy(permutation(len(pool), "components")[:5000])].sort().values
    side = min(task.images.side, PIXEL_SIDE)
    dim = min(PIXEL_COMPONENTS, task.images.channels * side * side, len(some))
    backbone = PixelComponents(task.images.channels, side, dim)
    backbone.fit(to_input(task.images.take(some), backbone.spec))
    everything = torch.arange(len(task.images))
    raw = torch.cat(
        [backbone(to_input(task.images.take(ids), backbone.spec)).features for ids in everything.split(4096)]
    )
    centre = Centre(raw.shape[1]).fit(raw[pool])
    return Space(centre(raw), backbone, backbone.config(), centre, False, _length(raw, centre), {})


def _length(raw: Tensor, centre: Centre) -> float:
    return float((raw - centre.mean).norm(dim=1).mean())


def fitted_head(features: Space, head: nn.Module) -> Fitted:
    """A head on the features of a space, as a classifier of pictures."""
    classifier = Classifier(
        features.backbone, Chain(features.centre, head), features.config, mirror=features.mirror
    )
    return Fitted(classifier, answers(head, features.table))


def answers(head: nn.Module, table: Tensor) -> Callable[[Tensor], Tensor]:
    """Row numbers [n] to a head's logits [n, K] for those rows of a feature table."""

    def logits(ids: Tensor) -> Tensor:
        with torch.inference_mode():
            return torch.as_tensor(head(table[ids]))

    return logits
