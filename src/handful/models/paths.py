"""The ways of the gradient through a network: where shortcuts join, what is left without them, which paths carry it.

A residual net of n blocks is a sum of 2^n paths, C(n, k) of which go through k blocks and past the others (Veit,
Wilber & Belongie 2016, "Residual Networks Behave Like Ensembles of Relatively Shallow Networks").

Shortcuts are found where they join, as the network runs: a sum of two tensors of one shape, of which one has come
through more layers than the other. So it works for any network, whoever wrote it.

Legend: B pictures, C channels, S pixels a side, K classes, n blocks, k blocks on a path.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from handful.models.modes import watching
from handful.models.norms import activation_in, statistics_kept
from handful.randomness import permutation

BOTH, BRANCH, SKIP, PLAIN = "both", "branch", "skip", "plain"
SUMS = frozenset(["add", "__add__", "__radd__", "add_"])  # "x += y" arrives as "add_"
WEIGHTED = frozenset(["conv2d", "linear", "matmul", "__matmul__", "scaled_dot_product_attention"])
"""Operations that make a way one layer longer."""


class Joins(TorchFunctionMode):
    """While it is active, says what happens where a shortcut meets the branch beside it.

    Args:
        x: the network's input.
        rule: join number -> "both" (as written), "branch" or "skip" (the same values, but the gradient goes through one
            of the two), "plain" (the branch alone: the network without shortcuts).

    ``number`` is how many joins there have been.
    """

    def __init__(self, x: Tensor, rule: Callable[[int], str] = lambda number: BOTH) -> None:
        super().__init__()
        self.rule, self.number = rule, 0
        self.depth: Any = WeakTensorKeyDictionary()
        self.depth[x] = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, function.__name__
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        known = [self.depth[x] for x in tensors if x in self.depth]
        join = name in SUMS and len(known) == 2 and known[0] != known[1] and args[0].shape == args[1].shape
        out = self.join(args[0], args[1]) if join else function(*args, **kwargs)
        if known:
            depth = max(known) + (name in WEIGHTED)
            for x in tree_leaves(out):
                if isinstance(x, Tensor):
                    self.depth[x] = depth
        return out

    def join(self, a: Tensor, b: Tensor) -> Tensor:
        """The sum of a branch and a shortcut, by the rule."""
        branch, skip = (a, b) if self.depth[a] > self.depth[b] else (b, a)
        rule = self.rule(self.number)
        self.number += 1
        if rule == PLAIN:
            return branch
        if rule == BRANCH:
            return branch + skip.detach()
        return branch.detach() + skip if rule == SKIP else branch + skip


def n_joins(model: nn.Module, x: Tensor) -> int:
    """How many shortcuts join on the way of ``x`` [B, C, S, S]: n."""
    with torch.no_grad(), statistics_kept(model), Joins(x) as joins:
        model(x)
    return joins.number


class PathLength(NamedTuple):
    """The paths through k of n blocks.

    Attributes:
        paths: C(n, k).
        norm: of the loss's gradient at the input that comes down one such path, in the mean.
        share: ``paths * norm``, as a share of the sum over all lengths.
    """

    length: int
    paths: int
    norm: float
    share: float


def paths(model: nn.Module, x: Tensor, y: Tensor, *, samples: int = 3) -> list[PathLength]:
    """Every path length with its gradient (Veit et al. 2016, section 4.2): for each k, ``samples`` times k of the n
    blocks are drawn; the gradient goes through these and through the shortcut of the others, values stay as they are.

    Args:
        x: [B, C, S, S]. y: class numbers [B].

    Returns:
        k = 0 … n; empty without shortcuts.
    """
    n = n_joins(model, x)
    if not n:
        return []
    norms = []
    for k in range(n + 1):
        draws = samples if 0 < k < n else 1
        through = [set(permutation(n, "paths", k, draw)[:k]) for draw in range(draws)]
        norms.append(sum(one_path(model, x, y, blocks) for blocks in through) / draws)
    weights = [math.comb(n, k) * norm for k, norm in enumerate(norms)]
    total = sum(weights) or 1.0
    return [PathLength(k, math.comb(n, k), norms[k], weights[k] / total) for k in range(n + 1)]


def one_path(model: nn.Module, x: Tensor, y: Tensor, through: set[int]) -> float:
    """The norm of the loss's gradient at ``x`` that goes through the branches ``through`` and past all others."""
    x = x.detach().clone().requires_grad_()
    with statistics_kept(model), Joins(x, lambda number: BRANCH if number in through else SKIP):
        loss = F.cross_entropy(model(x).logits, y)
    (gradient,) = torch.autograd.grad(loss, x)
    return float(gradient.norm())


class LayerNorm(NamedTuple):
    """The size of the loss's gradient at one layer.

    Attributes:
        norm: with respect to its weights. Without norms it is the product of what comes in and what comes back, so all
            layers shrink together.
        flow: with respect to its output, the batch's together: what back-propagation brings there, and what vanishes or
            explodes from layer to layer. (Where the next layer works in place, with respect to the output after it.)
    """

    name: str
    norm: float
    flow: float


def gradient_norms(
    model: nn.Module, x: Tensor, y: Tensor, *, plain: bool = False, auxiliary_weight: float = 0.0
) -> list[LayerNorm]:
    """Gradient norms of all convolutions and linear layers, in the order in which they run; in the model's present mode
    (in training mode, batch norm's running statistics are left alone).

    Args:
        x: [B, C, S, S]. y: class numbers [B].
        plain: without shortcuts.
        auxiliary_weight: of the loss of each auxiliary head; 0: they are left out.
    """
    ran: dict[Any, Tensor] = {}
    names = {m: name for name, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    with statistics_kept(model), watching(names, lambda module, inputs, out: ran.update({module: out})):
        loss = loss_of(model, x, y, plain=plain, auxiliary_weight=auxiliary_weight)
    inputs = [tensor for module, out in ran.items() for tensor in (module.weight, out)]
    found = torch.autograd.grad(loss, inputs, allow_unused=True)
    sizes = [None if g is None else float(g.norm()) for g in found]
    return [
        LayerNorm(names[module], weight, out)
        for module, weight, out in zip(ran, sizes[::2], sizes[1::2], strict=True)
        if weight is not None and out is not None
    ]


def loss_of(
    model: nn.Module, x: Tensor, y: Tensor, *, plain: bool = False, auxiliary_weight: float = 0.0
) -> Tensor:
    """Mean cross-entropy, with that of the auxiliary heads; without shortcuts where ``plain``."""
    with Joins(x, lambda number: PLAIN if plain else BOTH):
        out = model(x)
    loss = F.cross_entropy(out.logits, y)
    for logits in out.auxiliary if auxiliary_weight else ():
        loss = loss + auxiliary_weight * F.cross_entropy(logits, y)
    return loss


def train_a_little(
    model: nn.Module,
    batches: Sequence[tuple[Tensor, Tensor]],
    *,
    lr: float = 0.01,
    plain: bool = False,
    auxiliary_weight: float = 0.0,
) -> list[float]:
    """One step of SGD (momentum 0.9) on each batch; returns the losses. Stops where a loss is not finite."""
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    losses = []
    for x, y in batches:
        loss = loss_of(model, x, y, plain=plain, auxiliary_weight=auxiliary_weight)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


def without_norms(model: nn.Module) -> nn.Module:
    """A copy in which every batch norm is left out; an activation that a library has put into the norm stays."""
    model = deepcopy(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            model.set_submodule(name, activation_in(module))
    return model
