"""Can Meta Pseudo Labels separate two moons from 3 + 3 labels? An ablation over its pieces, 20 draws of the labels.

The paper's setting (Pham et al. 2021, figure 1 and section 3): 2,000 points, two nets of two hidden layers of 8 sigmoid
units, U(-0.1, 0.1), SGD 0.1. All draws are trained at once, as batched matrices; a test holds one draw to the package's
``MetaPseudoLabels``. Accuracy is that of the student on all 2,000 points, at the last step.

    python -m benchmarks.moons_mpl [--seconds 200]

Variants that are done are kept; ``--seconds`` starts no further one after a while, and the same command goes on.

Legend: S draws, N points of a batch, K = 2 classes, H = 8 units.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.cells import Grid
from benchmarks.common import arguments, record
from handful.stats.intervals import mean_interval

DRAWS = 20
SOLVED = 0.99
Net = list[Tensor]  # W1 [S, 2, H], b1 [S, 1, H], W2 [S, H, H], b2, W3 [S, H, K], b3


@dataclass(frozen=True)
class Variant:
    """One way to train teacher and student.

    Attributes:
        steps: of training.
        teach: "none" (the net called student is trained on the labels alone), "before" (a trained teacher's labels, as
            plain pseudo-labels), "with" (both at once).
        feedback: "" (none), "difference" (h, hard labels), "each" (hard labels, each point with its own first-order
            product), "exact" (soft labels, through the step).
        labels: "argmax", "sample" or "soft".
        weight: lambda, of the feedback.
        sign: -1 is the released code's new - old.
        supervised: weight of the teacher's labelled term.
        uda: weight of its consistency term under ``jitter``; ``temperature`` sharpens the targets.
        jitter: standard deviation of the noise that is added to a point in a strong view.
        batch: unlabelled points a step; 0: all.
        lr, momentum, init: of both nets; Nesterov's momentum.
        student_lr: of the student, where it differs.
        noise: of the moons.
        labelled: points of each moon with a label.
        baseline: rate of the moving average of h.
        restarts: sets of first weights; the one whose teacher ends with the least loss on labels and noise is taken.
    """

    steps: int = 5000
    teach: str = "with"
    feedback: str = "difference"
    labels: str = "argmax"
    weight: float = 1.0
    sign: int = 1
    supervised: float = 1.0
    uda: float = 0.0
    temperature: float = 1.0
    jitter: float = 0.0
    batch: int = 128
    lr: float = 0.1
    student_lr: float = 0.0
    momentum: float = 0.0
    init: float = 0.1
    noise: float = 0.1
    labelled: int = 3
    restarts: int = 1
    baseline: float = 0.01


def moons(n: int, noise: float, seed: int) -> tuple[Tensor, Tensor]:
    """Points [n, 2] and classes of scikit-learn's two moons, moved to mean 0."""
    from sklearn.datasets import make_moons

    x, y = make_moons(n, noise=noise, random_state=seed)
    return torch.from_numpy(x - x.mean(0)).float(), torch.from_numpy(y.astype(np.int64))


def forward(net: Sequence[Tensor], x: Tensor) -> Tensor:
    """Logits [S, N, K] of points [S, N, 2]."""
    w1, b1, w2, b2, w3, b3 = net
    hidden = torch.sigmoid(torch.baddbmm(b1, x, w1))
    hidden = torch.sigmoid(torch.baddbmm(b2, hidden, w2))
    return torch.baddbmm(b3, hidden, w3)


def fresh(draws: int, size: float, seed: int) -> Net:
    """Weights from U(-size, size)."""
    g = torch.Generator().manual_seed(seed)
    shapes = [(2, 8), (1, 8), (8, 8), (1, 8), (8, 2), (1, 2)]
    return [((torch.rand(draws, *s, generator=g) * 2 - 1) * size).requires_grad_() for s in shapes]


