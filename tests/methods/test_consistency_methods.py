"""Each consistency method's loss against the paper's equation written out with torch's own functions."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handful.methods.adamatch import AdaMatch
from handful.methods.fixmatch import FixMatch
from handful.methods.flexmatch import FlexMatch
from handful.methods.freematch import FreeMatch
from handful.methods.mean_teacher import MeanTeacher
from handful.methods.mixmatch import MixMatch
from handful.methods.pi_model import PiModel
from handful.methods.pseudo_label import PseudoLabel
from handful.methods.softmatch import SoftMatch
from handful.methods.uda import UDA
from handful.methods.vat import VAT
from handful.models.backbones import create
from handful.models.norms import statistics_kept
from handful.randomness import permutation
from handful.types import Batch, Loss

N_X, N_U, K, SIDE = 4, 12, 3, 8


def network(name: str = "lenet") -> Any:
    """With answers of all classes, some confident and some doubtful."""
    made: Any = create(name, n_classes=K, channels=1, size=SIDE, seed=3).double().train()
    with torch.no_grad(), statistics_kept(made):
        z = made(batch()["weak"]).logits
        made.head.weight.mul_(1.5 / z.std(0).unsqueeze(1))
        made.head.bias.sub_(z.mean(0)).mul_(1.5 / z.std(0))
    return made


def batch() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(11)

    def pictures(n: int) -> Tensor:
        return 2 * torch.rand(n, 1, SIDE, SIDE, generator=draw, dtype=torch.float64) - 1

    return {
        "x": pictures(N_X),
        "y": torch.tensor([0, 1, 2, 1]),
        "weak": pictures(N_U),
        "weak_2": pictures(N_U),
        "strong": pictures(N_U),
        "u_index": torch.arange(N_U),
        "draw": torch.tensor(77),
    }


def loss_of(method: Any, student: nn.Module, given: Batch, step: int = 0) -> Loss:
    models = {"student": student}
    if hasattr(method, "roles"):
        models |= method.roles(student, K, torch.arange(N_U))
    return method(models, given, step)  # type: ignore[no-any-return]


def parts(student: Any, given: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy on the labelled pictures, p on the weak views, logits on the strong ones."""
    supervised = F.cross_entropy(student(given["x"]).logits, given["y"])
    return supervised, student(given["weak"]).logits.softmax(1).detach(), student(given["strong"]).logits


def check(loss: Loss, expected: Tensor, student: nn.Module) -> None:
    """Equal values and equal gradients."""
    torch.testing.assert_close(loss.total, expected, rtol=1e-10, atol=0)
    weights = list(student.parameters())
    ours = torch.autograd.grad(loss.total, weights, retain_graph=True)
    theirs = torch.autograd.grad(expected, weights, retain_graph=True)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_fixmatch(passes: int) -> None:
    student, given = network(), batch()
    supervised, p, z_s = parts(student, given)
    confidence, label = p.max(1)
    trust = (confidence >= 0.6).double()
    assert 0 < trust.sum() < N_U
    expected = supervised + 2 * (trust * F.cross_entropy(z_s, label, reduction="none")).sum() / N_U
    check(loss_of(FixMatch(threshold=0.6, weight=2, passes=passes), student, given), expected, student)


def test_fixmatch_with_soft_targets_and_alignment() -> None:
    student, given = network(), batch()
    supervised, p, z_s = parts(student, given)
    found = 0.1 / K + 0.9 * p.mean(0)  # after one update, from uniform
    wanted = 0.1 / K + 0.9 * torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)
    p = p * wanted / found
    p = p / p.sum(1, keepdim=True)
    trust = (p.amax(1) >= 0.6).double()
    q = p**2 / (p**2).sum(1, keepdim=True)
    expected = supervised + (trust * F.cross_entropy(z_s, q, reduction="none")).mean()
    method = FixMatch(threshold=0.6, hard=False, temperature=0.5, align=True)
    check(loss_of(method, student, given), expected, student)


