"""The student's half of Meta Pseudo Labels: its step on a teacher's labels, and what that tells the teacher.

Legend: M unlabelled pictures of this process, K classes; z_u the teacher's logits for them, q pseudo-labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from handful import parallel
from handful.losses.classify import cross_entropy
from handful.methods.base import Method
from handful.models.modes import evaluation
from handful.randomness import uniform
from handful.types import State, UsageError

LABELS = ("argmax", "sample", "soft")


@dataclass(frozen=True)
class Feedback(Method):
    """S' = S - lr grad_S CE(q, S(u)), and a term for the teacher's loss whose gradient makes helpful labels likelier.

    With hard labels the term is (h - mean of h) CE(q, T(u)), h = CE(y, S(x)) - CE(y, S'(x)) (Pham et al. 2021,
    algorithm 1). With soft ones that has no gradient (it is the entropy of q at its own minimum), so there the
    term has the exact gradient of CE(y, S'(x)) through the student's step.

    Attributes:
        labels: "argmax" or "sample" (hard, feedback as a difference of losses), or "soft" (exact gradient).
        feedback_weight: of the term; 0 leaves a teacher that does not hear its student.
        baseline_rate: of the moving average that is subtracted from h.
        view: how the labelled pictures are shown.
        tune_steps: steps of the final fine-tuning, of the student alone on the labelled pictures.
        tune_lr: its learning rate.
    """

    labels: str = "argmax"
    feedback_weight: float = 1.0
    baseline_rate: float = 0.01
    view: str = "strong"
    tune_steps: int = 100
    tune_lr: float = 1e-3

    uses_unlabelled: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.labels not in LABELS:
            raise UsageError(f"there are no '{self.labels}' pseudo-labels", fix=f"one of {', '.join(LABELS)}")

    @property
    def trains(self) -> tuple[str, ...]:
        return ("student", "teacher")

    @property
    def fine_tuning(self) -> tuple[int, float]:
        return self.tune_steps, self.tune_lr

    def student_step(
        self, state: State, x: Tensor, y: Tensor, u: Tensor, z_u: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One step of the student on the labels that z_u [M, K] gives for u.

        Returns:
            The student's loss, h over the global batch, and the term, which has a gradient in z_u.
        """
        learn = self.exact if self.labels == "soft" else self.first_order
        return learn(state, x, y, u, z_u)

    def first_order(
        self, state: State, x: Tensor, y: Tensor, u: Tensor, z_u: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The student learns hard labels; h tells by how much that lowered the labelled loss."""
        label = self.hard_labels(z_u.detach(), state)  # [M]
        student = state.models["student"]
        with state.precision():
            loss = cross_entropy(student(u).logits, label).mean()
        before = labelled_loss(state, x, y)
        state.optimizers["student"].zero_grad(set_to_none=True)
        loss.backward()
        state.advance("student")
        h = before - labelled_loss(state, x, y)
        advantage = h - state.models["memory"](h)
        return loss.detach(), h, advantage * cross_entropy(z_u, label).mean()

    def exact(
        self, state: State, x: Tensor, y: Tensor, u: Tensor, z_u: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The student learns soft labels; the teacher's term has the gradient of CE(y, S'(x)), taken through the
        student's step (equation 3 in its exact form).

        S' moves by -rate * g(q) with g the gradient of the student's loss, so dCE(y, S'(x)) / dq is
        -d/dq <rate * grad CE(y, S'(x)), g(q)>: one more backward pass, and no network of the teacher's in it.
        """
        q = z_u.detach().softmax(1).requires_grad_()  # [M, K]
        student = parallel.unwrap(state.models["student"])
        trained = {name: p for name, p in student.named_parameters() if p.requires_grad}
        weights = list(trained.values())
        before = {  # the step below must not write into this graph
            name: p.detach().clone().requires_grad_() for name, p in trained.items()
        }
        with state.precision():
            loss = cross_entropy(functional_call(student, before, (u,)).logits, q).mean()
        g = torch.autograd.grad(loss, list(before.values()), create_graph=True)
        for p, own in zip(weights, g, strict=True):
            p.grad = parallel.mean(own)
        state.advance("student")
        rates = sgd_rates(state.optimizers["student"])
        with evaluation(student), state.precision():
            after = torch.autograd.grad(cross_entropy(student(x).logits, y).mean(), weights)

        products = [
            rates[p] * (parallel.mean(end) * own).sum() for p, end, own in zip(weights, after, g, strict=True)
        ]
        h = torch.stack(products).sum()  # to first order, by how much the labelled loss fell
        (worth,) = torch.autograd.grad(h, q)  # [M, K]: -dCE(y, S'(x)) / dq
        return loss.detach(), parallel.mean(h), -(worth * z_u.softmax(1)).sum()

    def hard_labels(self, z_u: Tensor, state: State) -> Tensor:
        """The teacher's most probable classes, or a draw of each picture's: int64 [M]."""
        if self.labels == "argmax":
            return z_u.argmax(1)
        everyone = len(z_u) * parallel.size()
        u = uniform((everyone, 1), state.seed, state.stage, "pseudo-label", state.step)
        u = u[parallel.rows(everyone)].to(z_u.device)
        return (z_u.softmax(1).cumsum(1) < u).sum(1).clamp(max=z_u.shape[1] - 1)


class MovingMean(nn.Module):
    """A scalar's moving average m <- m + rate (value - m), from 0; it answers with m as it was before ``value``."""

    mean: Tensor

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))

    def forward(self, value: Tensor) -> Tensor:
        before = self.mean.clone().to(value.dtype)
        self.mean.lerp_(value.detach().double(), self.rate)
        return before


@torch.no_grad()
def labelled_loss(state: State, x: Tensor, y: Tensor) -> Tensor:
    """The student's CE(y, S(x)), as it would be used (evaluation mode), over the global batch."""
    with evaluation(parallel.unwrap(state.models["student"])) as student, state.precision():
        return parallel.mean(cross_entropy(student(x).logits, y).mean())


def sgd_rates(optimizer: torch.optim.Optimizer) -> dict[Tensor, float]:
    """How far a step of SGD moves each parameter for each unit of its gradient (dampening is taken to be 0).

    Raises:
        UsageError: for another optimiser, whose step is not linear in the gradient.
    """
    if not isinstance(optimizer, torch.optim.SGD):
        raise UsageError("the exact gradient goes through a step of SGD", fix="give --training.optimizer sgd")
    return {
        p: group["lr"] * (1 + group["momentum"] if group["nesterov"] else 1)
        for group in optimizer.param_groups
        for p in group["params"]
    }
