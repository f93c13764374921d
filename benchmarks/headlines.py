"""The headlines on ``docs/results.md``: a question each, and where in ``benchmarks/results`` its figures stand.

No figure is written here: answers and intervals are templates, filled from the rows that a headline picks.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from benchmarks.common import RESULTS

GAIN, INTERVAL = "{0[gain]:+.1f} points", "{0[gain low]:.1f} to {0[gain high]:.1f}"
LONG = "method.view=weak+randaugment+cutout,"
PAPER = (
    "method.view=weak,method.weak_view=weak,method.strong_view=weak+randaugment+cutout,training.start=random,"
)
CIFAR = "training.steps=1500,training.ratio=4"


class Headline(NamedTuple):
    """A case of a question, and the rows that answer it.

    Attributes:
        result: NAME of ``benchmarks/results/NAME.json``.
        rows: for each row its columns' values; exactly one row of the file has them. ``{0}`` is the first.
        answer: template of the answer, ``interval`` of its 95 % interval ("" where none was measured).
        scale: what fractions of the file are multiplied by.
    """

    case: str
    result: str
    rows: tuple[Mapping[str, Any], ...]
    answer: str
    interval: str = INTERVAL
    scale: float = 1.0


def auto(labels: int, baseline: str) -> tuple[dict[str, Any], ...]:
    return {"labels": labels, "recipe": "auto"}, {"labels": labels, "recipe": baseline}


AGAINST = "{0[accuracy]:.1f} % against {1[accuracy]:.1f} %: " + GAIN
HEADLINES: dict[str, tuple[Headline, ...]] = {
    "Does the automatic choice beat the best labelled-only recipe?": (
        Headline(
            "Handwritten digits, 4 labels per class",
            "digits",
            auto(4, "supervised@pixels:training.steps=300"),
            AGAINST,
        ),
        Headline("Photographs of flowers, 4 labels per class", "flowers", auto(4, "logistic@lite0"), AGAINST),
        Headline("… 64 labels per class", "flowers", auto(64, "logistic@lite0"), AGAINST),
        Headline("Caltech-101, 1 label per class", "caltech", auto(1, "logistic@lite0"), AGAINST),
        Headline("… 16 labels per class", "caltech", auto(16, "logistic@lite0"), AGAINST),
        Headline("CIFAR-10, 1 label per class", "cifar_features", auto(1, "nearest-mean@lite0"), AGAINST),
        Headline("… 400 labels per class", "cifar_features", auto(400, "logistic@lite0"), AGAINST),
    ),
    "What are unlabelled pictures worth in labels?": (
        Headline(
            "Label propagation on flowers, 4 labels per class",
            "flowers",
            ({"labels": 4, "recipe": "propagation@lite0"},),
            "does what labels alone need {0[worth in labels]} per class for",
            "",
        ),
    ),
    "Small networks from scratch: what does a method gain over the same network on the labels alone?": (
        Headline(
            "FixMatch, digits, 4 labels per class, 300 steps",
            "digits",
            ({"labels": 4, "recipe": "fixmatch@pixels:training.steps=300"},),
            GAIN,
        ),
        Headline(
            "FixMatch, Fashion-MNIST, 25 labels per class, 600 steps",
            "fashion",
            ({"labels": 25, "recipe": "fixmatch@pixels:training.steps=600"},),
            GAIN,
        ),
        Headline(
            "AdaMatch, the same data, 3,000 steps, RandAugment and cutout for both",
            "fashion_long",
            (
                {
                    "labels": 25,
                    "recipe": f"adamatch@pixels:{LONG}method.strong_view=weak+randaugment+cutout,"
                    "training.start=supervised,training.steps=3000 minus "
                    f"supervised@pixels:{LONG}training.steps=3000, paired",
                },
            ),
            GAIN,
        ),
        Headline(
            "FixMatch as in its paper, CIFAR-10, 25 labels per class, 1,500 steps",
            "cifar_few",
            (
                {
                    "labels": 25,
                    "recipe": f"fixmatch@lite0:{PAPER}{CIFAR} minus supervised@pixels:{CIFAR}, paired",
                },
            ),
            GAIN,
        ),
        Headline(
            "… 400 labels per class, over weak augmentation, the best labelled-only setting there",
            "cifar_many",
            (
                {
                    "labels": 400,
                    "recipe": f"fixmatch@lite0:{PAPER}{CIFAR} minus "
                    f"supervised@pixels:method.view=weak,{CIFAR}, paired",
                },
            ),
            GAIN,
        ),
    ),
    "On frozen features: what does it gain over label propagation?": (
        Headline(
            "FreeMatch, CIFAR-10, 25 labels per class",
            "feature_matching",
            ({"data": "cifar10", "labels": 25, "recipe": "freematch-features"},),
            "{0[over propagation]:+.1f} points",
            "{0[over propagation low]:.1f} to {0[over propagation high]:.1f}",
        ),
        Headline(
            "FreeMatch, flowers, 16 labels per class",
            "feature_matching",
            ({"data": "tf_flowers", "labels": 16, "recipe": "freematch-features"},),
            "{0[over propagation]:+.1f} points",
            "{0[over propagation low]:.1f} to {0[over propagation high]:.1f}",
        ),
    ),
    "Does the feedback of Meta Pseudo Labels add anything?": (
        Headline(
            "Two moons, exact gradient, with UDA",
            "moons_mpl",
            ({"variant": "MPL, exact, with UDA minus UDA, distilled"},),
            GAIN,
            "{0[low]:.1f} to {0[high]:.1f}",
            100.0,
        ),
    ),
    "Does self-supervised pretraining give a better start?": (
        Headline(
            "SimCLR, Fashion-MNIST, 25 labels per class, 300 steps, then fine-tuned",
            "self_supervised",
            ({"labels": 25, "start": "simclr"},),
            "{0[tuned gain]:+.1f} points",
            "{0[tuned gain low]:.1f} to {0[tuned gain high]:.1f}",
        ),
    ),
    "Does stronger augmentation pay?": (
        Headline(
            "RandAugment against flips and shifts alone, CIFAR-10, 400 labels per class, 800 steps",
            "augment_pays",
            ({"data": "cifar10", "augmentation": "RandAugment"},),
            GAIN,
        ),
    ),
    "Does a small network learn more from a large one than from the labels alone?": (
        Headline(
            "CIFAR-10, 1,000 labels, a student a thirtieth of the teacher's size",
            "distill",
            ({"network": "T = 4, weights 0.1 / 0.9"}, {"network": "teacher"}),
            GAIN + ", to {0[accuracy]:.1f} % (the teacher {1[accuracy]:.1f} %)",
        ),
    ),
    "Does Learning without Forgetting keep old classes better than plain fine-tuning?": (
        Headline(
            "Fashion-MNIST, 5 + 5 classes, from scratch, old classes",
            "extend",
            ({"data": "fashion_mnist supervised", "way": "learning-without-forgetting"},),
            "{0[old task-aware minus plain fine-tuning]:+.1f} points",
            "{0[old task-aware low]:.1f} to {0[old task-aware high]:.1f}",
        ),
    ),
    "Can the reported numbers be trusted?": (
        Headline(
            "Calibration error, Caltech-101, logistic regression, 4 labels per class",
            "calibration",
            ({"data": "caltech101", "labels": 4, "recipe": "logistic"},),
            "{0[calibration error, T = 1]:.1f} points as trained, "
            "{0[calibration error, prior]:.1f} after temperature scaling",
            "",
        ),
        Headline(
            'Pictures of classes unknown to the model, answered with "none of these"',
            "reject",
            ({"rejected of": "classes left out"}, {"rejected of": "right answers"}),
            "{0[mean]:.1f} %, and {1[mean]:.1f} % of the right answers too",
            "{0[low]:.1f} to {0[high]:.1f}",
        ),
        Headline(
            "Forecast of what more labels would bring: median error",
            "forecast",
            ({"data": "all scored"},),
            '{0[median error]:.1f} points ({0[median error of no change]:.1f} for "no change"); '
            "its 95 % interval held the truth in {0[covered (%)]:.0f} % of {0[forecasts]} cases",
            "",
        ),
    ),
    "How fast is it on a CPU?": (
        Headline(
            "Frozen features at 128 px with `handful[fast]`, against eager PyTorch, both with the tuned allocator",
            "features",
            ({"size": 128, "backend": "openvino", "allocator": "tuned"},),
            "{0[ratio_to_eager_tuned]:.1f} times as fast",
            "",
        ),
        Headline(
            "One FixMatch step of WRN-28-2, against semilearn's with the same allocator",
            "semi_step",
            ({"step": "ours, joint"}, {"step": "ours fp32, joint"}),
            "{0[as semilearn with our allocator]:.1f} times as fast in bfloat16, "
            "{1[as semilearn with our allocator]:.1f} in float32",
            "",
        ),
        Headline(
            "RandAugment at 224 px, against torchvision on Pillow pictures",
            "augment",
            ({"what": "RandAugment(2, 9)", "pixels": 224, "by": "torchvision v2, Pillow"},),
            "{0[handful is faster by]:.1f} times as fast",
            "",
        ),
    ),
}


def figures(headline: Headline, found: Mapping[str, Any]) -> tuple[str, str]:
    """Answer and interval of a headline from the content of its file.

    Raises:
        ValueError: not exactly one row fits.
    """
    picked = []
    for wanted in headline.rows:
        fitting = [r for r in found["rows"] if all(r.get(k) == v for k, v in wanted.items())]
        if len(fitting) != 1:
            raise ValueError(f"{headline.result}: {len(fitting)} rows have {wanted}")
        picked.append({key: rounded(value, headline.scale) for key, value in fitting[0].items()})
    answer, interval = (text.format(*picked) for text in (headline.answer, headline.interval))
    return signs(answer), signs(interval)


def rounded(value: Any, scale: float) -> Any:
    """A figure, so that one decimal of it is rounded as on paper: 22.45 is 22.5."""
    return value * scale + math.copysign(1e-9, value) if isinstance(value, float) else value


def signs(text: str) -> str:
    """Real minus signs before figures."""
    return re.sub(r"(?<![\w.])-(?=\d)", "−", text)


def draws(found: Mapping[str, Any]) -> str:
    """How many draws of labels a result is the mean of: "label draws 5 to 9" are 5."""
    if bounds := re.search(r"(\d+) to (\d+)", str(found.get("seeds", ""))):
        return str(int(bounds[2]) - int(bounds[1]) + 1)
    return ""


def table() -> Iterator[str]:
    """The table's lines, a row for each case; the first case of a question names it."""
    yield "| Question | Answer | 95 % interval | Draws | Command and raw table |"
    yield "|---|---|---|---|---|"
    for question, headlines in HEADLINES.items():
        for i, headline in enumerate(headlines):
            found = json.loads((RESULTS / f"{headline.result}.json").read_text())
            answer, interval = figures(headline, found)
            case = headline.case if i else f"**{question}**<br>{headline.case}"
            command = f"[`{found['command']}`](results/{headline.result}.md)"
            yield f"| {case} | {answer} | {interval or '–'} | {draws(found) or '–'} | {command} |"
