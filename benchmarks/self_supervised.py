"""Self-supervised starts on Fashion-MNIST: does a network that has seen no label know more than a fresh one?

The pool is all 60,000 pictures. A small residual net (28 px, 1 million weights) learns a jigsaw, SimCLR or patch
contrast for 300 steps (of 96 to 192 passes of a picture or its parts), three label draws. Then, at 4 and 25 labels per
class:

- probe: logistic regression on the frozen network's features, beside that on a network with random weights (with batch
  norm's statistics found in the same way);
- fine-tuned: supervised training from there for 300 steps, beside the same from random weights;
- beside: the same task as a second loss beside the labels, 300 steps, at 25 labels per class.

Differences are paired by draw. About 35 minutes on one core with bfloat16 and without AMX. Defaults everywhere: nothing
was chosen on Fashion-MNIST.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.cells import Grid, score, spread, task_for
from benchmarks.common import arguments, record
from benchmarks.datasets import DATASETS, Dataset
from benchmarks.grids import RUNS
from handful.api import cache_folder
from handful.augment.views import to_input
from handful.inference.logits import evaluating
from handful.methods.probe import LogisticRegression
from handful.methods.table import PRETEXT, REGISTRY
from handful.models.backbones import create
from handful.models.heads import Centre
from handful.models.norms import find_statistics
from handful.recipes.stage import Stage
from handful.recipes.table import find
from handful.recipes.task import Task, Workshop
from handful.recipes.train import self_supervised
from handful.recipes.training import INITS, Training, small_training
from handful.stats.intervals import mean_interval

STEPS, RATIO, LABELS, BESIDE_AT = 300, 3, (4, 25), 25
STARTS = ("random", *INITS)
PRETEXTS = [name for name, row in REGISTRY.items() if row.family == PRETEXT]


def network(task: Task, workshop: Workshop, training: Training) -> Any:
    """The frozen network after ``training.init``."""
    size, channels = task.images.side, task.images.channels
    made: Any = create(training.backbone, channels=channels, size=size, seed=task.seed)
    if training.init == "random":
        find_statistics(made, [to_input(task.images.take(task.pool()[:1024]), made.spec)])
    else:
        made.body.load_state_dict(self_supervised(Stage("", task, None, training), workshop))
    return made


def probe(task: Task, made: Any, data: Dataset) -> float:
    """Percent of the test part that logistic regression on frozen features gets right."""

    def features(rows: Tensor) -> Tensor:
        with evaluating(made):
            parts = rows.split(512)
            return torch.cat(
                [made(to_input(task.images.take(part), made.spec)).features for part in parts]
            ).clone()

    learnt, test = features(task.labelled), features(torch.from_numpy(data.test))
    centre = Centre(learnt.shape[1]).fit(features(task.unlabelled[:4096]))
    head = LogisticRegression().fit(centre(learnt), task.y, task.n_classes)
    with torch.no_grad():
        guess = head(centre(test)).argmax(1).numpy()
    return round(float(100 * (guess == data.y[data.test]).mean()), 3)


def measure(grid: Grid, data: Dataset, seed: int, steps: int, pool: int) -> None:
    """All cells of one draw."""
    for labels in LABELS:
        task = task_for(data, labels, seed, pool)
        for init in STARTS:
            training = replace(small_training(task), steps=steps, ratio=RATIO, init=init)
            # one folder for all cells of a draw: the start is trained once
            workshop = Workshop(cache_folder(), RUNS / "self_supervised" / str(seed))
            if not grid.done(f"{seed}/{labels}/{init}"):
                frozen = probe(task, network(task, workshop, training), data)
                name = f"supervised-{labels}"
                tuned = find("supervised").run(task, workshop, on="pixels", training=training, stage=name)
                grid.add(f"{seed}/{labels}/{init}", probe=frozen, tuned=round(score(tuned, data), 3))
        for name in PRETEXTS if labels == BESIDE_AT else ():
            if not grid.done(f"{seed}/{labels}/beside {name}"):
                training = replace(small_training(task), steps=steps, ratio=RATIO)
                workshop = Workshop(cache_folder(), RUNS / "self_supervised" / str(seed))
                beside = find(name).run(task, workshop, on="pixels", training=training, stage=name)
                grid.add(f"{seed}/{labels}/beside {name}", tuned=round(score(beside, data), 3))


def rows(grid: Grid, seeds: range) -> list[dict[str, Any]]:
    """Means, spreads and paired differences to random weights."""
    found = []
    for labels in LABELS:
        for what in (*STARTS, *(f"beside {name}" for name in PRETEXTS)):
            cells = [grid.cells.get(f"{s}/{labels}/{what}") for s in seeds]
            if None in cells:
                continue
            row: dict[str, Any] = {"labels": labels, "start": what}
            for kind in ("probe", "tuned"):
                values = [c[kind] for c in cells if c and kind in c]
                if values:
                    told = spread(values)
                    row |= {kind: told["mean"], f"{kind} sd": told["sd"]}
                    base = [grid.cells[f"{s}/{labels}/random"][kind] for s in seeds]
                    if what != "random":
                        gain = mean_interval(np.array(values) - np.array(base))
                        row |= {f"{kind} gain": round(gain.value, 2)}
                        row |= {f"{kind} gain {end}": round(getattr(gain, end), 2) for end in ("low", "high")}
            found.append(row)
    return found


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS, help="of every start and of every training")
    parser.add_argument("--pool", type=int, default=0, help="pictures without labels; 0: all")
    given = parser.parse_args()
    grid, data = Grid("self_supervised"), DATASETS["fashion_mnist"](given.data_root)
    seeds = range(given.draws)
    for seed in seeds:
        measure(grid, data, seed, given.steps, given.pool)
    about = {"seeds": f"label draws 0 to {given.draws - 1}", "steps": given.steps, "ratio": RATIO}
    record("self_supervised", rows(grid, seeds), **about, pool=given.pool or len(data.pool))


if __name__ == "__main__":
    main()
