"""Sphinx: ``make docs`` writes build/docs/index.html."""

import sys
from pathlib import Path

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
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]  # links to files of the repository that are no pages
nitpicky = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
exclude_patterns = ["build", "generated"]
