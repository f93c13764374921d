"""Promises that every method of the table keeps. A new method is covered by its row in the table; its
degenerate settings are listed in ``toy.DEGENERATE``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import toy
from torch import Tensor

from handful.engine import checkpoint
from handful.inference.logits import predict
from handful.methods.table import METHODS
from handful.models.classifier import Classifier

every_method = pytest.mark.parametrize("name", METHODS)
every_setting = pytest.mark.parametrize("name", [*METHODS, *toy.VARIANTS])
every_network = pytest.mark.parametrize("kind", toy.NETWORKS)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(algorithm: Any, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Everything of every role after eight steps of a norm-free network."""
    state = toy.start(toy.NETWORKS["norm-free"], algorithm, dtype=dtype)
    return toy.weights(toy.train(state, algorithm))


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of two processes on every network, for the methods that are tested."""
    here: list[Any] = [item for item in request.session.items if item.path == request.path]
    names = list(dict.fromkeys(item.callspec.params["name"] for item in here if "pair" in item.fixturenames))
    folder = tmp_path_factory.mktemp("pair")
    torch.multiprocessing.spawn(toy.two_processes, (2, str(folder), names), nprocs=2)
    return folder


@every_network
@every_setting
def test_two_processes_give_the_update_of_one(pair: Path, name: str, kind: str) -> None:
    logged: list[dict[str, float]] = []
    state = toy.start(toy.NETWORKS[kind], toy.method(name), dtype=torch.float64)
    begin = toy.weights(state)
    toy.train(state, toy.method(name), steps=4, log=lambda step, scalars: logged.append(scalars))
    one = toy.weights(state)
    results = [torch.load(pair / f"{name}.{kind}.{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert equal(results[0][0], results[1][0]), "the two processes went apart"
    two, two_logged = results[0]
    assert two.keys() == one.keys(), "a checkpoint depends on the number of processes"
    moved = [n for n in one if n.startswith("student") and not torch.equal(one[n], begin[n])]
    assert len(moved) > 3
    for key, value in one.items():
        torch.testing.assert_close(
            two[key], value, rtol=1e-9, atol=1e-11, msg=lambda m, key=key: f"{key}: {m}"
        )
    for ours, theirs in zip(logged, two_logged, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@every_network
@every_setting
def test_a_run_resumed_half_way_ends_with_the_same_bits(
    tmp_path: Path, name: str, kind: str, optimizer: str
) -> None:
    def fresh() -> Any:
        lr = 0.05 if optimizer == "sgd" else 0.003
        return toy.start(toy.NETWORKS[kind], toy.method(name), optimizer=optimizer, lr=lr)

    whole = toy.train(fresh(), toy.method(name))
    half = toy.train(fresh(), toy.method(name), until=4)
    checkpoint.write(tmp_path / "last", half.state_dict())
    again = fresh()
    again.load_state_dict(checkpoint.read(tmp_path / "last"))
    assert again.step == 4
    torch.rand(17)  # the global generator stands elsewhere after a restart
    toy.train(again, toy.method(name))
    assert not equal(toy.weights(half), toy.weights(whole))
    assert equal(toy.weights(again), toy.weights(whole))
    checkpoint.write(tmp_path / "a", whole.state_dict())
    checkpoint.write(tmp_path / "b", again.state_dict())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("name", "changes", "exact"),
    [
        pytest.param(name, changes, exact, id=f"{name}-{changes}")
        for name in METHODS
        for changes, exact in toy.DEGENERATE.get(name, [])
    ],
)
def test_the_degenerate_setting_is_the_baseline(name: str, changes: dict[str, Any], exact: bool) -> None:
    baseline = trained(toy.baseline(name), torch.float64)
    ours = trained(toy.method(name, **changes), torch.float64)
    ours = {key: value for key, value in ours.items() if key in baseline}
    if exact:
        assert equal(ours, baseline)
    else:
        for key, value in baseline.items():
            torch.testing.assert_close(ours[key], value, rtol=0, atol=1e-12)


@every_method
def test_every_method_says_what_its_degenerate_setting_is(name: str) -> None:
    assert toy.DEGENERATE.get(name), f"list the settings of {name} that equal its baseline in toy.DEGENERATE"


@every_method
def test_the_full_setting_is_not_the_baseline(name: str) -> None:
    """Or the test of the degenerate settings could not fail."""
    baseline = trained(toy.baseline(name))
    ours = {key: value for key, value in trained(toy.method(name)).items() if key in baseline}
    assert not equal(ours, baseline)


@every_network
@every_method
def test_the_toy_task_is_solved_and_always_in_the_same_way(name: str, kind: str) -> None:
    images, y = toy.pictures()
    ends, steps = [], toy.STEPS.get(name, 40)
    for _ in range(2):
        state = toy.start(toy.NETWORKS[kind], toy.method(name), steps=steps)
        toy.train(state, toy.method(name), steps=steps)
        ends.append(toy.weights(state))
    network: Any = state.models["student"]
    rest = torch.arange(toy.N_LABELLED, toy.N)
    guess = predict(network, images, rest, network.spec).argmax(1)
    assert (guess == y[rest]).float().mean() >= 0.95
    assert equal(*ends)


@every_network
@every_method
def test_roles_that_are_not_trained_stay_as_they_are(name: str, kind: str) -> None:
    state = toy.start(toy.NETWORKS[kind], toy.method(name))
    before = toy.weights(state)
    after = toy.weights(toy.train(state, toy.method(name)))
    for key, value in before.items():
        if key.startswith("bystander."):
            assert torch.equal(after[key], value), key
    assert not torch.equal(after["student.head.weight"], before["student.head.weight"])
    assert not torch.equal(after["average.module.head.weight"], before["average.module.head.weight"])


ELSEWHERE = """
import json, sys
from pathlib import Path
import torch
import toy
from handful.engine import checkpoint
from handful.inference.logits import predict
from handful.models.classifier import build_classifier

