"""The main job from a folder of pictures to files that deploy, and every way in which it should say no."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import handful
import handful.recipes.train as train
from handful import api
from handful.api import FitOptions, fit, predict, write_digits
from handful.choose.evidence import Evidence, HeldOut
from handful.data.images import decode
from handful.inference.model_file import load_model
from handful.report.record import Summary, read
from handful.types import HandfulError, Interrupted, UsageError
from handful.verbs import fit as fitting

CHEAP = FitOptions(recipe="logistic")
PARTS = [*((str(k), 4) for k in range(3)), ("unlabeled", 25), *((f"test/{k}", 5) for k in range(3))]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits: 3 classes with 4 labels each, 25 unlabelled (of all ten) and 15 for the test."""
    whole, folder = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("data") / "digits"
    write_digits(whole, per_class=4, seed=0)
    for part, most in PARTS:
        (folder / part).mkdir(parents=True)
        for file in sorted((whole / part).iterdir())[:most]:
            shutil.copy(file, folder / part)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDFUL_CACHE", str(cache))


@pytest.fixture(scope="module")
def run(pictures: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    """A finished run that the tests only look at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HANDFUL_CACHE", str(cache))
        return fit(pictures, CHEAP, out=tmp_path_factory.mktemp("runs") / "run", command="handful fit digits")


@pytest.fixture
def copy(run: api.Run, tmp_path: Path) -> Path:
    """A copy of the run that may be damaged."""
    return Path(shutil.copytree(run.folder, tmp_path / "copy"))


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_these_files_and_no_scratch(run: api.Run) -> None:
    assert {path.name for path in run.folder.iterdir()} == {
        "report.html", "metrics.jsonl", "run.toml", "model.safetensors", "model.json", "predictions.csv",
        "summary.json", "splits.csv", "issues.csv", "model-card.md",
    }  # fmt: skip


def test_predictions_are_of_the_unlabelled_and_the_test_part(run: api.Run, pictures: Path) -> None:
    found = rows(run.folder)
    files = {
        p.relative_to(pictures).as_posix()
        for part in ("unlabeled", "test")
        for p in (pictures / part).rglob("*.png")
    }
    assert len(found) == len(files) == 40
    assert {row["path"] for row in found} == files
    for row in found:
        assert row["split"] == ("test" if row["path"].startswith("test/") else "unlabelled")
        assert row["label"] in "012"
        assert 1 / 3 <= float(row["probability"]) <= 1


def test_predictions_match_the_saved_model(run: api.Run, pictures: Path) -> None:
    """Cached features against pictures read anew: the largest difference of a probability is under 1e-3."""
    found = rows(run.folder)
    good, bad = predict(run.folder, [pictures / row["path"] for row in found])
    assert bad == []
    assert [file for file, _, _ in good] == [str(pictures / row["path"]) for row in found]
    differences = [abs(p - float(row["probability"])) for (_, _, p), row in zip(good, found)]
    assert max(differences) < 1e-3
    assert min(p for _, _, p in good) < 0.9, "saturated probabilities would prove nothing"
    assert [label for _, label, _ in good] == [row["label"] for row in found]


def test_the_headline_is_the_share_of_right_predictions_in_the_test_part(run: api.Run) -> None:
    test = [row for row in rows(run.folder) if row["split"] == "test"]
    share = np.mean([row["path"].split("/")[1] == row["label"] for row in test])
    assert run.accuracy == pytest.approx(float(share))
    assert run.interval is not None and run.interval[0] <= run.accuracy <= run.interval[1]
    summary = Summary.load(run.folder / "summary.json")
    assert summary.headline_accuracy == pytest.approx(float(share))
    assert (summary.n_labelled, summary.n_unlabelled, summary.n_test) == (12, 25, 15)
    assert summary.confusion is not None and sum(map(sum, summary.confusion)) == 15


def test_side_car_and_run_book(run: api.Run, pictures: Path) -> None:
    side_car = json.loads((run.folder / "model.json").read_text())
    assert side_car["classes"] == ["0", "1", "2"]
    assert side_car["store"] == {"channels": 1, "side": 8}
    assert side_car["sha256"] == hashlib.sha256((run.folder / "model.safetensors").read_bytes()).hexdigest()
    book = tomllib.loads((run.folder / "run.toml").read_text())
    assert book["options"]["recipe"] == "logistic"
    assert book["result"]["chosen"] == run.chosen == "logistic@pixels"
    assert book["result"]["accuracy"] == run.accuracy
    assert book["command"] == "handful fit digits"


def test_the_report_needs_nothing_from_elsewhere(run: api.Run) -> None:
    page = (run.folder / "report.html").read_text()
    names = ("http://www.w3.org/2000/svg", "http://www.w3.org/1999/xhtml")  # names of formats, never fetched
    for name in names:
        page = page.replace(name, "")
    assert "http://" not in page and "https://" not in page
    assert 'src="/' not in page and "url(//" not in page
    assert "logistic regression" in page


def test_the_second_call_says_finished_and_trains_nothing(
    run: api.Run, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {
        p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in run.folder.iterdir() if p.name != "run.toml"
    }
    monkeypatch.setattr(fitting, "choose", lambda *a, **k: pytest.fail("it was run again"))
    told: list[str] = []
    teller = api.Teller()
    teller.tell = told.append  # type: ignore[method-assign]
    again = fit(pictures, CHEAP, out=run.folder, teller=teller)
    assert again == run
    assert "finished already" in told[0]
    assert before == {
        p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in run.folder.iterdir() if p.name != "run.toml"
    }


@pytest.mark.parametrize(
    "changes", [{"recipe": "knn"}, {"seed": 1}, {"side": 16}, {"method": {"C": 1.0}}, {"seconds": 7.0}]
)
def test_other_options_do_not_fit_into_the_same_folder(
    changes: dict[str, Any], run: api.Run, pictures: Path
) -> None:
    book = (run.folder / "run.toml").read_bytes()
    with pytest.raises(UsageError, match="with other options") as caught:
        fit(pictures, FitOptions(**{"recipe": "logistic", **changes}), out=run.folder)
    assert "--out" in caught.value.fix
    assert caught.value.exit_code == 2
    assert (run.folder / "run.toml").read_bytes() == book


def test_a_run_that_failed_before_any_work_gives_its_folder_up(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(UsageError, match="timm has no model 'lite9'"):
        fit(pictures, FitOptions(recipe="logistic", features="timm:lite9"), out=out)
    assert (out / "run.toml").exists()
    assert fit(pictures, CHEAP, out=out).chosen == "logistic@pixels"
    assert "lite9" not in (out / "run.toml").read_text()


def test_steps_between_checkpoints_are_not_an_option_of_the_result(run: api.Run, pictures: Path) -> None:
    assert fit(pictures, FitOptions(recipe="logistic", save_every=3), out=run.folder) == run


def test_the_same_run_elsewhere_has_the_same_weights(run: api.Run, pictures: Path, tmp_path: Path) -> None:
    other = fit(pictures, CHEAP, out=tmp_path / "run")
    assert (other.folder / "model.safetensors").read_bytes() == (
        run.folder / "model.safetensors"
    ).read_bytes()
    assert rows(other.folder) == rows(run.folder)


def test_test_labels_change_nothing_but_the_figures(run: api.Run, pictures: Path, tmp_path: Path) -> None:
    """The test folders are renamed in a circle: same pictures, other labels."""
    data = tmp_path / "digits"
    shutil.copytree(pictures, data)
    for old, new in (("0", "x"), ("1", "0"), ("2", "1"), ("x", "2")):
        (data / "test" / old).rename(data / "test" / new)
    other = fit(data, CHEAP, out=tmp_path / "run")
    assert other.chosen == run.chosen
    assert other.accuracy != run.accuracy
    names = ("model.safetensors",)
    assert [(other.folder / n).read_bytes() for n in names] == [(run.folder / n).read_bytes() for n in names]
    old, new = (Summary.load(r.folder / "summary.json") for r in (run, other))
    assert [(t.name, t.cv_accuracy, t.note) for t in old.tried] == [
        (t.name, t.cv_accuracy, t.note) for t in new.tried
    ]
    by_name = {Path(row["path"]).name: (row["label"], row["probability"]) for row in rows(run.folder)}
    assert by_name == {
        Path(row["path"]).name: (row["label"], row["probability"]) for row in rows(other.folder)
    }


def state(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Hash, time of change and mode of everything below a folder."""
    return {
        str(p): (
            hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else "",
            p.stat().st_mtime_ns,
            p.stat().st_mode,
        )
        for p in [folder, *sorted(folder.rglob("*"))]
    }


def test_the_data_folder_is_only_read(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every write permission taken away, and a cache that is not there yet."""
    data = tmp_path / "digits"
    shutil.copytree(pictures, data)
    everything = [data, *data.rglob("*")]
    for path in everything:
        path.chmod(stat.S_IRUSR | (stat.S_IXUSR if path.is_dir() else 0))
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "cache"))
    before = state(data)
    try:
        found = fit(data, CHEAP, out=tmp_path / "run")
        assert state(data) == before
        predict(found.folder, [data])
        assert state(data) == before
    finally:
        for path in everything:
            path.chmod(0o700)


def test_a_run_inside_the_pictures_is_refused(pictures: Path, tmp_path: Path) -> None:
    before = state(pictures)
    with pytest.raises(UsageError, match="only read"):
        fit(pictures, CHEAP, out=pictures / "runs" / "x")
    assert state(pictures) == before


def test_a_run_among_a_tables_pictures_is_refused_and_beside_the_table_is_not(
    pictures: Path, tmp_path: Path
) -> None:
    """Where people keep a table there may be their runs, too; where the pictures are that it lists, there may not."""
    table = tmp_path / "labels.csv"
    files = sorted(file for k in range(3) for file in (pictures / str(k)).iterdir())
    rows = [f"{os.path.relpath(file, tmp_path)},{file.parent.name}" for file in files]
    table.write_text("\n".join(["path,label", *rows]))
    before = state(pictures)
    with pytest.raises(UsageError, match="only read"):
        fit(table, CHEAP, out=files[0].parent / "runs" / "x")
    assert state(pictures) == before
    assert fit(table, CHEAP, out=tmp_path / "runs" / "x").folder.is_dir()


def test_the_plan_of_a_stopped_run_is_obeyed(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time becomes steps once: a run that is taken up again trains what its plan says, however fast the machine."""
    options = FitOptions(recipe="supervised", seconds=1e-6, training={"backbone": "linear", "batch": 4})
    out = tmp_path / "run"
    real = train.fit

    def stop(*arguments: Any, **settings: Any) -> None:
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(train, "fit", stop)
    with pytest.raises(Interrupted):
        fit(pictures, options, out=out)
    book = (out / "run.toml").read_text()
    assert tomllib.loads(book)["plan"]["steps in a fold of supervised"] == train.MIN_STEPS
    (out / "run.toml").write_text(book.replace('fold of supervised" = 20', 'fold of supervised" = 3'))
    monkeypatch.setattr(train, "fit", real)
    fit(pictures, options, out=out)
    last: dict[str, int] = {}
    for row in read(out / "metrics.jsonl"):
        last[row["stage"]] = row["step"]
    folds = dict.fromkeys((f"supervised/0.{fold}" for fold in range(4)), 3)
    assert last == {"supervised": train.MIN_STEPS, **folds}
    assert tomllib.loads((out / "run.toml").read_text())["plan"]["steps in a fold of supervised"] == 3


def test_ctrl_c_in_the_cheap_part_stops_and_the_same_call_goes_on(
    run: api.Run, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = HeldOut.measure

    def interrupted(*arguments: Any, **settings: Any) -> Evidence:
        os.kill(os.getpid(), signal.SIGINT)
        return measure(*arguments, **settings)

    monkeypatch.setattr(HeldOut, "measure", interrupted)
    with pytest.raises(Interrupted) as caught:
        fit(pictures, CHEAP, out=tmp_path / "run")
    assert caught.value.exit_code == 130
    assert not (tmp_path / "run" / "model.safetensors").exists()
    monkeypatch.setattr(HeldOut, "measure", measure)
    again = fit(pictures, CHEAP, out=tmp_path / "run")
    assert (again.folder / "model.safetensors").read_bytes() == (
        run.folder / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_backend_starts_is_not_taken_for_its_failure(
    number: signal.Signals, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import handful.inference.backends as backends

    def start(*_: Any) -> None:
        os.kill(os.getpid(), number)

    for name, backend in backends.BACKENDS.items():
        monkeypatch.setitem(backends.BACKENDS, name, backend._replace(start=start))
    with pytest.raises(Interrupted) as caught:
        fit(pictures, FitOptions(recipe="logistic", features="lite0"), out=tmp_path / "run")
    assert caught.value.exit_code == 128 + number


def colour_pictures(folder: Path) -> Path:
    """Photograph-sized pictures (150 x 110 px): smooth random colours, reddish or bluish."""
    rng = np.random.default_rng(2)
    for part, kind, count in (
        ("red", 0, 3),
        ("blue", 2, 3),
        ("unlabeled", 1, 3),
        ("test/red", 0, 2),
        ("test/blue", 2, 2),
    ):
        (folder / part).mkdir(parents=True)
        for i in range(count):
            small = rng.integers(0, 200, (11, 15, 3), dtype=np.uint8)
            small[:, :, kind] = np.minimum(small[:, :, kind] + 55.0, 255).astype(np.uint8)
            Image.fromarray(small).resize((150, 110), Image.Resampling.BICUBIC).save(
                folder / part / f"{i}.png"
            )
    return folder


def test_photographs_give_the_same_answer_from_the_table_and_from_the_file(tmp_path: Path) -> None:
    """lite0 at 192 px, averaged with the mirror image. Table and classifier resize to the same whole gray
    values: probabilities differ by less than 1e-3 (backend torch-eager-fp32), decisions do not."""
    data = colour_pictures(tmp_path / "photos")
    options = FitOptions(recipe="logistic", feature_backend="torch-eager-fp32")
    found = fit(data, options, out=tmp_path / "run")
    assert found.chosen == "logistic@lite0"
    saved = load_model(found.folder)
    assert (saved.classifier.spec.size, saved.classifier.mirror) == (192, True)
    assert saved.store == {"channels": 3, "side": 110}  # the median shorter side
    table = rows(found.folder)
    good, _ = predict(found.folder, [data / row["path"] for row in table])
    assert [label for _, label, _ in good] == [row["label"] for row in table]
    differences = [abs(p - float(row["probability"])) for (_, _, p), row in zip(good, table)]
    assert max(differences) < 1e-3
    assert min(p for _, _, p in good) < 0.9, "saturated probabilities would prove nothing"
    x = torch.from_numpy(np.stack([decode(data / row["path"], 3, 110) for row in table]))
    big = torch.nn.functional.interpolate(
        x, (192, 192), mode="bicubic", antialias=True
    )  # uint8, as in the table
    spec = saved.classifier.spec
    inputs = (big.float() / 255 - torch.tensor(spec.mean).view(1, 3, 1, 1)) / torch.tensor(spec.std).view(
        1, 3, 1, 1
    )
    with torch.inference_mode():
        p = saved.classifier(inputs).logits.softmax(1)
        mirrored = saved.classifier(inputs.flip(3)).logits.softmax(1)
    torch.testing.assert_close(p, mirrored, rtol=0, atol=1e-4)
    assert [float(v) for v in p.amax(1)] == pytest.approx([float(r["probability"]) for r in table], abs=2e-3)


def test_fine_tuning_small_pictures_starts_from_lite0(pictures: Path, tmp_path: Path) -> None:
    options = FitOptions(
        recipe="fine-tune", training={"steps": 1, "size": 32, "batch": 2}, feature_backend="torch-eager-fp32"
    )
    found = fit(pictures, options, out=tmp_path / "run")
    assert found.chosen == "fine-tune@lite0"
    good, bad = predict(found.folder, [pictures / "test"])
    assert (len(good), bad) == (15, [])


def test_unreadable_pictures_are_listed_and_the_others_are_classified(
    run: api.Run, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no picture, and does not say so")
    shutil.copy(next((pictures / "test/0").iterdir()), tmp_path / "good.png")
    good, bad = predict(run.folder, [tmp_path])
    assert [Path(file).name for file, _, _ in good] == ["good.png"]
    assert [Path(file).name for file, _ in bad] == ["broken.png", "empty.jpg"]
    assert all(reason for _, reason in bad)
    assert [Path(f).name for f, _ in predict(run.folder, [tmp_path / "notes.txt"])[1]] == ["notes.txt"]
    with pytest.raises(UsageError, match="no such file"):
        predict(run.folder, [tmp_path / "nowhere.png"])


def test_an_unreadable_training_picture_is_in_the_report(pictures: Path, tmp_path: Path) -> None:
    data = tmp_path / "digits"
    shutil.copytree(pictures, data)
    (data / "1" / "zz.png").write_bytes(b"not a picture")
    found = fit(data, CHEAP, out=tmp_path / "run")
    problems = [p for p in Summary.load(found.folder / "summary.json").issues if p.kind == "unreadable"]
    assert [p.file for p in problems] == ["1/zz.png"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"recipe": "logistik"}, "did you mean 'logistic'"),
        ({"recipe": "pseudo-label", "method": {"treshold": 1}}, "did you mean 'threshold'"),
        ({"recipe": "supervised", "training": {"step": 1}}, "did you mean 'steps'"),
        ({"recipe": "logistic", "training": {"steps": 1}}, "trains no network"),
        ({"recipe": "auto", "method": {"C": 1}}, "--recipe NAME"),
        ({"recipe": "logistic", "side": 4}, "too small"),
        ({"recipe": "logistic", "features": "lite1"}, "lite0"),
        ({"recipe": "fine-tune", "features": "pixels"}, "--features"),
    ],
)
def test_wrong_options_name_the_right_ones(
    options: dict[str, Any], words: str, pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=words):
        fit(pictures, FitOptions(**options), out=tmp_path / "run")


def _no_pictures(data: Path) -> None:
    shutil.rmtree(data)
    data.mkdir()


def _no_folder(data: Path) -> None:
    shutil.rmtree(data)


def _one_class(data: Path) -> None:
    for name in ("1", "2", "test"):
        shutil.rmtree(data / name)


def _empty_class(data: Path) -> None:
    for file in (data / "1").iterdir():
        file.unlink()


def _broken_class(data: Path) -> None:
    for file in (data / "1").iterdir():
        file.write_bytes(b"")


def _strange_test_class(data: Path) -> None:
    (data / "test" / "1").rename(data / "test" / "11")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_no_folder, "no such folder"),
        (_no_pictures, "holds no pictures"),
        (_one_class, r"only one class \(0\)"),
        (_empty_class, "class '1' holds no pictures"),
        (_broken_class, "class '1' has no readable picture"),
        (_strange_test_class, "did you mean '1'"),
    ],
)
def test_data_that_cannot_be_used(
    spoil: Callable[[Path], None], words: str, pictures: Path, tmp_path: Path
) -> None:
    data = tmp_path / "digits"
    shutil.copytree(pictures, data)
    spoil(data)
    with pytest.raises(UsageError, match=words) as caught:
        fit(data, CHEAP, out=tmp_path / "run")
    assert caught.value.fix


