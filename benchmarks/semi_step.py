"""One FixMatch step (WRN-28-2, 64 labelled and 7 x 64 unlabelled pictures of 32 px) against the public benchmark's.

The rival is ``semilearn`` (USB): its own FixMatch class, network and update hooks, on the CPU with ready batches:

    pip download --no-deps -d DIR semilearn && python -m zipfile -e DIR/semilearn-*.whl DIR/semilearn
    python -m benchmarks.semi_step --semilearn DIR/semilearn [--compiled]

Modules that it imports and one step does not need (logging, text, audio) are replaced by empty ones. Both sides get
the same tensors; forward pass, loss, backward pass, optimizer, schedule and moving average are timed, the making of
batches is not (ours is given in a row of its own).

Each side runs as its users run it: ``semilearn`` in a process with the allocator as it comes, ours in one whose freed
memory stays with it, as every ``handful`` command arranges (``machine.tune_allocator``). As that alone helps both,
``semilearn`` also runs in the second process. All take turns, and while one computes the others wait; as many threads
for each. ``--compiled`` adds ours as ``handful fit --compile`` runs them; compiling takes about a minute each before
the first step, and is not counted.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import multiprocessing
import sys
import time
import types
from argparse import Namespace
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import arguments, record
from handful import machine
from handful.augment.views import Strong, Weak
from handful.data.images import from_array
from handful.data.stream import TrainStream, semi_supervised
from handful.engine.state import Precision, TrainingState
from handful.engine.update import average
from handful.methods.base import descend
from handful.methods.fixmatch import FixMatch
from handful.models.backbones import create
from handful.models.ema import EMA

CLASSES, SIDE, RATIO = 10, 32, 7
Step = Callable[[dict[str, Tensor]], None]


class Empty(types.ModuleType):
    """A module in which every name is an empty class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class Stubs(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds an empty module for each of ``NAMES`` that is not installed, and whatever is below it."""

    NAMES = frozenset(
        [
            "ruamel",
            "tensorboard",
            "transformers",
            "torchaudio",
            "wandb",
            "aim",
            "progress",
            "datasets",
            "pandas",
            "skimage",
            "medmnist",
        ]
    )

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.partition(".")[0] in self.NAMES:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        return Empty(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        module.__path__ = []


def rival(folder: Path, batch: int, joint: bool) -> Step:
    """A step of ``semilearn``'s FixMatch, with what its loop does after it: backward, optimizer, schedule, average."""
    if not any(isinstance(finder, Stubs) for finder in sys.meta_path):
        sys.meta_path.append(Stubs())
        sys.modules["torch.utils.tensorboard"] = Empty("tensorboard")  # which is there, and needs what is not
        sys.path.insert(0, str(folder))
    from semilearn.algorithms.fixmatch.fixmatch import FixMatch as Theirs  # type: ignore[import-not-found]
    from semilearn.core.hooks import EMAHook, ParamUpdateHook  # type: ignore[import-not-found]
    from semilearn.nets import wrn_28_2  # type: ignore[import-not-found]

    class Ready(Theirs):  # type: ignore[misc]
        def set_dataset(self) -> None:
            return None

    given = Namespace(
        num_classes=CLASSES, ema_m=0.999, epoch=1, num_train_iter=1000, num_eval_iter=1000, num_log_iter=1000,
        ulb_loss_ratio=1.0, use_cat=joint, amp=False, clip_grad=0, save_name="", save_dir="", resume=False,
        algorithm="fixmatch", gpu=None, rank=0, distributed=False, world_size=1, use_pretrain=False,
        pretrain_path="", optim="SGD", lr=0.03, momentum=0.9, weight_decay=5e-4, layer_decay=1.0,
        num_warmup_iter=0, use_wandb=False, use_aim=False, T=0.5, p_cutoff=0.95, hard_label=True,
        batch_size=batch, uratio=RATIO,
    )  # fmt: skip
    theirs = Ready(given, wrn_28_2)
    theirs.model.train()
    update, follow = ParamUpdateHook(), EMAHook()
    follow.before_run(theirs)

    def step(b: dict[str, Tensor]) -> None:
        theirs.out_dict, theirs.log_dict = theirs.train_step(b["x"], b["y"], b["weak"], b["strong"])
        update.after_train_step(theirs)
        follow.after_train_step(theirs)

    return step


def ours(passes: int, precision: str, compiled: bool = False) -> Step:
    """A step of ours, as ``recipes.train`` makes it."""
    network = create("wrn-28-2", n_classes=CLASSES, channels=3, size=SIDE, seed=0)
    network = network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    method = FixMatch(passes=passes)
    groups = [{"params": list(network.parameters()), "lr": 0.03, "base_lr": 0.03}]
    sgd = torch.optim.SGD(groups, lr=0.03, momentum=0.9, nesterov=True, weight_decay=5e-4, foreach=True)
    models: dict[str, Any] = {
        "student": torch.compile(network) if compiled else network,
        **method.roles(network, CLASSES, torch.arange(1)),
        "average": EMA(network, 0.999),
    }
    state = TrainingState(models, {"student": sgd}, precision=Precision(precision))
    update = descend(method, after=[average()])

    def step(b: dict[str, Tensor]) -> None:
        update(state, b)
        state.step += 1

    return step


def batches(batch: int) -> TrainStream:
    """Noise in place of pictures: the time does not depend on what is in them."""
    noise = np.random.RandomState(0).randint(0, 256, (4096, 3, SIDE, SIDE), dtype=np.uint8)
    return TrainStream(
        images=from_array(noise),
        spec=create("wrn-28-2", n_classes=CLASSES, channels=3, size=SIDE).spec,  # type: ignore[arg-type]
        sources=semi_supervised(
            torch.arange(256),
            torch.arange(256) % CLASSES,
            {"x": Weak(), "weak": Weak(), "strong": Strong()},
            batch,
            torch.arange(256, 4096),
            RATIO,
        ),
    )


def contenders(folder: Path, batch: int, tuned: bool, compiled: bool) -> dict[str, Step]:
    """What runs in the process whose allocator is ``tuned``, or in the other one."""
    found = {
        "semilearn, joint": rival(folder, batch, True),
        "semilearn, weak views apart without a graph": rival(folder, batch, False),
    }
    if not tuned:
        return found
    found = {f"{name}, our allocator": step for name, step in found.items()}
    usual = "bf16" if machine.has_fast_bf16() else "fp32"
    found["ours fp32, joint"] = ours(1, "fp32")
    for passes, name in ((1, "ours, joint"), (2, "ours, weak views apart without a graph")):
        found[name] = ours(passes, usual)
        if compiled:
            found[f"{name}, compiled"] = ours(passes, usual, compiled=True)
    return found


def serve(door: Connection, folder: Path, batch: int, tuned: bool, compiled: bool) -> None:
    """A process of its own: sends its contenders' names, then makes the step that is asked for, (name, number of the
    batch), and sends its seconds and those that the batch took, until an empty name comes."""
    if tuned:
        machine.tune_allocator()
    machine.set_threads()
    stream, steps = batches(batch), contenders(folder, batch, tuned, compiled)
    door.send(list(steps))
    while (asked := door.recv())[0]:
        name, number = asked
        begin = time.perf_counter()
        b = stream.at(number)
        making = time.perf_counter() - begin
        if name.startswith("semilearn"):  # as a loader would stack it
            b = {k: v.contiguous() if v.dim() == 4 else v for k, v in b.items()}
        begin = time.perf_counter()
        steps[name](b)
        door.send((time.perf_counter() - begin, making))


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--semilearn", type=Path, required=True, help="folder with the unpacked package")
    parser.add_argument("--batch", type=int, default=64, help="labelled pictures")
    parser.add_argument("--compiled", action="store_true", help="ours compiled, too")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each, after one that is not")
    given = parser.parse_args()
    doors: dict[str, Connection] = {}
    context = multiprocessing.get_context("spawn")
    for tuned in (False, True):
        door, other = context.Pipe()
        todo = (other, given.semilearn, given.batch, tuned, given.compiled)
        context.Process(target=serve, args=todo, daemon=True).start()
        other.close()  # so that a process that dies is an error here, not a wait without end
        doors |= dict.fromkeys(door.recv(), door)
    seconds: dict[str, list[float]] = {name: [] for name in (*doors, "ours, making the batch")}
    for number in range(given.rounds + 1):
        for name, door in doors.items():
            door.send((name, number))
            step, making = door.recv()
            seconds[name].append(step)
        seconds["ours, making the batch"].append(making)
    for door in set(doors.values()):
        door.send(("", 0))
    median = {name: float(np.median(values[1:])) for name, values in seconds.items()}
    rows = [
        {
            "step": name,
            "seconds": round(s, 4),
            "times as fast as semilearn, joint": round(median["semilearn, joint"] / s, 2),
            "as semilearn with our allocator": round(median["semilearn, joint, our allocator"] / s, 2),
        }
        for name, s in median.items()
    ]
    record(
        "semi_step",
        rows,
        batch=given.batch,
        ratio=RATIO,
        threads=machine.set_threads(),
        rounds=given.rounds,
    )


if __name__ == "__main__":
    main()
