"""``handful augment``."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from handful import api
from handful.choose.policy_search import SearchOptions
from handful.cli.console import ConsoleTeller, seconds
from handful.types import UsageError


@dataclass
class AugmentArguments:
    """See what augmentations do to your pictures, search the policy that suits them, or write augmented copies."""

    data: Annotated[Positional[Path], arg(metavar="DATA")]
    """folder of pictures, as for handful fit"""
    view: str = "weak+randaugment"
    """the policy that is shown and applied: a view such as weak+randaugment:n=2:m=9, or a policy file"""
    search: bool = False
    """search the policy on the labelled pictures (by cross-validation; test pictures are not looked at)"""
    time: str = "10m"
    """of the search"""
    recipe: str = "supervised"
    """that the search trains: supervised or fine-tune"""
    steps: int = 150
    """of each training in the search"""
    base: str = "weak"
    """the view that searched policies are added to"""
    apply: Path | None = None
    """folder for augmented copies of the labelled and unlabelled pictures"""
    copies: int = 5
    """of each picture"""
    out: Path | None = None
    """folder of gallery.html and policy.toml (default: runs/NAME-augment)"""
    side: int = 0
    """pixels that pictures are stored at, and copies written at (default: by the pictures)"""
    seed: int = 0
    """of every random draw"""
    json: bool = False
    """print the result as JSON"""
    quiet: bool = False
    """no news, and no progress bar"""


def augment(words: Sequence[str]) -> int:
    """``handful augment DATA …``"""
    given = tyro.cli(AugmentArguments, args=list(words), prog="handful augment")
    if given.search and any(word.partition("=")[0] == "--view" for word in words):
        raise UsageError("--search finds the view that --view would give", fix="leave one of them out")
    wanted = None
    if given.search:
        wanted = SearchOptions(given.recipe, base=given.base, seconds=seconds(given.time), steps=given.steps)
    with ConsoleTeller(quiet=given.quiet or given.json) as teller:
        done = api.augment(
            given.data,
            api.AugmentOptions(
                view=given.view, search=wanted, copies=given.copies, side=given.side, seed=given.seed
            ),
            out=given.out,
            apply=given.apply,
            teller=teller,
        )
    if given.json:
        policy = str(done.policy) if done.policy else None
        about = {"view": done.view, "folder": str(done.folder), "policy": policy, "written": done.written}
        print(json.dumps(about, ensure_ascii=False))
        return 0
    print(f"policy:   {done.view}")
    print(f"gallery:  {done.folder / 'gallery.html'}")
    if done.policy:
        file = shlex.quote(str(done.policy))
        print(
            f"use it:   handful fit {shlex.quote(str(given.data))} --recipe {given.recipe} --method.view {file}"
        )
    if given.apply:
        print(f"copies:   {done.written} pictures in {given.apply}")
    return 0
