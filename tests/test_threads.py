"""Two runs in one process, each in a thread: neither changes what the other gives, or takes what it holds."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from handful import api
from handful.engine import interrupt
from handful.engine.fit import fit
from handful.engine.state import TrainingState
from handful.files import hold
from handful.methods.base import descend
from handful.models import small
from handful.randomness import Noise, generator, key, seeded
from handful.types import Batch, HandfulError, Interrupted, Loss, Models

NOISY: dict[str, Callable[[], nn.Module]] = {
    "dropout": lambda: nn.Dropout(0.4),
    "dropout in place": lambda: nn.Dropout(0.4, inplace=True),
    "timm's drop path": lambda: DropPath(0.4),
    "torchvision's stochastic depth": lambda: StochasticDepth(0.4, "row"),
    "our drop path": lambda: small.DropPath(0.4),
}


class Rows:
    """A stream of random rows."""

    def batches(self, start: int) -> Iterator[Batch]:
        step = start
        while True:
            x = torch.randn(16, 8, generator=generator("rows", step))
            yield {"x": x, "index": torch.arange(16)}
            step += 1


def train(seed: int, meet: Callable[[], Any] = lambda: None, steps: int = 12) -> dict[str, Tensor]:
    """The weights of a small network with every kind of noise; ``meet`` is called between its layers."""

    class Meeting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            meet()
            return x

    def objective(models: Models, batch: Batch, step: int) -> Loss:
        return Loss(models["student"](batch["x"]).square().mean(), {})

    with seeded(key(seed, "weights")):
        layers = [(nn.Linear(8, 8), make(), Meeting()) for make in NOISY.values()]
    model = nn.Sequential(*(layer for some in layers for layer in some))
    sgd = torch.optim.SGD([{"params": model.parameters(), "base_lr": 0.1}], lr=0.1)
    fit(
        TrainingState({"student": model}, {"student": sgd}, seed=seed),
        descend(objective),
        Rows(),
        steps=steps,
    )
    return {name: value.clone() for name, value in model.state_dict().items()}


def together(*work: Callable[[], Any]) -> list[Any]:
    """What each gives, each in a thread of its own."""
    with ThreadPoolExecutor(len(work)) as pool:
        return [future.result(timeout=300) for future in [pool.submit(one) for one in work]]


def test_two_runs_at_once_end_with_the_bits_that_each_has_alone() -> None:
    """They meet between their layers, so that every draw of the one falls between two of the other."""
    alone = [train(seed) for seed in (1, 2)]
    meeting = threading.Barrier(2)
    both = together(*(lambda seed=seed: train(seed, lambda: meeting.wait(60)) for seed in (1, 2)))
    for a, b in zip(alone, both):
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(alone[0]["0.weight"], alone[1]["0.weight"])


@pytest.mark.parametrize("name", NOISY)
def test_noise_is_what_torch_draws_from_the_same_number_and_touches_nothing(name: str) -> None:
    layer, x = NOISY[name](), torch.randn(32, 8)
    theirs, ours = (x.clone().requires_grad_() for _ in range(2))
    torch.manual_seed(key("a", 1))
    expected = layer(theirs + 0)
    expected.square().sum().backward()
    before = torch.default_generator.get_state()
    with Noise("a", 1):
        found = layer(ours + 0)
    found.square().sum().backward()
    assert torch.equal(torch.default_generator.get_state(), before)
    assert torch.equal(found, expected) and not torch.equal(found, x)
    assert theirs.grad is not None and ours.grad is not None and torch.equal(ours.grad, theirs.grad)
    with Noise("a", 1):
        assert torch.equal(layer.eval()(x.clone()), x)


def test_dropout_at_its_ends_and_draws_of_others() -> None:
    x = torch.ones(4, 4)
    with Noise("b"):
        assert torch.equal(F.dropout(x, 0.0), x) and torch.equal(F.dropout(x, 1.0), 0 * x)
        a, b = torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(a, torch.rand(3, generator=generator("b")))
    assert torch.equal(b, torch.rand(3, generator=torch.Generator().manual_seed(1)))


def test_first_weights_are_the_seeds_and_the_default_generator_goes_on() -> None:
    torch.manual_seed(7)
    expected = nn.Linear(3, 3).weight
    torch.manual_seed(5)
    before = torch.default_generator.get_state()
    with seeded(7):
        found = nn.Linear(3, 3).weight
    assert torch.equal(found, expected) and torch.equal(torch.default_generator.get_state(), before)


def test_a_run_that_ends_or_is_stopped_leaves_the_others_lock_and_work_alone(tmp_path: Path) -> None:
    ended = threading.Event()
    mine, theirs = tmp_path / "a" / "run.lock", tmp_path / "b" / "run.lock"

    def lasting() -> bool:
        with interrupt.listening(), interrupt.finishing():
            hold(mine)
            assert ended.wait(60)
            return mine.exists() and interrupt.requested() is None

    def short() -> None:
        with interrupt.listening() as ask:
            hold(theirs)
            with pytest.raises(HandfulError, match="another run is at work"):
                hold(mine)
            threading.Thread(target=ask, args=(signal.SIGTERM,)).start()  # asked from outside
            with pytest.raises(Interrupted) as caught:
                train(3, steps=10**9)
        ended.set()
        assert caught.value.exit_code == 143

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lasting)
        while not mine.exists():
            assert not first.done()
        pool.submit(short).result(timeout=60)
        assert first.result(timeout=60), "its lock was taken, or it was asked to stop"
    assert not mine.exists() and not theirs.exists()


def test_a_signal_asks_the_run_of_the_main_thread_alone() -> None:
    asked, seen = threading.Event(), []

    def other() -> None:
        with interrupt.listening(), interrupt.finishing():
            assert asked.wait(60)
            seen.append(interrupt.requested())

    thread = threading.Thread(target=other)
    with interrupt.listening(), interrupt.finishing():
        thread.start()
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.requested() == signal.SIGTERM
        asked.set()
        thread.join()
    assert seen == [None]
    thread = threading.Thread(
        target=lambda: interrupt.finishing().__enter__()
    )  # another's step is no reason to wait
    thread.start()
    thread.join()
    with interrupt.listening(), pytest.raises(Interrupted):
        os.kill(os.getpid(), signal.SIGTERM)


def test_two_whole_fits_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "cache"))
    api.write_digits(tmp_path / "digits", per_class=2, seed=0)

    def model(seed: int, out: str) -> bytes:
        training = {"steps": 12, "backbone": "lenet", "dropout": 0.5}
        options = api.FitOptions(recipe="supervised", training=training, seed=seed)
        return (
            api.fit(tmp_path / "digits", options, out=tmp_path / out).folder / "model.safetensors"
        ).read_bytes()

    alone = [model(seed, f"alone {seed}") for seed in (1, 2)]
    both = together(*(lambda seed=seed: model(seed, f"both {seed}") for seed in (1, 2)))
    assert both == alone and both[0] != both[1]
    assert not list(tmp_path.rglob("run.lock"))
