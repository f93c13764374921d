"""Transfer: a head on frozen features (approach 1), or everything fine-tuned from them (approach 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from scipy import sparse
from torch import Tensor, nn

from handful.augment.views import to_input
from handful.inference.features import extract
from handful.methods.label_propagation import LabelPropagation, affinity
from handful.methods.probe import LogisticRegression
from handful.methods.supervised import Supervised
from handful.models.backbones import create
from handful.models.classifier import Classifier, PixelComponents
from handful.models.heads import Centre, Chain, CosineHead
from handful.randomness import permutation
from handful.recipes.task import Fitted, Task, Workshop
from handful.recipes.train import Training, digest, train_network
from handful.types import UsageError

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
    asked = workshop.planned("feature backend asked for", lambda: workshop.feature_backend)
    raw, backend = extract(
        backbone,
        task.images,
        key=f"{name} {task.images.fingerprint}",
        cache=workshop.cache / "features",
        backend=str(workshop.plan.get(f"feature backend of {name}", asked)),
        mirror=mirror,
        progress=lambda done, total: workshop.progress(f"features ({name})", done, total),
    )
    workshop.planned(f"feature backend of {name}", lambda: backend)
    centre = Centre(raw.shape[1]).fit(raw[task.pool()])
    return Space(centre(raw), backbone, config, centre, mirror, _length(raw, centre), {})


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


def probe(task: Task, workshop: Workshop, *, on: str, method: Any = None) -> Fitted:
    """A head on frozen features from the labelled pictures alone."""
    features = space(task, workshop, on)
    head = (method or LogisticRegression()).fit(features.table[task.labelled], task.y, task.n_classes)
    return fitted_head(features, head)


def propagation_for(task: Task) -> LabelPropagation:
    """The default: photographs' features form looser groups than digits' pixels, so labels flow less far, and half
    of the head is the labelled pictures' own regression (docs/methods/label-propagation.md)."""
    return LabelPropagation(alpha=0.9, iterations=20, share=0.5) if task.photographs else LabelPropagation()


def teacher_for(on: str) -> LabelPropagation | None:
    """The teacher of self-training in a feature space. Pixels of digits and the like lie on thin sheets that a sharp
    graph follows; what it misses, the student mends (docs/methods/pseudo-label.md)."""
    return LabelPropagation(neighbours=5, power=8.0, alpha=0.99, iterations=100) if on == "pixels" else None


def propagate(task: Task, workshop: Workshop, *, on: str, method: LabelPropagation | None = None) -> Fitted:
    """Label propagation over labelled and unlabelled pictures, then a linear head on its labels."""
    return fitted_head(space(task, workshop, on), propagated_head(task, workshop, on=on, method=method))


def propagated_head(
    task: Task, workshop: Workshop, *, on: str, method: LabelPropagation | None = None
) -> nn.Module:
    """The linear head that learns the propagated labels."""
    method = method or propagation_for(task)
    features = space(task, workshop, on)
    rows, graph = _graph(features, task, method)
    seeds, y = _seeds(rows, task)
    leave_out = torch.isin(rows, task.held_out) if len(task.held_out) else None
    return method.fit(features.table[rows], seeds, y, task.n_classes, graph=graph, leave_out=leave_out)


def teacher_targets(
    task: Task, workshop: Workshop, *, on: str, method: LabelPropagation | None = None
) -> Tensor:
    """Class probabilities [m, K] of ``task.unlabelled`` by label propagation; pictures outside the graph get
    those of the linear head."""
    method = method or propagation_for(task)
    features = space(task, workshop, on)
    rows, graph = _graph(features, task, method)
    seeds, y = _seeds(rows, task)
    opinion = method.opinion(features.table[rows], seeds, y, task.n_classes)
    p_graph = method.propagate(graph, seeds, y, task.n_classes, opinion)
    p = torch.zeros(len(task.images), task.n_classes)
    if len(rows) < len(task.pool()):
        p[task.unlabelled] = (
            propagate(task, workshop, on=on, method=method).logits(task.unlabelled).softmax(1)
        )
    p[rows] = p_graph
    return p[task.unlabelled]


