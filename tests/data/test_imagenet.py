"""The packaged weights know ImageNet."""

import os
from pathlib import Path

import pytest
from benchmarks.imagenet_check import top1

ROOT = Path(os.environ.get("HANDFUL_DATA_ROOT", Path(__file__).parents[3] / "shared" / "data"))


@pytest.mark.data
@pytest.mark.skipif(not (ROOT / "imagenet_500_samples").exists(), reason="imagenet_500_samples is absent")
def test_top1() -> None:
    assert top1(ROOT, "torch") >= 0.70
