"""The command line: one explicit table of commands. Heavy imports wait until a command needs them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NoReturn

from handful import __version__
from handful.types import HandfulError, did_you_mean

COMMANDS = {
    "fit": "train a classifier on a folder of pictures, few of them labelled",
    "predict": "classify pictures with a finished run",
    "evaluate": "how right is a finished run on labelled pictures?",
    "export": "a finished run as one ONNX or safetensors file",
    "inspect": "look at data: problems, balance, distributions, distance to another set",
    "compare": "what is each technique worth in labels saved? a grid of recipes and label draws",
    "augment": "see, search and apply augmentations on your own pictures",
    "distill": "a small network learns from a large one: size, speed and accuracy in a table",
    "extend": "add classes to a finished run, without its old pictures",
    "completion": "a script that lets the shell complete commands and options",
    "moons": "every semi-supervised method on two moons, with its decision regions",
    "demo": "the whole job on handwritten digits, 4 labels per class",
}
"""Name and what it does in a line. The command ``fit`` is the function ``fit`` of ``cli.fit``."""


def load(name: str) -> Callable[[Sequence[str]], int]:
    """The function of a command, which takes the rest of the words and gives the exit code."""
    function: Callable[[Sequence[str]], int] = getattr(import_module(f"handful.cli.{name}"), name)
    return function


def usage() -> str:
    """What ``handful --help`` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()]
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
        fix = f"{did_you_mean(words[0], COMMANDS)} Known: {', '.join(COMMANDS)}".strip()
        print(f"error: there is no command '{words[0]}'\nFix: {fix}", file=sys.stderr)
        return 2
    try:
        code = load(words[0])(words[1:])
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