def cross_entropy(z: Tensor, q: Tensor) -> Tensor:
    """CE(q, z) of each point, [S, N]; q [S, N, K]."""
    return -(q * z.log_softmax(2)).sum(2)


class SGD:
    """Plain or Nesterov SGD on a net; ``reach`` is how far a step goes for a unit of gradient."""

    def __init__(self, net: Net, lr: float, momentum: float) -> None:
        self.net, self.lr, self.momentum = net, lr, momentum
        self.held: list[Tensor] | None = None
        self.reach = lr * (1 + momentum)

    def step(self, gradient: Sequence[Tensor]) -> None:
        with torch.no_grad():
            g = [x.detach() for x in gradient]
            if self.momentum:
                self.held = g if self.held is None else [self.momentum * m + x for m, x in zip(self.held, g)]
                g = [x + self.momentum * m for x, m in zip(g, self.held)]
            for p, x in zip(self.net, g):
                p -= self.lr * x


def train(
    v: Variant, draws: int = DRAWS, first: int = 0, trace: list[float] | None = None
) -> tuple[Net, Net, Any]:
    """Teachers and students after ``v.steps``, and (points [S, n, 2], classes, labelled points, their classes)."""
    data = [moons(2000, v.noise, first + s) for s in range(draws) for _ in range(v.restarts)]
    points, truth = torch.stack([x for x, _ in data]), torch.stack([y for _, y in data])
    g = torch.Generator().manual_seed(1000 + first)
    draws *= v.restarts
    rows = torch.stack(
        [
            torch.cat(
                [(y == k).nonzero()[:, 0][torch.randperm(1000, generator=g)[: v.labelled]] for k in (0, 1)]
            )
            for y in truth
        ]
    )  # [S, 6]
    x = points.gather(1, rows[..., None].expand(-1, -1, 2))
    y = F.one_hot(truth.gather(1, rows), 2).float()
    teacher, student = fresh(draws, v.init, 2 * first), fresh(draws, v.init, 2 * first + 1)
    t_sgd, s_sgd = SGD(teacher, v.lr, v.momentum), SGD(student, v.student_lr or v.lr, v.momentum)
    mean_h = torch.zeros(draws)

    def on_labels(net: Sequence[Tensor]) -> Tensor:
        return cross_entropy(forward(net, x), y).mean(1)  # [S]

    if v.teach == "before":
        for _ in range(v.steps):
            t_sgd.step(torch.autograd.grad(on_labels(teacher).sum(), teacher))
    for _ in range(v.steps):
        if v.teach == "none":
            s_sgd.step(torch.autograd.grad(on_labels(student).sum(), student))
            continue
        u = points
        if v.batch:
            at = torch.randint(2000, (draws, v.batch, 1), generator=g)
            u = points.gather(1, at.expand(-1, -1, 2))
        strong = u + v.jitter * torch.randn(u.shape, generator=g) if v.jitter else u
        z = forward(teacher, strong)
        p = z.softmax(2)
        if v.labels == "soft":
            q = p.detach().requires_grad_(v.feedback == "exact")
        elif v.labels == "argmax":
            q = F.one_hot(p.argmax(2), 2).float()
        else:
            q = F.one_hot((torch.rand(p.shape[:2], generator=g) < p[..., 1]).long(), 2).float()
        if v.feedback == "each":
            q.requires_grad_()

        second = v.feedback in ("exact", "each")
        start = [w.detach().clone().requires_grad_() for w in student] if second else student
        loss = cross_entropy(forward(start, strong), q).mean(1)
        before = on_labels(student).detach()
        gradient = torch.autograd.grad(loss.sum(), start, create_graph=second)
        s_sgd.step(gradient)
        if trace is not None:
            trace.append(float(loss.mean()))
        if v.teach == "before":
            continue
        end = on_labels(student)
        total = v.supervised * on_labels(teacher)
        if v.uda:
            target = (forward(teacher, u).detach() / v.temperature).softmax(2)
            total = total + v.uda * cross_entropy(z, target).mean(1)
        if second:
            after = torch.autograd.grad(end.sum(), student)
            along = sum((s_sgd.reach * a * b).sum() for a, b in zip(after, gradient))
            (worth,) = torch.autograd.grad(along, q)  # [S, N, K]
            if v.feedback == "exact":
                total = total - v.weight * (worth * p).sum((1, 2))
            else:
                own = (worth * q).detach().sum(2) * v.batch  # each point's h, on the scale of the batch's
                total = total + v.weight * (own * cross_entropy(z, q.detach())).mean(1)
        elif v.feedback:
            h = before - end.detach()
            total = total + v.weight * v.sign * (h - mean_h) * cross_entropy(z, q).mean(1)
            mean_h = mean_h + v.baseline * (h - mean_h)
        t_sgd.step(torch.autograd.grad(total.sum(), teacher))
    return teacher, student, (points, truth, x, y)


