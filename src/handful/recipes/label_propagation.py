"""Label propagation as a recipe, and as the teacher of others: labels flow over a graph of the task's pictures."""

from __future__ import annotations

import torch
from scipy import sparse
from torch import Tensor, nn

from handful.methods.label_propagation import LabelPropagation, affinity
from handful.randomness import digest, permutation
from handful.recipes.feature_space import GRAPH_LIMIT, Space, fitted_head, space
from handful.recipes.stage import Stage
from handful.recipes.task import Fitted, Task, Workshop


def propagation(stage: Stage, workshop: Workshop) -> Fitted:
    """Label propagation over labelled and unlabelled pictures, then a linear head on its labels."""
    return propagate(stage.task, workshop, on=stage.on, method=stage.method)


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


def propagation_for(task: Task) -> LabelPropagation:
    """The default: photographs' features form looser groups than digits' pixels, so labels flow less far, and half
    of the head is the labelled pictures' own regression (docs/methods/label-propagation.md)."""
    return LabelPropagation(alpha=0.9, iterations=20, share=0.5) if task.photographs else LabelPropagation()


def teacher_for(on: str) -> LabelPropagation | None:
    """The teacher of self-training in a feature space. Pixels of digits and the like lie on thin sheets that a sharp
    graph follows; what it misses, the student mends (docs/methods/pseudo-label.md)."""
    return LabelPropagation(neighbours=5, power=8.0, alpha=0.99, iterations=100) if on == "pixels" else None


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
