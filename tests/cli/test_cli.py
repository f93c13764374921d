"""The command line: exit codes, messages, speed of the help, and answers of a fresh process."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import handful.api as api
from handful import __version__
from handful.api import write_digits
from handful.choose.evidence import HeldOut
from handful.cli import main as cli
from handful.cli.console import parse, seconds
from handful.cli.fit import arguments_of
from handful.methods.pseudo_label import PseudoLabel
from handful.recipes.table import RECIPES
from handful.types import Interrupted, UsageError

PARTS = [*((str(k), 3) for k in range(3)), ("unlabeled", 12), *((f"test/{k}", 4) for k in range(3))]


def fresh(*words: str, code: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """``handful WORDS`` (or a line of Python) in a process of its own."""
    command = [sys.executable, "-c", code] if code else [sys.executable, "-m", "handful", *words]
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=settings, timeout=120)


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
        assert cli.run(["fit", str(pictures), "--recipe", "logistic", "--out", str(folder)]) == 0
    return folder


def test_the_person_who_waits_is_told_of_classes_with_few_labels(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", str(pictures), "--recipe", "nearest-mean", "--labels-per-class", "9"]
    assert cli.run([*words, "--out", str(tmp_path / "run")]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert (
        "3 classes with fewer labels than were asked for (0 has 3 of the 9 labels that were asked for; 1 has"
        in told
    )


def code_of(words: list[str]) -> int:
    """The exit code, however it is given."""
    try:
        return cli.run(words)
    except SystemExit as end:
        return int(end.code or 0)


def test_help_imports_neither_torch_nor_numpy() -> None:
    found = fresh(
        code="import sys; from handful.cli import main as cli; cli.run(['--help']); print(sorted(sys.modules))"
    )
    assert found.returncode == 0
    assert "fit" in found.stdout and "predict" in found.stdout
    loaded = found.stdout.splitlines()[-1]
    for heavy in ("torch", "numpy", "scipy", "PIL", "rich", "tyro"):
        assert f"'{heavy}'" not in loaded


def test_help_is_quick() -> None:
    """Under five times what Python takes to start and end (importing NumPy alone takes nine times as long); the best of
    five, in turns, since other programs may use the machine meanwhile."""
    durations: dict[str, list[float]] = {"--help": [], "": []}
    for _ in range(5):
        for words, taken in durations.items():
            begin = time.perf_counter()
            assert fresh(words, code="" if words else "pass").returncode == 0
            taken.append(time.perf_counter() - begin)
    assert min(durations["--help"]) < 5 * min(durations[""])


def test_help_without_a_command_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) == 2
    assert cli.run(["--help"]) == 0
    capsys.readouterr()
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"handful {__version__}\n"


def test_every_command_of_the_table_can_be_loaded() -> None:
    for name, what in cli.COMMANDS.items():
        assert callable(cli.load(name)), name
        assert name in cli.usage() and what in cli.usage()


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["fitt", "pictures"]) == 2
    assert "did you mean 'fit'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--recipe", "logistik"], "did you mean 'logistic'"),
        (["--recpe", "logistic"], "--recipe"),
        (["--recipe", "pseudo-label", "--method.thresold", "1"], "--method.threshold"),
        (["--recipe", "supervised", "--training.stepps", "1"], "--training.steps"),
        (["--recipe", "supervised", "--training.optimizer", "sdg"], "sgd or adamw"),
        (["--recipe", "supervised", "--training.steps", "many"], "many"),
        (["--training.steps", "1"], "--recipe NAME"),
        (["--init", "jigsaw"], "--recipe NAME"),
        (["--recipe", "supervised", "--init", "jgsaw"], "simclr or jigsaw or patch"),
        (["--recipe", "logistic", "--init", "simclr"], "trains no network"),
        (["--recipe", "logistic", "--training.steps", "1"], "trains no network"),
        (["--time", "soon"], "90s, 5m or 1h"),
        (["--time", "0s"], "90s, 5m or 1h"),
        (["--side", "-8"], "--side 8 or more"),
    ],
)
def test_wrong_options_end_with_2_and_name_the_right_ones(
    options: list[str], words: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of(["fit", str(pictures), "--out", str(tmp_path / "run"), *options]) == 2
    told = capsys.readouterr()
    assert words in told.err + told.out
    assert not (tmp_path / "run").exists()


def test_folders_that_do_not_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(["fit", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert code_of(["fit"]) == 2
    assert code_of(["predict", str(tmp_path), str(tmp_path)]) == 2
    assert "not a finished run" in capsys.readouterr().err


def test_other_options_in_the_same_folder(
    run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["fit", str(pictures), "--recipe", "knn", "--out", str(run)]) == 2
    told = capsys.readouterr().err
    assert "other options" in told
    assert "Fix:" in told and "--out" in told


def test_the_second_call_is_finished_already(
    run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["fit", str(pictures), "--recipe", "logistic", "--out", str(run)]) == 0
    told = capsys.readouterr()
    assert "finished already" in told.err
    assert str(run / "report.html") in told.out


def test_a_fresh_process_predicts_the_same(run: Path, pictures: Path) -> None:
    """The probabilities of a process that shares nothing but the files, as printed, and to 1e-6."""
    good, _ = api.predict(run, [pictures / "test"])
    found = fresh("predict", str(run), str(pictures / "test"))
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines() == [f"{file}\t{label}\t{p:.4f}" for file, label, p in good]
    program = (
        "import json, sys; from handful import api; "
        "print(json.dumps([p for _, _, p in api.predict(sys.argv[1], [sys.argv[2]])[0]]))"
    )
    command = [sys.executable, "-c", program, str(run), str(pictures / "test")]
    settings = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, capture_output=True, text=True, env=settings, timeout=120)
    assert json.loads(found.stdout) == pytest.approx([p for _, _, p in good], abs=1e-6)


def test_an_unreadable_picture_gives_1_and_the_others_are_classified(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, good = tmp_path / "broken.png", next((pictures / "test/0").iterdir())
    broken.write_bytes(b"no picture")
    capsys.readouterr()
    assert cli.run(["predict", str(run), str(broken), str(good)]) == 1
    told = capsys.readouterr()
    assert told.out.startswith(f"{good}\t") and told.out.count("\n") == 1
    assert told.err.startswith(f"error: {broken}: ")
    assert cli.run(["predict", str(run), str(good)]) == 0


def test_a_name_that_is_not_utf8_is_spelled_out(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    shutil.copy(next((pictures / "test").rglob("*.png")), odd)
    assert cli.run(["predict", str(run), str(odd)]) == 0
    capsys.readouterr().out.encode("utf-8")  # no lone surrogate
    assert cli.run(["predict", str(run), "--json", str(odd)]) == 0
    assert json.loads(capsys.readouterr().out)["file"].endswith("caf\\xe9.png")


def test_a_reader_that_has_seen_enough_is_no_failure(run: Path, pictures: Path) -> None:
    names = [str(p) for p in sorted((pictures / "test").rglob("*.png"))] * 400
    code = "import sys; from handful.cli.main import main; main()"
    words = [sys.executable, "-c", code, "predict", str(run), *names]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    told = process.stderr.read()
    assert process.wait() == 0 and "Traceback" not in told, told


def test_the_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["fit", "--recipe", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(RECIPES)


@pytest.mark.parametrize(
    ("error", "code"), [(Interrupted(2), 130), (Interrupted(15), 143), (KeyboardInterrupt(), 130)]
)
def test_being_stopped(
    error: BaseException, code: int, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the features or the cheap part: nothing is saved, and nothing is half written."""

    def stop(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(HeldOut, "measure", stop)
    assert cli.run(["fit", str(pictures), "--recipe", "logistic", "--out", str(tmp_path / "run")]) == code
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "run.toml",
        "metrics.jsonl",
        "splits.csv",
        "issues.csv",
    }


