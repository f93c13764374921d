"""The command line: one explicit table of commands. Heavy imports wait until a command needs them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

from handful import __version__
from handful.types import HandfulError


class Command(NamedTuple):
    """A row of the table: what it does in a line, and the function that takes the rest of the words."""

    help: str
    module: str
    function: str

    def load(self) -> Callable[[Sequence[str]], int]:
        from importlib import import_module

        function: Callable[[Sequence[str]], int] = getattr(import_module(self.module), self.function)
        return function


COMMANDS = {
    "fit": Command(
        "train a classifier on a folder of pictures, few of them labelled", "handful.cli.fit", "fit"
    ),
    "predict": Command("classify pictures with a finished run", "handful.cli.predict", "predict"),
    "evaluate": Command(
        "how right is a finished run on labelled pictures?", "handful.cli.evaluate", "evaluate"
    ),
    "export": Command("a finished run as one ONNX or safetensors file", "handful.cli.export", "export"),
    "inspect": Command(
        "look at data: problems, balance, distributions, distance to another set",
        "handful.cli.inspect",
        "inspect",
    ),
    "compare": Command(
        "what is each technique worth in labels saved? a grid of recipes and label draws",
        "handful.cli.compare",
        "compare",
    ),
    "augment": Command(
        "see, search and apply augmentations on your own pictures", "handful.cli.augment", "augment"
    ),
    "distill": Command(
        "a small network learns from a large one: size, speed and accuracy in a table",
        "handful.cli.distill",
        "distill",
    ),
    "extend": Command(
        "add classes to a finished run, without its old pictures", "handful.cli.extend", "extend"
    ),
    "completion": Command(
        "a script that lets the shell complete commands and options",
        "handful.cli.completion",
        "completion",
    ),
    "moons": Command(
        "every semi-supervised method on two moons, with its decision regions",
        "handful.cli.moons",
        "moons",
    ),
    "demo": Command("the whole job on handwritten digits, 4 labels per class", "handful.cli.demo", "demo"),
}


def usage() -> str:
    """What ``handful --help`` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: handful COMMAND …        (handful COMMAND --help says more)",
            "",
            "The best image classifier that a handful of labels can buy.",
            "",
            *lines,
            "",
            "  --version, --help",
        ]
    )


def run(words: Sequence[str]) -> int:
    """Run one command; returns the exit code: 0, 1 failed, 2 usage, 130 / 143 stopped with state saved."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"handful {__version__}")
        return 0
    if words[0] not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(words[0], COMMANDS, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        print(
            f"error: there is no command '{words[0]}'\nFix: {hint}Known: {', '.join(COMMANDS)}",
            file=sys.stderr,
        )
        return 2
    try:
        code = COMMANDS[words[0]].load()(words[1:])
        sys.stdout.flush()
        return code
    except HandfulError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        print(f"error: {name}{error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def main() -> NoReturn:
    """The ``handful`` program."""
    sys.exit(run(sys.argv[1:]))
