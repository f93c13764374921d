"""Views of one picture near, those of others far: the contrastive loss of self-supervised training.

Legend: V views of each picture, B pictures of this process's batch, N of the global one, D dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from handful import parallel
from handful.losses.classify import at_least_float32


def nt_xent(z: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross-entropy over the *global* batch, a scalar:

        mean_i mean_{j in P(i)} -log( exp(s_ij / T) / sum_{k != i} exp(s_ik / T) )

    with s_ij the cosine of rows i and j, and P(i) the V - 1 other views of i's picture. With two views it is Chen et
    al. 2020 ("SimCLR"), eq. 1 and algorithm 1; with more, Khosla et al. 2020, eq. 2, where a picture is its own class.

    Args:
        z: [V, B, D], with V >= 2; every process computes the loss of all N pictures.
    """
    z = F.normalize(at_least_float32(z), dim=2)
    z = parallel.gather_with_gradient(z.transpose(0, 1))  # [N, V, D]
    n, views, _ = z.shape
    rows = z.flatten(0, 1)
    with torch.autocast(z.device.type, enabled=False):
        similar = rows @ rows.T / temperature
    itself = torch.eye(n * views, dtype=torch.bool, device=z.device)
    log_p = similar.masked_fill(itself, -torch.inf).log_softmax(1)
    picture = torch.arange(n, device=z.device).repeat_interleave(views)
    positive = (picture.unsqueeze(0) == picture.unsqueeze(1)) & ~itself
    return -log_p[positive].mean()
