"""Tables of pictures: what a CSV or a Parquet file becomes, and every mistake in one."""

from __future__ import annotations

import csv
import io
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handful.data.manifest import LABELLED, TEST, UNLABELLED, VALIDATION, Manifest
from handful.data.sources import read_data
from handful.types import UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("1", "2", "3", "4", "5", "6"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / f"{name}.jpg").write_bytes(b"x")
    return tmp_path


def table(folder: Path, text: str | bytes, name: str = "labels.csv") -> Path:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


def rows(m: Manifest) -> dict[str, tuple[str, str]]:
    return {
        path: (m.classes[k] if k >= 0 else "", str(split))
        for path, k, split in zip(m.paths, m.labels, m.splits)
    }


WHOLE = """path,label,split,domain
photos/1.jpg,rose,train,phone
photos/2.jpg,tulip,,phone
photos/3.jpg,,train,web
photos/4.jpg,rose,valid,web
photos/5.jpg,tulip,test,web
photos/6.jpg,rose,unlabeled,web
"""
EXPECTED = {
    "photos/1.jpg": ("rose", LABELLED), "photos/2.jpg": ("tulip", LABELLED), "photos/3.jpg": ("", UNLABELLED),
    "photos/4.jpg": ("rose", VALIDATION), "photos/5.jpg": ("tulip", TEST), "photos/6.jpg": ("", UNLABELLED),
}  # fmt: skip


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_table(folder: Path, separator: str, start: str, end: str) -> None:
    m = read_data(table(folder, start + WHOLE.replace(",", separator).replace("\n", end)))
    assert rows(m) == EXPECTED
    assert m.classes == ("rose", "tulip")
    assert m.domains is not None and m.domains.tolist() == ["phone", "phone", "web", "web", "web", "web"]
    assert (m.root, m.name) == (folder, folder.name), "labels.csv says nothing of what is in it"
    (folder / "labels.csv").rename(folder / "garden.csv")
    assert read_data(folder / "garden.csv").name == "garden"
    kept = m.keep(m.splits == TEST)
    assert kept.domains is not None and kept.domains.tolist() == ["web"]


