"""Meta Pseudo Labels: the feedback's sign and size against closed forms and a naive gradient through the step."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))
import toy

from handful import parallel
from handful.engine.state import TrainingState
from handful.methods.feedback import MovingMean, sgd_rates
from handful.methods.meta_pseudo_labels import MetaPseudoLabels
from handful.methods.reduced_mpl import ReducedMetaPseudoLabels
from handful.models.small import Conv4
from handful.types import Output, UsageError

B, M, D, K = 6, 5, 7, 3


class Small(nn.Module):
    """Two layers on vectors, float64."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.net = nn.Sequential(nn.Linear(D, 8), nn.Tanh(), nn.Linear(8, K)).double()

    def forward(self, x: Tensor) -> Output:
        return Output(x, self.net(x))


def batch(m: int = M) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    draw = lambda n: torch.randn(n, D, dtype=torch.float64, generator=g)  # noqa: E731
    return {"x": draw(B), "y": torch.arange(B) % K, "weak": draw(m), "strong": draw(m)}


def state(lr: float = 0.1, momentum: float = 0.0, teacher_lr: float = 1.0) -> TrainingState:
    """A student and another teacher; the teacher's step is its plain negative gradient."""
    student, teacher = Small(1), Small(2)

    def sgd(model: nn.Module, rate: float, m: float = 0.0) -> torch.optim.Optimizer:
        groups = [{"params": list(model.parameters()), "base_lr": rate}]
        return torch.optim.SGD(groups, lr=rate, momentum=m, nesterov=m > 0)

    optimizers = {"student": sgd(student, lr, momentum), "teacher": sgd(teacher, teacher_lr)}
    models = {"student": student, "teacher": teacher, "memory": MovingMean(0.01)}
    return TrainingState(models, optimizers, seed=1)


PLAIN = MetaPseudoLabels(uda_weight=0.0, ramp_steps=0, smoothing=0.0)


def teacher_step(method: MetaPseudoLabels, s: TrainingState, data: dict[str, Tensor]) -> list[Tensor]:
    """The gradient that the teacher descended on (its rate is 1 and has no momentum)."""
    before = [p.detach().clone() for p in s.models["teacher"].parameters()]
    method.update(s, data)
    return [a - b.detach() for a, b in zip(before, s.models["teacher"].parameters())]


def feedback_gradient(method: MetaPseudoLabels, s: TrainingState, data: dict[str, Tensor]) -> list[Tensor]:
    """What the feedback adds to the teacher's gradient."""
    without = teacher_step(replace(method, feedback_weight=0.0), copy.deepcopy(s), data)
    return [a - b for a, b in zip(teacher_step(method, s, data), without)]


def flat(tensors: Any) -> Tensor:
    return torch.cat([t.detach().flatten() for t in tensors])


