"""A verb's options as words of the command line: each is declared once, as a field of the verb's options, with its
default and its line under "Attributes:", and only what a person gives is handed on.

    given: Annotated[dict[str, Any], options_of(FitOptions())]

takes ``--recipe NAME --labels-per-class 4 --time 90s`` and gives
{"recipe": "NAME", "labels_per_class": 4, "seconds": 90.0} for ``FitOptions(**given)``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import fields, is_dataclass
from inspect import cleandoc
from typing import Annotated, Any, TypedDict, get_type_hints

from tyro.conf import arg
from tyro.constructors import PrimitiveConstructorSpec

from handful.cli.console import as_time, seconds


def by(read: Callable[[str], Any], metavar: str) -> Any:
    """How a word becomes a value, for ``Annotated``."""
    return PrimitiveConstructorSpec(
        1, metavar, lambda words: read(words[0]), lambda value: True, lambda value: [str(value)]
    )


TIME = Annotated[float, by(seconds, "90s|5m|1h")]


def options_of(
    base: Any,
    *,
    name: str = "",
    only: Collection[str] = (),
    without: Collection[str] = (),
    words: Mapping[str, str] | None = None,
    aliases: Mapping[str, tuple[str, ...]] | None = None,
    kinds: Mapping[str, Any] | None = None,
) -> Any:
    """The fields of a dataclass as options, for ``Annotated[dict[str, Any], …]``; what nobody gives is not there.

    Args:
        base: has the defaults that the help shows.
        name: before each option, as in ``--training.steps``.
        only, without: fields that are options, or are none; mappings and other options never are.
        words: other words for some fields; without a prefix, ``seconds`` is ``--time``. ``aliases``: further ones.
        kinds: other types for some fields.
    """
    words, aliases, kinds, annotated = dict(words or {}), aliases or {}, dict(kinds or {}), {}
    if not name:
        words.setdefault("seconds", "time")
        kinds.setdefault("seconds", TIME)
    hints = get_type_hints(type(base), include_extras=True)
    for f in fields(base):
        value = getattr(base, f.name)
        nested = isinstance(value, Mapping) or is_dataclass(value)
        if nested or f.name in without or (only and f.name not in only):
            continue
        kind = kinds.get(f.name, hints[f.name])
        usual = as_time(value) if kind is TIME else value
        hint = f"(default: {usual})" if value or value is False else ""
        about = arg(name=words.get(f.name), aliases=aliases.get(f.name), help_behavior_hint=hint)
        annotated[f.name] = Annotated[kind, about]
    given = TypedDict("given", annotated, total=False)  # type: ignore[misc]
    lineage = [cleandoc(kind.__doc__ or "").partition("Attributes:\n") for kind in type(base).__mro__]
    lines = [about for _, _, about in reversed(lineage) if about]  # a field's stands where it is declared
    given.__doc__ = "\n".join([lineage[0][0], "Attributes:", *lines]).replace("``", "")
    return arg(constructor=given, name=name)
