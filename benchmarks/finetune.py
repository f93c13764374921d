"""Fine-tuning taken apart: tf_flowers, 16 labels per class, 3 label draws, EfficientNet-Lite0 at 128 px, 100 steps of
16 pictures (20 epochs) for every variant: frozen features, one rate, discriminative rates, gradual unfreezing, each
with and without frozen norm statistics."""

from __future__ import annotations

from benchmarks.common import arguments
from benchmarks.grids import keep, sweep

STEPS = "fine-tune@lite0:training.steps=100"
ONE_RATE = "training.decay_by_depth=1.0"
GRADUAL = "training.unfreeze_every=8"  # ten groups: the last one starts at step 80 of 100
FREE_NORMS = "training.freeze_norms=false"
VARIANTS = (
    STEPS, f"{STEPS},{ONE_RATE}", f"{STEPS},{GRADUAL}", f"{STEPS},{ONE_RATE},{GRADUAL}", f"{STEPS},{FREE_NORMS}",
    f"{STEPS},{ONE_RATE},{FREE_NORMS}", f"{STEPS},{GRADUAL},{FREE_NORMS}",
)  # fmt: skip


def main() -> None:
    given = arguments(__doc__ or "").parse_args()
    c = sweep("finetune", "tf_flowers", given.data_root, recipes=VARIANTS, labels=(16,), seeds=3)
    keep("finetune", c, steps=100)


if __name__ == "__main__":
    main()
