"""``handful augment``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from handful import api
from handful.choose.policy_search import SearchOptions
from handful.cli.console import ConsoleTeller, Printed, parse, print_json
from handful.cli.options import options_of
from handful.types import UsageError


@dataclass(kw_only=True)
class AugmentArguments(Printed):
    """See what augmentations do to your pictures, search the policy that suits them, or write augmented copies."""

    data: Annotated[Positional[Path], arg(metavar="DATA")]
    """folder of pictures, as for handful fit"""
    options: Annotated[dict[str, Any], options_of(api.AugmentOptions(), without=("search",))] = field(
        default_factory=dict
    )
    search: bool = False
    """search the policy on the labelled pictures (by cross-validation; test pictures are not looked at)"""
    searched: Annotated[
        dict[str, Any], options_of(SearchOptions(), only=("recipe", "base", "seconds", "steps"))
    ] = field(default_factory=dict)
    apply: Path | None = None
    """folder for augmented copies of the labelled and unlabelled pictures"""
    out: Path | None = None
    """folder of gallery.html and policy.toml (default: runs/NAME-augment)"""


def augment(words: Sequence[str]) -> int:
    given = parse(AugmentArguments, "augment", words)
    if given.search and "view" in given.options:
        raise UsageError("--search finds the view that --view would give", fix="leave one of them out")
    wanted = SearchOptions(**given.searched)
    options = api.AugmentOptions(**given.options, search=wanted if given.search else None)
    with ConsoleTeller(quiet=given.quiet or given.json) as teller:
        done = api.augment(given.data, options, out=given.out, apply=given.apply, teller=teller)
    if given.json:
        policy = str(done.policy) if done.policy else None
        about = {"view": done.view, "folder": str(done.folder), "policy": policy, "written": done.written}
        print_json(about)
        return 0
    print(f"policy:   {done.view}")
    print(f"gallery:  {done.folder / 'gallery.html'}")
    if done.policy:
        data, file = shlex.quote(str(given.data)), shlex.quote(str(done.policy))
        print(f"use it:   handful fit {data} --recipe {wanted.recipe} --method.view {file}")
    if given.apply:
        print(f"copies:   {done.written} pictures in {given.apply}")
    return 0
