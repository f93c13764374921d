"""Classifiers on frozen features: logistic regression, nearest class mean, nearest neighbours.

Legend: n pictures, D features, K classes; features [n, D] are centred and of length 1 (``heads.Centre``).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handful.methods.base import Head
from handful.models.heads import LinearHead, NearestMean, NearestNeighbours
from handful.stats.logistic import solve_logistic


@dataclass(frozen=True)
class LogisticRegression(Head):
    """min_W  1/2 |W|^2 + C sum_i weight_i CE(W x_i + b, y_i); the bias is not penalised.

    Attributes:
        C: inverse strength of the penalty, as in scikit-learn.
    """

    C: float = 10.0

    def fit(self, x: Tensor, y: Tensor, n_classes: int) -> nn.Module:
        """A linear head from features [n, D] and class numbers [n]."""
        return self.fit_soft(x, F.one_hot(y, n_classes).to(x.dtype), torch.ones(len(x)))

    def fit_soft(self, x: Tensor, target: Tensor, weight: Tensor) -> nn.Module:
        """The same from target distributions [n, K] and weights [n]."""
        w, b = solve_logistic(x, target, weight, self.C)
        head = LinearHead(x.shape[1], target.shape[1])
        with torch.no_grad():
            head.weight.copy_(w)
            head.bias.copy_(b)
        return head


@dataclass(frozen=True)
class ClassMean(Head):
    """Nearest class mean by cosine (the prototypical classifier of Snell et al. 2017 on frozen features).

    Attributes:
        scale: of the cosines before the softmax; changes confidences, not decisions.
    """

    scale: float = 10.0

    def fit(self, x: Tensor, y: Tensor, n_classes: int) -> nn.Module:
        """A head that holds the K means."""
        return NearestMean(x.shape[1], n_classes, scale=self.scale).fit(x, y)


@dataclass(frozen=True)
class Neighbours(Head):
    """k nearest labelled pictures vote with weight exp(cosine / temperature) (Wu et al. 2018, sec. 3.4).

    Attributes:
        k: neighbours (at most the number of labelled pictures).
        temperature: of the votes.
    """

    k: int = 5
    temperature: float = 0.1

    def fit(self, x: Tensor, y: Tensor, n_classes: int) -> nn.Module:
        """A head that holds the n labelled features."""
        head = NearestNeighbours(x.shape[1], n_classes, k=min(self.k, len(x)), temperature=self.temperature)
        return head.fit(x, y)
