"""What a classifier costs where it is used: bytes, parameters, arithmetic, and time for one picture.

Times are of one thread and one picture, from the decoded pixels to the probabilities. The calls that are compared take
turns, so that what else the machine does meets all of them alike.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import torch

from handful.augment.views import to_input
from handful.deliver.onnx import NEEDS, parity, to_onnx
from handful.deliver.teachers import Teacher, open_session, read_teacher
from handful.export import Saved, size_on_disk
from handful.models.count import count
from handful.types import HandfulError

ROUNDS, WARM = 31, 3
Call = Callable[[], Any]


@dataclass(frozen=True)
class Cost:
    """Of one classifier; None where it is not known.

    Attributes:
        bytes: of the weights' file.
        torch_ms, onnx_ms: medians for one picture in PyTorch and in ONNX Runtime.
        onnx_bytes: of the ONNX file.
        difference: largest difference of a probability between the ONNX file and PyTorch.
    """

    bytes: int | None = None
    parameters: int | None = None
    flops: int | None = None
    torch_ms: float | None = None
    onnx_ms: float | None = None
    onnx_bytes: int | None = None
    difference: float | None = None


def costs(
    networks: Mapping[str, Saved],
    files: Mapping[str, Teacher],
    *,
    tell: Callable[[str], None] = lambda line: None,
    rounds: int = ROUNDS,
) -> dict[str, Cost]:
    """The costs of networks, and of teachers that are ONNX files, by name."""
    torch_calls: dict[str, Call] = {}
    onnx_calls: dict[str, Call] = {}
    found: dict[str, dict[str, Any]] = {}
    for name, original in networks.items():
        saved = replace(original, classifier=copy.deepcopy(original.classifier).cpu().eval())
        spec = saved.classifier.spec
        counted = count(saved.classifier, (spec.channels, spec.size, spec.size))
        found[name] = {
            "bytes": size_on_disk(saved.classifier), "parameters": counted.parameters, "flops": counted.flops,
        }  # fmt: skip
        torch_calls[name] = in_torch(saved)
        try:
            content = to_onnx(saved)
            found[name] |= {"onnx_bytes": len(content), "difference": parity(saved, content)}
            onnx_calls[name] = in_onnx(name, content, saved)
        except ModuleNotFoundError:
            tell(
                f"{', '.join(NEEDS)} are not all installed: the ONNX columns stay empty (pip install 'handful[fast]')"
            )
        except HandfulError as error:
            tell(f"{name} is not measured in ONNX Runtime: {error.reason}")
    for name, teacher in files.items():
        assert teacher.file is not None
        found[name] = {"onnx_bytes": teacher.file.stat().st_size, "bytes": teacher.file.stat().st_size}
        onnx_calls[name] = of_file(teacher)
    for column, calls in (("torch_ms", torch_calls), ("onnx_ms", onnx_calls)):
        for name, times in in_turns(calls, rounds).items():
            found[name][column] = 1000 * median(times)
    return {name: Cost(**figures) for name, figures in found.items()}


def a_picture(channels: int, side: int) -> torch.Tensor:
    """uint8 [1, C, S, S], always the same."""
    return torch.from_numpy(
        np.random.RandomState(0).randint(0, 256, (1, channels, side, side)).astype(np.uint8)
    )


def in_torch(saved: Saved) -> Call:
    """A call that classifies one stored picture."""
    x, spec = a_picture(saved.store["channels"], saved.store["side"]), saved.classifier.spec
    classifier = saved.classifier.to(memory_format=torch.channels_last)

    def call() -> Any:
        with torch.inference_mode():
            inputs = to_input(x, spec).contiguous(memory_format=torch.channels_last)
            return classifier(inputs).logits.softmax(1)

    return call


def in_onnx(name: str, content: bytes, saved: Saved) -> Call:
    """The same in ONNX Runtime."""
    x = a_picture(saved.store["channels"], saved.store["side"]).numpy()
    session = open_session(name, content, threads=1)
    return lambda: session.run(None, {"images": x})


def of_file(teacher: Teacher) -> Call:
    """One picture through a teacher's ONNX file."""
    again = read_teacher(teacher.file or "", teacher.onnx, threads=1).answer
    assert again is not None
    answer, x = again, a_picture(3, teacher.side or 224)
    return lambda: answer(x)


def in_turns(calls: Mapping[str, Call], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call in each round: the calls take turns, on one thread."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    with one_thread():
        for number in range(WARM + rounds):
            for name, call in calls.items():
                begin = time.perf_counter()
                call()
                if number >= WARM:
                    times[name].append(time.perf_counter() - begin)
    return times


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
