"""Distillation: teachers answer for pictures once, or at every step, and a small network learns their answers.

Legend: N pictures of a task, n of them asked about, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from handful.data.images import Images
from handful.engine import checkpoint
from handful.methods.distillation import Distillation
from handful.methods.supervised import Supervised
from handful.models.teacher import Answer, FrozenTeacher, Teachers
from handful.recipes.matching import matching
from handful.recipes.self_training import substage
from handful.recipes.task import Fitted, Task, Workshop
from handful.recipes.train import Training, digest, shortened, small_training, steps_of, train_network
from handful.recipes.transfer import fine_tune, tuning
from handful.types import UsageError

LARGER = {"conv-4": "conv-4-2x", "small-resnet": "small-resnet-2x"}  # teachers of the recipe's own


@dataclass(frozen=True)
class Lessons:
    """What teachers say of pictures.

    Attributes:
        rows: row numbers that were asked about, int64 [n], ascending.
        log_p: [n, K].
        features: [n, D] of the first teacher; D = 0 where none were asked for, or it has none.
        live: the teachers themselves, for views of the pictures; None where only their answers are known.
        fingerprint: identifies the teachers.
    """

    rows: Tensor
    log_p: Tensor
    features: Tensor
    live: Teachers | None = None
    fingerprint: str = ""

    def places(self, rows: Tensor) -> Tensor:
        """Where row numbers stand in the tables; all of them must have been asked about."""
        found = torch.searchsorted(self.rows, rows).clamp(max=len(self.rows) - 1)
        if not torch.equal(self.rows[found], rows):
            raise ValueError("the teacher was not asked about all of these pictures")
        return found


def ask(
    answer: Answer,
    images: Images,
    rows: Tensor,
    *,
    features: bool = False,
    file: Path | None = None,
    batch: int = 64,
    device: str = "cpu",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Tensor, Tensor]:
    """log p [n, K] and features [n, D] of pictures as they are, by row number.

    Args:
        features: D = 0 where they are not wanted.
        file: the answers are kept there, and read where they are there already.
    """
    if file is not None and file.exists():
        kept = checkpoint.read(file)
        return kept["log_p"], kept["features"]
    log_p, found = [], []
    for some in rows.split(batch):
        said = answer(images.take(some).to(device))
        log_p.append(said.logits.float().cpu())
        found.append(said.features.float().cpu() if features else said.features.float().cpu()[:, :0])
        progress(sum(map(len, log_p)), len(rows))
    tables = {"log_p": torch.cat(log_p), "features": torch.cat(found)}
    if file is not None:
        checkpoint.write(file, tables)
    return tables["log_p"], tables["features"]


def distilled(
    task: Task, workshop: Workshop, lessons: Lessons, method: Distillation, training: Training, *, stage: str
) -> Fitted:
    """``training.backbone`` learns the teachers' answers for every picture of the task, labelled or not.

    Raises:
        UsageError: the method wants features, or a teacher that answers for views, and there are none.
    """
    rows = torch.cat([task.labelled, task.unlabelled]).sort().values
    taught = replace(task, unlabelled=rows)
    places = lessons.places(rows)
    guide = lessons.features[places]
    if method.feature_weight:
        if not guide.shape[1]:
            raise UsageError("the first teacher has no features to imitate", fix="leave the feature term out")
        method = replace(method, feature_dim=guide.shape[1])
    if method.patient:
        if lessons.live is None:
            fix = "leave --patient out, or give the network itself as the teacher"
            raise UsageError("stored answers cannot answer for crops of the pictures", fix=fix)
        return train_network(
            taught, workshop, method, training,
            stage=stage, origin=lessons.fingerprint, roles={"teacher": lessons.live},
        )  # fmt: skip
    beside = {"guide": guide} if method.feature_weight else {}
    p = lessons.log_p[places].exp()
    return train_network(taught, workshop, method, training, stage=stage, teacher=p, beside=beside)


def labels_alone(
    task: Task, workshop: Workshop, method: Distillation, training: Training, *, like: str, stage: str
) -> Fitted:
    """The same network on the labelled pictures alone, with the steps and the augmentation of the distilled one.

    Args:
        like: the stage that distilled: where the time decided, it has as many steps.
    """
    steps = training.steps or int(workshop.plan[steps_of(like)])
    alone = Supervised(view=method.taught_view, mix=method.mix, mix_alpha=method.mix_alpha)
    return train_network(task, workshop, alone, replace(training, steps=steps), stage=stage)


def taught_by_own(
    task: Task,
    workshop: Workshop,
    *,
    on: str,
    method: Distillation | None = None,
    training: Training | None = None,
    stage: str = "distill",
) -> Fitted:
    """A teacher of the task's own, then a small student, each with half of the time and the steps: photographs' teacher
    is the fine-tuned network ``on``, that of small pictures a larger network trained by FixMatch."""
    method = method or Distillation()
    training = training or small_training(task)
    training = shortened(training, 1 / 2)
    name = substage(stage, "teacher")
    if on == "pixels":
        large = replace(training, backbone=LARGER.get(training.backbone, training.backbone))
        teacher = matching("fixmatch", task, workshop, on=on, training=large, stage=name)
    else:
        large = replace(tuning(on), seconds=training.seconds, steps=training.steps)
        teacher = fine_tune(task, workshop, on=on, training=large, stage=name)
    lessons = own_lessons(teacher, task, workshop, method)
    return distilled(task, workshop, lessons, method, training, stage=stage)


def own_lessons(teacher: Fitted, task: Task, workshop: Workshop, method: Distillation) -> Lessons:
    """What a teacher that was trained on the task says of its pictures."""
    made = teacher.classifier
    frozen = FrozenTeacher(made, made.spec, task.images.channels, workshop.device)
    rows = torch.cat([task.labelled, task.unlabelled]).sort().values
    log_p, features = ask(
        frozen, task.images, rows, features=method.feature_weight > 0, device=workshop.device
    )
    return Lessons(rows, log_p, features, Teachers([frozen]), digest(log_p))
