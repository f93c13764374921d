"""``handful extend`` from a run folder and a folder of new classes to a run folder that everything else works on."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from handful import api
from handful.api import ExtendOptions, FitOptions, extend, fit, predict, write_digits
from handful.cli import main as cli
from handful.inference.classify import classify
from handful.inference.model_file import load_model
from handful.report.record import Summary, read_typed
from handful.types import HandfulError, UsageError
from handful.verbs.extend import AGAIN
from handful.verbs.extend_table import Figures, Row, Side, cells, kept, sentence

OPTIONS = ExtendOptions(training={"steps": 4, "batch": 8})
EVERY = {"report.html", "model.safetensors", "model.json", "predictions.csv", "summary.json", "run.toml",
         "splits.csv", "issues.csv", "model-card.md", "metrics.jsonl", "extension.json"}  # fmt: skip


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    whole = tmp_path_factory.mktemp("whole")
    write_digits(whole, per_class=6, seed=0)
    return whole


def folder_of(
    digits: Path, place: Path, names: str, each: int = 6, test: int = 5, unlabelled: int = 0
) -> Path:
    """Some classes of the digits."""
    for name in names:
        for part, most in ((name, each), (f"test/{name}", test)):
            if most:
                (place / part).mkdir(parents=True, exist_ok=True)
                for file in sorted((digits / part).iterdir())[:most]:
                    shutil.copy(file, place / part)
    if unlabelled:
        (place / "unlabeled").mkdir()
        for file in sorted((digits / "unlabeled").iterdir())[:unlabelled]:
            shutil.copy(file, place / "unlabeled")
    return place


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HANDFUL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def old_data(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(digits, tmp_path_factory.mktemp("data") / "old", "012")


@pytest.fixture(scope="module")
def new_data(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(digits, tmp_path_factory.mktemp("data") / "new", "34", unlabelled=7)


def fitted(old_data: Path, place: Path, recipe: str) -> Path:
    training = {"steps": 30, "batch": 16} if recipe == "supervised" else {}
    return fit(old_data, FitOptions(recipe=recipe, features="pixels", training=training), out=place).folder


@pytest.fixture(scope="module")
def network(old_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a network that was trained from scratch."""
    return fitted(old_data, tmp_path_factory.mktemp("runs") / "network", "supervised")


