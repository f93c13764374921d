"""``handful moons``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from handful import api
from handful.cli.console import ConsoleTeller, parse
from handful.study.moons import Moons


@dataclass
class MoonsArguments:
    """See every semi-supervised method at work on two moons: 2,000 points in the plane, 3 + 3 of them labelled."""

    methods: str = ""
    """as fixmatch;vat (default: every method of the table and some variants; --methods list names them)"""
    seeds: int = 1
    """draws of points, labels and first weights; the first is drawn, all are in the table"""
    out: Path = Path("runs/moons")
    """folder of the page"""
    moons: Moons = field(default_factory=Moons)


def moons(words: Sequence[str]) -> int:
    given = parse(MoonsArguments, "moons", words)
    if given.methods == "list":
        print("\n".join(api.moons_methods()))
        return 0
    names = [name.strip() for name in given.methods.split(";") if name.strip()]
    with ConsoleTeller() as teller:
        page = api.moons(names, given.moons, seeds=given.seeds, out=given.out, teller=teller)
    print(f"page: {page}\n({teller.elapsed:.0f} s)")
    return 0
