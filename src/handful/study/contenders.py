"""What a comparison compares: a recipe with its settings, as a line of text says it, and the baselines beside it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from handful.augment.named import with_policies
from handful.randomness import key
from handful.recipes.candidate import Candidate
from handful.recipes.table import RECIPES, asked, find, spaces_for
from handful.study.draws import Source
from handful.types import UsageError

SYNTAX = re.compile(r"([^@:]*)(?:@(timm:[^:]*|[^:]*))?(?::(.*))?", re.DOTALL)  # NAME[@SPACE][:SETTINGS]
CHEAP_BASELINES = ("logistic", "nearest-mean", "knn")  # always in the table


@dataclass(frozen=True)
class Contender(Candidate):
    """A candidate as one line of the table; the recipe may be "auto".

    Attributes:
        seconds: of training a run (of the whole choice for "auto"); steps that are given leave it unused.
        without_priors: data sets that the automatic choice must not know.
    """

    seconds: float = 60.0
    without_priors: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """``fine-tune@lite0:training.steps=40``: what the command line takes."""
        changes = [f"method.{k}={v}" for k, v in self.method.items()]
        changes += [f"training.{k}={v}" for k, v in self.training.items()]
        where = f"@{self.on}" if self.on and self.recipe != "auto" else ""
        return f"{self.recipe}{where}" + (f":{','.join(changes)}" if changes else "")

    @property
    def uses_unlabelled(self) -> bool:
        return self.recipe == "auto" or find(self.recipe).uses_unlabelled or bool(self.init)

    @property
    def fingerprint(self) -> str:
        """Identifies everything that decides this contender's figures, besides the data."""
        timed = self.recipe == "auto" or (find(self.recipe).trains and not self.training.get("steps"))
        return f"{key(self.name, self.seconds if timed else 0, self.without_priors):016x}"


def parse(text: str, **rest: Any) -> Contender:
    """``NAME[@SPACE][:method.field=value,training.field=value,…]`` as a contender.

    Raises:
        UsageError: it cannot be read, names what is not there, or has settings that nobody would read.
    """
    recipe, on, tail = cast(re.Match[str], SYNTAX.fullmatch(text)).groups("")
    changes: dict[str, Any] = {"method": {}, "training": {}}
    for item in filter(None, tail.split(",")):
        path, equals, value = item.partition("=")
        part, dot, name = path.strip().partition(".")
        if not (equals and dot and part in changes):
            fix = "write it as RECIPE:training.steps=40,method.threshold=0.9"
            raise UsageError(f"'{item}' in '{text}' is not a setting", fix=fix)
        changes[part][name.replace("-", "_")] = _value(value.strip())
    changes["method"] = with_policies(changes["method"])
    found = Contender(recipe.strip(), on.strip(), **changes, **rest)
    asked(found.recipe, found.on, found.method, found.training)
    return found


def _value(text: str) -> Any:
    """A number, true or false as such; anything else as text."""
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def line_up(contenders: Sequence[Contender], source: Source) -> list[Contender]:
    """The contenders, their feature spaces filled in, and the labelled-only baselines that they are measured by:
    the cheap ones on every space in use, and each recipe's own labelled-only twin with the same training."""
    some = next(iter(source.tasks(1, 0)))[0]
    found: dict[str, Contender] = {}

    def add(c: Contender) -> None:
        if c.recipe != "auto":
            c = replace(c, on=c.on or find(c.recipe).space(some))
        found.setdefault(c.name, c)

    for c in contenders:
        add(c)
    for c in list(found.values()):
        on = c.on or spaces_for(some)[0]
        twin = "" if c.recipe == "auto" else find(c.recipe).labelled_only
        if not twin and c.init:
            twin = c.recipe
        for name in filter(None, (*CHEAP_BASELINES, twin)):
            training = {k: v for k, v in c.training.items() if k not in ("init", "init_steps", "start")}
            training = training if find(name).trains else {}
            here = "pixels" if find(name).on == "pixels" else on  # which looks at nothing else
            method = c.method if name == c.recipe else {}
            add(Contender(name, here, method, training, c.seconds))
    order = {name: i for i, name in enumerate([*RECIPES, "auto"])}
    return sorted(found.values(), key=lambda c: (c.uses_unlabelled, order[c.recipe], c.on))
