"""The loop and what goes into it: order of events, stops, schedules, modes, roles."""

import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from handful.data.images import from_array
from handful.engine import interrupt, schedule
from handful.engine.fit import fit
from handful.engine.state import Precision, TrainingState
from handful.engine.update import average
from handful.inference.logits import evaluating, predict
from handful.methods.base import descend
from handful.models.ema import EMA
from handful.models.norms import freeze_norms
from handful.models.small import Conv4, LeNet
from handful.types import Batch, HandfulError, Interrupted, Loss, Models, NotFinite


class Numbers:
    """A stream of one number a step; at ``bad`` it is NaN."""

    def __init__(self, bad: int = -1) -> None:
        self.bad, self.given = bad, []

    def batches(self, start: int) -> Iterator[Batch]:
        step = start
        while True:
            self.given.append(step)
            x = torch.full((2, 1), math.nan if step == self.bad else 1.0 + step)
            yield {"x": x, "index": torch.tensor([2 * step, 2 * step + 1])}
            step += 1


def square(models: Models, batch: Batch, step: int) -> Loss:
    loss = (models["student"](batch["x"]) ** 2).mean()
    return Loss(loss, {"twice": 2 * loss.detach()})


def fresh(lr: float = 0.01) -> TrainingState:
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    sgd = torch.optim.SGD([{"params": model.parameters(), "base_lr": lr}], lr=lr)
    return TrainingState({"student": model}, {"student": sgd})


def test_the_steps_equal_gradient_descent_by_hand() -> None:
    state = fresh()
    state.schedules["student"] = schedule.cosine(3)
    logged: list[tuple[int, dict[str, float]]] = []
    fit(state, descend(square), Numbers(), steps=3, log=lambda s, x: logged.append((s, x)), log_every=1)
    w, losses = 1.0, []
    for step in range(3):
        x = 1.0 + step
        losses.append((w * x) ** 2)
        w -= 0.01 * math.cos(0.5 * math.pi * step / 3) * 2 * w * x * x
    assert state.models["student"].weight.item() == pytest.approx(w, rel=1e-6)
    assert [s for s, _ in logged] == [1, 2, 3]
    assert [x["loss"] for _, x in logged] == pytest.approx(losses, rel=1e-6)
    assert [x["twice"] for _, x in logged] == pytest.approx([2 * v for v in losses], rel=1e-6)


def test_the_order_of_log_and_save() -> None:
    events: list[tuple[str, int]] = []
    stream = Numbers()
    fit(
        fresh(),
        descend(square),
        stream,
        steps=7,
        log=lambda step, scalars: events.append(("log", step)),
        log_every=3,
        save=lambda state: events.append(("save", state.step)),
        save_every=3,
    )
    assert events == [("log", 3), ("save", 3), ("log", 6), ("save", 6), ("log", 7)]
    assert stream.given == list(range(7)), "no batch is made in vain"


def test_a_finished_run_does_nothing() -> None:
    state, stream = fresh(), Numbers()
    state.step = 5
    fit(state, descend(square), stream, steps=5)
    assert state.models["student"].weight.item() == 1
    assert stream.given == []


def test_a_loss_that_is_not_finite_stops_with_step_files_and_checkpoint() -> None:
    state = fresh()
    state.names = lambda index: [f"rose/{int(i)}.jpg" for i in index]
    with pytest.raises(NotFinite) as caught:
        fit(state, descend(square), Numbers(bad=5), steps=9, save_every=2)
    message = str(caught.value)
    assert "nan at step 5 of stage 'train'" in message
    assert "rose/10.jpg, rose/11.jpg" in message
    assert "last good checkpoint: step 4" in message
    assert caught.value.exit_code == 1


class Unit(nn.Module):
    """Rows at length 1: nothing that can be done for a row of zeros."""

    def forward(self, x: Tensor) -> Tensor:
        return x / x.norm(dim=1, keepdim=True)


