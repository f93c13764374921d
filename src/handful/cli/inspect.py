"""``handful inspect``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from handful import api
from handful.cli.console import ConsoleTeller, Printed, parse, print_json, said
from handful.data.audit import in_short
from handful.report.words import percent, span


@dataclass(kw_only=True)
class InspectArguments(Printed):
    """Look at data before anything is trained: problems, class balance, mean pictures, distributions; against another
    set: how far apart are they? With --model NAME [DATA]: look at a network (--model NAME --help says more)."""

    data: Annotated[Positional[str], arg(metavar="DATA")]
    """what handful fit takes; a folder of pictures without classes will do"""
    against: str = ""
    """another set of pictures, to measure how far apart the two are"""
    out: Path | None = None
    """folder of the page and of issues.csv (default: runs/NAME-inspect)"""


def inspect(words: Sequence[str]) -> int:
    """``handful inspect DATA [--against OTHER]``, or ``handful inspect --model NAME [DATA]``"""
    if any(word == "--model" or word.startswith("--model=") for word in words):
        from handful.cli.inspect_model import inspect_model

        return inspect_model(words)
    given = parse(InspectArguments, "inspect", words)
    with ConsoleTeller(quiet=given.quiet or given.json) as teller:
        command = said("inspect", words)
        done = api.inspect(given.data, given.against or None, out=given.out, teller=teller, command=command)
    if given.json:
        print_json(as_dict(done, teller.elapsed))
        return 0
    lines = [f"problems: {in_short(done.issues) or 'none found'}"]
    if done.gap:
        lines.append(
            f"told apart: {percent(done.gap.accuracy.value)} of pictures (95 % interval "
            f"{span(done.gap.accuracy.interval)}, chance 50 %): "
            + ("the two sets differ" if done.gap.apart else "no difference was found")
        )
    print("\n".join([*lines, f"report: {done.folder / 'report.html'}"]))
    print(f"({teller.elapsed:.0f} s)")
    return 0


def as_dict(done: api.Inspected, elapsed: float) -> dict[str, Any]:
    """What JSON can hold of the result."""
    gap = done.gap
    return {
        "folder": str(done.folder),
        "issues": [asdict(issue) for issue in done.issues],
        "told_apart": None
        if gap is None
        else {"accuracy": gap.accuracy.value, "interval": gap.accuracy.interval, "differ": bool(gap.apart)},
        "seconds": round(elapsed, 1),
    }
