"""What goes wrong outside the data: full disks, foreign and forged files, wrong words; with message and exit code."""

from __future__ import annotations

import builtins
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import handful.files as files
from handful.api import write_digits
from handful.cli import main as cli
from handful.cli.compare import numbers, recipes
from handful.cli.console import seconds
from handful.cli.fit import value_of
from handful.recipes.table import RECIPES, changed, find
from handful.recipes.training import Training
from handful.study.contenders import parse
from handful.types import UsageError

PARTS = [*((str(k), 3) for k in range(3)), ("unlabeled", 12), *((f"test/{k}", 4) for k in range(3))]
FULL = Path("/dev/full")
MANY = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    whole, folder = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("data") / "digits"
    write_digits(whole, per_class=3, seed=0)
    for part, most in PARTS:
        (folder / part).mkdir(parents=True)
        for file in sorted((whole / part).iterdir())[:most]:
            shutil.copy(file, folder / part)
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HANDFUL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        assert (
            cli.run(
                ["fit", str(pictures), "--recipe", "logistic", "--features", "pixels", "--out", str(folder)]
            )
            == 0
        )
    return folder


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copy"))


def code_of(words: list[str]) -> int:
    """The exit code, however it is given."""
    try:
        return cli.run(words)
    except SystemExit as end:
        return int(end.code or 0)


@contextmanager
def full_disk(name: str) -> Iterator[None]:
    """The disk is full for files of this name: the system's own error, by its own device."""

    def opened(file: Any, mode: str = "r", *more: Any, **options: Any) -> Any:
        return builtins.open(
            FULL if Path(file).name.startswith(name) and "w" in mode else file, mode, *more, **options
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "open", opened, raising=False)
        yield


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize("name", ["last.safetensors", "done.safetensors", "model.safetensors", "report.html"])
def test_a_full_disk_is_named_and_the_same_command_goes_on(
    name: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "fit",
        str(pictures),
        "--recipe",
        "supervised",
        "--training.backbone",
        "linear",
        "--training.steps",
        "4",
    ]
    words += ["--training.batch", "4", "--save-every", "1", "--out", str(tmp_path / "run")]
    with full_disk(name):
        assert code_of(words) == 1
    told = capsys.readouterr().err
    assert f"{name}: cannot be written (No space left on device)" in told
    assert "Fix: free some space" in told
    assert not list((tmp_path / "run").rglob("*.tmp"))
    assert not (tmp_path / "run" / "report.html").exists()
    assert code_of(words) == 0
    assert (tmp_path / "run" / "report.html").exists()


def commands_on(run: Path, pictures: Path) -> list[list[str]]:
    """Every command that loads a model."""
    return [
        ["predict", str(run), str(pictures / "test")],
        ["evaluate", str(run), str(pictures)],
        ["export", str(run), "--format", "safetensors"],
        ["export", str(run), "--format", "onnx"],
    ]


HOLD = """
import sys, time
from pathlib import Path
from handful.files import hold
hold(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def test_two_runs_in_one_folder_do_not_meet(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["fit", str(pictures), "--recipe", "nearest-mean", "--features", "pixels", "--out", str(out)]
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out / "run.lock")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        assert cli.run(words) == 1
        assert "another run is at work in this folder" in capsys.readouterr().err
        assert [path.name for path in out.iterdir()] == ["run.lock"]
    finally:
        other.kill()
        other.wait()
    assert cli.run(words) == 0, "a lock ends with its process"
    assert not (out / "run.lock").exists()


def test_a_folder_that_is_no_run(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in commands_on(tmp_path, pictures):
        assert code_of(words) == 2
        told = capsys.readouterr().err
        assert f"{tmp_path}: is not a finished run" in told and "Fix: give the folder" in told


def test_a_run_of_another_version(copy: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps(info | {"format": "handful-model-7"}))
    for words in commands_on(copy, pictures):
        assert code_of(words) == 1
        told = capsys.readouterr().err
        assert "model.json: was made by another version (format 'handful-model-7'" in told
        assert "Fix: train again with this version" in told
    book = (copy / "run.toml").read_text()
    (copy / "run.toml").write_text(re.sub(r'identity = "\w+"', 'identity = "0123456789abcdef"', book))
    assert (
        code_of(["fit", str(pictures), "--recipe", "logistic", "--features", "pixels", "--out", str(copy)])
        == 2
    )
    assert "of another version" in capsys.readouterr().err


def test_a_model_file_that_was_tampered_with(
    copy: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-5] ^= 4  # one bit of one weight
    (copy / "model.safetensors").write_bytes(content)
    for words in commands_on(copy, pictures):
        assert code_of(words) == 1
        told = capsys.readouterr().err
        assert "model.safetensors: is not the file that was saved (its SHA-256 differs)" in told
        assert "do not use weights from a source you do not trust" in told
    assert not list(copy.glob("deploy.*"))


class Trap:
    """Unpickling it leaves a folder."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.path,)


