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
from handful.methods.table import REGISTRY
from handful.models.teacher import Answer, FrozenTeacher, Teachers
from handful.randomness import digest
from handful.recipes.consistency import from_first_student
from handful.recipes.fine_tune import fine_tune
from handful.recipes.stage import Stage
from handful.recipes.task import Fitted, Task, Workshop
from handful.recipes.train import steps_of, train_network
from handful.recipes.training import shortened, tuning
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


def distilled(stage: Stage, lessons: Lessons, workshop: Workshop) -> Fitted:
    """The stage's network learns the teachers' answers for every picture of the task, labelled or not.

    Raises:
        UsageError: the method wants features, or a teacher that answers for views, and there are none.
    """
    task, method = stage.task, stage.method
    rows = torch.cat([task.labelled, task.unlabelled]).sort().values
    places = lessons.places(rows)
    guide = lessons.features[places]
    if method.feature_weight:
        if not guide.shape[1]:
            raise UsageError("the first teacher has no features to imitate", fix="leave the feature term out")
        method = replace(method, feature_dim=guide.shape[1])
    taught = replace(stage, task=replace(task, unlabelled=rows), method=method)
    if method.patient:
        if lessons.live is None:
            fix = "leave --patient out, or give the network itself as the teacher"
            raise UsageError("stored answers cannot answer for crops of the pictures", fix=fix)
        taught = replace(taught, origin=lessons.fingerprint, roles={"teacher": lessons.live})
        return train_network(taught, workshop)
    tables = {"target": lessons.log_p[places].exp()} | ({"guide": guide} if method.feature_weight else {})
    return train_network(replace(taught, tables=tables), workshop)


def labels_alone(stage: Stage, workshop: Workshop, *, name: str) -> Fitted:
    """The network of a stage of ``distilled`` on the labelled pictures alone, with its steps and its augmentation, as a
    stage called ``name``."""
    method = stage.method
    # as many, where the time decided
    steps = stage.training.steps or int(workshop.plan[steps_of(stage.name)])
    alone = Supervised(view=method.taught_view, mix=method.mix, mix_alpha=method.mix_alpha)
    training = replace(stage.training, steps=steps)
    return train_network(replace(stage, name=name, method=alone, training=training), workshop)


def taught_by_own(stage: Stage, workshop: Workshop) -> Fitted:
    """A teacher of the task's own, then a small student, each with half of the time and the steps: photographs' teacher
    is the fine-tuned network ``on``, that of small pictures a larger network trained by FixMatch."""
    stage = replace(stage, training=shortened(stage.training, 1 / 2))
    training = stage.training
    if stage.on == "pixels":
        row = REGISTRY["fixmatch"]
        large = replace(training, backbone=LARGER.get(training.backbone, training.backbone))
        above = stage.part("teacher", method=row.method(**row.small), training=large)
        teacher = from_first_student(above, workshop)
    else:
        large = replace(tuning(stage.on), seconds=training.seconds, steps=training.steps)
        teacher = fine_tune(stage.part("teacher", method=Supervised(), training=large), workshop)
    return distilled(stage, own_lessons(teacher, stage.task, workshop, stage.method), workshop)


def own_lessons(teacher: Fitted, task: Task, workshop: Workshop, method: Distillation) -> Lessons:
    """What a teacher that was trained on the task says of its pictures."""
    made = teacher.classifier
    frozen = FrozenTeacher(made, made.spec, task.images.channels, workshop.device)
    rows = torch.cat([task.labelled, task.unlabelled]).sort().values
    log_p, features = ask(
        frozen, task.images, rows, features=method.feature_weight > 0, device=workshop.device
    )
    return Lessons(rows, log_p, features, Teachers([frozen]), digest(log_p))
