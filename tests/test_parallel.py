"""Two processes against one: sums, slices, agreement, batch norm over the global batch."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from handful import parallel
from handful.engine.fit import fit
from handful.engine.state import TrainingState
from handful.methods.base import descend
from handful.types import Batch, HandfulError, Interrupted, Loss, Models, NotFinite


def norms() -> dict[str, nn.Module]:
    from timm.layers import BatchNormAct2d

    torch.manual_seed(0)
    made = {
        "plain": nn.BatchNorm2d(3, eps=1e-3, momentum=0.3),
        "average": nn.BatchNorm2d(3, momentum=None),
        "bare": nn.BatchNorm2d(3, affine=False, track_running_stats=False),
        "timm": BatchNormAct2d(3, act_layer=nn.SiLU),
        "frozen": nn.BatchNorm2d(3).eval(),
        "inside": nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU()),
        "flat": nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3 * 16)),
    }
    for module in made.values():
        for p in module.parameters():
            nn.init.normal_(p)
    return {name: module.double() for name, module in made.items()}


def example() -> Tensor:
    return 3 * torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 1


def passes(module: nn.Module, x: Tensor, share: slice) -> dict[str, Tensor]:
    """Two forward passes and the gradient of sum(out^2 * place) on this process's rows."""
    place = torch.arange(x.numel(), dtype=torch.float64).view_as(x) / x.numel()
    mine = x[share].clone().requires_grad_()
    module(mine.detach() * 2)
    out = module(mine)
    (out**2 * place[share].view_as(out)).sum().backward()
    assert mine.grad is not None
    result = {"out": out.detach(), "x.grad": mine.grad}
    result |= {f"{n}.grad": p.grad for n, p in module.named_parameters() if p.grad is not None}
    return result | {n: b.clone() for n, b in module.named_buffers()}


def one_of_two(rank: int, world: int, folder: str) -> None:
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    result: dict[str, object] = {
        "rows": [parallel.rows(6).start, parallel.rows(6).stop],
        "total": parallel.total(torch.tensor([1.0, rank])),
        "mean": parallel.mean(torch.tensor(float(rank))),
        "first": parallel.first_says(10.0 + rank),
        "any": [parallel.any_says(rank == 1), parallel.any_says(False), parallel.any_says(True)],
        "is_first": parallel.is_first(),
    }
    for name, module in norms().items():
        before = set(module.state_dict())
        module = parallel.synchronized(module)
        assert set(module.state_dict()) == before
        result[name] = passes(module, example(), parallel.rows(8))
    model = nn.Sequential(nn.Linear(1, 1))
    wrapped = parallel.wrap(model)
    result["unwrapped"] = parallel.unwrap(wrapped) is model and wrapped is not model
    result["stopped"] = [_one_says(rank, "nan"), _one_says(rank, "signal")]
    torch.save(result, Path(folder) / f"{rank}.pt")
    parallel.stop()