def gradient(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    return flat(torch.autograd.grad(F.cross_entropy(model(x).logits, target), list(model.parameters())))


@pytest.mark.parametrize("labels", ["argmax", "sample", "soft"])
def test_the_teacher_hears_the_feedback(labels: str) -> None:
    """With soft labels and the first-order term, as in published code, this gradient is zero to rounding."""
    added = flat(feedback_gradient(replace(PLAIN, labels=labels), state(), batch()))
    assert added.norm() > 1e-4


def test_published_soft_labels_would_say_nothing() -> None:
    """The defect itself: h CE(sg(softmax z), z) has no gradient at all, whatever h is."""
    z = torch.randn(M, K, dtype=torch.float64, requires_grad=True)
    (zero,) = torch.autograd.grad(3 * F.cross_entropy(z, z.detach().softmax(1)), z)
    assert zero.abs().max() < 1e-15


@pytest.mark.parametrize("labels", ["argmax", "sample", "soft"])
def test_feedback_is_the_product_of_the_two_gradients_for_small_steps(labels: str) -> None:
    """h / rate -> <grad CE(y, S(x)), grad CE(q, S(u))> with the plus sign, and the error falls with the rate."""
    data, errors = batch(), []
    for rate in (1e-3, 1e-4):
        s = state(lr=rate)
        student, teacher = copy.deepcopy(s.models["student"]), copy.deepcopy(s.models["teacher"])
        method = replace(PLAIN, labels=labels)
        z = teacher(data["strong"]).logits.detach()
        q = z.softmax(1) if labels == "soft" else method.hard_labels(z, s)
        product = gradient(student, data["x"], data["y"]) @ gradient(student, data["strong"], q)
        h = method.update(s, data)["feedback"]
        errors.append(abs(float(h) / rate - float(product)))
        assert abs(float(product)) > 1e-3
        assert float(h) / rate == pytest.approx(float(product), rel=0.05)
    assert errors[1] < errors[0] / 5


def test_the_feedback_is_positive_when_the_pseudo_labels_are_right_and_negative_when_wrong() -> None:
    """The student is shown the labelled pictures themselves, with the right or with other labels."""
    data = batch()
    for shift, sign in ((0, 1), (1, -1)):
        s = state(lr=0.1)
        data["weak"] = data["strong"] = data["x"]
        told = F.one_hot((data["y"] + shift) % K, K).double() * 20
        s.models["teacher"].forward = lambda x, told=told: Output(x, told.repeat(3, 1).requires_grad_())  # type: ignore[method-assign]
        s.optimizers.pop("teacher")
        x, y = data["x"], data["y"]
        _, h, _ = PLAIN.first_order(s, x, y, x, told.clone().requires_grad_())
        assert sign * float(h) > 0.01, "old - new: positive where the step helped"


def test_a_helpful_label_is_made_more_likely() -> None:
    """The teacher goes down h CE(q, T(u)): with h > 0 its own label's probability rises, with h < 0 it falls."""
    for shift, sign in ((0, 1), (1, -1)):
        s, data = state(lr=0.5, teacher_lr=0.1), batch(B)
        teacher, data["strong"] = s.models["teacher"], data["x"]
        with torch.no_grad():  # a teacher that answers ``y + shift`` with some doubt
            for _ in range(200):
                with torch.enable_grad():
                    loss = F.cross_entropy(teacher(data["x"]).logits, (data["y"] + shift) % K)
                    g = torch.autograd.grad(loss, list(teacher.parameters()))
                for p, d in zip(teacher.parameters(), g):
                    p -= 0.5 * d
        z = teacher(data["strong"]).logits.detach()
        label = z.argmax(1)
        direction = flat(feedback_gradient(PLAIN, copy.deepcopy(s), data))
        down = -gradient(teacher, data["strong"], label)  # raises the labels' likelihood
        assert sign * float(torch.cosine_similarity(-direction, down, dim=0)) > 0.99


def through_the_step(s: TrainingState, data: dict[str, Tensor], rate: float) -> list[Tensor]:
    """d CE(y, S'(x)) / d teacher with S' = S - rate * gradient, by differentiating the whole expression."""
    student, teacher = s.models["student"], s.models["teacher"]
    weights = dict(student.named_parameters())
    q = teacher(data["strong"]).logits.softmax(1)
    loss = F.cross_entropy(student(data["strong"]).logits, q)
    g = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
    moved = {name: p - rate * d for (name, p), d in zip(weights.items(), g)}
    after = F.cross_entropy(functional_call(student, moved, (data["x"],)).logits, data["y"])
    return list(torch.autograd.grad(after, list(teacher.parameters())))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_exact_gradient_is_that_of_the_loss_after_the_step(momentum: float) -> None:
    """Large steps too: nothing here is to first order. Nesterov's first step is (1 + momentum) times as long."""
    s, data = state(lr=0.7, momentum=momentum), batch()
    expected = through_the_step(s, data, 0.7 * (1 + momentum))
    found = feedback_gradient(replace(PLAIN, labels="soft", feedback_weight=2.5), s, data)
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, 2.5 * b, rtol=1e-8, atol=1e-12)
    assert flat(expected).norm() > 1e-4


