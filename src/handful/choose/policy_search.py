"""The search of an augmentation policy on the labelled pictures of a task: each candidate trains the recipe in a
cross-validation, ``augment.search.race`` leaves the best, and a last comparison on fresh folds says what it is worth.

Test and validation pictures are not looked at. Everything measured is kept line by line, so a killed search goes on.

Legend: n labelled pictures.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, field, fields
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

from handful.augment.named import make
from handful.augment.search import Tried, affordable, candidates, race
from handful.files import write_atomic
from handful.randomness import key
from handful.recipes.candidate import Candidate
from handful.recipes.table import find, fit_candidate
from handful.recipes.task import Task, Workshop
from handful.stats.intervals import Estimate, paired_difference
from handful.types import HandfulError, UsageError

LAST_ROUNDS = 2  # fresh cross-validations of the winner and the base
FRESH = 1000  # their numbers start here


@dataclass(frozen=True)
class SearchOptions:
    """What is searched, and how long.

    Attributes:
        recipe: one that trains a network and shows labelled pictures through a view.
        on: feature space; "" the recipe's usual one.
        base: the view that every policy is added to.
        seconds: of the search, turned into a number of candidates once.
        steps: of each training.
        views: candidates instead of the usual ones; the base is added.
    """

    recipe: str = "supervised"
    on: str = ""
    base: str = "weak"
    seconds: float = 600.0
    steps: int = 150
    views: tuple[str, ...] = ()


@dataclass
class Found:
    """The result of a search.

    Attributes:
        table: all candidates, best first.
        chosen: the best view, or the base where nothing beat it.
        gain: of the chosen view over the base on folds that the race did not see; None where the base was chosen.
    """

    table: list[Tried]
    base: str
    chosen: str
    gain: Estimate | None
    n_pictures: int
    options: SearchOptions = field(default_factory=SearchOptions)

    def sentences(self) -> list[tuple[str, str]]:
        """What came out, for people."""
        said = [
            (
                "searched",
                f"{len(self.table)} policies on {self.n_pictures} labelled pictures, by cross-validation",
            )
        ]
        if self.gain is None:
            return [*said, ("result", "no policy was better than the base")]
        low, high = (100 * end for end in self.gain.interval)
        leader = next(tried.view for tried in self.table if tried.view != self.base)
        gain = f"{100 * self.gain.value:+.1f} points (95 % interval {low:+.1f} to {high:+.1f})"
        said.append((f"gain of {leader} over {self.base} on fresh folds", gain))
        if self.chosen == self.base:
            said.append(("result", "that gain is none: the base stays"))
        return said


def search(task: Task, workshop: Workshop, options: SearchOptions, folder: Path) -> Found:
    """Search below ``folder``; the same call again goes on, or returns what was found.

    Raises:
        UsageError: the recipe trains no network with a view, or a class has a single labelled picture.
        HandfulError: ``folder`` holds another search.
    """
    row = find(options.recipe)
    if not row.trains or "view" not in {f.name for f in fields(row.method)}:
        raise UsageError(
            f"recipe '{options.recipe}' shows its pictures through no view",
            fix="--recipe supervised or fine-tune",
        )
    for view in (options.base, *options.views):
        make(view)
    if task.n_folds < 2:
        raise UsageError(
            "a class has a single labelled picture: nothing can be held out to search by",
            fix="label one more",
        )
    book = _Book(folder, f"{key(task.images.fingerprint, task.labelled.tolist(), task.seed, options):016x}")
    on = options.on or row.space(task)
    stages = folder / f".search-{book.identity}"
    work = Workshop(
        workshop.cache, stages, workshop.device, workshop.feature_backend, plan=dict(book.plan),
        save_every=0, spaces=workshop.spaces,
    )  # fmt: skip

    def measure(view: str, number: int) -> np.ndarray:
        done = book.read(view, number)
        if done is not None:
            return done
        begin = time.perf_counter()
        candidate = Candidate(options.recipe, on, row.make(view=view), {"steps": options.steps})
        right = np.zeros(len(task.y))
        seed = key(task.seed, "search", number)
        for fold, held in enumerate(task.folds(task.n_folds, seed=seed)):
            fitted = fit_candidate(candidate, task.without(held), work, stage=f"search/{number}.{fold}")
            right[held.numpy()] = (fitted.logits(task.labelled[held]).argmax(1) == task.y[held]).numpy()
        shutil.rmtree(stages, ignore_errors=True)
        book.keep(view, number, right, time.perf_counter() - begin, work.plan)
        return right

    first = list(dict.fromkeys([options.base, *options.views]))
    if options.views:
        views = first
    else:
        measure(options.base, 0)
        allowed = int(options.seconds / max(book.seconds_of(options.base), 1e-3)) - 2 * LAST_ROUNDS
        most = book.planned("candidates", affordable(allowed))
        gray = task.images.channels == 1
        views = list(islice(candidates(options.base, seed=task.seed, gray=gray), most))
        workshop.tell(f"{most} candidates are affordable in {options.seconds:.0f} s")
    turn = count(1)

    def tell(line: str) -> None:
        workshop.tell(line)
        workshop.progress("search", next(turn), len(book.lines))

    table = race(views, measure, tell)
    base = next(tried for tried in table if tried.view == options.base)
    leader = next((tried for tried in table if tried is not base), base)
    chosen, gain = options.base, None
    if leader.accuracy > base.accuracy:
        rounds = range(FRESH, FRESH + LAST_ROUNDS)
        best, plain = (np.stack([measure(t.view, i) for i in rounds]) for t in (leader, base))
        gain = paired_difference(best, plain)
        if gain.value > 0:  # otherwise the race was won by luck
            chosen = leader.view
    found = Found(table, options.base, chosen, gain, len(task.y), options)
    write_atomic(folder / "policy.toml", policy_text(found))
    return found


def policy_text(found: Found) -> str:
    """The policy file: the view for people and recipes, and how it was found."""
    import tomli_w

    o = found.options
    content: dict[str, Any] = {
        "view": found.chosen,
        "searched": {
            "recipe": o.recipe, "steps": o.steps, "base": found.base, "labelled_pictures": found.n_pictures,
        },
    }  # fmt: skip
    if found.gain is not None:
        content["searched"]["gain_of_the_best_on_fresh_folds"] = round(found.gain.value, 4)
        content["searched"]["gain_interval"] = [round(end, 4) for end in found.gain.interval]
    content["tried"] = [
        {"view": t.view, "accuracy": round(t.accuracy, 4), "rounds": len(t.rounds)} for t in found.table
    ]
    head = (
        "# Found by handful augment --search. Give this file to any recipe: --method.view THIS_FILE\n"
        "# The accuracies below chose the winner and flatter it; the gain on fresh folds does not.\n"
    )
    return head + tomli_w.dumps(content)


class _Book:
    """What was measured, a line each, with a first line that says of which search."""

    def __init__(self, folder: Path, identity: str) -> None:
        self.path, self.identity = folder / "search.jsonl", identity
        self.lines: list[dict[str, Any]] = []
        self.plan: dict[str, Any] = {}
        if self.path.exists():
            for text in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    line = json.loads(text)
                except json.JSONDecodeError:
                    break  # the line that a killed search was writing
                if "identity" in line and line["identity"] != identity:
                    raise HandfulError(
                        "belongs to a search on other pictures or with other options",
                        file=self.path,
                        fix="choose another folder with --out, or remove this file",
                    )
                self.plan |= line.get("plan", {})
                self.lines.append(line)
        self._write([{"identity": identity}, *(line for line in self.lines if "identity" not in line)])

    def read(self, view: str, number: int) -> np.ndarray | None:
        for line in self.lines:
            if line.get("view") == view and line["round"] == number:
                return np.array([float(digit) for digit in line["right"]])
        return None

    def seconds_of(self, view: str) -> float:
        return float(next(line["seconds"] for line in self.lines if line.get("view") == view))

    def planned(self, name: str, value: int) -> int:
        """A decision that depends on the clock: taken once."""
        if name not in self.plan:
            self.plan[name] = value
            self._write([*self.lines, {"plan": {name: value}}])
        return int(self.plan[name])

    def keep(self, view: str, number: int, right: np.ndarray, seconds: float, plan: dict[str, Any]) -> None:
        digits = "".join(str(int(r)) for r in right)
        new = {k: v for k, v in plan.items() if k not in self.plan}
        self.plan |= new
        line = {"view": view, "round": number, "right": digits, "seconds": round(seconds, 3), "plan": new}
        self._write([*self.lines, line])

    def _write(self, lines: list[dict[str, Any]]) -> None:
        self.lines = lines
        write_atomic(self.path, "".join(json.dumps(line) + "\n" for line in lines))