def test_a_pickle_in_the_models_place_is_refused(
    copy: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Even with its own hash in the side-car: it is never unpickled."""
    torch.save({"weight": Trap(str(tmp_path / "sprung"))}, copy / "model.safetensors")
    digest = hashlib.sha256((copy / "model.safetensors").read_bytes()).hexdigest()
    info = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps(info | {"sha256": digest}))
    for words in commands_on(copy, pictures):
        assert code_of(words) == 1
        assert "model.safetensors: does not fit its side-car" in capsys.readouterr().err
    assert not (tmp_path / "sprung").exists()


def test_a_stages_checkpoint_that_is_a_pickle_is_refused(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "fit",
        str(pictures),
        "--recipe",
        "supervised",
        "--training.backbone",
        "linear",
        "--training.steps",
        "4",
    ]
    words += ["--training.batch", "4", "--save-every", "1", "--out", str(tmp_path / "run")]
    with full_disk("report.html"):
        assert code_of(words) == 1  # everything but the report is there
    for done in (tmp_path / "run" / "stages").rglob("done.safetensors"):
        torch.save({"network": Trap(str(tmp_path / "sprung"))}, done)
    capsys.readouterr()
    assert code_of(words) == 1
    told = capsys.readouterr().err
    assert (
        "done.safetensors: is not a readable checkpoint" in told and "Fix: remove it and start again" in told
    )
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["exprot", "x"], "did you mean 'export'"),
        (["export"], "RUN"),
        (["export", "x", "--format", "pickle"], "onnx"),
        (["export", "x", "--fromat", "onnx"], "--format"),
        (["evaluate", "x"], "DATA"),
        (["evaluate", "x", "y", "--jsn"], "--json"),
        (["completion", "fish"], "bash"),
        (["predict", "x", "y", "--quite"], "--quiet"),
    ],
)
def test_wrong_words_name_the_right_ones(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of(words) == 2
    out = capsys.readouterr()
    assert told in out.err + out.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--features", "lite0"], "features need a recipe of their own"),
        (["--recipe", "logistic", "--features", "lite7"], "no backbone 'lite7'"),
        (["--recipe", "supervised", "--features", "lite0"], "at no features"),
        (["--feature-backend", "abacus"], "no backend 'abacus'"),
        (["--side", "4"], "4 px a side are too small"),
    ],
)
@pytest.mark.parametrize("dry", [True, False])
def test_options_that_nobody_would_read_are_refused_also_by_a_dry_run(
    words: list[str], said: str, dry: bool, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", str(pictures), *words, "--out", str(tmp_path / "out"), *(["--dry-run"] if dry else [])]
    assert cli.run(line) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_folder_without_pictures_to_predict(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "readme.txt").write_text("no picture")
    assert code_of(["predict", str(run), str(tmp_path)]) == 2
    assert f"{tmp_path}: holds no pictures" in capsys.readouterr().err


def test_method_options_without_a_recipe_say_so(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(["fit", str(pictures), "--method.threshold", "0.9"]) == 2
    assert "give --recipe NAME too" in capsys.readouterr().err


# Options, at random


def refusal(call: Callable[[], Any]) -> UsageError | None:
    """The usage error of a call, if it has one; any other error is the test's failure."""
    try:
        call()
    except UsageError as error:
        return error
    return None


@MANY
@given(st.text(max_size=12))
def test_any_text_is_a_time_or_a_usage_error(text: str) -> None:
    error = refusal(lambda: seconds(text))
    assert seconds(text) > 0 if error is None else "90s" in error.fix


@MANY
@given(
    st.integers(1, 10**6),
    st.sampled_from([("", 1), ("s", 1), ("m", 60), ("h", 3600)]),
    st.sampled_from(["", " "]),
)
def test_times_mean_what_they_say(number: int, unit: tuple[str, int], space: str) -> None:
    assert seconds(f"{number}{space}{unit[0]}") == number * unit[1]


@MANY
@given(st.text(alphabet="0123456789, -x.", max_size=12))
def test_any_text_is_a_list_of_sizes_or_a_usage_error(text: str) -> None:
    error = refusal(lambda: numbers(text))
    if error is not None:
        assert "1,4,16,64" in error.fix
    else:
        assert list(numbers(text)) == sorted({int(word) for word in text.split(",") if word.strip()})


@MANY
@given(st.lists(st.sampled_from([*RECIPES, "auto"]), max_size=5), st.sampled_from([",", ";", ", "]))
def test_lists_of_recipes_survive(names: list[str], mark: str) -> None:
    assert recipes(mark.join(names)) == tuple(names)


@MANY
@given(
    st.one_of(
        st.text(max_size=20),
        st.builds("{}@{}:{}={}".format, st.sampled_from([*RECIPES]), st.sampled_from(["pixels", "", "x"]),
                  st.sampled_from(["training.steps", "method.C", "x"]), st.text(max_size=5)),
    )
)  # fmt: skip
def test_any_contender_is_read_or_refused(text: str) -> None:
    error = refusal(lambda: parse(text))
    assert error is None or str(error)


@MANY
@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz_-", min_size=1, max_size=14))
def test_a_recipe_or_an_option_is_found_or_the_known_ones_are_named(name: str) -> None:
    if name not in RECIPES:
        with pytest.raises(UsageError, match="there is no recipe") as caught:
            find(name)
        assert "Known: auto, logistic" in caught.value.fix
    if name not in Training.__dataclass_fields__:
        with pytest.raises(UsageError, match=r"there is no option 'training\.") as caught:
            changed(Training(), {name: 1}, "training")
        assert "Known: backbone" in caught.value.fix


@MANY
@given(
    st.lists(
        st.one_of(
            st.sampled_from(["--recipe", "--recipe=knn", "--method.C", "--training.steps=3", "knn"]),
            st.text(max_size=6),
        ),
        max_size=8,
    )
)
def test_looking_ahead_at_words_never_fails(words: list[str]) -> None:
    """The function that reads the line before it is parsed."""
    at = next(
        (
            i
            for i, w in enumerate(words)
            if (w == "--recipe" and i + 1 < len(words)) or w.startswith("--recipe=")
        ),
        None,
    )
    found = value_of(words, "--recipe")
    assert (found is None) == (at is None)


OPTIONS = [
    "--format",
    "onnx",
    "safetensors",
    "--out",
    "--json",
    "--no-json",
    "--format=onnx",
    "--",
    "-",
    "=",
    "--quiet",
]


@MANY
@given(words=st.lists(st.one_of(st.sampled_from(OPTIONS), st.text(max_size=8)), max_size=5))
def test_no_words_end_in_a_traceback(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Of a command whose run is not there: usage, a usage error, or help."""
    assert code_of(["export", "no-such-run", *words]) in (0, 2)
    capsys.readouterr()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": "many"}, "option 'training.steps' cannot be 'many'"),
        ({"steps": 1.5}, "give a whole number"),
        ({"steps": True}, "give a whole number"),
        ({"lr": ""}, "give a number"),
        ({"pretrained": 1}, "give True or False"),
        ({"backbone": 3}, "give a word"),
    ],
)
def test_values_of_the_wrong_kind_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        changed(Training(), changes, "training")
    assert words in str(caught.value)
    assert changed(Training(), {"lr": 1}, "training").lr == 1  # a whole number is a number