def test_the_exact_gradient_with_momentum_in_flight() -> None:
    """Also after some steps, when the momentum moves the weights as well: finite differences in a teacher's weight."""
    method, data = replace(PLAIN, labels="soft"), batch()
    s = state(lr=0.3, momentum=0.9, teacher_lr=0.0)
    for _ in range(3):
        method.update(s, data)
    s.optimizers["teacher"].param_groups[0]["base_lr"] = 1.0
    found = feedback_gradient(method, copy.deepcopy(s), data)

    def after(change: float) -> float:
        t = copy.deepcopy(s)
        with torch.no_grad():
            next(t.models["teacher"].parameters())[2, 3] += change
        method.update(t, data)
        return F.cross_entropy(t.models["student"](data["x"]).logits, data["y"]).item()

    slope = (after(1e-5) - after(-1e-5)) / 2e-5
    assert float(found[0][2, 3]) == pytest.approx(slope, rel=1e-5, abs=1e-10)


def test_exact_and_first_order_feedback_agree_to_first_order() -> None:
    """For one picture, the mean of h grad CE(q, z) over the K possible draws is the exact gradient of the loss
    after a step, up to terms of the rate squared; and it does not depend on what is subtracted from h."""
    data, errors = batch(1), []
    for rate in (1e-2, 1e-3):
        s = state(lr=rate)
        z = s.models["teacher"](data["strong"]).logits.detach()
        p = z.softmax(1)[0]
        mean: Tensor = torch.zeros(sum(w.numel() for w in s.models["teacher"].parameters()))
        for k in range(K):
            t = copy.deepcopy(s)
            t.models["memory"].mean.fill_(0.3)  # any baseline
            sure = copy.deepcopy(PLAIN)
            object.__setattr__(sure, "hard_labels", lambda z, state, k=k: torch.full((len(z),), k))
            mean = mean + p[k] * flat(feedback_gradient(sure, t, data))
        exact = flat(feedback_gradient(replace(PLAIN, labels="soft"), copy.deepcopy(s), data))
        errors.append(float((mean - exact).norm() / exact.norm()))
    assert errors[0] < 0.1
    assert errors[1] < errors[0] / 5


def test_drawn_labels_follow_the_teachers_probabilities() -> None:
    p = torch.tensor([[0.1, 0.2, 0.7]], dtype=torch.float64).repeat(20000, 1)
    s = state()
    method = replace(PLAIN, labels="sample")
    label = method.hard_labels(p.log(), s)
    found = torch.bincount(label, minlength=3) / 20000
    torch.testing.assert_close(found, torch.tensor([0.1, 0.2, 0.7]), atol=0.012, rtol=0)  # over 3 sigma
    assert torch.equal(label, method.hard_labels(p.log(), s)), "a draw is a function of the step"
    s.step += 1
    assert not torch.equal(label, method.hard_labels(p.log(), s))


def test_the_baseline_is_what_was_before() -> None:
    mean = MovingMean(0.1)
    values = [2.0, -1.0, 4.0]
    said = [float(mean(torch.tensor(v))) for v in values]
    assert said == pytest.approx([0.0, 0.2, 0.2 + 0.1 * (-1.0 - 0.2)])
    assert float(mean.mean) == pytest.approx(0.08 + 0.1 * (4.0 - 0.08))


def test_h_minus_its_average_weighs_the_teachers_term() -> None:
    s, data = state(), batch()
    s.models["memory"].mean.fill_(0.25)
    t = copy.deepcopy(s)
    label = PLAIN.hard_labels(t.models["teacher"](data["strong"]).logits, t)
    direction = gradient(t.models["teacher"], data["strong"], label)
    found = flat(feedback_gradient(PLAIN, s, data))
    probe = copy.deepcopy(t)
    h = float(PLAIN.update(probe, data)["feedback"])
    torch.testing.assert_close(found, (h - 0.25) * direction, rtol=1e-9, atol=1e-12)