@pytest.mark.parametrize("method", [UDA(threshold=0.6, align=True), FlexMatch(threshold=0.6, align=True)])
def test_alignment_is_an_option(method: Any) -> None:
    student, given = network(), batch()
    supervised, p, z_s = parts(student, given)
    p = (
        p
        * (0.1 / K + 0.9 * torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64))
        / (0.1 / K + 0.9 * p.mean(0))
    )
    p = p / p.sum(1, keepdim=True)
    trust, target = (
        torch.ones(N_U, dtype=p.dtype),
        p.argmax(1),
    )  # FlexMatch has learnt nothing yet: no threshold
    if isinstance(method, UDA):
        trust = (p.amax(1) >= 0.6).double()
        assert 0 < trust.sum() < N_U
        target = p**2.5 / (p**2.5).sum(1, keepdim=True)
    expected = supervised + (trust * F.cross_entropy(z_s, target, reduction="none")).mean()
    check(loss_of(method, student, given), expected, student)


def test_uda_with_annealing() -> None:
    student, given = network(), batch()
    z_x = student(given["x"]).logits
    own = z_x.softmax(1)[torch.arange(N_X), given["y"]].detach()
    eta = 0.5 * (1 - 1 / K) + 1 / K
    teaches = own < eta
    assert 0 < teaches.sum() < N_X
    supervised = F.cross_entropy(z_x[teaches], given["y"][teaches])
    _, p, z_s = parts(student, given)
    q = (student(given["weak"]).logits / 0.4).softmax(1).detach()
    kept = p.amax(1) >= 0.8
    expected = supervised + (kept * F.cross_entropy(z_s, q, reduction="none")).mean()
    method = UDA(annealing="linear", annealing_steps=10)
    check(loss_of(method, student, given, step=5), expected, student)


def test_uda_where_no_labelled_picture_teaches_any_more() -> None:
    student, given = network(), batch()
    given["y"] = student(given["x"]).logits.argmax(1)  # each more probable than chance
    loss = loss_of(UDA(weight=0, annealing="linear", annealing_steps=10), student, given, step=0)
    assert float(loss.terms["supervised"]) == 0
    assert torch.isfinite(loss.total)


def test_flexmatch_starts_with_all_and_ends_with_the_sure() -> None:
    student, given = network(), batch()
    supervised, p, z_s = parts(student, given)
    method = FlexMatch(threshold=0.6)
    models = {"student": student, **method.roles(student, K, torch.arange(N_U))}
    each = F.cross_entropy(z_s, p.argmax(1), reduction="none")
    check(method(models, given, 0), supervised + each.mean(), student)  # nothing is learnt: no threshold
    sure = torch.bincount(p.argmax(1)[p.amax(1) >= 0.6], minlength=K).double()
    status = sure / max(int(sure.max()), N_U - int(sure.sum()))
    threshold = 0.6 * status / (2 - status)
    trust = (p.amax(1) >= threshold[p.argmax(1)]).double()
    check(method(models, given, 1), supervised + (trust * each).mean(), student)


def test_freematch() -> None:
    student, given = network(), batch()
    supervised, p, z_s = parts(student, given)
    level = 0.1 / K + 0.9 * p.amax(1).mean()
    found = 0.1 / K + 0.9 * p.mean(0)
    histogram = 0.1 / K + 0.9 * torch.bincount(p.argmax(1), minlength=K).double() / N_U
    trust = p.amax(1) >= (level * found / found.max())[p.argmax(1)]
    assert 0 < trust.sum() < N_U
    each = F.cross_entropy(z_s, p.argmax(1), reduction="none")
    p_s = z_s.softmax(1)[trust]
    h_s = torch.bincount(p_s.argmax(1), minlength=K).double() / len(p_s)
    ratio = torch.where(h_s > 0, p_s.mean(0) / h_s, 0.0)
    mean, wanted = ratio / ratio.sum(), found / histogram
    fair = (wanted / wanted.sum() * (mean + 1e-12).log()).sum()
    check(
        loss_of(FreeMatch(fair=0.05), student, given),
        supervised + (trust * each).mean() + 0.05 * fair,
        student,
    )


