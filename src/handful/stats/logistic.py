"""Multinomial logistic regression.

Legend: n pictures, D features, K classes.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import optimize
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F


def solve_logistic(
    x: Tensor, target: Tensor, weight: Tensor, C: float, iterations: int = 200
) -> tuple[Tensor, Tensor]:
    """min_W  1/2 |W|^2 + C sum_i weight_i CE(W x_i + b, target_i) by L-BFGS; the bias is not penalised; deterministic.

    With fewer pictures than features the solution lies in the span of the pictures (representer theorem), so it
    is sought there: n unknowns per class instead of D.

    Args:
        x: [n, D]. target: [n, K] distributions. weight: [n].

    Returns:
        Weights [K, D] and bias [K], float32.
    """
    n, d = x.shape
    if n < d:
        basis, _ = torch.linalg.qr(x.double().T)  # [D, n]
        w, b = solve_logistic((x.double() @ basis), target, weight, C, iterations)
        return (w.double() @ basis.T).float(), b
    # a few hundred pictures: float64 costs nothing; thousands of pseudo-labels: float32 is exact enough
    tight = n <= 1000
    dtype = torch.float64 if tight else torch.float32
    x, target, weight = x.to(dtype), target.to(dtype), weight.to(dtype).unsqueeze(1)
    k, total = target.shape[1], float(weight.sum())

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.from_numpy(flat).view(k, d + 1).to(dtype)
        w, b = parameters[:, :d], parameters[:, d]
        log_p = F.log_softmax(x @ w.T + b, 1)
        loss = -(weight * target * log_p).sum() + 0.5 / C * w.square().sum()
        residual = weight * (log_p.exp() * target.sum(1, keepdim=True) - target)  # [n, K]
        gradient = torch.cat([residual.T @ x + w / C, residual.sum(0).unsqueeze(1)], 1)
        return float(loss) / total, (gradient / total).double().numpy().ravel()

    # SciPy's and torch's threads would wait for each other's cores: 3 to 15 times slower on two of them
    with threadpool_limits(1, user_api="blas"):
        found = optimize.minimize(
            loss_and_gradient,
            np.zeros(k * (d + 1)),
            jac=True,
            method="L-BFGS-B",
            options={
                "maxiter": iterations,
                "gtol": 1e-7 if tight else 1e-6,
                "ftol": 1e-12 if tight else 1e-8,
            },
        )
    solution = torch.from_numpy(found.x).view(k, d + 1).float()
    return solution[:, :d].clone(), solution[:, d].clone()
