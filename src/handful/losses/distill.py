"""A student that imitates a teacher: softened answers, and features.

Legend: B pictures, K classes, D the width of the teacher's features; ``z`` [B, K] logits. A teacher of whom only the
probabilities are known gives log p: softmax does not see what is the same for all classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from handful.losses.classify import at_least_float32
from handful.losses.consistency import divergence


def soft_target_loss(z_student: Tensor, z_teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(z_teacher / T) || softmax(z_student / T)), [B] (Hinton et al. 2015, sec. 2), summed over classes.

    The gradient with respect to z_student is T (softmax(z_student / T) - softmax(z_teacher / T)), which becomes
    (z_student - z_teacher) / K with both centred as T grows (eq. 4, times T^2): its scale does not shrink with T. No
    gradient reaches the teacher.
    """
    p = torch.softmax(at_least_float32(z_teacher.detach()) / temperature, dim=1)
    return temperature**2 * divergence(p, at_least_float32(z_student) / temperature)


def hint_loss(f_student: Tensor, f_teacher: Tensor) -> Tensor:
    """mean_d (f_student - f_teacher)^2, [B]: features [B, D], the student's brought to the teacher's width (Romero et
    al. 2015, "FitNets", eq. 3, with a mean in place of half the sum)."""
    return (at_least_float32(f_student) - at_least_float32(f_teacher.detach())).square().mean(1)


def direction_loss(f_student: Tensor, f_teacher: Tensor) -> Tensor:
    """1 - cos(f_student, f_teacher), [B]: only the direction of the features [B, D] counts, not their length."""
    return 1 - F.cosine_similarity(at_least_float32(f_student), at_least_float32(f_teacher.detach()), dim=1)
