"""Five classes, and five more: Learning without Forgetting on Fashion-MNIST, and three and two classes of tf_flowers.

A network learns the old classes (400 and 100 labels each, drawn by the seed) and is given the new ones (200 and 50
each) without its old pictures, in four ways of as many steps, batch, view and rate: Learning without Forgetting, plain
fine-tuning, feature extraction (the warm-up alone, solved), and joint training, which does see the old pictures (the
upper bound: one head, half of each batch from either side). On Fashion-MNIST it is a small network from scratch, with
the first five classes as old ones, and with another five for each seed; on tf_flowers it is EfficientNet-Lite0,
fine-tuned at 96 px, and the features of the same network, unchanged, with a probe. ``kept`` is the share of what plain
fine-tuning forgot, task-aware, seed by seed and over all seeds. "Norms the other way": batch norm's statistics frozen
where they follow the new pictures (the small network), and following them where they are frozen (the pretrained one).
The rows with 5 new labels per class ask whether Learning without Forgetting is a regulariser: there only the new
classes count. In both the heads are not set side by side.

Test pictures only score. Rates, steps and the way in which heads are set side by side were found on training pictures
that no cell learns from. About 40 minutes on one core; a killed run goes on in the training that it was in.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.cells import Grid
from benchmarks.common import arguments, record
from benchmarks.datasets import Dataset, fashion_mnist, tf_flowers
from benchmarks.grids import RUNS
from handful.api import cache_folder
from handful.data.split import draw
from handful.inference.logits import predict
from handful.methods.forgetting import LearningWithoutForgetting
from handful.methods.supervised import Supervised
from handful.models.heads import LinearHead
from handful.recipes.candidate import Candidate
from handful.recipes.extend import FIXED, LWF, PLAIN, Old, add_classes, extended, further, read, warmed_up
from handful.recipes.stage import Stage
from handful.recipes.table import find, fit_candidate
from handful.recipes.task import Fitted, Task, Workshop
from handful.recipes.train import Built, train
from handful.run.places import slug
from handful.stats.intervals import mean_interval

BEFORE, JOINT = "before", "joint-training"
NORMS, FEW = "norms the other way", "5 new labels per class"
FIGURES = (
    "old task-aware",
    "new task-aware",
    "average task-aware",
    "old joint",
    "new joint",
    "average joint",
)
NONE = torch.empty(0, dtype=torch.int64)


@dataclass(frozen=True)
class Setting:
    """One data set: which network, how many labels and steps.

    Attributes:
        n_old: old classes; the others are new.
        old, new: labels per class.
        old_steps, steps: of the old network, and of each way of going on.
        few: labels per class of the new task in which only few are known; 0: no such cells.
        drawn: each seed draws which classes are old; otherwise the first ones are.
    """

    data: str
    recipe: str
    on: str
    n_old: int
    old: int
    new: int
    old_steps: int
    steps: int
    few: int = 0
    drawn: bool = False

    @property
    def name(self) -> str:
        return f"{self.data} {self.recipe}{', classes drawn' if self.drawn else ''}"


SETTINGS = (
    Setting("fashion_mnist", "supervised", "pixels", 5, 400, 200, 400, 300, few=5),
    Setting("fashion_mnist", "supervised", "pixels", 5, 400, 200, 400, 300, drawn=True),
    Setting("tf_flowers", "fine-tune", "lite0", 3, 100, 50, 60, 60),
    Setting("tf_flowers", "logistic", "lite0", 3, 100, 50, 0, 0),
)


class Split:
    """One seed: old and new classes, their labelled pictures, and the old network, made when it is first needed."""

    def __init__(self, data: Dataset, setting: Setting, seed: int, most_test: int) -> None:
        self.data, self.setting, self.seed = data, setting, seed
        order = np.arange(len(data.classes))
        if setting.drawn:
            order = np.random.RandomState(seed).permutation(order)
        self.order = [int(k) for k in order]
        place = np.argsort(order)
        self.y = torch.from_numpy(place[data.y])  # old classes are 0 … n_old - 1
        rows = data.test
        if most_test and len(rows) > most_test:
            rows = np.sort(np.random.RandomState(0).choice(rows, most_test, replace=False))
        self.test = torch.from_numpy(rows)
        self.workshop = Workshop(cache_folder(), RUNS / "extend" / slug(setting.name) / str(seed))
        self._old: Old | None = None

    def task(self, side: slice, per_class: int) -> Task:
        """``per_class`` labelled pictures of some of the classes, numbered from 0."""
        numbers = range(len(self.order))[side]
        pool, y = self.data.pool, self.y.numpy()
        inside = pool[np.isin(y[pool], numbers)]
        rows = torch.from_numpy(inside[draw(y[inside] - numbers.start, per_class, self.seed)])
        names = tuple(self.data.classes[self.order[k]] for k in numbers)
        return Task(self.data.images, rows, self.y[rows] - numbers.start, NONE, names, seed=self.seed)

    def old(self) -> Old:
        """The classifier of the old classes; a network is kept below ``runs/``."""
        if self._old is None:
            s = self.setting
            task = self.task(slice(0, s.n_old), s.old)
            training = {"steps": s.old_steps, **({"size": 96} if s.recipe == "fine-tune" else {})}
            candidate = Candidate(s.recipe, s.on, training=training if s.old_steps else {})
            fitted = fit_candidate(candidate, task, self.workshop, stage="old")
            mark = f"{s.name} {self.seed} {s.old} {s.old_steps}"
            self._old = Old(fitted.classifier.eval(), s.n_old, mark)
        return self._old

    def run(self, way: str, kind: str) -> dict[str, Any]:
        """One way of adding the new classes, scored; in the usual kind its heads are side by side."""
        s, old = self.setting, self.old()
        if way == BEFORE:
            return self.before()
        task = self.task(slice(s.n_old, None), s.few if kind == FEW else s.new)
        training = replace(further(old, task), steps=s.steps, batch=32 if s.data == "fashion_mnist" else 16)
        method = LearningWithoutForgetting(s.n_old)
        if way == JOINT:
            fitted = self.joint(old, task)
        elif kind:
            if kind == NORMS:
                training = replace(training, freeze_norms=not training.freeze_norms)
            fitted = extended(old, Stage(f"{kind} {way}", task, method, training), self.workshop, way)
            found = self.score(fitted.logits(self.test))
            return {name: value for name, value in found.items() if "joint" not in name}
        else:
            done = add_classes(old, Stage("", task, method, training), self.workshop, only=(way,))
            fitted = done.attempts[way].fitted
        return self.score(fitted.logits(self.test))

    def joint(self, old: Old, task: Task) -> Fitted:
        """Training on old and new pictures, from the old network with one head of all rows; a probe is solved anew."""
        s = self.setting
        before = self.task(slice(0, s.n_old), s.old)
        names = (*before.classes, *task.classes)
        # as many new pictures as old ones in a batch: the rarer side comes more often
        times = max(1, round(len(before.labelled) / len(task.labelled)))
        both = Task(
            self.data.images,
            torch.cat([before.labelled, task.labelled.repeat(times)]),
            torch.cat([before.y, (task.y + s.n_old).repeat(times)]),
            NONE,
            names,
            seed=self.seed,
        )
        if not old.trains:
            return find(s.recipe).run(both, self.workshop, on=s.on, stage=JOINT)
        network, config = warmed_up(old, task, self.workshop)
        head: Any = network.head
        rows = LinearHead(head.old.in_features, len(names))
        with torch.no_grad():
            rows.weight.copy_(torch.cat([head.old.weight, head.young.weight]))
            rows.bias.copy_(torch.cat([head.old.bias, head.young.bias]))
        network.head = rows
        config = {**config, "head": rows.config()}
        training = replace(further(old, task), steps=s.steps, batch=32 if s.data == "fashion_mnist" else 16)
        stage = Stage(JOINT, both, Supervised(view="plain"), training, origin=old.fingerprint)
        return train(stage, self.workshop, lambda done: Built(network, config))

    def score(self, logits: Tensor) -> dict[str, Any]:
        """Both readings on both sides, in percent."""
        s, y = self.setting, self.y[self.test]
        found: dict[str, float] = {}
        for side, mask in (("old", y < s.n_old), ("new", y >= s.n_old)):
            reading = read(logits[mask], y[mask], s.n_old)
            found[f"{side} task-aware"] = 100 * float(reading.task_aware.double().mean())
            found[f"{side} joint"] = 100 * float(reading.joint.double().mean())
        for name in ("task-aware", "joint"):
            found[f"average {name}"] = (found[f"old {name}"] + found[f"new {name}"]) / 2
        return {name: round(found[name], 3) for name in FIGURES}

    def before(self) -> dict[str, Any]:
        """The old network on the old test pictures."""
        rows = self.test[self.y[self.test] < self.setting.n_old]
        classifier = self.old().classifier
        logits = predict(classifier, self.data.images, rows, classifier.spec)
        return {"old task-aware": round(100 * float((logits.argmax(1) == self.y[rows]).double().mean()), 3)}


def kept(before: float, lwf: float, plain: float) -> float | None:
    """Share of what plain fine-tuning forgot that is not forgotten; None where it forgot less than half a point."""
    return (lwf - plain) / (before - plain) if before - plain >= 0.5 else None


def jobs(setting: Setting) -> list[tuple[str, str]]:
    """(way, kind) of every cell of a seed."""
    if setting.recipe == "logistic":  # nothing trains but the new rows
        return [(BEFORE, ""), (FIXED, ""), (JOINT, "")]
    found = [(way, "") for way in (BEFORE, LWF, PLAIN, FIXED, JOINT)]
    if setting.drawn:
        return found
    found += [(way, NORMS) for way in (LWF, PLAIN)]
    return found + ([(way, FEW) for way in (LWF, PLAIN, FIXED)] if setting.few else [])


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=0, help="of each way; 0: the setting's own")
    parser.add_argument("--old-steps", type=int, default=0, help="of the old network; 0: the setting's own")
    parser.add_argument("--labels", type=int, default=0, help="per class at most; 0: the setting's own")
    parser.add_argument("--test", type=int, default=4000, help="test pictures at most; 0: all")
    parser.add_argument("--data", default="", help="one data set alone")
    given = parser.parse_args()
    grid, rows = Grid("extend"), []
    for setting in SETTINGS:
        if given.data and setting.data != given.data:
            continue
        setting = shrunk(setting, given)
        rows += table(setting, grid, load(setting.data, given.data_root), given)
    record(
        "extend", rows, seeds=f"splits and label draws 0 to {given.seeds - 1}", test=given.test or "all",
    )  # fmt: skip


def load(name: str, root: Path) -> Dataset:
    return {"fashion_mnist": fashion_mnist, "tf_flowers": tf_flowers}[name](root)


def shrunk(setting: Setting, given: Any) -> Setting:
    """The setting with what the command line says."""
    changes: dict[str, int] = {}
    if given.steps and setting.steps:
        changes["steps"] = given.steps
    if given.old_steps and setting.old_steps:
        changes["old_steps"] = given.old_steps
    if given.labels:
        changes |= {"old": min(setting.old, given.labels), "new": min(setting.new, given.labels)}
    return replace(setting, **changes)


def table(setting: Setting, grid: Grid, data: Dataset, given: Any) -> list[dict[str, Any]]:
    """Run what is missing; a row for each way: means over seeds, and what was kept."""
    cells: dict[tuple[str, str, int], dict[str, Any]] = {}
    for seed in range(given.seeds):
        split: Split | None = None
        for way, kind in jobs(setting):
            cell = f"{setting}/{given.test}/{seed}/{way}/{kind}"
            if not grid.done(cell):
                begin = time.perf_counter()
                split = split or Split(data, setting, seed, given.test)
                grid.add(cell, **split.run(way, kind), seconds=round(time.perf_counter() - begin, 1))
            cells[way, kind, seed] = grid.cells[cell]
    rows = []
    for way, kind in jobs(setting):

        def of(name: str, way: str = way, kind: str = kind) -> list[float | None]:
            """A figure of every seed."""
            return [cells[way, kind, seed].get(name) for seed in range(given.seeds)]

        row: dict[str, Any] = {"data": setting.name, "way": f"{way}, {kind}" if kind else way}
        for name in FIGURES:
            values = [value for value in of(name) if value is not None]
            if values:
                row[name] = round(float(np.mean(values)), 2)
                row[f"{name}, each seed"] = " ".join(f"{value:.1f}" for value in values)
        if way == LWF:
            row |= against_plain(of, kind)
        rows.append(row)
    return rows


def against_plain(of: Any, kind: str) -> dict[str, Any]:
    """What was kept, seed by seed, and the paired differences to plain fine-tuning with 95 % intervals over seeds."""
    row: dict[str, Any] = {}
    if kind != FEW:
        asked = [of("old task-aware", BEFORE, ""), of("old task-aware", LWF), of("old task-aware", PLAIN)]
        shares = [kept(*values) for values in zip(*asked)]
        row["kept, each seed"] = " ".join("nothing forgotten" if s is None else f"{s:.2f}" for s in shares)
        known = np.array([s for s in shares if s is not None])
        if len(known):
            row["kept"], interval = round(float(known.mean()), 3), mean_interval(known)
            if len(known) > 1:
                row |= {"kept low": round(interval.low, 3), "kept high": round(interval.high, 3)}
        before, lwf, plain = (float(np.sum(values)) for values in asked)
        if (together := kept(before / len(shares), lwf / len(shares), plain / len(shares))) is not None:
            row["kept of what all seeds forgot"] = round(together, 3)
    for name in ("old task-aware", "new task-aware"):
        gain = mean_interval(np.array(of(name, LWF)) - np.array(of(name, PLAIN)))
        row[f"{name} minus plain fine-tuning"] = round(gain.value, 2)
        row |= {f"{name} low": round(gain.low, 2), f"{name} high": round(gain.high, 2)}
    return row


if __name__ == "__main__":
    main()
