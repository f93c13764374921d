"""From features to logits: heads that can be rebuilt from a small table and their state.

Every head maps ``features [B, D] -> logits [B, K]`` and has ``config()``, a dict that JSON can hold, so
that ``build_head(head.config())`` followed by ``load_state_dict`` gives the same head again.

Legend: B pictures, D features, K classes, N stored examples.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Head(nn.Module):
    """A head whose ``config`` is its kind and the arguments that it was made with."""

    kind = ""

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.arguments = arguments

    def config(self) -> dict[str, Any]:
        return {"kind": self.kind, **self.arguments}


class NoHead(Head):
    """No classes: logits are an empty [B, 0] tensor. For networks that only give features."""

    kind = "none"

    def forward(self, features: Tensor) -> Tensor:
        return features[:, :0]


class LinearHead(nn.Linear):
    """``logits = W f + b``."""

    def __init__(self, dim: int, n_classes: int, bias: bool = True) -> None:
        super().__init__(dim, n_classes, bias)

    def config(self) -> dict[str, Any]:
        sizes = {"dim": self.in_features, "n_classes": self.out_features}
        return {"kind": "linear", **sizes, "bias": self.bias is not None}


class CosineHead(Head):
    """``logits = scale * cos(w_k, f)`` (Gidaris & Komodakis 2018, "Dynamic Few-Shot Visual Learning without
    Forgetting", section 3.2): the length of a class's weight cannot favour a class with many examples.

    ``learnable`` makes ``scale`` a parameter; otherwise it is a buffer.
    """

    kind = "cosine"

    def __init__(self, dim: int, n_classes: int, scale: float = 10.0, learnable: bool = True) -> None:
        super().__init__(dim=dim, n_classes=n_classes, learnable=learnable)
        self.weight = nn.Parameter(torch.randn(n_classes, dim) * dim**-0.5)
        if learnable:
            self.scale = nn.Parameter(torch.tensor(float(scale)))
        else:
            self.register_buffer("scale", torch.tensor(float(scale)))

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * F.linear(F.normalize(features, dim=1), F.normalize(self.weight, dim=1))


class NearestMean(Head):
    """Each class is the mean of its examples (Snell et al. 2017, "Prototypical Networks", equations 1, 2).

    ``metric="cosine"``: ``logits = scale * cos(f, mean_k)``, means of normalised features;
    ``metric="euclidean"``: ``logits = -scale * |f - mean_k|^2``.
    """

    kind = "nearest-mean"
    means: Tensor

    def __init__(self, dim: int, n_classes: int, metric: str = "cosine", scale: float = 10.0) -> None:
        super().__init__(dim=dim, n_classes=n_classes, metric=metric, scale=scale)
        if metric not in ("cosine", "euclidean"):
            raise ValueError(f"metric must be 'cosine' or 'euclidean', not {metric!r}")
        self.metric, self.scale = metric, scale
        self.register_buffer("means", torch.zeros(n_classes, dim))

    def fit(self, features: Tensor, labels: Tensor) -> NearestMean:
        """Set the means from ``features [N, D]`` and ``labels [N]``.

        Raises:
            ValueError: where a class has no example.
        """
        n_classes = len(self.means)
        counts = torch.bincount(labels, minlength=n_classes)
        if len(counts) != n_classes or not counts.all():
            raise ValueError(f"every class 0..{n_classes - 1} needs an example; counts are {counts.tolist()}")
        rows = F.normalize(features, dim=1) if self.metric == "cosine" else features
        sums = torch.zeros_like(self.means).index_add_(0, labels, rows.to(self.means.dtype))
        self.means.copy_(sums / counts[:, None])
        return self

    def forward(self, features: Tensor) -> Tensor:
        if self.metric == "cosine":
            return self.scale * F.linear(F.normalize(features, dim=1), F.normalize(self.means, dim=1))
        products = F.linear(features, self.means)
        squared = features.square().sum(1, keepdim=True) - 2 * products + self.means.square().sum(1)
        return -self.scale * squared


class NearestNeighbours(Head):
    """The ``k`` stored examples nearest in angle vote, each with weight ``exp((cos - 1) / temperature)``
    (Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", section 3.4).

    ``logits = log((1 - smoothing) * share_k + smoothing / K)``, so their softmax is the smoothed vote share.
    Queries go in chunks so that no table of similarities has more than ``CHUNK`` entries.
    """

    kind = "nearest-neighbours"
    CHUNK = 1 << 24
    bank: Tensor
    labels: Tensor

    def __init__(
        self,
        dim: int,
        n_classes: int,
        n_bank: int = 0,
        k: int = 10,
        temperature: float = 0.1,
        smoothing: float = 1e-3,
    ) -> None:
        super().__init__(
            dim=dim, n_classes=n_classes, n_bank=n_bank, k=k, temperature=temperature, smoothing=smoothing
        )
        self.n_classes, self.k, self.temperature, self.smoothing = n_classes, k, temperature, smoothing
        self.register_buffer("bank", torch.zeros(n_bank, dim))
        self.register_buffer("labels", torch.zeros(n_bank, dtype=torch.long))

    def config(self) -> dict[str, Any]:
        return super().config() | {"n_bank": len(self.bank)}

    def fit(self, features: Tensor, labels: Tensor) -> NearestNeighbours:
        """Store ``features [N, D]``, normalised, and ``labels [N]``."""
        self.bank = F.normalize(features, dim=1).to(self.bank)
        self.labels = labels.to(self.labels)
        return self

    def forward(self, features: Tensor) -> Tensor:
        if not len(self.bank):
            raise ValueError("no examples are stored: call fit(features, labels) first")
        if torch.compiler.is_exporting():  # an exported graph cannot count its own pictures
            return self._vote(features)
        rows = max(1, self.CHUNK // len(self.bank))
        return torch.cat([self._vote(chunk) for chunk in features.split(rows)])

    def _vote(self, features: Tensor) -> Tensor:
        cosine = F.linear(F.normalize(features, dim=1), self.bank)  # [b, N]
        nearest, index = cosine.topk(min(self.k, len(self.bank)), dim=1)  # [b, k]
        share = ((nearest - nearest[:, :1]) / self.temperature).softmax(dim=1)
        votes = share.new_zeros(len(features), self.n_classes).scatter_add(1, self.labels[index], share)
        return torch.log((1 - self.smoothing) * votes + self.smoothing / self.n_classes)


class Centre(Head):
    """Subtract a stored mean, then scale to length 1: frozen features become comparable by angle."""

    kind = "centre"
    mean: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__(dim=dim)
        self.register_buffer("mean", torch.zeros(dim))

    def fit(self, features: Tensor) -> Centre:
        """Take the mean of ``features [N, D]``; no labels are needed, so use all pictures."""
        self.mean.copy_(features.mean(0))
        return self

    def forward(self, features: Tensor) -> Tensor:
        return F.normalize(features - self.mean, dim=1)


class Chain(nn.Sequential):
    """Heads one after another, such as ``Chain(Centre(D), LinearHead(D, K))``."""

    def config(self) -> dict[str, Any]:
        return {"kind": "chain", "parts": [cast(Any, part).config() for part in self]}


class Likeness(Head):
    """How like the pictures of N classes a picture is: ``(limit - d) / spread`` with d its squared Mahalanobis distance
    to the nearest class mean, under one covariance for all classes (Lee et al. 2018, "A Simple Unified Framework for
    Detecting Out-of-Distribution Samples and Adversarial Attacks", equation 2).

    The covariance is shrunk towards a multiple of the unit matrix by ``SHRINK``, and its R largest directions are kept:
    d = |f - m|^2 / floor - |B (f - m)|^2. ``limit`` and ``spread`` are set afterwards, on pictures that were held out.
    """

    kind = "likeness"
    RANK, SHRINK = 64, 0.3
    means: Tensor
    directions: Tensor
    floor: Tensor
    limit: Tensor
    spread: Tensor

    def __init__(self, dim: int, n_classes: int, rank: int) -> None:
        super().__init__(dim=dim, n_classes=n_classes, rank=rank)
        self.register_buffer("means", torch.zeros(n_classes, dim))
        self.register_buffer("directions", torch.zeros(rank, dim))
        for name, value in (("floor", 1.0), ("limit", 0.0), ("spread", 1.0)):
            self.register_buffer(name, torch.tensor(value))

    @classmethod
    def of(cls, features: Tensor, labels: Tensor, n_classes: int) -> Likeness:
        """Means and covariance of ``features [n, D]`` with ``labels [n]``, every class among them."""
        f = features.double()
        counts = torch.bincount(labels, minlength=n_classes)
        means = f.new_zeros(n_classes, f.shape[1]).index_add_(0, labels, f) / counts.unsqueeze(1)
        rest = f - means[labels]
        level = (rest.square().mean()).clamp_min(1e-12)  # the mean variance of a direction
        _, values, vectors = torch.linalg.svd(rest, full_matrices=False)
        rank = min(cls.RANK, len(values))
        floor = cls.SHRINK * level
        variances = (1 - cls.SHRINK) * values[:rank].square() / len(f) + floor
        made = cls(f.shape[1], n_classes, rank)
        made.means.copy_(means)
        made.directions.copy_(vectors[:rank] * (1 / floor - 1 / variances).clamp_min(0).sqrt().unsqueeze(1))
        made.floor.copy_(floor)
        return made

    def forward(self, features: Tensor) -> Tensor:
        """[B, D] -> [B]."""
        middle = self.means.mean(0)
        f, m = features - middle, self.means - middle
        whole = squared_distances(f, m) / self.floor
        d = whole - squared_distances(f @ self.directions.T, m @ self.directions.T)
        return (self.limit - d.amin(1)) / self.spread


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """|a_i - b_j|^2 of [B, D] and [N, D], [B, N]."""
    return a.square().sum(1, keepdim=True) - 2 * a @ b.T + b.square().sum(1)


class JoinedHead(nn.Module):
    """An old head and a younger one on the same features, their log-probabilities side by side:
    [log p_old, log p_young + likeness], with p = softmax(z / temperature) each.

    The young head never saw a picture of the old classes, and the old one none of the young classes, so the levels of
    their logits cannot be compared. Which of them is asked is decided by the picture's likeness to those that the young
    head learned from: one softmax over all classes gives sigmoid(likeness) p_young and (1 - sigmoid(likeness)) p_old.
    Without a ``likeness`` the two count alike. No gradient flows through it: it is a measurement, and a steep one.
    ``temperatures`` [2] change no decision within a head.
    """

    temperatures: Tensor

    def __init__(self, old: nn.Module, young: nn.Module, likeness: Likeness | None = None) -> None:
        super().__init__()
        self.old, self.young, self.likeness = old, young, likeness
        self.register_buffer("temperatures", torch.ones(2))

    def config(self) -> dict[str, Any]:
        parts = [part for part in (self.old, self.young, self.likeness) if part is not None]
        return {"kind": "joined", "parts": [cast(Any, part).config() for part in parts]}

    def forward(self, features: Tensor) -> Tensor:
        old = (self.old(features) / self.temperatures[0]).log_softmax(1)
        young = (self.young(features) / self.temperatures[1]).log_softmax(1)
        if self.likeness is not None:
            young = young + self.likeness(features.detach()).unsqueeze(1)
        return torch.cat([old, young], dim=1)


HEADS: dict[str, type[nn.Module]] = {
    "linear": LinearHead,
    **{head.kind: head for head in (NoHead, CosineHead, NearestMean, NearestNeighbours, Centre, Likeness)},
}
COMPOSED: dict[str, type[nn.Module]] = {"chain": Chain, "joined": JoinedHead}


def build_head(config: dict[str, Any]) -> nn.Module:
    """The head that ``config`` describes, with fresh weights: load its state afterwards.

    Raises:
        ValueError: for a kind that is not in the table.
    """
    options = {key: value for key, value in config.items() if key != "kind"}
    kind = config.get("kind")
    if kind in COMPOSED:
        return COMPOSED[kind](*(build_head(part) for part in options["parts"]))
    if kind not in HEADS:
        raise ValueError(f"no head of kind {kind!r}; there are {', '.join([*HEADS, *COMPOSED])}")
    return HEADS[kind](**options)
