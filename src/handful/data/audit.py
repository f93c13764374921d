"""What is wrong with the data, before any training: problems by file, with a reason and a suggestion (``issues.csv``).

Unreadable files, copies, leaks between splits, one picture under two labels, class names that look like typos of each
other, classes with a single picture; and, once features are there, labels that look wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from handful.data.copies import Pair, find_copies
from handful.data.images import Images
from handful.data.manifest import LABELLED, UNLABELLED, Issue, Manifest, printable
from handful.data.suspects import Suspects
from handful.files import as_csv, write_atomic
from handful.randomness import permutation

MOST_COMPARED = 20_000  # pictures among which near copies are sought; the unlabelled ones are sampled beyond
WORDS = {
    "fatal": ("reason why it cannot be learnt from", "reasons why it cannot be learnt from"),
    "leak": ("copy across splits", "copies across splits"),
    "conflict": ("picture with two labels", "pictures with two labels"),
    "suspect": ("suspect label", "suspect labels"),
    "unreadable": ("unreadable file", "unreadable files"),
    "left out": ("thing left out", "things left out"),
    "name": ("class name like another", "class names like others"),
    "few": ("class with fewer labels than were asked for", "classes with fewer labels than were asked for"),
    "single": ("class with one picture", "classes with one picture"),
    "shares": ("doubt about the classes' shares", "doubts about the classes' shares"),
    "strange": ("picture like no labelled class", "pictures like no labelled class"),
    "copy": ("copy", "copies"),
}
NAMED = 5  # classes that a line names
ORDER: tuple[str, ...] = tuple(WORDS)  # gravest first


def audit(
    manifest: Manifest,
    images: Images,
    unreadable: Sequence[tuple[str, str]],
    progress: Callable[[int, int], None] | None = None,
) -> list[Issue]:
    """Everything that can be seen without features, gravest first.

    Args:
        manifest, images: what ``open_store`` gave: row by row the same pictures.
        unreadable: (path, reason) of files that are not among them.
    """
    found = [*manifest.notes, *(_unreadable(path, reason) for path, reason in unreadable)]
    found += [_copy(manifest, pair) for pair in find_copies(images, _compared(manifest), progress)]
    found += _names(manifest.classes)
    per_class = np.bincount(manifest.labels[manifest.ids(LABELLED)], minlength=len(manifest.classes))
    for name, n in zip(manifest.classes, per_class):
        if n == 1:
            suggestion = "label more of it: with one there is nothing left to measure on"
            found.append(Issue(name, "class with a single labelled picture", suggestion, "single"))
    return in_order(found)


def in_order(issues: Sequence[Issue]) -> list[Issue]:
    """Gravest kinds first; within a kind the order stays."""
    return sorted(issues, key=lambda issue: ORDER.index(issue.kind))


def suspect_labels(manifest: Manifest, rows: np.ndarray, y: np.ndarray, found: Suspects) -> list[Issue]:
    """The suspects among labelled pictures ``rows`` with labels ``y`` as issues, least likely label first."""
    who = np.flatnonzero(found.suspect)
    issues = []
    for i in who[np.argsort(found.p[who, y[who]], kind="stable")]:
        given, other = manifest.classes[y[i]], manifest.classes[int(found.p[i].argmax())]
        reason = (
            f"is labelled '{given}', and the other labelled pictures say '{other}' ({_percent(found.p[i].max())} "
            f"against {_percent(found.p[i, y[i]])}; {_percent(found.rate)} of right labels look as wrong)"
        )
        file = printable(manifest.paths[rows[i]])
        issues.append(Issue(file, reason, "look at it, and mend the label if it is wrong", "suspect"))
    return issues


def _percent(share: float) -> str:
    """0.57 to "57 %"; below one in a hundred with one digit that counts."""
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.1g} %"


def save_issues(issues: Sequence[Issue], path: Path) -> None:
    """``issues.csv``: file, reason, suggestion; whole or not at all."""
    rows = ((printable(issue.file), issue.reason, issue.suggestion) for issue in issues)
    write_atomic(path, as_csv([("file", "reason", "suggestion"), *rows]))


def in_short(issues: Sequence[Issue]) -> str:
    """ "2 copies across splits, 1 unreadable file"; "" where all is well. Classes with few labels are named."""
    counts = Counter(issue.kind for issue in issues)
    few = [f"{issue.file} {issue.reason}" for issue in issues if issue.kind == "few"]
    named = {"few": f" ({'; '.join(few[:NAMED])}{'; …' if len(few) > NAMED else ''})"}
    return ", ".join(
        f"{counts[kind]} {WORDS[kind][counts[kind] > 1]}{named.get(kind, '')}"
        for kind in ORDER
        if counts[kind]
    )


def _compared(manifest: Manifest) -> np.ndarray:
    """Rows among which near copies are sought: those with a label first, of the others a sample."""
    known = np.flatnonzero(manifest.splits != UNLABELLED)
    rest = manifest.ids(UNLABELLED)
    rows = np.concatenate([known, rest[permutation(len(rest), "compared")]])
    return np.sort(rows[:MOST_COMPARED])


def _unreadable(path: str, reason: str) -> Issue:
    too_large = "pixels is more than" in reason
    suggestion = "make it smaller" if too_large else "replace it with a whole picture, or remove it"
    return Issue(printable(path), f"cannot be used: {reason}", suggestion, "unreadable")


def _copy(manifest: Manifest, pair: Pair) -> Issue:
    """What a pair of copies means depends on the splits and the labels of the two."""
    learnt = (LABELLED, UNLABELLED)
    a, b = pair.first, pair.second
    if manifest.splits[a] not in learnt and manifest.splits[b] in learnt:
        a, b = b, a  # the file that is to go stands first: the one that is learnt from
    first, second = printable(manifest.paths[a]), printable(manifest.paths[b])
    what = "has the same pixels as" if pair.exact else f"is a near copy ({100 * pair.likeness:.0f} %) of"
    labels = [manifest.classes[manifest.labels[row]] if manifest.labels[row] >= 0 else "" for row in (a, b)]
    reason = f"{what} {second}"
    if all(labels) and labels[0] != labels[1]:
        reason += f", but one is labelled '{labels[0]}' and the other '{labels[1]}'"
        return Issue(first, reason, "keep the one whose label is right", "conflict", second)
    splits = str(manifest.splits[a]), str(manifest.splits[b])
    if splits[0] != splits[1] and not set(splits) <= set(learnt):
        reason += f": this is a {splits[0]} picture, the other a {splits[1]} one"
        suggestion = "remove one: figures on pictures that were learnt from flatter"
        return Issue(first, reason, suggestion, "leak", second)
    return Issue(first, reason, "remove one: a copy teaches nothing new", "copy", second)


def _names(classes: Sequence[str]) -> Iterator[Issue]:
    for a, b in combinations(classes, 2):
        if alike(a, b):
            reason = f"class name is almost '{b}'"
            yield Issue(a, reason, "put them into one class, if they are one", "name", b)


def alike(a: str, b: str) -> bool:
    """Whether two class names look like spellings of one: equal but for case, spaces, dashes and a plural s, or one
    letter left out, doubled or swapped with its neighbour (from 4 letters on), or another letter (from 6 on).

    Digits count: "class1" and "class2" are two classes. The first letter counts too: it is rarely mistyped.
    """
    a, b = ("".join(c for c in name.casefold() if c not in " _-.") for name in (a, b))
    if a == b or a + "s" == b or b + "s" == a:
        return True
    if [c for c in a if c.isdigit()] != [c for c in b if c.isdigit()] or a[:1] != b[:1]:
        return False
    short, long = sorted((a, b), key=len)
    if len(long) - len(short) == 1:
        return len(short) >= 4 and any(long[:i] + long[i + 1 :] == short for i in range(len(long)))
    if len(a) != len(b):
        return False
    wrong = [i for i in range(len(a)) if a[i] != b[i]]
    if len(wrong) == 2 and wrong[1] == wrong[0] + 1:
        return len(a) >= 4 and a[wrong[0]] == b[wrong[1]] and a[wrong[1]] == b[wrong[0]]
    return len(wrong) == 1 and len(a) >= 6