@pytest.mark.parametrize("align", [True, False])
def test_softmatch(align: bool) -> None:
    student, given = network(), batch()
    supervised, p, z_s = parts(student, given)
    aligned = p
    if align:
        aligned = p / (0.1 / K + 0.9 * p.mean(0))
        aligned = aligned / aligned.sum(1, keepdim=True)
    c = aligned.amax(1)
    mean, variance = 0.1 / K + 0.9 * c.mean(), 0.1 + 0.9 * c.var()
    trust = torch.exp(-((c - mean).clamp_max(0) ** 2) * 2 / variance)
    each = F.cross_entropy(z_s, p.argmax(1), reduction="none")
    check(loss_of(SoftMatch(align=align), student, given), supervised + (trust * each).mean(), student)


def test_adamatch() -> None:
    student, given = network(), batch()
    supervised, p, z_s = parts(student, given)
    wanted = 0.1 / K + 0.9 * torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)
    p = p * wanted / (0.1 / K + 0.9 * p.mean(0))
    p = p / p.sum(1, keepdim=True)
    c = 0.9 * student(given["x"]).logits.softmax(1).amax(1).mean()
    trust = (p.amax(1) >= c).double()
    assert 0 < trust.sum() < N_U
    each = F.cross_entropy(z_s, p.argmax(1), reduction="none")
    check(loss_of(AdaMatch(), student, given), supervised + (trust * each).mean(), student)


@pytest.mark.parametrize("stored", [True, False])
def test_pseudo_labels(stored: bool) -> None:
    """Of a stored teacher, or of the network itself on the same view; half of the weight after half of the ramp."""
    student, given = network(), batch()
    supervised, _, z_s = parts(student, given)
    p = z_s.softmax(1).detach()
    if stored:
        given["target"] = p = p.flip(0)
    trust = (p.amax(1) >= 0.6).double()
    assert 0 < trust.sum() < N_U
    expected = (
        supervised + 0.5 * 2 * (trust * F.cross_entropy(z_s, p.argmax(1), reduction="none")).sum() / N_U
    )
    check(
        loss_of(PseudoLabel(threshold=0.6, weight=2, ramp_steps=10), student, given, step=4),
        expected,
        student,
    )


def test_pi_model() -> None:
    student, given = network(), batch()
    supervised, p, z_s = parts(student, given)
    expected = supervised + 10 * np.exp(-5 * 0.75**2) * F.mse_loss(z_s.softmax(1), p)
    check(loss_of(PiModel(ramp_steps=20), student, given, step=5), expected, student)


def test_mean_teacher_takes_the_averages_answer() -> None:
    student, given = network("conv-4"), batch()
    method = MeanTeacher(weight=3.0, ramp_steps=0, passes=3)
    models = {"student": student, **method.roles(student, K, torch.arange(N_U))}
    teacher: Any = models["teacher"]
    other = copy.deepcopy(student)
    with torch.no_grad():
        for value in other.parameters():
            value.add_(0.05)
    teacher.update(other)  # now it is neither of the two
    p = teacher.module.eval()(given["weak"]).logits.softmax(1).detach()
    z_x, z_s = student(given["x"]).logits, student(given["strong"]).logits
    expected = F.cross_entropy(z_x, given["y"]) + 3 * F.mse_loss(z_s.softmax(1), p)
    loss = method(models, given, 0)
    check(loss, expected, student)
    loss.total.backward()
    assert all(value.grad is None for value in teacher.parameters())


def test_vat_finds_the_direction_of_largest_change() -> None:
    """After many iterations r is the first eigenvector of the divergence's Hessian in the picture."""
    student, given = network(), batch()
    u = given["weak"][:2]
    p = student(u).logits.softmax(1).detach()
    r = VAT(iterations=100, probe=1e-4, radius=0.1).direction(
        lambda v: student(v).logits, u, p, torch.tensor(5)
    )
    assert r.square().mean((1, 2, 3)).sqrt().tolist() == pytest.approx([0.1, 0.1])
    for i in range(2):

        def moved(d: Tensor, i: int = i) -> Tensor:
            return F.kl_div(student(u[i : i + 1] + d).logits.log_softmax(1), p[i : i + 1], reduction="sum")

        hessian = torch.autograd.functional.hessian(moved, torch.zeros_like(u[i : i + 1]))
        values, vectors = torch.linalg.eigh(hessian.view(SIDE**2, SIDE**2))  # type: ignore[union-attr]
        cosine = (r[i].flatten() @ vectors[:, -1]) / r[i].norm()
        assert float(cosine.abs()) > 0.99
        assert values[-1] > 1.2 * values[-2], "the example must have one direction of largest change"


