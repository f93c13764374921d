"""``handful completion``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import Annotated, Any, Literal, Union

import tyro
from tyro.conf import Positional, arg

from handful import cli
from handful.cli.console import parse
from handful.types import UsageError


@dataclass
class CompletionArguments:
    """Print a script that lets the shell complete commands and options.

    bash: handful completion bash > ~/.local/share/bash-completion/completions/handful
    zsh:  handful completion zsh > a folder of $fpath, as _handful"""

    shell: Annotated[Positional[Literal["bash", "zsh"]], arg(metavar="bash|zsh")]
    """which shell"""


def completion(words: Sequence[str]) -> int:
    given = parse(CompletionArguments, "completion", words)
    print(script(given.shell))
    return 0


def script(shell: str) -> str:
    """The script, made from the same argument classes that the commands parse.

    Raises:
        UsageError: tyro cannot make it.
    """
    import contextlib
    import io

    told = io.StringIO()
    every: Any = Union[tuple(Annotated[kind, tyro.conf.subcommand(name)] for name, kind in classes().items())]  # noqa: UP007 - of a list
    with contextlib.redirect_stdout(told), contextlib.suppress(SystemExit):
        tyro.cli(every, prog="handful", args=["--tyro-print-completion", shell])
    if not told.getvalue():
        raise UsageError(f"no completion for {shell}", fix="use bash or zsh")
    return told.getvalue()


def classes() -> dict[str, type]:
    """The class of each command's arguments: ``FitArguments`` of the command ``fit``. A command of several forms
    (``InspectArguments``, ``InspectModelArguments``) gets the options of all."""
    found: dict[str, type] = {}
    for module in sorted(m.name for m in iter_modules(cli.__path__)):
        inside = vars(import_module(f"{cli.__name__}.{module}"))
        for name, kind in inside.items():
            if name.endswith("Arguments") and kind.__module__.endswith(f".{module}"):
                command = re.findall("[A-Z][a-z]+", name)[0].lower()
                forms = (found[command], kind) if command in found else (kind,)
                found[command] = dataclass(type(name, forms, {})) if len(forms) > 1 else kind
    return dict(sorted(found.items()))