def test_a_folder_that_is_no_run_is_left_alone(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="not empty and not a run"):
        fit(pictures, CHEAP, out=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(UsageError, match="not a finished run"):
        predict(tmp_path, [pictures / "test"])


def test_a_damaged_run_book(copy: Path, pictures: Path) -> None:
    (copy / "run.toml").write_text("identity = ")
    with pytest.raises(HandfulError, match="damaged") as caught:
        fit(pictures, CHEAP, out=copy)
    assert caught.value.exit_code == 1


def test_a_cache_that_cannot_be_written(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file where the folder should be: no permission of any user makes that writable."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "file"))
    with pytest.raises(HandfulError, match="cache cannot be written") as caught:
        fit(pictures, CHEAP, out=tmp_path / "run")
    assert caught.value.exit_code == 1
    assert "HANDFUL_CACHE" in caught.value.fix


def test_a_feature_cache_that_cannot_be_written(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "features").write_text("")
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "cache"))
    with pytest.raises(HandfulError, match="feature cache cannot be written") as caught:
        fit(pictures, FitOptions(recipe="logistic", features="lite0"), out=tmp_path / "run")
    assert "HANDFUL_CACHE" in caught.value.fix


def test_a_run_folder_that_cannot_be_written(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HandfulError, match="cannot be written") as caught:
        fit(pictures, CHEAP, out=tmp_path / "file" / "run")
    assert caught.value.exit_code == 1
    assert "another folder" in caught.value.fix


