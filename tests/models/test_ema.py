"""The moving average against the formula, buffers included."""

import io

import torch
from torch import nn

from handful.models.ema import EMA
from handful.models.small import LeNet, Residual8


def test_equals_the_formula_for_weights_and_buffers() -> None:
    torch.manual_seed(0)
    model = Residual8(3, channels=1, size=8)
    ema = EMA(model, decay=0.3)
    expected = {key: value.clone().double() for key, value in model.state_dict().items()}
    for t in range(5):
        model(torch.randn(4, 1, 8, 8))  # moves running statistics and the integer counter
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p))
        ema.update(model)
        d = min(0.3, (1 + t) / (10 + t))
        for key, value in model.state_dict().items():
            integer = key.endswith("num_batches_tracked")
            expected[key] = value.double() if integer else d * expected[key] + (1 - d) * value.double()
    assert int(ema.t) == 5
    for key, value in ema.module.state_dict().items():
        torch.testing.assert_close(value.double(), expected[key], rtol=1e-5, atol=1e-6)


def test_decay_one_never_forgets_and_zero_copies() -> None:
    model = nn.Linear(2, 2)
    copying = EMA(model, decay=0.0)
    with torch.no_grad():
        model.weight.fill_(3.0)
    copying.update(model)
    torch.testing.assert_close(copying.module.weight, model.weight.detach(), rtol=0, atol=0)


def test_survives_saving_and_gives_no_gradient() -> None:
    torch.manual_seed(0)
    model = LeNet(3, channels=1, size=8)
    ema = EMA(model)
    ema.update(LeNet(3, channels=1, size=8))
    file = io.BytesIO()
    torch.save(ema.state_dict(), file)
    file.seek(0)
    again = EMA(model)
    again.load_state_dict(torch.load(file, weights_only=True))
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(again(x).logits, ema(x).logits, rtol=0, atol=0)
    assert int(again.t) == 1
    assert not again(x).logits.requires_grad
