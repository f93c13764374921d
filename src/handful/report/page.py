"""The report: a ``Summary`` as one HTML file that needs nothing else, on a screen, a phone or paper."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from handful.files import write_atomic
from handful.report import figures
from handful.report.record import Audit, Summary, Tried
from handful.report.templates import fill
from handful.report.words import percent, points, points_span


def write(summary: Summary, path: str | Path) -> None:
    """``render`` into a file, whole or not at all. Raises OSError where it cannot be written."""
    write_atomic(path, render(summary))


def render(summary: Summary) -> str:
    """The page as text. Equal summaries give equal pages; sections without data are left out.

    Raises ValueError where the confusion matrix does not fit the class names.
    """
    s = summary
    matrix = s.confusion
    return fill(
        "page.html.j2",
        s=s,
        fig=figures,
        verdict=s.verdict or verdict(s),
        baseline=next((t for t in s.tried if t.baseline), None),
        has={name: any(getattr(t, name) is not None for t in s.tried) for name in _COLUMNS},
        splits=list(dict.fromkeys(split for row in s.counts.values() for split in row)),
        charts=charts(s),
        audit_tables=audit_tables(s.audit),
        worst=figures.worst_pairs(matrix, s.classes)[:5] if matrix and not s.confused_pairs else [],
    )


_COLUMNS = ("cv_accuracy", "difference", "prior_mean", "posterior_mean", "seconds", "test_accuracy")


def verdict(s: Summary) -> str:
    """One paragraph in plain words out of ``s.tried``: what was chosen, beside what, and was it worth it."""
    chosen = next((t for t in s.tried if t.chosen), None)
    baseline = next((t for t in s.tried if t.baseline), None)
    if chosen is None:
        return ""
    measured = [t for t in s.tried if t.chosen or t.cv_accuracy is not None or t.posterior_mean is not None]
    words = [f"Of {len(measured)} recipes tried, {chosen.name} was chosen."]
    if s.asked_for:
        words = [f"The recipe was asked for by name: {chosen.name}."]
    elif len(measured) == 1:
        words = [f"Only {chosen.name} was tried."]
    if baseline is chosen and len(measured) > 1:
        words.append(_no_help(measured))
    elif chosen.difference is not None:
        words.append(_gain(chosen, baseline, s))
    elif baseline is not None:
        words.append(_without_measurement(chosen, baseline, s))
    if chosen.test_accuracy is not None:
        words.append(_on_the_test_part(chosen, s.tried))
    return " ".join(w for w in words if w)


def _no_help(tried: list[Tried]) -> str:
    """Why the labelled-only baseline ships."""
    rivals = [t for t in tried if not t.baseline and t.difference is not None]
    if not rivals:
        return "It learns from the labelled pictures alone."
    best = max(rivals, key=lambda t: t.difference or 0.0)
    return (
        "It learns from the labelled pictures alone, and no other recipe was clearly enough better to replace it. "
        f"The nearest rival, {best.name}, differed by {points(best.difference)}{_ends(best)}."
    )


def _where(s: Summary) -> str:
    return "In cross-validation" if s.tried_on == "cross-validation" else f"On the {s.tried_on}"


def _gain(chosen: Tried, baseline: Tried | None, s: Summary) -> str:
    """What the choice gains over the baseline, how sure that is, and whether unlabelled pictures made it.

    A gain is only put down to the unlabelled pictures where its interval lies above every recipe that does
    without them, not just above the one that is called the baseline.
    """
    gain, ends = chosen.difference or 0.0, chosen.difference_interval
    other = f", {baseline.name}" if baseline else ""
    words = f"{_where(s)} it lies {_beside(gain)} the labelled-only baseline{other}{_ends(chosen)}."
    sure = ends is not None and ends[0] > 0
    if not chosen.uses_unlabelled:
        return words + " It uses no unlabelled pictures" + ("." if sure else ", and the gain is not certain.")
    without = [t for t in s.tried if not t.uses_unlabelled and not t.baseline and t.difference is not None]
    rival = max(without, key=lambda t: t.difference or 0.0, default=None)
    if ends is not None and ends[0] > max(0.0, (rival.difference or 0.0) if rival else 0.0):
        return words + " The unlabelled pictures helped."
    if sure and rival is not None:
        return words + (
            f" How much of this is due to the unlabelled pictures is not certain: {rival.name}, without "
            f"them, lies {points(rival.difference)} from the baseline{_ends(rival)}."
        )
    return words + " Whether the unlabelled pictures helped is not certain."


def _without_measurement(chosen: Tried, baseline: Tried, s: Summary) -> str:
    """The baseline was not measured here: what was expected, and the best that was, without unlabelled pictures."""
    words = ""
    if chosen.prior_mean is not None and chosen.prior_sd is not None:
        words = (
            f"Its labelled-only baseline, {baseline.name}, was not measured here; going by other data sets the choice "
            f"is expected to lie {_beside(chosen.prior_mean)} it "
            f"(± {100 * chosen.prior_sd:.1f}, one standard deviation)."
        )
    measured = [t for t in s.tried if not t.uses_unlabelled and t.cv_accuracy is not None]
    rival = max(measured, key=lambda t: t.cv_accuracy or 0.0, default=None)
    if rival is not None and chosen.cv_accuracy is not None and chosen.uses_unlabelled:
        words += (
            f" {_where(s)} its accuracy is {percent(chosen.cv_accuracy)}; that of the best recipe without "
            f"unlabelled pictures, {rival.name}, {percent(rival.cv_accuracy or 0.0)}."
        )
    return words.strip()


def _on_the_test_part(chosen: Tried, tried: list[Tried]) -> str:
    """After the fact: the best that learned from the labels alone, on the same test pictures."""
    others = [t for t in tried if not t.uses_unlabelled and not t.chosen and t.test_accuracy is not None]
    best = max(others, key=lambda t: t.cv_accuracy or 0.0, default=None)
    if best is None or not chosen.uses_unlabelled:
        return ""
    return (
        f"After the fact, on the test part, its accuracy is {percent(chosen.test_accuracy or 0.0)}; that of "
        f"{best.name} is {percent(best.test_accuracy or 0.0)}."
    )


def _beside(difference: float) -> str:
    return f"{points(abs(difference)).lstrip('+')} {'above' if difference >= 0 else 'below'}"


def _ends(t: Tried) -> str:
    return f" (95 % interval {points_span(t.difference_interval)})" if t.difference_interval else ""


def audit_tables(a: Audit | None) -> list[tuple[str, list[tuple[str, int, float | None]]]]:
    """(heading, rows of (name, pictures used, fraction right or None)) by confidence and by class."""
    known = a or Audit()
    by_bin = [
        (f"{100 * low:.0f} to {percent(high, 0)}", n, right) for low, high, n, right in known.get("bins", [])
    ]
    by_class = [(name, n, right) for name, (n, right) in known.get("per_class", {}).items()]
    return [(title, rows) for title, rows in (("Confidence", by_bin), ("Called", by_class)) if rows]


def charts(s: Summary) -> list[tuple[str, list[tuple[str, Markup]], list[tuple[str, Markup]]]]:
    """(stage, main charts, further ones), a chart = (title, figure); accuracies share one, losses another."""
    out = []
    for stage, metrics in s.curves.items():
        groups: dict[str, dict[str, list[tuple[float, float]]]] = {"accuracy": {}, "loss": {}}
        rest = []
        for name, series in metrics.items():
            group = "accuracy" if "acc" in name.lower() else "loss" if "loss" in name.lower() else ""
            if group:
                groups[group][name] = series
            elif series:
                rest.append((name, figures.lines({name: series}, f"{stage}: {name}")))
        main = [
            (group, figures.lines(found, f"{stage}: {group}", fractions=group == "accuracy"))
            for group, found in groups.items()
            if any(found.values())
        ]
        if main or rest:
            out.append((stage, main, rest))
    return out