def test_the_student_sees_no_label() -> None:
    """Other labels leave its first step as it was (the teacher hears of them only afterwards)."""
    ends = []
    for shift in (0, 1):
        s, data = state(), batch()
        data["y"] = (data["y"] + shift) % K
        PLAIN.update(s, data)
        ends.append((flat(s.models["student"].parameters()), flat(s.models["teacher"].parameters())))
    assert torch.equal(ends[0][0], ends[1][0])
    assert not torch.equal(ends[0][1], ends[1][1])


def test_the_student_waits() -> None:
    method, s = replace(PLAIN, wait=2), state()
    before = flat(s.models["student"].parameters())
    for step, moved in enumerate((False, False, True)):
        s.step = step
        scalars = method.update(s, batch())
        assert ("feedback" in scalars) == moved
        assert torch.equal(flat(s.models["student"].parameters()), before) != moved


@pytest.mark.parametrize("labels", ["argmax", "soft"])
def test_batch_norm_hears_the_student_step_once(labels: str) -> None:
    """The labelled loss is taken in evaluation mode: it leaves the student's running averages alone, and the
    modules' modes as they were."""
    torch.manual_seed(0)
    student = Conv4(n_classes=K, channels=1, size=8)
    s = state()
    s.models |= {"student": student.train(), "teacher": copy.deepcopy(student)}
    for role in ("student", "teacher"):
        groups = [{"params": list(s.models[role].parameters()), "base_lr": 0.1}]
        s.optimizers[role] = torch.optim.SGD(groups, lr=0.1)
    x = torch.randn(B, 1, 8, 8)
    u = torch.randn(M, 1, 8, 8) + 3
    twin = copy.deepcopy(student)
    replace(PLAIN, labels=labels).update(s, {"x": x, "y": torch.arange(B) % K, "weak": u, "strong": u})
    twin(u)
    for name, value in twin.named_buffers():
        torch.testing.assert_close(dict(student.named_buffers())[name], value, msg=name)
    assert all(m.training for m in student.modules())


def test_uda_weight_grows_from_zero() -> None:
    method = MetaPseudoLabels(uda_weight=8.0, ramp_steps=100)
    assert [method.uda_weight_at(t) for t in (0, 50, 100, 1000)] == [0.0, 4.0, 8.0, 8.0]


def soft_on_two(rank: int, world: int, folder: str) -> None:
    """The exact gradient in one of two processes, with batch norm: its second derivatives cross the processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    try:
        torch.save(soft_on_toy(), Path(folder) / f"{rank}.pt")
    finally:
        parallel.stop()


def soft_on_toy() -> dict[str, Tensor]:
    method = toy.method("meta-pseudo-labels", labels="soft", feedback_weight=50.0)
    state = toy.start("conv-4", method, dtype=torch.float64)
    return toy.weights(toy.train(state, method, steps=3))


def test_the_exact_gradient_in_two_processes_is_that_of_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(soft_on_two, (2, str(tmp_path)), nprocs=2)
    one = soft_on_toy()
    for rank in (0, 1):
        two = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for key, value in one.items():
            torch.testing.assert_close(two[key], value, rtol=1e-9, atol=1e-11, msg=key)


def test_what_cannot_be() -> None:
    with pytest.raises(UsageError, match="no 'hardest'"):
        MetaPseudoLabels(labels="hardest")
    s = state()
    s.optimizers["student"] = torch.optim.AdamW(
        [{"params": s.models["student"].parameters(), "base_lr": 0.1}]
    )
    with pytest.raises(UsageError, match="SGD"):
        replace(PLAIN, labels="soft").update(s, batch())
    heavy = torch.optim.SGD(s.models["student"].parameters(), lr=0.1, momentum=0.9)
    assert set(sgd_rates(heavy).values()) == {0.1}, (
        "the present gradient moves by lr; the momentum is history"
    )


def reduced(
    s: TrainingState, p: Tensor, labels: str = "argmax", weight: float = 1.0, anchor: float = 1.0
) -> ReducedMetaPseudoLabels:
    """The reduced form, with its corrector as the state's teacher."""
    method = ReducedMetaPseudoLabels(labels=labels, feedback_weight=weight, anchor=anchor)
    corrector = method.roles(s.models["student"], p.shape[1], torch.arange(len(p)))["teacher"]
    s.models["teacher"] = corrector
    groups = [{"params": list(corrector.parameters()), "base_lr": 1.0}]
    s.optimizers["teacher"] = torch.optim.SGD(groups, lr=1.0)
    return method