@pytest.mark.parametrize(
    ("bad", "value", "network", "told"),
    [
        ({"weak": [1]}, math.nan, nn.Identity(), "on u11; it"),
        ({"weak": [1], "strong": [2]}, math.inf, nn.Identity(), "on u11, u12; it"),
        ({"x": [0]}, math.nan, nn.Identity(), "on u0; it"),
        ({"target": [2]}, math.nan, nn.Identity(), "on u12; it"),
        ({"strong": [0]}, 0.0, Unit(), "on u10; it"),  # fine as it comes; what the network makes of it is not
        ({}, 1.0, nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), "on a batch of u0, u1, u10, u11"),
    ],
)
def test_a_nan_names_the_pictures_that_it_came_from(
    bad: dict[str, list[int]], value: float, network: nn.Module, told: str
) -> None:
    batch = {
        "x": torch.ones(2, 2), "weak": torch.ones(3, 2), "strong": torch.ones(3, 2), "target": torch.ones(3, 4),
        "index": torch.tensor([0, 1]), "u_index": torch.tensor([10, 11, 12]),
    }  # fmt: skip
    for name, rows in bad.items():
        batch[name][rows] = value

    class Same:
        def batches(self, start: int) -> Iterator[Batch]:
            yield batch

    def objective(models: Models, batch: Batch, step: int) -> Loss:
        answers = [models["student"](batch[name]).mean() for name in ("x", "weak", "strong")]
        return Loss(torch.stack(answers).sum() * batch["target"].mean() * (1.0 if bad else math.nan), {})

    model = nn.Sequential(nn.Linear(2, 2, bias=False), network)
    sgd = torch.optim.SGD([{"params": model.parameters(), "base_lr": 0.1}], lr=0.1)
    state = TrainingState(
        {"student": model}, {"student": sgd}, names=lambda index: [f"u{int(i)}" for i in index]
    )
    with pytest.raises(NotFinite) as caught:
        fit(state, descend(objective), Same(), steps=3)
    assert told in str(caught.value).replace("\nFix:", "; it")


def test_many_files_are_shortened() -> None:
    state = fresh()
    state.names = lambda index: [f"f{i}" for i in range(20)]
    with pytest.raises(NotFinite, match="f7 and 12 more"):
        fit(state, descend(square), Numbers(bad=0), steps=1)


def test_weights_that_are_not_finite_never_replace_a_good_checkpoint() -> None:
    """The loss of step 3 is finite, its gradient is not."""

    def objective(models: Models, batch: Batch, step: int) -> Loss:
        x = models["student"](batch["x"]).mean()
        return Loss(torch.sqrt((x - x.detach()) ** 2) if step == 3 else x**2, {})

    for steps, save_every in ((9, 4), (4, 0)):  # at a checkpoint; at the end
        saved: list[int] = []
        with pytest.raises(NotFinite, match="a weight became"):
            fit(
                fresh(),
                descend(objective),
                Numbers(),
                steps=steps,
                save_every=save_every,
                save=lambda state, saved=saved: saved.append(state.step),
            )
        assert saved == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_step_saves_and_gives_the_exit_code(number: int, code: int) -> None:
    state = fresh()
    update = descend(square)

    def told(state: TrainingState, batch: Batch) -> dict[str, Tensor]:
        if state.step == 2:
            os.kill(os.getpid(), number)
        return update(state, batch)

    before = signal.getsignal(number)
    with interrupt.listening(), pytest.raises(Interrupted) as caught:
        fit(state, told, Numbers(), steps=9, save=lambda state: f"step {state.step}")
    assert caught.value.exit_code == code
    assert caught.value.file == "step 3"
    assert state.step == 3
    assert signal.getsignal(number) is before
    assert interrupt.requested() is None


def test_a_second_signal_stops_at_once() -> None:
    def told(state: TrainingState, batch: Batch) -> dict[str, Tensor]:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the step went on")

    saved: list[int] = []
    with interrupt.listening(), pytest.raises(Interrupted):
        fit(fresh(), told, Numbers(), steps=9, save=lambda state: saved.append(state.step))
    assert saved == []


def test_outside_the_loop_a_signal_stops_at_once() -> None:
    with interrupt.listening(), pytest.raises(Interrupted) as caught:
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.exit_code == 143


def test_cosine_schedule_at_known_places() -> None:
    factor = schedule.cosine(110, warmup=10)
    assert [factor(s) for s in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert factor(10) == 1
    assert factor(60) == pytest.approx(math.cos(math.pi / 4))
    assert factor(110) == pytest.approx(0, abs=1e-12)
    assert factor(500) == pytest.approx(0, abs=1e-12)
    slow = schedule.cosine(16, turns=7 / 16)
    assert slow(16) == pytest.approx(math.cos(7 * math.pi / 16))
    assert slow(8) == pytest.approx(math.cos(7 * math.pi * 8 / (16 * 16)))  # Sohn et al. 2020, sec. 2.3


def test_gradual_unfreezing_keeps_sleeping_groups_bit_equal() -> None:
    model = nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 1))
    groups = [
        {"params": layer.parameters(), "lr": 0.1, "base_lr": 0.1, "from_step": start}
        for layer, start in zip(model, (2, 0))
    ]
    state = TrainingState(
        {"student": model}, {"student": torch.optim.AdamW(groups, lr=0.1, weight_decay=0.1)}
    )
    first, second = (layer.weight.detach().clone() for layer in model)
    fit(state, descend(square), Numbers(), steps=2)
    assert torch.equal(model[0].weight, first)
    assert not torch.equal(model[1].weight, second)
    fit(state, descend(square), Numbers(), steps=3)
    assert not torch.equal(model[0].weight, first)


