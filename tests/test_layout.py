"""Guards on the shape of the code: who may import whom, and what no file may contain.

They read the sources with ``ast`` and import none of them, so they stay quick and also see what is imported
inside functions.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "handful"

# A part may import the parts on earlier lines, and itself; parts on one line do not know each other.
ORDER = (
    ("types",),
    ("machine", "randomness", "files"),
    ("stats",),
    ("parallel",),
    ("losses",),
    ("augment",),
    ("models",),
    ("data",),
    ("inference",),
    ("methods",),
    ("engine",),
    ("recipes",),
    ("choose",),
    ("study",),
    ("report",),
    ("run",),
    ("verbs",),
    ("api",),
    ("sklearn",),
    ("cli",),
)
STEP = {part: step for step, parts in enumerate(ORDER) for part in parts}
DOORS = ("__init__", "__main__")  # the package's own front doors may open onto anything
OUTSIDE = ("tests", "benchmarks", "examples")

# Folders in which people keep their own files. /proc and /dev belong to the system and may be named.
MACHINE_PATH = re.compile(
    r"(?<![\w.~:/}<])(?:/(?:home|root|work|tmp|Users|mnt|opt|srv|media)\b/?|[A-Z]:\\\\?\w)"
)


def part_of(file: Path, package: Path) -> str:
    """``methods`` for ``methods/fixmatch.py``, ``types`` for ``types.py``."""
    return file.relative_to(package).with_suffix("").parts[0]


def imported(tree: ast.AST, file: Path, package: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything that a file imports, at any depth of nesting."""
    folder = [package.name, *file.relative_to(package).parent.parts]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*folder[: len(folder) - node.level + 1], *([base] if base else [])])
            # "from handful import data" names a part; "from handful.data import x" may name a module
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = (
                node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            )
            name = node.args[0].value
            if function in ("import_module", "__import__") and isinstance(name, str):
                yield node.lineno, ".".join([*folder, name.lstrip(".")]) if name.startswith(".") else name


def import_violations(package: Path) -> list[str]:
    """Every import that the order forbids, as ``file:line: what is wrong``."""
    found = []
    for file in sorted(package.rglob("*.py")):
        here, where = part_of(file, package), file.relative_to(package).as_posix()
        if here not in DOORS and here not in STEP:
            found.append(f"{where}:1: '{here}' has no place in the order")
            continue
        for line, name in imported(ast.parse(file.read_text(encoding="utf-8")), file, package):
            top, *rest = name.split(".")
            if top in OUTSIDE:
                found.append(f"{where}:{line}: imports {name}, which is outside the package")
            if top != package.name or here in DOORS or rest[:1] == ["__version__"]:
                continue
            there = rest[0] if rest else "__init__"
            if there not in STEP:
                found.append(f"{where}:{line}: imports {name}, which has no place in the order")
            elif there != here and STEP[there] >= STEP[here]:
                found.append(f"{where}:{line}: '{here}' imports '{there}', which does not stand before it")
    return found


def unsafe_violations(package: Path) -> list[str]:
    """Loading that can run code from a file, and paths of one machine."""
    found = []
    for file in sorted(package.rglob("*.py")):
        where, source = file.relative_to(package).as_posix(), file.read_text(encoding="utf-8")
        tree = ast.parse(source)
        for line, name in imported(tree, file, package):
            if name in ("pickle.load", "pickle.loads", "torch.load"):
                found.append(f"{where}:{line}: import the module, not {name}: this guard looks for its call")
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and MACHINE_PATH.search(node.value)
            ):
                found.append(f"{where}:{node.lineno}: a path of one machine: {node.value[:60]!r}")
            if not isinstance(node, ast.Call):
                continue
            function = ast.unparse(node.func)
            options = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            if function in ("pickle.load", "pickle.loads", "pickle.Unpickler"):
                found.append(f"{where}:{node.lineno}: {function} runs code from the file")
            if function == "torch.load" and options.get("weights_only") is not True:
                found.append(f"{where}:{node.lineno}: torch.load without weights_only=True")
            if function in ("np.load", "numpy.load") and options.get("allow_pickle", False) is not False:
                found.append(f"{where}:{node.lineno}: {function} with allow_pickle")
        for number, text in enumerate(source.splitlines(), 1):  # comments are not in the tree
            comment = text.partition("#")[2]
            if MACHINE_PATH.search(comment):
                found.append(f"{where}:{number}: a path of one machine in a comment")
    return found


def plant(folder: Path, files: dict[str, str]) -> Path:
    package = folder / "handful"
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text, encoding="utf-8")
    return package