def test_a_cache_that_cannot_be_written_gives_1(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "file"))
    assert cli.run(["fit", str(pictures), "--recipe", "logistic", "--out", str(tmp_path / "run")]) == 1
    assert "Fix: free some space, or set HANDFUL_CACHE" in capsys.readouterr().err
    monkeypatch.undo()
    assert (
        cli.run(["fit", str(pictures), "--recipe", "logistic", "--out", str(tmp_path / "file" / "run")]) == 1
    )
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"), [("90s", 90), ("5m", 300), ("1.5h", 5400), ("42", 42), (" 2 m ", 120), ("0.5", 0.5)]
)
def test_times(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "-5m", "5d", "1e3", "0", "0.0h", "nan", "5 m m"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="is not a time"):
        seconds(text)


def test_options_count_where_they_are_given_even_at_their_defaults() -> None:
    words = ["x", "--method.threshold", "0.0", "--method.no-hard", "--training.max-steps=0", "--seed=0"]
    given = parse(arguments_of("pseudo-label"), "fit", [*words, "--init", "random"])
    assert given.method == {"threshold": 0.0, "hard": False}
    assert given.training == {"max_steps": 0, "init": "random"} and given.options == {"seed": 0}
    nothing = parse(arguments_of("pseudo-label"), "fit", ["x"])
    assert nothing.method == nothing.training == nothing.options == {}