def right(net: Net, points: Tensor, truth: Tensor) -> Tensor:
    """Accuracy of each draw, [S]."""
    with torch.no_grad():
        return (forward(net, points).argmax(2) == truth).float().mean(1)


def best_restart(v: Variant, teacher: Net, x: Tensor, y: Tensor, points: Tensor) -> Tensor:
    """Of each draw's restarts, the one with the smallest loss on the labels and under noise: rows [S / restarts]."""
    g = torch.Generator().manual_seed(7)
    moved = points + v.jitter * torch.randn(points.shape, generator=g)
    with torch.no_grad():
        loss = cross_entropy(forward(teacher, x), y).mean(1)
        target = forward(teacher, points).softmax(2)
        loss = loss + v.uda * cross_entropy(forward(teacher, moved), target).mean(1)
    offset = loss.view(-1, v.restarts).argmin(1)
    return torch.arange(len(offset)) * v.restarts + offset


def measure(v: Variant) -> dict[str, Any]:
    """Accuracies of every draw's student and teacher."""
    begin = time.perf_counter()
    teacher, student, (points, truth, x, y) = train(v)
    taken = best_restart(v, teacher, x, y, points)
    fits = (forward(student, x).argmax(2) == y.argmax(2)).float().mean(1)[taken]
    return {
        "student": [round(float(a), 4) for a in right(student, points, truth)[taken]],
        "teacher": [round(float(a), 4) for a in right(teacher, points, truth)[taken]],
        "fits its labels": round(float(fits.mean()), 3),
        "seconds": round(time.perf_counter() - begin, 1),
    }


