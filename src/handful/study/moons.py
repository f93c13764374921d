"""Two moons: every semi-supervised method on points in the plane, by its own code and the package's own loop.

The set of Pham et al. 2021 (figure 1): 2,000 points on two half circles, three of each labelled. A point is a picture
of one pixel with two channels, so that no method needs to know.

Legend: N points, B of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from handful.augment.views import View
from handful.data.images import from_array
from handful.data.stream import Source, TrainStream, semi_supervised
from handful.engine.assemble import Setup, assemble
from handful.engine.fit import fit
from handful.inference.logits import evaluating
from handful.methods.table import METHODS, REGISTRY
from handful.models.small import Net
from handful.randomness import key, permutation, seeded, uniform
from handful.types import InputSpec, UsageError, did_you_mean

WEAK, STRONG = 0.05, 0.2  # standard deviation of a view's noise; the moons' radius is 1
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "meta-pseudo-labels, exact": ("meta-pseudo-labels", {"labels": "soft"}),
    "meta-pseudo-labels, no feedback": ("meta-pseudo-labels", {"feedback_weight": 0.0}),
    "meta-pseudo-labels, no UDA": ("meta-pseudo-labels", {"uda_weight": 0.0}),
}


@dataclass(frozen=True)
class Moons:
    """The set and the training.

    Attributes:
        points: on both moons together.
        labels: labelled points a moon.
        noise: standard deviation of the points around their moon.
        steps: of training.
        lr: learning rate of SGD, constant.
        momentum: Nesterov's; the paper has none and takes the more steps.
        width: sigmoid units of each of two hidden layers.
        init: weights start uniform between -init and init.
        ratio: unlabelled points a step for each labelled one; all labelled points are in every step.
    """

    points: int = 2000
    labels: int = 3
    noise: float = 0.1
    steps: int = 3000
    lr: float = 0.1
    momentum: float = 0.9
    width: int = 8
    init: float = 1.0
    ratio: int = 20


@dataclass(frozen=True)
class Played:
    """What became of one method on one draw.

    Attributes:
        right: share of all points that are classified rightly.
        region: most probable class, 0 or 1, on a grid from top left to bottom right, int64 [H, W].
        points: [N, 2], ``y`` [N] their moons, ``labelled`` the row numbers of the labelled ones.
        box: left, bottom, right and top of the grid.
    """

    name: str
    seed: int
    right: float
    region: Tensor
    points: Tensor
    y: Tensor
    labelled: Tensor
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Jitter:
    """A view of points [B, 2, 1, 1]: normal noise of standard deviation ``size``."""

    size: float
    n_draws: int = 2

    def __call__(self, x: Tensor, u: Tensor) -> Tensor:
        noise = torch.special.ndtri(u.clamp(1e-6, 1 - 1e-6)).view_as(x)
        return x + self.size * noise.to(x.device)


VIEWS: dict[str, View] = {"plain": Jitter(0.0), "weak": Jitter(WEAK), "strong": Jitter(STRONG)}


@dataclass(frozen=True)
class PointStream(TrainStream):
    """Batches of points in place of pictures; ``points`` [N, 2]."""

    points: Tensor = field(default_factory=lambda: torch.empty(0, 2))

    def _seen(self, source: Source, name: str, rows: Tensor, step: int, places: Tensor) -> Tensor:
        view = source.views[name]
        u = uniform((source.batch, view.n_draws), self.seed, self.stage, "view", name, step)[places]
        return view(self.points[rows][:, :, None, None], u)

    def _input(self, x: Tensor) -> Tensor:
        return x


def entries() -> dict[str, tuple[str, Mapping[str, Any]]]:
    """What is compared, by name: each method of the registry that can be shown so, and some with other options."""
    known = {name: row.moons for name, row in REGISTRY.items() if row.moons is not None}
    table = {name: (name, options) for name, options in known.items()}
    return table | {
        name: (method, {**known[method], **changes}) for name, (method, changes) in VARIANTS.items()
    }


def draw(moons: Moons, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points [N, 2] with mean 0, their moons [N], and the row numbers of the labelled ones."""
    from sklearn.datasets import make_moons

    x, moon = make_moons(moons.points, noise=moons.noise, random_state=seed)
    points, y = torch.from_numpy(x - x.mean(0)).float(), torch.from_numpy(moon).long()
    order = torch.from_numpy(permutation(moons.points, "moons", seed))
    labelled = torch.cat([order[y[order] == k][: moons.labels] for k in (0, 1)])
    return points, y, labelled


