"""Views by name: ``weak+randaugment:n=2:m=9+cutout``, so that methods, the command line and files can say them.

A view is one or several parts joined by ``+``; a part is a name and its settings, ``name:field=value:field=value``;
lists are written ``rotate|shear-x``. A file (``policy.toml``) holds such a line under ``view``.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from handful.augment.drawn import Affine, Blur, Cutout, Draw, Erasing, Hue, Jitter, Perspective, ResizedCrop
from handful.augment.operations import OPERATIONS
from handful.augment.randaugment import AugMix, RandAugment
from handful.augment.views import Chain, Plain, Strong, View, Weak
from handful.types import UsageError, did_you_mean

PARTS: dict[str, tuple[Callable[..., Any], Mapping[str, Any]]] = {
    "plain": (Plain, {}),
    "weak": (Weak, {}),
    "strong": (Strong, {}),
    "randaugment": (RandAugment, {}),
    "fixmatch": (RandAugment, {"scale": "fixmatch"}),
    "trivialaugment": (RandAugment, {"n": 1, "scale": "wide"}),
    "augmix": (AugMix, {}),
    "cutout": (Cutout, {}),
    "erasing": (Erasing, {}),
    "resized-crop": (ResizedCrop, {}),
    "jitter": (Jitter, {}),
    "affine": (Affine, {}),
    "perspective": (Perspective, {}),
    "blur": (Blur, {}),
    "hue": (Hue, {}),
    **{name: (Draw, {"operation": name}) for name in OPERATIONS},
}
SHORT = {
    "fixmatch-strong": "weak+fixmatch+cutout:side=0.5",  # Sohn et al. 2020, sec. 2.3
    "noisy": "weak+randaugment:n=2:m=27:scale=paper:fill=128",  # Noisy Student, Xie et al. 2020, sec. 3.1
}
WITH_FLIP = (Weak, Strong)


def make(text: str, *, flip: bool = True) -> View:
    """The view that a line says.

    Args:
        flip: whether views that mirror by default may (gray pictures: digits and letters would turn into others).

    Raises:
        UsageError: an unknown name or field, or a value that is not one.
    """
    parts = [part.strip() for part in text.split("+")]
    views = tuple(_part(p, flip) for part in parts for p in SHORT.get(part, part).split("+"))
    return views[0] if len(views) == 1 else Chain(views)


def _part(text: str, flip: bool) -> View:
    name, *settings = text.split(":")
    if name not in PARTS:
        fix = f"{did_you_mean(name, [*PARTS, *SHORT])} Known: {', '.join([*SHORT, *PARTS])}".strip()
        raise UsageError(f"there is no view '{name}'", fix=fix)
    kind, fixed = PARTS[name]
    defaults = {f.name: f.default for f in fields(kind) if f.name != "n_draws"}  # type: ignore[arg-type]
    given: dict[str, Any] = {"flip": flip} if kind in WITH_FLIP else {}
    given |= fixed
    for setting in settings:
        field, equals, value = setting.partition("=")
        if not equals or field not in defaults or field == "operation":
            known = ", ".join(n for n in defaults if n != "operation") or "none"
            raise UsageError(f"'{setting}' is not a setting of the view '{name}'", fix=f"settings: {known}")
        given[field] = _value(value, defaults[field], setting, name)
    made: View = kind(**given)
    return made


def _value(text: str, like: Any, setting: str, name: str) -> Any:
    try:
        if isinstance(like, bool):
            return {"true": True, "false": False}[text]
        if isinstance(like, tuple):
            return tuple(filter(None, text.split("|")))
        value = type(like)(text)
    except (ValueError, KeyError):
        kind = {bool: "true or false", int: "a whole number", float: "a number"}[type(like)]
        raise UsageError(f"'{setting}' of the view '{name}': {kind} is needed") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"'{setting}' of the view '{name}': a finite number is needed")
    return value


def words(name: str, view: Any) -> str:
    """A part with its settings, as ``make`` reads it; what has its usual value is left out."""
    kind, fixed = PARTS[name]
    usual = {f.name: f.default for f in fields(kind)} | dict(fixed)  # type: ignore[arg-type]
    said = [name]
    for field, value in usual.items():
        mine = getattr(view, field)
        if mine != value and mine == mine:
            text = "|".join(mine) if isinstance(mine, tuple) else str(mine).lower()
            said.append(f"{field}={mine:g}" if isinstance(mine, float) else f"{field}={text}")
    return ":".join(said)


def read_policy(path: Path) -> str:
    """The view that a policy file says, checked.

    Raises:
        UsageError: there is no such file, or it says no view.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", file=path, fix="check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"is not a policy file ({error})", file=path, fix='view = "weak+randaugment"'
        ) from error
    text = content.get("view")
    if not isinstance(text, str):
        raise UsageError("says no view", file=path, fix='add a line such as view = "weak+randaugment"')
    try:
        make(text)
    except UsageError as error:
        raise UsageError(str(error), file=path) from error
    return text


def with_policies(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a method, with policy files (values that end in .toml) replaced by what they say: what is kept of a
    run then does not depend on the file."""
    return {
        name: read_policy(Path(value)) if isinstance(value, str) and value.endswith(".toml") else value
        for name, value in settings.items()
    }
