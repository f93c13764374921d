"""Runs jobs in forks of a process that has imported everything and computed nothing (so that forking is safe).

A job is a JSON line: {"words": [...], "point": name or "", "nth": n}. The fork kills itself with SIGKILL at the
n-th passage of the named point. The answer is a JSON line with the exit code (-9 where it was killed).
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import handful.choose.auto
import handful.cli.fit
import handful.data.images
import handful.engine.update
import handful.models.backbones
import handful.recipes.train
import handful.report.page
from handful.cli import main as cli


def before(
    function: Callable[..., Any], nth: int, matches: Callable[..., bool] = lambda *_: True
) -> Callable[..., Any]:
    """``function`` that dies just before its n-th matching call."""
    count = 0

    def wrapped(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        if matches(*arguments):
            count += 1
            if count == nth:
                os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)

    return wrapped


def after(function: Callable[..., Any], nth: int, matches: Callable[..., bool]) -> Callable[..., Any]:
    """``function`` that dies just after its n-th matching call."""
    count = 0

    def wrapped(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        result = function(*arguments, **options)
        if matches(*arguments):
            count += 1
            if count == nth:
                os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapped


def to(ending: str) -> Callable[..., bool]:
    """Whether a rename goes to a file whose name ends so."""
    return lambda source, target: Path(target).name.endswith(ending)


def set_trap(point: str, nth: int) -> None:
    if point == "in a step":
        torch.optim.SGD.step = before(torch.optim.SGD.step, nth)  # type: ignore[method-assign]
    elif point == "in the backward pass":
        torch.Tensor.backward = before(torch.Tensor.backward, nth)  # type: ignore[method-assign]
    elif point == "in evaluation":
        handful.recipes.train.predict = before(handful.recipes.train.predict, nth)
    elif point == "while decoding":
        handful.data.images.decode = before(handful.data.images.decode, nth)
    elif point == "store written, not renamed":
        os.replace = before(os.replace, nth, lambda source, target: Path(source).is_dir())
    elif point.startswith("before renaming to "):
        os.replace = before(os.replace, nth, to(point.removeprefix("before renaming to ")))
    elif point.startswith("after renaming to "):
        os.replace = after(os.replace, nth, to(point.removeprefix("after renaming to ")))
    elif point == "writing the report":
        handful.report.page.render = before(handful.report.page.render, nth)
    elif point:
        raise ValueError(point)


def main() -> None:
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            os.environ.update(job["environment"])
            set_trap(job["point"], job["nth"])
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            code = cli.run(job["words"])
            os._exit(code)
        if job.get("tell"):
            print(json.dumps({"child": child}), flush=True)
        _, status = os.waitpid(child, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    main()
