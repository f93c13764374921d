"""The table of a distillation: what each network costs and how right it is; on disk, in the report, on a terminal."""

from __future__ import annotations

from dataclasses import dataclass

from handful.inference.costs import Cost
from handful.report.record import Extra
from handful.report.words import percent, points, points_span, span


@dataclass(frozen=True)
class Row:
    """One network of the table.

    Attributes:
        accuracy: with its 95 % interval; None where there are no labelled pictures to measure on.
        agreement: share of unseen pictures with the teacher's answer.
    """

    name: str
    cost: Cost
    accuracy: float | None = None
    interval: tuple[float, float] | None = None
    agreement: float | None = None


@dataclass(frozen=True)
class Figures:
    """All that was measured.

    Attributes:
        rows: teachers, student, and the same student on the labels alone, in this order.
        gain: accuracy of the student minus that of its twin, with its 95 % interval; None without labels or figures.
        measured_on: the accuracies; ``agreed_on``: the agreements; "" where there are none.
    """

    rows: tuple[Row, ...]
    gain: tuple[float, float, float] | None
    measured_on: str
    agreed_on: str


TOGETHER = "all teachers together"
COLUMNS = (
    "network", "MB", "weights", "MFLOPs", "ms", "ONNX ms", "ONNX MB", "right", "agrees",
)  # fmt: skip


def cells(row: Row, interval: bool = True) -> list[str]:
    """A row's cells as text, "–" where nothing is known; with the interval of the accuracy, or without."""
    c = row.cost
    right = "–" if row.accuracy is None else percent(row.accuracy)
    if interval and row.interval:
        right += f" ({span(row.interval)})"
    return [
        row.name,
        _over(c.bytes, 1e6, 2),
        "–" if c.parameters is None else f"{c.parameters:,}",
        _over(c.flops, 1e6, 1),
        _over(c.torch_ms, 1, 2),
        _over(c.onnx_ms, 1, 2),
        _over(c.onnx_bytes, 1e6, 2),
        right,
        "–" if row.agreement is None else percent(row.agreement),
    ]


def _over(value: float | None, unit: float, digits: int) -> str:
    return "–" if value is None else f"{value / unit:,.{digits}f}"


def sentence(figures: Figures, student: str, teachers: str) -> str:
    """Smaller by how much, quicker by how much, and was the teacher worth it?"""
    chosen = _student(figures)
    taught = [row for row in figures.rows[: figures.rows.index(chosen)] if row.name != TOGETHER]
    words = [f"{student} learned from {teachers}."]
    compared = []
    for less, more, name in (
        ("fewer parameters", "more parameters", "parameters"),
        ("quicker in PyTorch", "slower in PyTorch", "torch_ms"),
        ("quicker in ONNX Runtime", "slower in ONNX Runtime", "onnx_ms"),
    ):
        own, known = getattr(chosen.cost, name), [getattr(row.cost, name) for row in taught]
        if own and known and all(known):  # several teachers are asked one after the other
            times = sum(known) / own
            compared.append(f"{max(times, 1 / times):.1f} times {less if times >= 1 else more}")
    who = "teacher" if len(taught) == 1 else "teachers together"
    words += [f"Against the {who}: {', '.join(compared)}."] if compared else []
    if figures.gain:
        value, low, high = figures.gain
        sure = "more" if low > 0 else "less" if high < 0 else "neither surely more nor less"
        words.append(
            f"Its accuracy less that of the same network on the labels alone: {points(value)} (95 % interval "
            f"{points_span((low, high))}), so it is right {sure} often."
        )
    if chosen.agreement is not None:
        words.append(f"On {figures.agreed_on} it gives the teacher's answer in {percent(chosen.agreement)}.")
    return " ".join(words)


def _student(figures: Figures) -> Row:
    """The row of what ships: the first with an agreement, or else the last."""
    return next((row for row in figures.rows if row.agreement is not None), figures.rows[-1])


def as_section(figures: Figures) -> Extra:
    """The report's section."""
    about = [f"Right: measured on {figures.measured_on}."] if figures.measured_on else []
    about += [f"Agrees: with the teacher, on {figures.agreed_on}."] if figures.agreed_on else []
    differences = [row.cost.difference for row in figures.rows if row.cost.difference is not None]
    if differences:
        about.append(
            f"The student's ONNX file differs from PyTorch by {max(differences):.1e} in a probability."
        )
    note = (
        "MB: of the file of weights. Times: medians for one picture on one thread, from the network's input to the "
        "probabilities, in PyTorch and in ONNX Runtime; the networks took turns. A multiply-add counts as two FLOPs. "
        "The same network on the labels alone had as many steps and the same augmentation."
    )
    return Extra(
        "Teacher and student", " ".join(about), list(COLUMNS), [cells(row) for row in figures.rows], note
    )