def test_every_import_follows_the_order() -> None:
    assert any(PACKAGE.rglob("*.py"))
    assert import_violations(PACKAGE) == []


def test_no_unsafe_loading_and_no_path_of_a_machine() -> None:
    assert unsafe_violations(PACKAGE) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("losses/classify.py", "from handful.data import manifest\n"),
        ("losses/classify.py", "from handful.data.manifest import read\n"),
        ("losses/classify.py", "from handful import data\n"),
        ("losses/classify.py", "from .. import data\n"),
        ("losses/classify.py", "from ..data.manifest import read\n"),
        ("losses/classify.py", "import handful.data\n"),
        ("losses/classify.py", "import handful\n"),
        ("losses/classify.py", "from handful import fit\n"),
        ("losses/classify.py", "def late():\n    def later():\n        from handful.api import fit\n"),
        ("losses/classify.py", "import importlib\nimportlib.import_module('handful.data')\n"),
        ("methods/fixmatch.py", "from handful.engine import descend\n"),
        ("choose/auto.py", "from handful.report.record import Record\n"),
        ("report/page.py", "from handful.verbs.export import export\n"),
        ("types.py", "from handful import parallel\n"),
        ("parallel.py", "import tests.helpers\n"),
        ("engine/fit.py", "from benchmarks.digits import main\n"),
        ("recipes/train.py", "import examples\n"),
        ("helpers.py", "x = 1\n"),
        ("losses/classify.py", "from handful.helpers import x\n"),
    ],
)
def test_the_guard_catches_a_planted_import(tmp_path: Path, name: str, text: str) -> None:
    found = import_violations(plant(tmp_path, {name: text}))
    assert len(found) == 1, found
    assert found[0].startswith(f"{name}:")


def test_the_guard_lets_through_what_the_order_allows(tmp_path: Path) -> None:
    package = plant(
        tmp_path,
        {
            "__init__.py": "def fit():\n    from handful.api import fit\n",
            "__main__.py": "from handful.cli.main import main\n",
            "types.py": "import torch\n",
            "machine.py": "from handful.types import Batch\n",
            "parallel.py": "from . import machine, randomness\n",
            "data/order.py": "from . import split\nfrom .split import draw\nfrom ..augment import views\n",
            "choose/auto.py": "from handful import __version__\nfrom handful.engine.fit import fit\n",
            "report/page.py": "from handful.recipes import auto\nfrom handful.report.record import Record\n",
            "cli.py": "def fit():\n    from handful.api import fit\n",
        },
    )
    assert import_violations(package) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle\npickle.load(open('x', 'rb'))\n",
        "from pickle import loads\n",
        "import torch\ntorch.load('x')\n",
        "import torch\ntorch.load('x', weights_only=False)\n",
        "import numpy as np\nnp.load('x', allow_pickle=True)\n",
        "x = '/" + "home/someone/photos'\n",
        "x = f'/" + "tmp/{1}'\n",
        "# see /" + "root/notes\n",
        "x = 'C:" + r"\\Users\\someone'" + "\n",
    ],
)
def test_the_guard_catches_planted_danger(tmp_path: Path, text: str) -> None:
    assert len(unsafe_violations(plant(tmp_path, {"data/images.py": text}))) == 1


def test_the_guard_lets_safe_loading_through(tmp_path: Path) -> None:
    text = (
        "import numpy as np, torch\n"
        "torch.load('x', weights_only=True)\nnp.load('x', allow_pickle=False)\nnp.load('y')\n"
        "memory = open('/proc/self/status')\nurl = 'https://example.org/home/page'\npart = 'photos/tmp/x'\n"
    )
    assert unsafe_violations(plant(tmp_path, {"data/images.py": text})) == []


def test_every_decision_gives_context_decision_and_consequences() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert pages, "docs/decisions is empty"
    numbers = [page.name[:4] for page in pages]
    assert len(set(numbers)) == len(numbers), f"two decisions share a number: {numbers}"
    for page in pages:
        assert re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", page.name), page.name
        headings = re.findall(r"^## (.+?)\s*$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences"], f"{page.name}: {headings}"


def test_every_method_page_follows_the_template() -> None:
    pages = [page for page in (ROOT / "docs" / "methods").glob("*.md") if page.name != "README.md"]
    assert pages, "docs/methods is empty"
    for page in pages:
        headings = re.findall(r"^## (.+?)\s*$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
        missing = [h for h in ("Equation", "Source", "Deviations", "Measured") if h not in headings]
        assert not missing, f"{page.name} lacks {missing}"
