"""What a classifier costs where it is used: bytes, parameters, arithmetic, and time for one picture.

Times are of one thread and one picture, from the network's input to the probabilities: what comes before is the same
for all. The calls that are compared take turns, so that what else the machine does meets all of them alike.
"""

from __future__ import annotations

import copy
import importlib.util
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from handful.augment.views import to_input
from handful.inference.model_file import Saved, size_on_disk
from handful.inference.onnx import NEEDS, graph, open_session, parity, to_onnx
from handful.inference.teachers import Teacher, read_teacher
from handful.models.count import count
from handful.types import HandfulError, InputSpec, Interrupted

ROUNDS, WARM = 31, 3
Call = Callable[[], Any]


@dataclass(frozen=True)
class Cost:
    """Of one classifier; None where it is not known.

    Attributes:
        bytes: of the weights' file.
        torch_ms, onnx_ms: medians for one picture in PyTorch and in ONNX Runtime.
        onnx_bytes: of the network as an ONNX file.
        difference: largest difference of a probability between the ONNX file of ``handful export`` and PyTorch, where
            it was looked for.
    """

    bytes: int | None = None
    parameters: int | None = None
    flops: int | None = None
    torch_ms: float | None = None
    onnx_ms: float | None = None
    onnx_bytes: int | None = None
    difference: float | None = None


class Probabilities(nn.Module):
    """A classifier from its input [B, C, S, S] to probabilities [B, K]."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        probabilities: Tensor = self.classifier(x).logits.softmax(1)
        return probabilities


def costs(
    networks: Mapping[str, Saved],
    files: Mapping[str, Teacher],
    *,
    check: str = "",
    tell: Callable[[str], None] = lambda line: None,
    rounds: int = ROUNDS,
) -> dict[str, Cost]:
    """The costs of networks, and of teachers that are ONNX files, by name.

    Args:
        check: the network whose ONNX file, with all that ``handful export`` puts into it, is compared with PyTorch.
    """
    torch_calls: dict[str, Call] = {}
    onnx_calls: dict[str, Call] = {}
    found: dict[str, dict[str, Any]] = {}
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        tell(f"no times in ONNX Runtime: {', '.join(missing)} is not installed (pip install 'handful[fast]')")
    for name, original in networks.items():
        saved = replace(original, classifier=copy.deepcopy(original.classifier).cpu().eval())
        network, x = Probabilities(saved.classifier).eval(), example_input(saved.classifier.spec)
        counted = count(saved.classifier, tuple(x.shape[1:]))
        found[name] = {
            "bytes": size_on_disk(saved.classifier), "parameters": counted.parameters, "flops": counted.flops,
        }  # fmt: skip
        if not missing:
            try:
                content = graph(network, x, "x").SerializeToString()
                found[name]["onnx_bytes"] = len(content)
                onnx_calls[name] = in_onnx(name, content, x)
                if name == check:
                    found[name]["difference"] = parity(saved, to_onnx(saved))
            except Interrupted:
                raise
            except HandfulError as error:
                tell(f"{name} is not measured in ONNX Runtime: {error.reason}")
        torch_calls[name] = in_torch(network, x)
    for name, teacher in files.items():
        assert teacher.file is not None
        found[name] = {"onnx_bytes": teacher.file.stat().st_size, "bytes": teacher.file.stat().st_size}
        onnx_calls[name] = of_file(teacher)
    for column, calls in (("torch_ms", torch_calls), ("onnx_ms", onnx_calls)):
        for name, times in in_turns(calls, rounds).items():
            found[name][column] = 1000 * median(times)
    return {name: Cost(**figures) for name, figures in found.items()}


def example_input(spec: InputSpec) -> Tensor:
    """What a network sees of one made-up picture, always the same: [1, C, S, S]."""
    pixels = np.random.RandomState(0).randint(0, 256, (1, spec.channels, spec.size, spec.size))
    return to_input(torch.from_numpy(pixels.astype(np.uint8)), spec)


def in_torch(network: nn.Module, x: Tensor) -> Call:
    """A call that classifies one picture."""
    network = network.to(memory_format=torch.channels_last)
    x = x.contiguous(memory_format=torch.channels_last)

    def call() -> Any:
        with torch.inference_mode():
            return network(x)

    return call


def in_onnx(name: str, content: bytes, x: Tensor) -> Call:
    """The same in ONNX Runtime."""
    session, array = open_session(name, content, threads=1), x.numpy()
    return lambda: session.run(None, {"x": array})


def of_file(teacher: Teacher) -> Call:
    """One decoded picture through a teacher's ONNX file, which may hold more than the network."""
    answer, side = read_teacher(teacher.file or "", teacher.onnx, threads=1).answer, teacher.side or 224
    assert answer is not None
    pixels = np.random.RandomState(0).randint(0, 256, (1, 3, side, side)).astype(np.uint8)
    return partial(answer, torch.from_numpy(pixels))


def in_turns(calls: Mapping[str, Call], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call in each round: the calls take turns, on one thread."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for number in range(WARM + rounds):
            for name, call in calls.items():
                begin = time.perf_counter()
                call()
                if number >= WARM:
                    times[name].append(time.perf_counter() - begin)
    finally:
        torch.set_num_threads(before)
    return times