def test_the_average_follows_the_student_by_the_formula() -> None:
    state = fresh()
    state.models["average"] = EMA(state.models["student"], decay=0.9)
    seen: list[float] = []
    fit(
        state,
        descend(square, after=[average(), lambda s: seen.append(s.models["student"].weight.item())]),
        Numbers(),
        steps=4,
    )
    expected = 1.0
    for t, w in enumerate(seen):
        d = min(0.9, (1 + t) / (10 + t))
        expected = d * expected + (1 - d) * w
    assert state.models["average"].module.weight.item() == pytest.approx(expected, rel=1e-6)


def test_evaluating_puts_every_mode_back_even_after_an_error() -> None:
    model = Conv4(3, channels=1, size=8)
    model.train()
    freeze_norms(model)
    before = {name: module.training for name, module in model.named_modules()}
    assert len(set(before.values())) == 2
    with evaluating(model):
        assert not any(module.training for module in model.modules())
        assert torch.is_inference_mode_enabled()
    assert {name: module.training for name, module in model.named_modules()} == before
    with pytest.raises(KeyError), evaluating(model):
        raise KeyError
    assert {name: module.training for name, module in model.named_modules()} == before
    assert not torch.is_inference_mode_enabled()


def test_frozen_norms_keep_their_statistics() -> None:
    model = Conv4(3, channels=1, size=8).train()
    freeze_norms(model)
    before = {k: v.clone() for k, v in model.named_buffers()}
    model(torch.randn(4, 1, 8, 8))
    assert before
    assert all(torch.equal(before[k], v) for k, v in model.named_buffers())


def test_predict_does_not_depend_on_the_batch_size_or_the_mode() -> None:
    torch.manual_seed(0)
    model = LeNet(3, channels=1, size=8).train()
    model.drop.p = 0.5
    pictures = torch.randint(256, (10, 8, 8), dtype=torch.uint8)
    images = from_array(pictures.numpy())
    ids = torch.tensor([7, 1, 1, 9])
    got = predict(model, images, ids, model.spec, batch=3)
    assert model.training
    x = ((pictures[ids].double() / 255 - 0.5) / 0.5).unsqueeze(1)
    with torch.no_grad():
        torch.testing.assert_close(got, model.double().eval()(x).logits.float(), rtol=1e-4, atol=1e-5)


def test_precision_bf16_runs_the_forward_pass_in_bf16_and_keeps_weights() -> None:
    kinds: list[torch.dtype] = []

    def objective(models: Models, batch: Batch, step: int) -> Loss:
        out = models["student"](batch["x"])
        kinds.append(out.dtype)
        return Loss(out.float().square().mean(), {})

    state = fresh()
    state.precision = Precision("bf16")
    fit(state, descend(objective), Numbers(), steps=1)
    assert kinds == [torch.bfloat16]
    assert state.models["student"].weight.dtype == torch.float32


def test_optimiser_state_keeps_the_strides_of_its_weights(tmp_path: Path) -> None:
    """A resumed run must take the same code path as one that was not stopped."""
    from handful.engine import checkpoint

    def build() -> TrainingState:
        torch.manual_seed(0)
        conv = nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last)
        sgd = torch.optim.SGD([{"params": conv.parameters(), "base_lr": 0.1}], lr=0.1, momentum=0.9)
        return TrainingState({"student": conv}, {"student": sgd})

    def objective(models: Models, batch: Batch, step: int) -> Loss:
        return Loss(models["student"](torch.ones(1, 4, 5, 5) + step).square().mean(), {})

    state = build()
    fit(state, descend(objective), Numbers(), steps=1)
    checkpoint.write(tmp_path / "x", state.state_dict())
    tree = checkpoint.read(tmp_path / "x")
    again = build()
    again.load_state_dict(tree)
    again.load_state_dict(tree)  # the tree is not used up
    (weight, *_), (other, *_) = (s.optimizers["student"].param_groups[0]["params"] for s in (state, again))
    ours = again.optimizers["student"].state[other]["momentum_buffer"]
    theirs = state.optimizers["student"].state[weight]["momentum_buffer"]
    assert ours.stride() == other.stride() == weight.stride()
    assert torch.equal(ours, theirs)


def test_an_unknown_role_in_a_checkpoint_is_noticed() -> None:
    state = fresh()
    with pytest.raises(KeyError):
        state.load_state_dict({"step": 1, "models": {}, "optimizers": {}})
    assert issubclass(Interrupted, HandfulError)