def _one_says(rank: int, what: str) -> str:
    """Only the second process sees a NaN, or a signal: both must stop, at the same step."""
    import os
    import signal

    from handful.engine import interrupt

    class Ones:
        def batches(self, start: int):  # type: ignore[no-untyped-def]
            while True:
                yield {"x": torch.ones(1, 1), "index": torch.tensor([rank])}

    def objective(models: Models, batch: Batch, step: int) -> Loss:
        if rank == 1 and step == 3 and what == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
        bad = float("nan") if rank == 1 and step == 3 and what == "nan" else 1.0
        return Loss(models["student"](batch["x"]).mean() * bad, {})

    model = parallel.wrap(nn.Linear(1, 1))
    sgd = torch.optim.SGD([{"params": model.parameters(), "base_lr": 0.1}], lr=0.1)
    state = TrainingState({"student": model}, {"student": sgd})
    try:
        with interrupt.listening():
            fit(state, descend(objective), Ones(), steps=9)
    except (NotFinite, Interrupted) as error:
        return f"{type(error).__name__} at {state.step}"
    return "went on"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    folder = tmp_path_factory.mktemp("pair")
    torch.multiprocessing.spawn(one_of_two, (2, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("name", norms())
def test_batch_norm_over_two_processes_equals_torch_on_the_whole_batch(
    pair: list[dict[str, dict[str, Tensor]]], name: str
) -> None:
    expected = passes(norms()[name], example(), slice(None))
    first, second = (result[name] for result in pair)
    assert first.keys() == expected.keys()
    for key, value in expected.items():
        if key in ("out", "x.grad"):
            got = torch.cat([first[key], second[key]])
        elif key.endswith(".grad"):
            got = first[key] + second[key]
        else:
            assert torch.equal(first[key], second[key])
            got = first[key]
        torch.testing.assert_close(got, value, rtol=1e-9, atol=1e-10, msg=lambda m, key=key: f"{key}: {m}")


def test_sums_slices_and_decisions(pair: list[dict[str, object]]) -> None:
    for rank, result in enumerate(pair):
        assert result["rows"] == [[0, 3], [3, 6]][rank]
        assert torch.equal(result["total"], torch.tensor([2.0, 1.0]))
        assert float(result["mean"]) == 0.5
        assert result["first"] == 10.0
        assert result["any"] == [True, False, True]
        assert result["is_first"] is (rank == 0)
        assert result["unwrapped"] is True


def test_what_one_process_sees_stops_both(pair: list[dict[str, object]]) -> None:
    for result in pair:
        assert result["stopped"] == ["NotFinite at 3", "Interrupted at 4"]


def test_alone_everything_is_a_no_op() -> None:
    x, model = torch.tensor([1.0, 2.0]), nn.Linear(1, 1)
    assert (parallel.size(), parallel.rank(), parallel.is_first()) == (1, 0, True)
    assert torch.equal(parallel.total(x), x)
    assert torch.equal(parallel.mean(x), x)
    assert parallel.first_says(0.1) == 0.1
    assert parallel.rows(5) == slice(0, 5)
    assert not parallel.any_says(False)
    assert parallel.wrap(model) is model
    parallel.barrier()
    parallel.stop()


@pytest.mark.parametrize("name", norms())
def test_a_synchronised_norm_alone_is_the_plain_one(name: str) -> None:
    plain = norms()[name]
    ours = parallel.synchronized(copy.deepcopy(plain))
    a, b = (passes(module, example(), slice(None)) for module in (plain, ours))
    assert all(torch.equal(a[key], b[key]) for key in a)
    ours.load_state_dict(plain.state_dict())
    a, b = (module.eval()(example()) for module in (plain, ours))
    assert torch.equal(a, b)


def test_a_norm_of_another_kind_is_refused_by_name() -> None:
    class OddNorm(nn.BatchNorm2d):
        pass

    with pytest.raises(HandfulError, match="OddNorm cannot be synchronised"):
        parallel.synchronized(nn.Sequential(OddNorm(3)))


def test_unwrap_looks_through_compile() -> None:
    model = nn.Linear(1, 1)
    assert parallel.unwrap(torch.compile(model)) is model


def test_a_batch_that_does_not_divide_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "size", lambda: 2)
    with pytest.raises(ValueError, match="a global batch of 5 does not divide over 2 processes"):
        parallel.rows(5)


def test_two_processes_fit_a_folder(tmp_path: Path) -> None:
    """The whole job under torchrun: it ends, speaks once, and leaves a model that classifies."""
    from handful.api import predict, write_digits

    write_digits(tmp_path / "digits", per_class=2, seed=0)
    words = ["fit", str(tmp_path / "digits"), "--recipe", "supervised", "--training.steps", "4", "--out"]
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "HANDFUL_CACHE": str(tmp_path / "cache")}
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "handful",
    ]
    done = subprocess.run(
        [*command, *words, str(tmp_path / "run")], capture_output=True, text=True, env=settings, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("training supervised@pixels on all 20 labelled pictures") == 1
    assert done.stdout.count("% right") == 1
    good, bad = predict(tmp_path / "run", [tmp_path / "digits" / "test" / "3"])
    assert good and not bad
