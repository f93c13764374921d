"""Learning without Forgetting: new classes for a trained network, without its old pictures.

Legend: B pictures of a batch, all of new classes; O old and N new classes, whose logits stand side by side [B, O + N].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from handful.losses.classify import cross_entropy
from handful.losses.forgetting import old_task_loss
from handful.methods.base import Objective
from handful.models.modes import evaluation
from handful.types import Batch, Loss, Models, UsageError


@dataclass(frozen=True)
class LearningWithoutForgetting(Objective):
    """L = lambda_old mean_i L_old(x_i) + mean_i CE(new head(x_i), y_i)  (Li & Hoiem 2018, eq. 1 to 4 and fig. 3).

    The role ``teacher`` answers for the old network: ``Responses`` that were recorded, or the old network itself.

    Attributes:
        n_old: O; the first O logits are the old classes'.
        lambda_old: weight of the old responses; 0 is plain fine-tuning.
        temperature: T of the old responses.
        responses: "recorded" before training on the pictures as they are, or "live": the old network answers to each
            view that the student sees.
        freeze_old_head: the old classes' own weights do not train; without ``lambda_old`` they never do.
        view: how the pictures are shown to the student (``augment.named``). Recorded responses are to the pictures as
            they are: another view asks the network for answers that it did not give, and it forgets more.
    """

    n_old: int
    lambda_old: float = 1.0
    temperature: float = 2.0
    responses: str = "recorded"
    freeze_old_head: bool = False
    view: str = "plain"

    def __post_init__(self) -> None:
        if self.responses not in ("recorded", "live"):
            raise UsageError(f"there are no responses '{self.responses}'", fix="recorded or live")
        if self.lambda_old < 0:
            raise UsageError(f"a weight of {self.lambda_old:g} makes no sense", fix="--lambda-old 0 or more")
        if self.temperature <= 0:
            raise UsageError(f"a temperature of {self.temperature:g} makes no sense", fix="--temperature 2")

    @property
    def views(self) -> Mapping[str, str]:
        return {"x": self.view}

    @property
    def old_head_trains(self) -> bool:
        """Whether the old classes' weights are among those that train."""
        return self.lambda_old > 0 and not self.freeze_old_head

    def __call__(self, models: Models, batch: Batch, step: int) -> Loss:
        logits = models["student"](batch["x"]).logits
        new = cross_entropy(logits[:, self.n_old :], batch["y"]).mean()
        if self.lambda_old == 0:
            return Loss(new, {"new": new})
        recorded = self.old_answers(models["teacher"], batch)
        old = old_task_loss(recorded, logits[:, : self.n_old], self.temperature).mean()
        return Loss(self.lambda_old * old + new, {"new": new, "old": old})

    def old_answers(self, teacher: nn.Module, batch: Batch) -> Tensor:
        """Logits of the old network [B, O]; it is in evaluation mode, so its norms' statistics stay as they are."""
        with torch.no_grad(), evaluation(teacher):
            recorded = self.responses == "recorded"
            answers: Tensor = teacher(batch["index"]) if recorded else teacher(batch["x"]).logits
            return answers


class Responses(nn.Module):
    """What the old network said of pictures before training: row numbers [n] and its logits [n, O].

    Called with row numbers [B], which must be among them, it gives their logits [B, O].
    """

    rows: Tensor
    logits: Tensor

    def __init__(self, rows: Tensor, logits: Tensor) -> None:
        super().__init__()
        order = rows.argsort()
        self.register_buffer("rows", rows[order].clone())
        self.register_buffer("logits", logits[order].clone())

    def forward(self, rows: Tensor) -> Tensor:
        return self.logits[torch.searchsorted(self.rows, rows.to(self.rows.device))]