def tuning(backbone: str) -> Training:
    """How a pretrained network is fine-tuned: AdamW, rates divided by 2.6 per layer group towards the input
    (Howard & Ruder 2018, sec. 3.2), batch norm's statistics frozen."""
    return Training(
        backbone=backbone, pretrained=True, size=128, seconds=60, max_steps=150, batch=16, ratio=1, optimizer="adamw",
        lr=3e-4, weight_decay=0.01, decay_by_depth=2.6, freeze_norms=True, ema=0.9,
    )  # fmt: skip


def fine_tune(
    task: Task,
    workshop: Workshop,
    *,
    on: str = "lite0",
    method: Any = None,
    training: Training | None = None,
    teacher: Tensor | None = None,
    stage: str = "fine-tune",
) -> Fitted:
    """All layers trained from pretrained weights, the head starting from the solved probe ("head first").

    Raises:
        UsageError: ``on`` is not a pretrained network, or not the one that ``training`` names.
    """
    training = training or tuning(on)
    if on == "pixels" or training.backbone != on:
        wrong = "pixels" if on == "pixels" else training.backbone
        raise UsageError(
            f"fine-tuning starts from a pretrained network's features, not from '{wrong}'",
            fix="choose the network with --features: lite0 or timm:NAME",
        )
    features = space(task, workshop, on, training.size)
    rows, target = task.labelled, torch.nn.functional.one_hot(task.y, task.n_classes).float()
    if teacher is not None:
        rows, target = torch.cat([rows, task.unlabelled]), torch.cat([target, teacher])

    def start(network: nn.Module) -> None:
        head: Any = network.head
        with torch.no_grad():
            if isinstance(head, CosineHead):  # imprinted class means (Qi et al. 2018, eq. 4)
                means = target.T @ (features.table[rows] * features.length + features.centre.mean)
                head.weight.copy_(torch.nn.functional.normalize(means, dim=1))
                return
            # W ((f - m) / |f - m|) + b with |f - m| at its mean over the pool: the probe as a plain linear layer
            solved: Any = LogisticRegression().fit_soft(features.table[rows], target, torch.ones(len(rows)))
            head.weight.copy_(solved.weight / features.length)
            head.bias.copy_(solved.bias - head.weight @ features.centre.mean)

    return train_network(
        task, workshop, method or Supervised(), training, stage=stage, start=start, teacher=teacher
    )


def _length(raw: Tensor, centre: Centre) -> float:
    return float((raw - centre.mean).norm(dim=1).mean())


def fitted_head(features: Space, head: nn.Module) -> Fitted:
    """A head on the features of a space, as a classifier of pictures."""
    classifier = Classifier(
        features.backbone, Chain(features.centre, head), features.config, mirror=features.mirror
    )

    def logits(ids: Tensor) -> Tensor:
        with torch.inference_mode():
            return torch.as_tensor(head(features.table[ids]))

    return Fitted(classifier, logits)


def _graph(features: Space, task: Task, method: LabelPropagation) -> tuple[Tensor, sparse.csr_matrix]:
    """The rows of the graph and its matrix S; the same for every fold of a task."""
    pool = task.pool()
    # a sampled graph depends on which pictures are labelled: they are always in it
    seen = digest(torch.cat([task.labelled, task.held_out]).sort().values) if len(pool) > GRAPH_LIMIT else ""
    settings = (method.neighbours, method.power, seen)
    if settings not in features.graphs:
        rows = pool
        if len(pool) > GRAPH_LIMIT:
            labelled = torch.cat([task.labelled, task.held_out])
            others = task.unlabelled[torch.from_numpy(permutation(len(task.unlabelled), "graph"))]
            rows = torch.cat([labelled, others[: GRAPH_LIMIT - len(labelled)]]).sort().values
        features.graphs[settings] = (rows, affinity(features.table[rows], method.neighbours, method.power))
    return features.graphs[settings]


def _seeds(rows: Tensor, task: Task) -> tuple[Tensor, Tensor]:
    """Where the labelled pictures stand among the graph's rows, and their classes in that order."""
    order = task.labelled.argsort()
    return torch.searchsorted(rows, task.labelled[order]), task.y[order]