PAPER = Variant(steps=20000)
QUICK = Variant(steps=3000, momentum=0.9)
WIDE = replace(QUICK, init=1.0)
SMOOTH = replace(WIDE, uda=4.0, jitter=0.2, labels="soft", feedback="")
EXACT: dict[str, Any] = {"labels": "soft", "feedback": "exact"}
GROUPS: dict[str, dict[str, Variant]] = {
    "as in the paper: SGD 0.1, U(-0.1, 0.1), 20,000 steps": {
        "supervised": replace(PAPER, teach="none"),
        "pseudo-labels": replace(PAPER, teach="before", feedback=""),
        "MPL, argmax": PAPER,
        "MPL, sampled": replace(PAPER, labels="sample"),
        "MPL, exact gradient": replace(PAPER, **EXACT),
        "MPL, sign turned (new - old)": replace(PAPER, sign=-1),
        "supervised, 100 + 100 labels": replace(PAPER, teach="none", labelled=100),
    },
    "momentum 0.9, 3,000 steps": {
        "supervised, momentum": replace(QUICK, teach="none"),
        "MPL, exact, momentum": replace(QUICK, **EXACT),
        "MPL, exact, weight 10": replace(QUICK, **EXACT, weight=10.0),
        "MPL, sampled, weight 30": replace(QUICK, labels="sample", weight=30.0),
        "MPL, sampled, a product for each point": replace(
            QUICK, labels="sample", feedback="each", weight=10.0
        ),
        "MPL, exact, feedback alone": replace(QUICK, **EXACT, weight=10.0, supervised=0.0),
        "MPL, exact, 512 points a step": replace(QUICK, **EXACT, batch=512),
        "MPL, exact, moons of noise 0.05": replace(QUICK, **EXACT, noise=0.05),
        "UDA, distilled": replace(QUICK, labels="soft", feedback="", uda=1.0, jitter=0.2),
        "MPL, exact, with UDA": replace(QUICK, **EXACT, uda=1.0, jitter=0.2),
        "supervised, 100 + 100 labels, momentum": replace(QUICK, teach="none", labelled=100),
    },
    "momentum 0.9, U(-1, 1), 3,000 steps": {
        "supervised, wide": replace(WIDE, teach="none"),
        "MPL, exact, wide": replace(WIDE, **EXACT),
        "UDA 1, distilled, wide": replace(SMOOTH, uda=1.0),
        "UDA 4, distilled, wide": SMOOTH,
        "UDA 4, distilled by draws, wide": replace(SMOOTH, labels="sample"),
        "MPL, exact, with UDA 4": replace(SMOOTH, **EXACT),
        "MPL, exact, weight 10, with UDA 4": replace(SMOOTH, **EXACT, weight=10.0),
        "MPL, sampled, with UDA 4": replace(SMOOTH, labels="sample", feedback="difference"),
        "MPL, sampled, weight 30, with UDA 4": replace(
            SMOOTH, labels="sample", feedback="difference", weight=30.0
        ),
        "UDA 4, best of 5 restarts": replace(SMOOTH, restarts=5),
        "MPL, exact, with UDA 4, best of 5 restarts": replace(SMOOTH, **EXACT, restarts=5),
        "supervised, 100 + 100 labels, wide": replace(WIDE, teach="none", labelled=100),
    },
}
PAIRS = (  # what the feedback adds: (with, without)
    ("MPL, exact gradient", "supervised"),
    ("MPL, sampled", "supervised"),
    ("MPL, exact, momentum", "supervised, momentum"),
    ("MPL, exact, with UDA", "UDA, distilled"),
    ("MPL, exact, with UDA 4", "UDA 4, distilled, wide"),
    ("MPL, sampled, with UDA 4", "UDA 4, distilled by draws, wide"),
    ("MPL, exact, with UDA 4, best of 5 restarts", "UDA 4, best of 5 restarts"),
    ("UDA 4, distilled, wide", "supervised, wide"),
)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no further variant after so long")
    given = parser.parse_args()
    grid, begin = Grid("moons_mpl"), time.perf_counter()
    every = {name: v for group in GROUPS.values() for name, v in group.items()}
    for name, v in every.items():
        if not grid.done(name) and time.perf_counter() - begin < given.seconds:
            grid.add(name, **measure(v))
    if any(not grid.done(name) for name in every):
        print("not all variants are done: give the command again")
        return
    rows: list[dict[str, Any]] = []
    for group, variants in GROUPS.items():
        for name, v in variants.items():
            cell = grid.cells[name]
            right_of = np.array(cell["student"])
            told = mean_interval(right_of)
            rows.append(
                {
                    "group": group,
                    "variant": name,
                    "right": told.value,
                    "low": told.low,
                    "high": told.high,
                    "sd": float(right_of.std(ddof=1)),
                    "solved": int((right_of >= SOLVED).sum()),
                    "teacher": float(np.mean(cell["teacher"])) if v.teach != "none" else "",
                    "fits its labels": cell["fits its labels"],
                }
            )
    for one, other in PAIRS:
        gain = mean_interval(np.array(grid.cells[one]["student"]) - np.array(grid.cells[other]["student"]))
        rows.append(
            {"variant": f"{one} minus {other}", "gain": gain.value, "low": gain.low, "high": gain.high}
        )
    record("moons_mpl", rows, seeds=f"draws 0 to {DRAWS - 1}, paired")


if __name__ == "__main__":
    main()
