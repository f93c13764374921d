"""Sphinx: ``make docs`` writes build/docs/index.html."""

import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks import backbone_table  # noqa: E402 - the path comes first
from benchmarks.ladder import table  # noqa: E402

from handful import __version__  # noqa: E402

(ROOT / "docs" / "generated").mkdir(exist_ok=True)
(ROOT / "docs" / "generated" / "ladder.md").write_text(table(), encoding="utf-8")
(ROOT / "docs" / "generated" / "backbones.md").write_text(backbone_table.table(), encoding="utf-8")

project, author, release = "handful", "The handful authors", __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
html_theme = "furo"
html_title = f"handful {release}"
myst_enable_extensions = ["colon_fence", "dollarmath"]
html_math_renderer = "mathml"
myst_heading_anchors = 3
suppress_warnings = [
    "myst.xref_missing",  # links to files of the repository that are no pages
    "toc.not_included",  # the raw tables hang on results.md alone; tests/test_docs.py looks at the others
]
nitpicky = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
exclude_patterns = ["build", "generated"]


def setup(app: Any) -> None:
    """Equations become MathML when the pages are built: no script, and nothing loaded from elsewhere."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))


def inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def block(translator: Any, node: nodes.math_block) -> None:
    equation = mathml(node.astext().strip(), display="block")
    translator.body.append(f'<div style="overflow: auto hidden; padding: 0.6em 0">{equation}</div>')
    raise nodes.SkipNode


def mathml(tex: str, **options: str) -> str:
    found: str = convert(tex, **options)
    if "\\" in found:  # a command that the converter does not know stays as it is
        raise ValueError(f"no MathML for all of: {tex}")
    return found