def perceptron(moons: Moons, seed: int) -> Net:
    """A point's coordinates to two logits, over two hidden layers of sigmoid units."""
    with seeded(key(seed, "moons", "weights")):
        hidden = (nn.Linear(2, moons.width), nn.Sigmoid(), nn.Linear(moons.width, moons.width), nn.Sigmoid())
        net = Net(nn.Sequential(nn.Flatten(), *hidden), moons.width, InputSpec(1, 2), 2)
        for p in net.parameters():
            nn.init.uniform_(p, -moons.init, moons.init)
    return net


def play(
    name: str,
    moons: Moons | None = None,
    seed: int = 0,
    progress: Callable[[int], None] = lambda step: None,
) -> Played:
    """Train one of ``entries()`` on one draw of points, labels and weights.

    Raises:
        UsageError: there is no such entry, or too few points.
    """
    moons, known = moons or Moons(), entries()
    if name not in known:
        fix = f"{did_you_mean(name, known)} Known: {'; '.join(known)}".strip()
        raise UsageError(f"there is no method '{name}'", fix=fix)
    if moons.points < 4 * moons.labels:
        raise UsageError(f"{moons.points} points are too few for {moons.labels} labels a moon")
    kind, options = known[name]
    kind_of = METHODS[kind]
    plain = {"view": "plain"} if "view" in {f.name for f in fields(kind_of)} else {}
    method = kind_of(**{**options, **plain})  # the labelled points are shown as they are, to all alike
    points, y, labelled = draw(moons, seed)
    rest = torch.ones(moons.points, dtype=torch.bool).index_fill(0, labelled, False).nonzero()[:, 0]

    network = perceptron(moons, seed)

    def sgd(role: str, model: nn.Module) -> torch.optim.SGD:
        group = {"params": list(model.parameters()), "base_lr": moons.lr}
        return torch.optim.SGD([group], moons.lr, moons.momentum, nesterov=moons.momentum > 0, foreach=True)

    state, update = assemble(
        method, {"student": network}, sgd, Setup(seed, "moons"), n_classes=2, unlabelled=rest
    )
    views = {word: VIEWS[view] for word, view in method.views.items()}
    ratio = moons.ratio if method.uses_unlabelled else 0
    sources = semi_supervised(labelled, y[labelled], views, 2 * moons.labels, rest, ratio)
    nothing = from_array(torch.zeros(1, 8, 8, dtype=torch.uint8).numpy())
    stream = PointStream(nothing, network.spec, sources, seed, "moons", points=points)
    fit(state, update, stream, steps=moons.steps, log=lambda step, _: progress(step), log_every=100)

    box = (-2.4, -1.5, 2.4, 1.5)
    return Played(
        name=name,
        seed=seed,
        right=float((answers(network, points) == y).float().mean()),
        region=answers(network, grid(box, 60, 96)).view(60, 96),
        points=points,
        y=y,
        labelled=labelled,
        box=box,
    )


def grid(box: tuple[float, float, float, float], height: int, width: int) -> Tensor:
    """The middles of ``height`` x ``width`` cells, row by row from the top: [H W, 2]."""
    left, bottom, right, top = box
    across = left + (right - left) * (torch.arange(width) + 0.5) / width
    down = top - (top - bottom) * (torch.arange(height) + 0.5) / height
    return torch.stack([across.repeat(height), down.repeat_interleave(width)], 1)


def answers(network: nn.Module, points: Tensor) -> Tensor:
    """The network's class of each point [N, 2]: int64 [N]."""
    with evaluating(network) as model:
        found: Tensor = model(points[:, :, None, None]).logits.argmax(1)
    return found.clone()


def summary(played: Mapping[str, list[float]]) -> list[dict[str, Any]]:
    """A row a method: mean, spread and median of the share of right points over the draws, and draws solved (99 %)."""
    rows = []
    for name, values in played.items():
        right = torch.tensor(values, dtype=torch.float64)
        rows.append(
            {
                "method": name,
                "right": float(right.mean()),
                "sd": float(right.std()) if len(values) > 1 else 0.0,
                "median": float(right.quantile(0.5)),
                "solved": int((right >= 0.99).sum()),
                "draws": len(values),
            }
        )
    return rows
