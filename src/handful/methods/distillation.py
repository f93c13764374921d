"""Knowledge distillation: a student imitates a teacher's softened answers (Hinton et al. 2015)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from handful.augment.mix import Mixing
from handful.losses.classify import cross_entropy
from handful.losses.distill import direction_loss, hint_loss, soft_target_loss
from handful.methods.base import Objective
from handful.randomness import generator
from handful.types import Batch, Loss, Models, UsageError

FEATURE_LOSSES = {"hint": hint_loss, "direction": direction_loss}
PATIENT = {"patient": True, "hard_weight": 0.0, "soft_weight": 1.0, "mix": "mixup"}  # Beyer et al. 2022


@dataclass(frozen=True)
class Distillation(Objective):
    """L = hard_weight mean_i CE(student(x_i), y_i)
         + soft_weight mean_j T^2 KL(softmax(v_j / T) || softmax(student(u_j) / T))
         + feature_weight mean_j D(projection(f_j), g_j)

    x: labelled pictures; u: any pictures, labelled or not; v_j and g_j: the teacher's logits (or log probabilities)
    and features for u_j; f_j the student's features. What nothing weighs is not shown: without ``hard_weight`` no label
    is needed.

    The teacher's answers are those that were stored for the picture as it is (``target``, ``guide`` in the batch), or,
    where it is ``patient``, those that the role ``teacher`` gives for the very pixels that the student sees.

    Attributes:
        temperature: T, that softens the answers.
        hard_weight: of the labels.
        soft_weight: of the teacher's answers. T^2 keeps their gradient's scale, so the two weights mean the same
            at every temperature.
        feature_weight: of the teacher's features.
        feature_loss: D: "hint" (Romero et al. 2015) or "direction" (cosine).
        feature_dim: width of the teacher's features; the recipe fills it in.
        view: how the labelled pictures are shown: plain, weak, strong, weak+randaugment:n=2:m=9, or a policy file.
        taught_view: how the pictures are shown that the teacher answers for.
        patient: the teacher sees the same crop as the student, at every step (Beyer et al. 2022, "function matching").
        mix: "none", or "mixup", "cutmix", "both": taught pictures are mixed in pairs; only a patient teacher can answer
            for mixtures.
        mix_alpha: of the Beta distribution of the proportions.
    """

    temperature: float = 4.0
    hard_weight: float = 0.1
    soft_weight: float = 0.9
    feature_weight: float = 0.0
    feature_loss: str = "hint"
    feature_dim: int = 0
    view: str = "strong"
    taught_view: str = "strong"
    patient: bool = False
    mix: str = "none"
    mix_alpha: float = 1.0

    uses_unlabelled: ClassVar[bool] = True
    needs_teacher: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("hard_weight", "soft_weight", "feature_weight"):
            if getattr(self, name) < 0:
                raise UsageError(
                    f"{name.replace('_', ' ')} {getattr(self, name):g} makes no sense", fix="0 or more"
                )
        if not self.views:
            raise UsageError("with all weights 0 nothing is learned", fix="give --soft-weight 0.9")
        if not self.temperature > 0:
            raise UsageError(f"a temperature of {self.temperature:g} makes no sense", fix="--temperature 4")
        if self.feature_loss not in FEATURE_LOSSES:
            raise UsageError(
                f"there is no feature loss '{self.feature_loss}'", fix=" or ".join(FEATURE_LOSSES)
            )
        if self.taught_mixing and not self.patient:
            raise UsageError(
                "stored answers are for single pictures, not for mixtures",
                fix="make the teacher patient, or mix none",
            )

    @property
    def views(self) -> Mapping[str, str]:
        taught = self.soft_weight > 0 or self.feature_weight > 0
        labelled = {"x": self.view} if self.hard_weight > 0 else {}
        return {**labelled, "u": self.taught_view} if taught else labelled

    @property
    def pixels(self) -> tuple[str, ...]:
        """Views whose decoded pictures the batch holds too, for the teacher."""
        return ("u",) if self.patient else ()

    @property
    def taught_mixing(self) -> Mixing | None:
        """How taught pictures are mixed, if they are."""
        return None if self.mix == "none" else Mixing(self.mix, self.mix_alpha)

    @property
    def trains(self) -> tuple[str, ...]:
        return ("student", "projection") if self.feature_weight else ("student",)

    def roles(self, network: nn.Module, n_classes: int, unlabelled: Tensor) -> dict[str, nn.Module]:
        """The learned projection from the student's features to the teacher's width."""
        if not self.feature_weight:
            return {}
        like = next(network.parameters())
        width: int = network.dim  # type: ignore[assignment]
        projection = nn.Linear(width, self.feature_dim)
        bound, drawn = width**-0.5, generator("projection", width, self.feature_dim)
        for part in (projection.weight, projection.bias):  # torch's own start, from a generator of its own
            nn.init.uniform_(part, -bound, bound, generator=drawn)
        return {"projection": projection.to(like.dtype)}

    def __call__(self, models: Models, batch: Batch, step: int) -> Loss:
        shown = [batch[name] for name in self.views]
        out = models["student"](torch.cat(shown))
        z = dict(zip(self.views, out.logits.split([len(part) for part in shown]), strict=True))
        total, terms = out.logits.new_zeros(()), {}
        if self.hard_weight:
            hard = cross_entropy(z["x"], batch["y"]).mean()
            total, terms["hard"] = total + self.hard_weight * hard, hard
        if "u" in z:
            v, guide = self.taught(models, batch)
            soft = soft_target_loss(z["u"], v, self.temperature).mean()
            total, terms["soft"] = total + self.soft_weight * soft, soft
            terms["agreement"] = (z["u"].argmax(1) == v.argmax(1)).double().mean()
            if self.feature_weight:
                projected = models["projection"](out.features[-len(v) :])
                apart = FEATURE_LOSSES[self.feature_loss](projected, guide).mean()
                total, terms["features"] = total + self.feature_weight * apart, apart
        return Loss(total, terms)

    def taught(self, models: Models, batch: Batch) -> tuple[Tensor, Tensor]:
        """The teacher's logits [M, K], up to a constant for each picture, and its features [M, D]."""
        if self.patient:
            said = models["teacher"](batch["u_pixels"])
            return said.logits, said.features
        return batch["target"].clamp_min(1e-30).log(), batch.get("guide", batch["target"][:, :0])