torch.set_num_threads(1)
folder = Path(sys.argv[1])
result = {}
for path in sorted(folder.glob("*.json")):
    classifier = build_classifier(json.loads(path.read_text()))
    classifier.load_state_dict(checkpoint.read(path.with_suffix(".safetensors")))
    classifier.to(memory_format=torch.channels_last)  # as it was trained: another layout sums in another order
    images, _ = toy.pictures()
    logits = predict(classifier, images, torch.arange(toy.N), classifier.spec)
    result[path.stem] = logits
checkpoint.write(folder / "answers", result)
"""


def test_a_saved_run_predicts_the_same_in_a_fresh_process(tmp_path: Path) -> None:
    images, _ = toy.pictures()
    expected = {}
    for name in METHODS:
        for kind, backbone in toy.NETWORKS.items():
            state = toy.train(toy.start(backbone, toy.method(name)), toy.method(name))
            network: Any = state.models["student"]
            config = {"name": backbone, "n_classes": 2, "channels": 1, "size": toy.SIDE}
            classifier = Classifier(network, None, config)
            classifier.temperature.fill_(1.5)
            (tmp_path / f"{name}.{kind}.json").write_text(json.dumps(classifier.config()))
            checkpoint.write(tmp_path / f"{name}.{kind}.safetensors", classifier.state_dict())
            expected[f"{name}.{kind}"] = predict(classifier, images, torch.arange(toy.N), classifier.spec)
    paths = [str(Path(toy.__file__).parent), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    subprocess.run([sys.executable, "-c", ELSEWHERE, str(tmp_path)], env=environment, check=True, timeout=120)
    answers = checkpoint.read(tmp_path / "answers")
    assert equal(answers, expected)
    assert len(expected) == len(METHODS) * len(toy.NETWORKS)