@pytest.fixture(scope="module")
def probe(old_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a head on frozen features."""
    return fitted(old_data, tmp_path_factory.mktemp("runs") / "probe", "logistic")


@pytest.fixture(scope="module")
def done(
    network: Path, new_data: Path, old_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> api.Extended:
    """A finished extension that the tests only look at, and a proof that the old run was only read."""
    before = {path: path.read_bytes() for path in network.iterdir()}
    out = tmp_path_factory.mktemp("runs") / "extended"
    found = extend(network, new_data, OPTIONS, old_test=old_data, out=out, command="handful extend")
    assert {path: path.read_bytes() for path in network.iterdir()} == before
    return found


def test_it_is_a_run_like_any_other(done: api.Extended, new_data: Path) -> None:
    folder = done.run.folder
    assert {path.name for path in folder.iterdir()} == EVERY
    assert load_model(folder).classes == ("0", "1", "2", "3", "4")
    with (folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7 + 10 and {row["label"] for row in rows} <= set("01234")
    good, bad = predict(folder, [new_data / row["path"] for row in rows])
    assert bad == [] and [label for _, label, _ in good] == [row["label"] for row in rows]
    for (_, _, p), row in zip(good, rows):
        assert p == pytest.approx(float(row["probability"]), abs=2e-3)
    summary = Summary.load(folder / "summary.json")
    assert summary.headline_accuracy == done.run.accuracy and summary.classes == list("01234")
    assert [extra.title for extra in summary.extras] == ["Old and new classes"]
    page = (folder / "report.html").read_text()
    assert "Old and new classes" in page and "plain fine-tuning" in page


def test_the_table_counts_what_the_saved_model_answers(
    done: api.Extended, network: Path, old_data: Path, new_data: Path
) -> None:
    """Both readings of both sides, counted again from the model on disk."""
    before, first = done.figures.rows[:2]
    model, old = load_model(done.run.folder), load_model(network)
    assert first.old and first.new and before.old and before.new is None
    for side, data, names in ((first.old, old_data, "012"), (first.new, new_data, "34")):
        files = sorted((data / "test").rglob("*.png"))
        truth = np.array([int(file.parent.name) for file in files])
        p = probabilities(model, files)
        columns = np.array([int(name) for name in names])
        assert side.n == len(files)
        assert side.joint == pytest.approx((p.argmax(1) == truth).mean())
        assert side.task_aware == pytest.approx((columns[p[:, columns].argmax(1)] == truth).mean())
        if names == "012":
            assert before.old.task_aware == pytest.approx(
                (probabilities(old, files).argmax(1) == truth).mean()
            )
    assert [row.name for row in done.figures.rows] == [
        "before", "Learning without Forgetting", "plain fine-tuning", "feature extraction"
    ]  # fmt: skip
    fixed = done.figures.rows[3]
    assert fixed.old and fixed.old.task_aware == before.old.task_aware, "nothing of it was trained"
    assert read_typed(Figures, done.run.folder / "extension.json", AGAIN) == done.figures
    assert done.run.accuracy == first.new.joint
    assert done.figures.steps == 4


def probabilities(model: Any, files: list[Path]) -> np.ndarray:
    return classify(model, files).p.numpy()


def test_it_can_be_looked_into_and_its_maps_carry_its_own_classes(
    done: api.Extended, new_data: Path, old_data: Path, tmp_path: Path
) -> None:
    look = api.inspect_model(
        done.run.folder, new_data, out=tmp_path / "look"
    ).look  # 2 classes; its head knows 5
    captions = {thumb.caption for thumb, _ in look.maps}
    assert captions <= set("01234") and captions & set("34"), captions
    with pytest.raises(UsageError, match="as it was trained"):
        api.inspect_model(done.run.folder, size=32, out=tmp_path / "other")
    before = (done.run.folder / "report.html").read_bytes()
    with pytest.raises(UsageError, match="the folder of a run"):
        api.inspect_model("lenet", out=done.run.folder)
    assert (done.run.folder / "report.html").read_bytes() == before


def test_options_that_nothing_uses_are_told(
    probe: Path, new_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "extend",
        str(probe),
        str(new_data),
        "--steps",
        "5",
        "--temperature",
        "3",
        "--out",
        str(tmp_path / "o"),
    ]
    assert cli.run(words) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "nothing trains: no use for --temperature, --steps" in told
    assert cli.run([*words[:3], "--view", "nonsense", "--out", str(tmp_path / "p")]) == 2


def test_it_can_be_evaluated_and_exported(done: api.Extended, new_data: Path, tmp_path: Path) -> None:
    found = api.evaluate(done.run.folder, new_data)
    assert found.accuracy == done.run.accuracy
    exported = api.export(done.run.folder, "onnx", out=tmp_path / "model.onnx")
    assert exported.difference is not None and exported.difference < 1e-3
    api.export(done.run.folder, "safetensors", out=tmp_path / "model.safetensors")
    assert load_model(tmp_path / "model.safetensors").classes == tuple("01234")


def test_the_same_call_again_returns_the_finished_run(
    done: api.Extended, network: Path, new_data: Path, old_data: Path
) -> None:
    stamp = (done.run.folder / "model.safetensors").stat().st_mtime_ns
    again = extend(network, new_data, OPTIONS, old_test=old_data, out=done.run.folder)
    assert again == done
    assert (done.run.folder / "model.safetensors").stat().st_mtime_ns == stamp
    with pytest.raises(UsageError, match="belongs to a run"):
        extend(network, new_data, replace(OPTIONS, lambda_old=2.0), old_test=old_data, out=done.run.folder)


@pytest.mark.parametrize("recipe", ["network", "probe", "nearest-mean", "knn"])
def test_three_extensions_in_a_row_keep_names_and_order(
    recipe: str, digits: Path, old_data: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    ready = recipe in ("network", "probe")
    run = request.getfixturevalue(recipe) if ready else fitted(old_data, tmp_path / "run", recipe)
    files = sorted((old_data / "test").rglob("*.png"))
    known, before = "012", probabilities(load_model(run), files)
    for k, names in enumerate(("97", "34", "86")):  # folders are read in order of their names
        data = folder_of(digits, tmp_path / f"data-{k}", names, test=0)
        found = extend(run, data, OPTIONS, out=tmp_path / f"extended-{k}")
        known += "".join(sorted(names))
        run = found.run.folder
        assert load_model(run).classes == tuple(known)
        assert found.figures.old_classes == tuple(known[:-2]) and found.figures.new_classes == tuple(
            sorted(names)
        )
    after = probabilities(load_model(run), files)[:, :3]
    if recipe in ("probe", "nearest-mean"):  # old rows stand as they were: shares among old classes too
        np.testing.assert_allclose(after / after.sum(1, keepdims=True), before, atol=2e-4)
    labels = [label for _, label, _ in predict(run, files)[0]]
    assert set(labels) <= set(known)


def test_without_old_pictures_it_says_what_is_not_known(probe: Path, new_data: Path, tmp_path: Path) -> None:
    found = extend(probe, new_data, OPTIONS, out=tmp_path / "run")
    assert found.figures.old_on == "" and all(row.old is None for row in found.figures.rows)
    assert "--old-test" in sentence(found.figures)
    summary = Summary.load(tmp_path / "run" / "summary.json")
    assert "not known" in summary.verdict and any("--old-test" in step for step in summary.next_steps)
    assert "No threshold is set" in (tmp_path / "run" / "model-card.md").read_text()
    assert load_model(tmp_path / "run").reject == 0.0


def test_without_a_test_part_new_classes_are_cross_validated(
    network: Path, digits: Path, tmp_path: Path
) -> None:
    data = folder_of(digits, tmp_path / "new", "34", test=0)
    found = extend(network, data, OPTIONS, out=tmp_path / "run")
    assert found.figures.new_on == "3-fold cross-validation on the 12 labelled pictures"
    assert all(row.new and row.new.n == 12 for row in found.figures.rows[1:])


def test_a_class_of_one_picture(network: Path, digits: Path, tmp_path: Path) -> None:
    data = folder_of(digits, tmp_path / "new", "34", each=1, test=0)
    found = extend(network, data, OPTIONS, out=tmp_path / "run")
    assert found.run.accuracy is None and "nothing" in found.run.measured_on
    assert all(row.new is None for row in found.figures.rows)
    assert "a single one" in found.figures.heads
    assert load_model(tmp_path / "run").classes == tuple("01234")


def test_colour_pictures_of_another_size_are_read_as_the_old_model_reads_them(
    network: Path, digits: Path, tmp_path: Path
) -> None:
    """Extending and predicting see the same pixels, whatever the new files are."""
    data = folder_of(digits, tmp_path / "new", "34", test=3)
    for file in data.rglob("*.png"):
        with Image.open(file) as picture:
            large = picture.convert("RGB").resize((40, 30))
        large.putpixel((0, 0), (255, 0, 0))
        large.save(file)
    found = extend(network, data, OPTIONS, out=tmp_path / "run")
    saved = load_model(tmp_path / "run")
    assert saved.store == load_model(network).store and saved.store["channels"] == 1
    with (found.run.folder / "predictions.csv").open() as file_of_rows:
        rows = list(csv.DictReader(file_of_rows))
    good, _ = predict(found.run.folder, [data / row["path"] for row in rows])
    for (_, label, p), row in zip(good, rows):
        assert label == row["label"] and p == pytest.approx(float(row["probability"]), abs=2e-3)


def refused(run: Path, data: Any, *more: str) -> list[str]:
    return ["extend", str(run), str(data), *more]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("not a run", ["is not a finished run", "Fix: give the folder"]),
        ("onnx", ["ONNX", "cannot be trained further", "--format safetensors"]),
        ("no new classes", ["holds no new class", "knows 0, 1 already", "handful fit"]),
        ("clash", ["class '2' is one of the classifier's already", "rename"]),
        ("capitals", ["class 'ROSE' is one of the classifier's already (as 'rose')"]),
        ("one class", ["has only one class"]),
        ("no pictures", ["there is no such folder"]),
        ("into the old run", ["is the run that is extended", "--out"]),
        ("among the pictures", ["lies in the folder of pictures"]),
        (
            "strange old test",
            ["--old-test: class '3' is not one of the old classifier's", "give pictures of 0, 1, 2"],
        ),
        ("responses", ["live"]),
        ("weight", ["a weight of -1 makes no sense"]),
        ("time", ["'soon' is not a time"]),
    ],
)
def test_it_says_no(
    case: str,
    words: list[str],
    probe: Path,
    digits: Path,
    new_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {path: path.read_bytes() for path in probe.iterdir()}
    out = ["--out", str(tmp_path / "out")]
    if case == "not a run":
        line = refused(tmp_path, new_data, *out)
    elif case == "onnx":
        (tmp_path / "model.onnx").write_bytes(b"whatever it holds")
        line = refused(tmp_path / "model.onnx", new_data, *out)
    elif case == "no new classes":
        line = refused(probe, folder_of(digits, tmp_path / "data", "01"), *out)
    elif case == "clash":
        line = refused(probe, folder_of(digits, tmp_path / "data", "23"), *out)
    elif case == "capitals":
        shutil.copytree(probe, tmp_path / "run")
        info = json.loads((tmp_path / "run" / "model.json").read_text())
        info["classes"][0] = "rose"
        (tmp_path / "run" / "model.json").write_text(json.dumps(info))
        data = folder_of(digits, tmp_path / "data", "34", test=0)
        (data / "3").rename(data / "ROSE")
        line = refused(tmp_path / "run", data, *out)
    elif case == "one class":
        line = refused(probe, folder_of(digits, tmp_path / "data", "3"), *out)
    elif case == "no pictures":
        line = refused(probe, tmp_path / "nowhere", *out)
    elif case == "into the old run":
        line = refused(probe, new_data, "--out", str(probe / "inside"))
    elif case == "among the pictures":
        line = refused(probe, new_data, "--out", str(new_data / "out"))
    elif case == "strange old test":
        line = refused(probe, new_data, "--old-test", str(new_data), *out)
    else:
        option = {"responses": "lazy", "weight": "-1", "time": "soon"}[case]
        name = {"responses": "--responses", "weight": "--lambda-old", "time": "--time"}[case]
        line = refused(probe, new_data, name, option, *out)
    try:
        code = cli.run(line)
    except SystemExit as end:
        code = int(end.code or 0)
    told = capsys.readouterr()
    assert code == 2, told.err
    for some in words:
        assert some in told.err + told.out, told.err
    assert not (tmp_path / "out").exists()
    assert {path: path.read_bytes() for path in probe.iterdir()} == before


def test_from_the_command_line(
    probe: Path, new_data: Path, old_data: Path, tmp_path: Path, capsys: Any
) -> None:
    line = refused(probe, new_data, "--old-test", str(old_data), "--out", str(tmp_path / "run"))
    assert cli.run(line) == 0
    told = capsys.readouterr().out
    assert "feature extraction" in told and "task-aware" in told and "joint" in told
    assert cli.run([*line, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["new_classes"] == ["3", "4"] and found["rows"][0]["name"] == "before"


def side(n: int, task_aware: float, joint: float | None = None) -> Side:
    return Side(n, task_aware, joint)


def test_how_much_was_kept() -> None:
    rows = (
        Row("before", side(100, 0.9)),
        Row("Learning without Forgetting", side(100, 0.85, 0.6), side(50, 0.8, 0.7)),
        Row("plain fine-tuning", side(100, 0.7, 0.5), side(50, 0.8, 0.7)),
    )
    figures = Figures(("a", "b"), ("c", "d"), rows, "old ones", "new ones", "", 10)
    assert "Of the 20.0 points that plain fine-tuning forgot" in kept(figures)
    assert "kept 75 %" in kept(figures)
    shown = [[text.replace("\xa0", " ") for text in cells(row, interval=False)[1:]] for row in rows[:2]]
    assert shown[1] == ["85.0 %", "80.0 %", "82.5 %", "60.0 %", "70.0 %", "65.0 %"]
    assert shown[0] == ["90.0 %", "–", "–", "–", "–", "–"]
    steady = replace(figures, rows=(rows[0], rows[1], Row("plain fine-tuning", side(100, 0.9, 0.5))))
    assert "forgot nothing" in kept(steady)
    assert kept(replace(figures, rows=rows[:2])) == ""


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "extension.json").write_text('{"rows": [1]}')
    with pytest.raises(HandfulError, match="is damaged"):
        read_typed(Figures, tmp_path / "extension.json", AGAIN)