def test_the_corrector_starts_as_the_stored_prediction() -> None:
    p = torch.softmax(torch.randn(M, K, dtype=torch.float64), 1)
    s = state()
    reduced(s, p)
    torch.testing.assert_close(s.models["teacher"](p.log()).softmax(1), p)


@pytest.mark.parametrize("labels", ["argmax", "sample", "soft"])
def test_the_corrector_hears_the_feedback(labels: str) -> None:
    data = batch() | {"target": torch.softmax(torch.randn(M, K, dtype=torch.float64), 1)}
    for weight, hears in ((1.0, True), (0.0, False)):
        s = state()
        method = reduced(s, data["target"], labels, weight)
        before = flat(s.models["teacher"].parameters())
        method.update(s, data)
        assert torch.equal(flat(s.models["teacher"].parameters()), before) != hears


def test_the_anchor_holds_the_corrector_where_feedback_would_run_away() -> None:
    """Gradient descent on anchor CE(p, z) + a CE(e_k, z) with a < 0 has its end at softmax(z) = (p + a e_k) / (1 + a)
    (set the gradient (1 + a) softmax(z) - p - a e_k to 0); without an anchor it has none."""
    p, k, a = torch.tensor([[0.6, 0.3, 0.1]], dtype=torch.float64), torch.tensor([0]), -0.2

    class Harmful(ReducedMetaPseudoLabels):
        """Whatever label is taken, the student is worse for it."""

        def student_step(self, state: TrainingState, x: Tensor, y: Tensor, u: Tensor, z_u: Tensor) -> Any:
            nothing = torch.zeros((), dtype=torch.float64)
            return nothing, nothing, a * F.nll_loss(z_u.log_softmax(1), k)

    ends = {}
    for anchor in (0.0, 1.0):
        s = state()
        reduced(s, p)
        method = Harmful(anchor=anchor)
        for step in range(400):
            s.step = step
            method.update(s, batch() | {"strong": torch.zeros(1, D, dtype=torch.float64), "target": p})
        ends[anchor] = s.models["teacher"](p.log()).softmax(1)
    torch.testing.assert_close(ends[1.0], torch.tensor([[0.5, 0.375, 0.125]], dtype=torch.float64))
    assert ends[0.0][0, 0] < 1e-6, "all labels are called harmful, and nothing stops it"


def test_the_corrector_unlearns_a_systematic_mistake_of_the_stored_teacher() -> None:
    """The stored teacher calls two classes of three by each other's name. The student learns the labelled pictures
    only through the corrector, which has to find this out from the student's labelled loss."""
    g = torch.Generator().manual_seed(3)
    centres = 3 * torch.eye(K, D, dtype=torch.float64)
    y = torch.arange(60) % K
    u = centres[y] + 0.3 * torch.randn(60, D, dtype=torch.float64, generator=g)
    wrong = torch.tensor([1, 0, 2])[y]
    data = {"x": u[:6], "y": y[:6], "strong": u, "target": F.one_hot(wrong, K).double() * 0.7 + 0.1}
    ends = {}
    for weight in (0.0, 1.0):
        s = state(lr=0.5)
        method = reduced(s, data["target"], "soft", weight, anchor=0.1)
        for step in range(300):
            s.step = step
            method.update(s, data)
        ends[weight] = float((s.models["student"](u).logits.argmax(1) == y).double().mean())
    assert ends[0.0] < 0.4
    assert ends[1.0] > 0.95