def test_given_options_reach_the_run_and_the_recipes_own_ones_stay(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe uses all of a teacher's labels (threshold 0); the class's own default is 0.8."""
    asked: list[api.FitOptions] = []

    def fit(data: Path, options: api.FitOptions, **_: object) -> api.Run:
        asked.append(options)
        return api.Run(tmp_path, "x", None, None, "nothing")

    monkeypatch.setattr(api, "fit", fit)
    line = ["fit", str(pictures), "--recipe", "pseudo-label"]
    for extra in ([], ["--method.smoothing", "0.1"], ["--method.threshold", "0.8", "--training.batch", "32"]):
        assert cli.run([*line, *extra]) == 0
    assert [dict(options.method) for options in asked] == [{}, {"smoothing": 0.1}, {"threshold": 0.8}]
    assert [dict(options.training) for options in asked] == [{}, {}, {"batch": 32}]
    assert cli.run([*line, "--init", "patch", "--training.init-steps", "7"]) == 0
    assert asked.pop().training == {"init": "patch", "init_steps": 7}
    made = [RECIPES["pseudo-label"].make(**options.asked().method) for options in asked]  # type: ignore[union-attr]
    assert made == [
        PseudoLabel(threshold=0.0),
        PseudoLabel(threshold=0.0, smoothing=0.1),
        PseudoLabel(threshold=0.8),
    ]


def test_completion_knows_every_command_and_its_options() -> None:
    from handful.cli.completion import classes, script

    assert set(classes()) == set(cli.COMMANDS)
    for shell in ("bash", "zsh"):
        text = script(shell)
        for word in (*cli.COMMANDS, "--feature-backend", "safetensors", "--against", "--pretrained"):
            assert word in text
    if bash := shutil.which("bash"):
        found = subprocess.run([bash, "-n"], input=script("bash"), text=True, capture_output=True, timeout=30)
        assert found.returncode == 0, found.stderr


def test_a_dry_run_writes_nothing_and_says_what_it_would_do(
    run: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "cache"))
    words = ["fit", str(pictures), "--dry-run", "--out", str(tmp_path / "run")]
    assert cli.run(words) == 0
    told = capsys.readouterr().out
    assert "9 labelled, 12 unlabelled, 0 validation, 12 test (gray, stored at 8 px)" in told
    for name in ("propagation@pixels", "fixmatch@pixels", "logistic@lite0", "(new)"):
        assert name in told
    assert list(tmp_path.iterdir()) == []
    assert cli.run([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["per_class"] == {"0": 3, "1": 3, "2": 3} and found["state"] == "new"
    again = ["fit", str(pictures), "--recipe", "logistic", "--dry-run", "--json", "--out"]
    for folder, state in ((run, "is finished"), (pictures.parent, "refused: not empty and not a run")):
        assert cli.run([*again, str(folder)]) == 0
        assert json.loads(capsys.readouterr().out)["state"] == state


def test_json_alone_stands_on_the_output(
    run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["fit", str(pictures), "--recipe", "logistic", "--out", str(run), "--json"]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert found["folder"] == str(run) and 0 <= found["accuracy"] <= 1 and told.err == ""
    assert cli.run(["predict", str(run), str(pictures / "test"), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    good, _ = api.predict(run, [pictures / "test"])
    assert [(row["file"], row["label"]) for row in lines] == [(file, label) for file, label, _ in good]


def test_plain_lines_without_a_terminal_and_no_colour_where_none_is_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from handful.cli.console import ConsoleTeller

    def told() -> str:
        with ConsoleTeller() as teller:
            teller.tell("a line")
            for done in range(3):
                teller.progress("reading", done, 3)
        return capsys.readouterr().err

    assert told() == "a line\n"
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    monkeypatch.setenv("TERM", "xterm-256color")
    coloured = told()
    assert "reading" in coloured and "2/3" in coloured and "\x1b[3" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    plain = told()
    assert "reading" in plain and not re.search(r"\x1b\[[0-9;]*3\d", plain)
    with ConsoleTeller(quiet=True) as teller:
        teller.tell("a line")
        teller.progress("reading", 1, 3)
    assert capsys.readouterr().err == ""