def edit(path: Path, **changes: Any) -> None:
    info = json.loads(path.read_text())
    for name, value in changes.items():
        info.pop(name) if value is None else info.update({name: value})
    path.write_text(json.dumps(info))


def test_a_model_file_that_was_changed(copy: Path) -> None:
    state = load_file(copy / "model.safetensors")
    name = next(name for name in state if name.endswith("bias"))
    state[name][0] += 1
    save_file(state, copy / "model.safetensors")
    with pytest.raises(HandfulError, match="SHA-256 differs"):
        load_model(copy)


class Trap:
    """Unpickling it leaves a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.path,)


def test_a_pickle_is_refused_even_with_the_right_hash(copy: Path, tmp_path: Path) -> None:
    torch.save({"weight": Trap(str(tmp_path / "sprung"))}, copy / "model.safetensors")
    edit(copy / "model.json", sha256=hashlib.sha256((copy / "model.safetensors").read_bytes()).hexdigest())
    with pytest.raises(HandfulError, match="does not fit its side-car"):
        load_model(copy)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "handful-model-0"},
        {"format": None},
        {"sha256": None},
        {"classes": None},
        {"classifier": None},
        {"classifier": {"backbone": {"name": "nothing"}, "head": None, "mirror": False}},
        {"classifier": "pixels"},
        {"store": None},
        {"store": {"side": 8}},
    ],
)
def test_a_side_car_of_another_format(changes: dict[str, Any], copy: Path) -> None:
    edit(copy / "model.json", **changes)
    with pytest.raises(HandfulError) as caught:
        load_model(copy)
    assert caught.value.fix


def test_a_side_car_that_is_no_json(copy: Path) -> None:
    (copy / "model.json").write_text("{")
    with pytest.raises(HandfulError, match="damaged"):
        load_model(copy)


def test_the_package_itself_has_the_verbs_and_loads_nothing_heavy_before_one_is_asked_for() -> None:
    program = (
        "import sys, handful; before = sorted(sys.modules); "
        "assert 'fit' in dir(handful) and 'torch' not in sys.modules; "
        "from handful import api; assert handful.fit is api.fit and handful.FitOptions is api.FitOptions; "
        "from handful import fit, augment; assert not callable(augment); "
        "print(' '.join(before))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    for heavy in ("torch", "numpy", "scipy", "PIL", "tyro", "rich"):
        assert heavy not in found.stdout.split()
    assert set(handful.LAZY) == set(api.__all__) - {"augment"}
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        handful.fitt  # noqa: B018
