"""Where every page comes from: a template beside this file, with the style of all pages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from handful.report.words import FILTERS

HERE = Path(__file__).parent


def fill(template: str, *filters: Callable[..., Any], **values: Any) -> str:
    """A page as text; it needs nothing else. ``style`` is the pages' own.

    Args:
        template: name of a file in this folder. A name in it that ``values`` lack is an error.
        filters: what turns a value into words, under its own name, beside those of ``words``.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({one.__name__: one for one in (*FILTERS, *filters)})
    style = Markup((HERE / "page.css").read_text("utf-8"))
    return environment.get_template(template).render(style=style, **values)