def test_a_parquet_table_equals_the_csv(folder: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs handful[parquet]")
    from pyarrow import parquet

    cells = list(csv.DictReader(io.StringIO(WHOLE)))
    columns = {name: [row[name] or None for row in cells] for name in cells[0]}
    parquet.write_table(pyarrow.table(columns), folder / "labels.parquet")
    assert rows(read_data(folder / "labels.parquet")) == EXPECTED
    numbers = {"path": columns["path"], "label": [1.0, 2.0, None, float("nan"), 1.0, 2.0]}
    parquet.write_table(pyarrow.table(numbers), folder / "numbers.parquet")
    m = read_data(folder / "numbers.parquet")
    assert [word for word, _ in rows(m).values()] == ["1", "2", "", "", "1", "2"]
    (folder / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UsageError, match="cannot be read"):
        read_data(folder / "broken.parquet")


def test_parquet_without_the_library(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match="need pyarrow") as caught:
        read_data(table(folder, b"PAR1", "labels.parquet"))
    assert "handful[parquet]" in caught.value.fix


def test_absolute_paths_repeated_rows_and_blank_lines(folder: Path) -> None:
    text = (
        f"path,label\n{folder / 'photos/1.jpg'},a\n\nphotos/2.jpg,b\nphotos/2.jpg,b\n./photos//3.jpg,a\n,\n"
    )
    m = read_data(table(folder, text))
    assert m.paths == (str(folder / "photos/1.jpg"), "photos/2.jpg", "photos/3.jpg")


def test_the_fingerprint_of_a_table_follows_labels_and_files(folder: Path) -> None:
    seen = [read_data(table(folder, WHOLE)).fingerprint]
    assert read_data(table(folder, WHOLE + "\n")).fingerprint == seen[0], "a blank line changes nothing"
    daisies = WHOLE.replace("2.jpg,tulip", "2.jpg,daisy").replace("5.jpg,tulip", "5.jpg,daisy")
    seen.append(read_data(table(folder, daisies)).fingerprint)
    (folder / "photos/1.jpg").write_bytes(b"longer")
    seen.append(read_data(table(folder, WHOLE)).fingerprint)
    assert len(set(seen)) == 3


@pytest.mark.parametrize(
    ("text", "message", "fix"),
    [
        ("", "is empty", "path,label"),
        ("path,label\n", "holds no pictures", "check"),
        ("label\na\n", "has no column 'path'", "path,label"),
        ("path\n@1.jpg\n", "has no column 'label'", "path,label"),
        ("pahts,label\nx,a\n", "unknown column 'pahts'", "did you mean 'path'?"),
        ("path,label,split,width\nx,a,,3\n", "unknown column 'width'", "if wanted, split,domain"),
        ("path,label,label\nx,a,b\n", "has two columns 'label'", "keep one"),
        ("path,label\n@1.jpg,a\n@9.jpg,b\n", r"a listed file is missing (row 3: @9.jpg)", "relative to"),
        ("path,label\n" + "".join(f"no{i}.jpg,a\n" for i in range(5)), "5 listed files are missing (row 2: no0", "rel"),
        ("path,label\n@1.jpg,a\n@1.jpg,b\n", "rows 2 and 3 give '@1.jpg' two labels, 'a' and 'b'", "keep"),
        ("path,label,split\n@1.jpg,a,train\n./@1.jpg,a,test\n", "into two splits", "learnt from"),
        ("path,label\n@1.jpg,a,b\n", "row 2 has 3 columns instead of 2", "quotes"),
        ("path,label,split\n@1.jpg,a,tarin\n", "row 2: 'tarin' is not a split", "train, val"),
        ("path,label\n,a\n", "row 2 has no path", "fill it in"),
        ('path,label\n"@1.jpg,a\n', "cannot be read", "quotes"),
        ("path,label\n@1.jpg,\n", "nothing is labelled", "label a few"),
        ("path,label\n@1.jpg,a\n", "has only one class (a)", "second class"),
        ("path,label,split\n@1.jpg,rose,\n@2.jpg,tulip,\n@3.jpg,roses,val\n", "class 'roses' of", "'rose'?"),
        ("path,label,split\n@1.jpg,rose,\n@2.jpg,tulip,\n@3.jpg,,test\n", "test picture without", "give"),
        (b"path,label\n@1.jpg,Bl\xfcte\n@2.jpg,b\n", "row 2: the label is not UTF-8", "save the table as UTF-8"),
        ("path,label\na\0b.jpg,a\n", "a listed file is missing", "relative"),
        ("path,label\n" + "n" * 5000 + ".jpg,a\n", "a listed file is missing", "relative"),
        ("path,label\n" + "n" * 200_000 + ".jpg,a\n", "row 2 cannot be read (field larger", "quotes"),
    ],
)  # fmt: skip
def test_each_mistake_in_a_table_has_its_message(
    folder: Path, text: str | bytes, message: str, fix: str
) -> None:
    """``@`` stands for ``photos/``."""
    path = table(
        folder, text.replace("@", "photos/") if isinstance(text, str) else text.replace(b"@", b"photos/")
    )
    message = message.replace("@", "photos/")
    with pytest.raises(UsageError) as caught:
        read_data(path)
    assert message in caught.value.reason
    assert fix in caught.value.fix
    assert caught.value.file == path and caught.value.exit_code == 2
    assert len(str(caught.value)) < 2000, "one screen"


def test_a_table_from_windows(folder: Path) -> None:
    text = "Path;Label\r\nphotos\\1.jpg;a\r\nphotos\\2.jpg;b\r\n"
    assert read_data(table(folder, text)).paths == ("photos/1.jpg", "photos/2.jpg")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems want names in UTF-8")
def test_a_table_may_name_files_that_are_not_utf8(folder: Path) -> None:
    name = os.fsdecode(b"photos/caf\xe9.jpg")
    (folder / name).write_bytes(b"x")
    m = read_data(table(folder, b"path,label\nphotos/caf\xe9.jpg,a\nphotos/2.jpg,b\n"))
    assert m.paths[0] == name and m.picture(0).exists()


def read_or_refuse(path: Path) -> Manifest | UsageError:
    try:
        return read_data(path)
    except UsageError as error:
        return error


cells = st.one_of(
    st.sampled_from(
        ["photos/1.jpg", "photos/2.jpg", "photos/9.jpg", "rose", "tulip", "train", "test", "", "../x"]
    ),
    st.text(max_size=12),
)


@settings(max_examples=300, deadline=None)
@given(
    header=st.permutations(["path", "label", "split", "domain"]).flatmap(
        lambda names: st.integers(0, 4).map(lambda n: names[:n])
    ),
    body=st.lists(st.lists(cells, max_size=5), max_size=6),
    raw=st.one_of(st.just(b""), st.binary(max_size=20)),
)
def test_any_table_is_read_or_refused_with_a_reason(
    tmp_path_factory: pytest.TempPathFactory, header: list[str], body: list[list[str]], raw: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    for name in ("1", "2"):
        (folder / "photos" / f"{name}.jpg").write_bytes(b"x")
    text = io.StringIO()
    csv.writer(text).writerows([header, *body])
    path = table(folder, text.getvalue().encode("utf-8", "surrogatepass") + raw)
    m = read_or_refuse(path)
    if isinstance(m, UsageError):
        assert m.file == path and m.reason and m.fix
        return
    assert len(m.classes) >= 2
    assert set(m.labels.tolist()) <= set(range(-1, len(m.classes)))
    assert len(set(m.paths)) == len(m.paths)
