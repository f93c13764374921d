"""The model card: one page about the model that travels with it (Mitchell et al. 2019, "Model Cards for Model
Reporting", section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handful.models.backbones import licence
from handful.report.record import Summary
from handful.report.words import shortlist

MOST_CLASSES = 40  # listed with their numbers of pictures


def model_card(s: Summary, backbone: Mapping[str, Any], reject: Mapping[str, Any]) -> str:
    """Markdown about a finished run.

    Args:
        backbone: the classifier's ``backbone_config``.
        reject: what ``stats.reject.threshold`` said.
    """
    chosen = next((t for t in s.tried if t.chosen), None)
    parts = [
        f"# Model card: {escaped(s.title)}",
        "A classifier of pictures, made by handful from few labelled pictures. It gives each picture one of "
        f"{len(s.classes)} classes and a probability.",
        "## What it is",
        bullets(
            {
                "Classes": ", ".join(map(escaped, s.classes)),
                "Recipe": chosen.name if chosen else "",
                "Uses unlabelled pictures": ("yes" if chosen.uses_unlabelled else "no") if chosen else "",
                "Network": network(backbone),
                "Files": "`model.safetensors` (weights), `model.json` (classes, preprocessing, threshold)",
                "SHA-256 of the weights": f"`{s.provenance.get('SHA-256 of the weights', '')}`",
                "Made by": f"handful {s.provenance.get('handful', '')}, `{s.command}`" if s.command else "",
            }
        ),
        "## The data",
        data(s),
        "## How right it is",
        figures(s),
        "## When it answers “none of these”",
        threshold(reject),
        "## Limits",
        "\n".join(f"- {text}" for text in limits(s)),
        "## Licence of the weights",
        weights_licence(backbone),
    ]
    return "\n\n".join(parts) + "\n"


def network(backbone: Mapping[str, Any]) -> str:
    """What looks at the picture, in a few words."""
    name = str(backbone["name"])
    if name == "pixels":
        return f"none: principal components of the pixels, {backbone['size']} px a side"
    size = f" at {backbone['size']} px" if backbone.get("size") else ""
    return f"`{name}`{size}"


def data(s: Summary) -> str:
    """Where it learned from, and how much of it there is."""
    told = (
        f"{escaped(s.data_name)}: {s.n_labelled:,} labelled, {s.n_unlabelled:,} unlabelled, {s.n_validation:,} "
        f"validation and {s.n_test:,} test pictures."
    )
    splits = [
        name for name in ("labelled", "validation", "test") if any(row.get(name) for row in s.counts.values())
    ]
    if not splits:
        return told
    rows = list(s.counts.items())[:MOST_CLASSES]
    table = [f"| Class | {' | '.join(splits)} |", f"|---|{'---|' * len(splits)}"]
    table += [
        f"| {escaped(name)} | {' | '.join(f'{row.get(split, 0):,}' for split in splits)} |"
        for name, row in rows
    ]
    rest = f"\n\n({len(s.counts) - MOST_CLASSES} more classes.)" if len(s.counts) > MOST_CLASSES else ""
    return told + "\n\n" + "\n".join(table) + rest


def figures(s: Summary) -> str:
    """Accuracy with its interval, and what it was measured on; by class where there is a matrix."""
    if s.headline_accuracy is None:
        return f"Not known. Measured on: {s.measured_on}."
    told = f"**{100 * s.headline_accuracy:.1f} %** of pictures classified correctly"
    if s.headline_interval:
        low, high = s.headline_interval
        told += f" (95 % interval {100 * low:.1f} to {100 * high:.1f} %)"
    told += f". Measured on: {s.measured_on}."
    if s.reliability:
        told += (
            f"\n\nExpected calibration error on {s.reliability_on}: {100 * s.reliability['ece_after']:.1f} points "
            f"(temperature {s.reliability['temperature']:.2f})."
        )
    if s.confusion and len(s.classes) <= MOST_CLASSES:
        table = ["| Class | pictures | called right |", "|---|---|---|"]
        for i, (name, row) in enumerate(zip(s.classes, s.confusion)):
            share = f"{100 * row[i] / sum(row):.0f} %" if sum(row) else "–"
            table.append(f"| {escaped(name)} | {sum(row):,} | {share} |")
        told += f"\n\nBy class, on {s.confusion_on}:\n\n" + "\n".join(table)
    return told


def threshold(reject: Mapping[str, Any]) -> str:
    """The threshold and how it came about."""
    if "why" in reject:
        return f"Never. {reject['why']}"
    value, n = float(reject["threshold"]), int(reject.get("right_answers", 0))
    if not value:
        return (
            f"Never: {n} right answers on held-out labelled pictures set no threshold that would give up no more than "
            "5 in 100 right ones and catch anything (it takes 19 at least). Treat low probabilities with care."
        )
    told = (
        f"Below a probability of **{value:.3f}**, set from {n} right answers on held-out labelled pictures."
    )
    return f"{told}\n\n{reject['rule']}"


def limits(s: Summary) -> list[str]:
    """What one must not expect of it."""
    few = [escaped(name) for name, row in s.counts.items() if row.get("labelled", 0) < 4]
    untested = "There was no test part: the figure comes from pictures that were also used to choose."
    return [
        *([] if s.n_test else [untested]),
        "It knows its classes only: a picture of anything else gets one of them, or “none of these” where the model is "
        "not sure.",
        *([f"Fewer than 4 labelled pictures: {shortlist(few, 10)}."] if few else []),
        "The figures hold for pictures like those it was measured on: another camera, light, place or season can make "
        "it worse, and nothing here says by how much.",
        "The interval covers which pictures were measured on. It does not cover which pictures happened to be "
        "labelled, and with few labels that matters much.",
        "Pictures are cut to their middle square: what stands at the edge of a long picture is not seen.",
        "It is no basis for decisions about people.",
    ]


def weights_licence(backbone: Mapping[str, Any]) -> str:
    """Terms of what the network knew before; what it learned here is the user's."""
    name = str(backbone["name"])
    terms = "" if name == "pixels" else licence(name)
    if not terms:
        return "The weights were learned from your pictures alone: no other terms apply to them."
    return (
        f"The network `{name}` starts from published weights, unless the command above says --training.no-pretrained. "
        f"Their licence: {terms}. Keep that notice when you pass the model on. What was learned on top comes from your "
        "pictures."
    )


def bullets(facts: Mapping[str, str]) -> str:
    """A list of those that are known."""
    return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value)


def escaped(text: str) -> str:
    """A name inside Markdown: on one line, without what would end a table's cell or start markup."""
    plain = " ".join(text.split())
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in plain)
