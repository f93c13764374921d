"""Label propagation: labels flow along a graph of near neighbours (Zhou et al. 2004), together with the opinion
of a regression on the labelled pictures; then a linear head learns the propagated labels, so that pictures outside
the graph can be classified too.

Legend: N pictures of the graph, n of them labelled; D features; K classes; k neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional as F

from handful.methods.base import Settings
from handful.methods.probe import LogisticRegression


@dataclass(frozen=True)
class LabelPropagation(Settings):
    """F <- alpha S F + (1 - alpha) Y, with S = D^(-1/2) A D^(-1/2) (Zhou et al. 2004, eq. 4 by iteration).

    A joins each picture to its k nearest by cosine, with weight cosine^power. Y has a mass of 1 for the labels of
    each class and, on the unlabelled pictures, one of ``prior * n / K`` for the probabilities of a regression on
    the labelled ones (smoothing a classifier's opinion along a graph: Huang et al. 2021, "Correct and Smooth").

    Attributes:
        neighbours: k of the graph.
        power: exponent on the cosine (Iscen et al. 2019, eq. 9 with gamma = 3).
        alpha: share that comes from the neighbours.
        iterations: T of the sweeps, which stop short of the limit F*: F_T - F* = (alpha S)^T (Y - F*), of which up to
            alpha^T is left (21 % of the distance at 0.95 and 30). Going on to the limit makes the labels no righter
            (docs/methods/label-propagation.md).
        prior: mass of the regression's opinion on a class, for each label a class has on average; 0 is Zhou et al.
        C: of both regressions: the one that gives the opinion, and the one that learns the propagated labels.
        keep: pictures of the graph whose propagated label is learnt, as a share, the surest of each class first.
        cap: the propagated labels together weigh as much as this many labels a class, at most; 0 for no limit.
        share: of the regression on the labelled pictures alone in the head's logits; the rest is the one that
            learnt the propagated labels. A hedge: with many labels a class the first is the better of the two.
    """

    neighbours: int = 10
    power: float = 3.0
    alpha: float = 0.95
    iterations: int = 30
    prior: float = 0.05
    C: float = 10.0
    keep: float = 1.0
    cap: float = 256.0
    share: float = 0.0
    uses_unlabelled: ClassVar[bool] = True

    def fit(
        self,
        nodes: Tensor,
        seeds: Tensor,
        y: Tensor,
        n_classes: int,
        *,
        graph: sparse.csr_matrix | None = None,
        leave_out: Tensor | None = None,
    ) -> nn.Module:
        """A linear head from the graph's features.

        Args:
            nodes: [N, D], labelled and unlabelled pictures.
            seeds: int64 [n], which nodes are labelled, with classes ``y`` [n].
            graph: S over the nodes, where it is known already.
            leave_out: bool [N], nodes that the head must not learn from (a held-out fold).
        """
        s = affinity(nodes, self.neighbours, self.power) if graph is None else graph
        p = self.propagate(s, seeds, y, n_classes, self.opinion(nodes, seeds, y, n_classes))
        target, weight = self.targets(p, seeds)
        if leave_out is not None:
            weight[leave_out] = 0
        used = weight > 0
        head = LogisticRegression(self.C).fit_soft(nodes[used], target[used], weight[used])
        if self.share:
            plain = LogisticRegression(self.C).fit(nodes[seeds], y, n_classes)
            with torch.no_grad():  # logits are linear in the weights: one head says what the two say together
                for mixed, alone in zip(head.parameters(), plain.parameters(), strict=True):
                    mixed.lerp_(alone, self.share)
        return head

    def opinion(self, nodes: Tensor, seeds: Tensor, y: Tensor, n_classes: int) -> Tensor | None:
        """Class probabilities [N, K] by a regression on the labelled nodes; None where ``prior`` is 0."""
        if self.prior == 0:
            return None
        head = LogisticRegression(self.C).fit(nodes[seeds], y, n_classes)
        with torch.no_grad():
            p: Tensor = head(nodes).softmax(1)
        return p

    def propagate(
        self, s: sparse.csr_matrix, seeds: Tensor, y: Tensor, n_classes: int, opinion: Tensor | None = None
    ) -> Tensor:
        """Label distribution of each picture of the graph, float32 [N, K]; labelled ones keep their label.

        Each class starts with the same total mass, however many labels it has, and so does its share of the
        ``opinion`` [N, K], where one is given; a picture that no mass reaches gets the uniform distribution.
        """
        start = np.zeros((s.shape[0], n_classes))
        start[seeds.numpy(), y.numpy()] = 1
        start /= start.sum(0, keepdims=True).clip(1)
        if opinion is not None:
            q = opinion.double().numpy().copy()
            q[seeds.numpy()] = 0
            total = q.sum(0, keepdims=True)
            start += self.prior * len(seeds) / n_classes * q / np.where(total > 0, total, 1)
        f = self.diffuse(s, start)
        mass = f.sum(1, keepdims=True)
        p = torch.from_numpy(np.where(mass > 0, f / np.where(mass > 0, mass, 1), 1 / n_classes)).float()
        p[seeds] = F.one_hot(y, n_classes).float()
        return p

    def diffuse(self, s: sparse.csr_matrix, start: np.ndarray) -> np.ndarray:
        """F after the sweeps, from Y (``start``): float64 [N, K]."""
        f = start
        for _ in range(self.iterations):
            f = self.alpha * (s @ f) + (1 - self.alpha) * start
        return f

    def targets(self, p: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Hard targets [N, K] and weights [N]: 1 for labelled pictures, 0 for those that are left out."""
        n_classes = p.shape[1]
        confidence, label = p.max(1)
        weight = torch.ones(len(p))
        if self.keep < 1:
            for k in range(n_classes):
                rows = torch.nonzero(label == k).flatten()
                order = confidence[rows].argsort(descending=True, stable=True)
                weight[rows[order[int(np.ceil(self.keep * len(rows))) :]]] = 0
        weight[seeds] = 0
        if self.cap > 0:
            weight *= min(1.0, self.cap * n_classes / max(float(weight.sum()), 1.0))
        weight[seeds] = 1
        return F.one_hot(label, n_classes).float(), weight


def affinity(x: Tensor, neighbours: int, power: float, chunk: int = 2048) -> sparse.csr_matrix:
    """S = D^(-1/2) (A + A^T)/2 D^(-1/2) of features [N, D] of length 1: sparse [N, N], zero diagonal."""
    n = len(x)
    k = min(neighbours, n - 1)
    rows, columns, values = [], [], []
    for first in range(0, n, chunk):
        cosine = x[first : first + chunk] @ x.T
        here = torch.arange(len(cosine))
        cosine[here, first + here] = -2
        value, index = cosine.topk(k, dim=1)
        rows.append((first + here).repeat_interleave(k))
        columns.append(index.flatten())
        values.append(value.flatten().clamp_min(0) ** power)
    shape = (n, n)
    a = sparse.csr_matrix((torch.cat(values).double(), (torch.cat(rows), torch.cat(columns))), shape=shape)
    a = (a + a.T) / 2
    degree = np.asarray(a.sum(1)).ravel()
    scale = sparse.diags(1 / np.sqrt(np.where(degree > 0, degree, 1)))
    return (scale @ a @ scale).tocsr()