@pytest.mark.parametrize("joint", [True, False])
def test_vat_loss_and_what_it_leaves_alone(joint: bool) -> None:
    student, given = network("conv-4"), batch()
    method = VAT(weight=0.7, entropy=0.2, joint=joint)
    twin = copy.deepcopy(student)
    loss = loss_of(method, student, given)

    def answer(u: Tensor) -> Tensor:
        if joint:  # batch norm sees the labelled pictures beside the moved ones, too
            return twin(torch.cat([given["x"], u])).logits[N_X:]  # type: ignore[no-any-return]
        return twin(u).logits  # type: ignore[no-any-return]

    if joint:
        z_x, z_u = twin(torch.cat([given["x"], given["weak"]])).logits.split([N_X, N_U])
    else:
        z_x, z_u = twin(given["x"]).logits, twin(given["weak"]).logits
    statistics = {k: v.clone() for k, v in twin.state_dict().items() if "running" in k}
    p = z_u.softmax(1)
    r = method.direction(answer, given["weak"], p.detach(), given["draw"])
    z_r = answer(given["weak"] + r)
    adversarial = F.kl_div(z_r.log_softmax(1), p.detach(), reduction="batchmean")
    unsure = -(p * p.log()).sum(1).mean()
    expected = F.cross_entropy(z_x, given["y"]) + 0.7 * adversarial + 0.2 * unsure
    torch.testing.assert_close(loss.total, expected, rtol=1e-10, atol=0)
    assert float(adversarial.detach()) > 0
    for name, value in statistics.items():  # the adversarial pictures are not in the running statistics
        torch.testing.assert_close(student.state_dict()[name], value)


def test_statistics_are_kept_and_momentum_comes_back() -> None:
    net = create("conv-4", n_classes=K, channels=1, size=SIDE, seed=3).train()
    before = {k: v.clone() for k, v in net.state_dict().items() if "running" in k}
    x = torch.rand(4, 1, SIDE, SIDE)
    with statistics_kept(net):
        net(x)
    assert all(torch.equal(net.state_dict()[k], v) for k, v in before.items())
    net(x)
    assert not all(torch.equal(net.state_dict()[k], v) for k, v in before.items())


def test_mixmatch() -> None:
    student, given = network(), batch()
    method = MixMatch(weight=5, ramp_steps=4, temperature=0.5, alpha=0.75)
    guesses = [student(given[name]).logits.softmax(1).detach() for name in ("weak", "weak_2")]
    q = ((guesses[0] + guesses[1]) / 2) ** 2
    q = q / q.sum(1, keepdim=True)
    pictures = torch.cat([given["x"], given["weak"], given["weak_2"]])
    targets = torch.cat([F.one_hot(given["y"], K).double(), q, q])
    n = len(pictures)
    partner = permutation(n, 77, "partners")
    share = np.random.RandomState(77).beta(0.75, 0.75, n)
    mixed_x, mixed_t = [], []
    for i in range(n):
        s = max(share[i], 1 - share[i])
        mixed_x.append(s * pictures[i] + (1 - s) * pictures[partner[i]])
        mixed_t.append(s * targets[i] + (1 - s) * targets[partner[i]])
    z, t = student(torch.stack(mixed_x)).logits, torch.stack(mixed_t)
    supervised = F.cross_entropy(z[:N_X], t[:N_X])
    expected = supervised + 5 * 0.5 * F.mse_loss(z[N_X:].softmax(1), t[N_X:])
    check(loss_of(method, student, given, step=1), expected, student)
