"""Names of folders."""

from __future__ import annotations

import pytest

from handful.run.places import slug


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("Jörgs Blumen (2024)", "jorgs-blumen-2024"),
        ("Straße à côté", "strasse-a-cote"),
        ("..", "pictures"),
        ("写真", "pictures"),
        ("a/b\\c", "a-b-c"),
    ],
)
def test_names_become_parts_of_paths(name: str, part: str) -> None:
    assert slug(name) == part
