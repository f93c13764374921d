"""Figures of a run on labelled pictures, against scikit-learn's, and the ways in which it says no."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
)

from handful import api
from handful.api import FitOptions, fit, write_digits
from handful.cli import main as cli
from handful.cli.evaluate import show
from handful.inference.model_file import NONE, load_model
from handful.run.finish import predictions
from handful.stats.reject import threshold
from handful.types import UsageError
from handful.verbs.evaluate import figures

PARTS = [*((str(k), 4) for k in range(3)), ("unlabeled", 10), *((f"test/{k}", 7) for k in range(3))]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    whole, folder = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("data") / "digits"
    write_digits(whole, per_class=4, seed=0)
    for part, most in PARTS:
        (folder / part).mkdir(parents=True)
        for file in sorted((whole / part).iterdir())[:most]:
            shutil.copy(file, folder / part)
    return folder


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HANDFUL_CACHE", str(tmp_path_factory.mktemp("cache")))
        options = FitOptions(recipe="logistic", features="pixels")
        return fit(
            pictures, options, out=tmp_path_factory.mktemp("runs") / "run", command="handful fit digits"
        )


def test_figures_are_scikit_learns() -> None:
    random = np.random.RandomState(0)
    truth = random.randint(0, 4, 200)  # the fifth class has no picture, and the fourth is never called
    z = random.standard_normal((200, 5))
    z[np.arange(200), truth] += 1
    z[:, 3] = -9
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    found, guess = figures(truth, p, tuple("abcde")), p.argmax(1)
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, guess))
    recalls = [np.mean(guess[truth == k] == k) for k in range(4)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert found["macro_f1"] == pytest.approx(f1_score(truth, guess, average="macro", zero_division=0.0))
    assert found["confusion"] == confusion_matrix(truth, guess, labels=range(5)).tolist()
    precision, recall, f1, n = precision_recall_fscore_support(
        truth, guess, labels=range(5), zero_division=np.nan
    )
    for row, *expected in zip(found["per_class"], precision, recall, f1, n):
        mine = [np.nan if x is None else x for x in (row.precision, row.recall, row.f1)]
        assert mine == pytest.approx(expected[:3], nan_ok=True)
        assert row.n == expected[3] and row.called == int((guess == "abcde".index(row.name)).sum())
    assert (
        balanced_accuracy_score(truth[guess < 3], guess[guess < 3]) > 0
    )  # the other library runs on the same input


def test_the_test_part_is_what_the_run_measured(run: api.Run, pictures: Path) -> None:
    found = api.evaluate(run.folder, pictures)
    assert found.accuracy == run.accuracy and found.interval == pytest.approx(run.interval)
    assert found.n == 21 and found.measured_on.startswith("the test part of digits")
    assert found.caution == "" and found.unreadable == []
    assert np.array(found.confusion).sum() == 21


def test_labelled_pictures_alone_come_with_a_caution(run: api.Run, pictures: Path) -> None:
    assert "flattering" in api.evaluate(run.folder, pictures / "test").caution


def test_validation_pictures_come_with_a_caution(run: api.Run, pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "own", ignore=shutil.ignore_patterns("test"))
    shutil.copytree(pictures / "test", tmp_path / "own" / "val")
    found = api.evaluate(run.folder, tmp_path / "own")
    assert found.measured_on.startswith("the validation part of own") and "chosen by" in found.caution


def test_a_set_to_measure_by_may_have_a_test_part_alone_or_a_single_class(
    run: api.Run, pictures: Path, tmp_path: Path
) -> None:
    whole = api.evaluate(run.folder, pictures)
    shutil.copytree(pictures / "test", tmp_path / "alone" / "test")
    found = api.evaluate(run.folder, tmp_path / "alone")
    assert (found.accuracy, found.n, found.caution) == (whole.accuracy, whole.n, "")
    one = sorted((pictures / "test").iterdir())[0]
    shutil.copytree(one, tmp_path / "one" / one.name)
    assert api.evaluate(run.folder, tmp_path / "one").n == len(list(one.iterdir()))
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="holds no pictures"):
        api.evaluate(run.folder, tmp_path / "none")


def test_an_export_or_an_inspection_replaces_no_file_of_a_run(run: api.Run, pictures: Path) -> None:
    before = {path.name: path.read_bytes() for path in run.folder.iterdir() if path.is_file()}
    with pytest.raises(UsageError, match="a file of the run itself"):
        api.export(run.folder, "safetensors", out=run.folder / "model.safetensors")
    with pytest.raises(UsageError, match="the folder of a run"):
        api.inspect(pictures, out=run.folder)
    assert {path.name: path.read_bytes() for path in run.folder.iterdir() if path.is_file()} == before


def test_classes_are_matched_by_name_and_unknown_ones_are_refused(
    run: api.Run, pictures: Path, tmp_path: Path
) -> None:
    shutil.copytree(pictures / "test", tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "0")
    found = api.evaluate(run.folder, tmp_path / "two")
    assert found.classes == ["0", "1", "2"] and found.confusion[0] == [0, 0, 0]
    assert found.per_class[0].recall is None and found.per_class[1].n == 7
    (tmp_path / "two" / "1").rename(tmp_path / "two" / "11")
    with pytest.raises(UsageError, match="class '11' is not one of the model's") as caught:
        api.evaluate(run.folder, tmp_path / "two")
    assert "did you mean '1'" in caught.value.fix and caught.value.exit_code == 2


def test_the_command_prints_figures_and_json(
    run: api.Run, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["evaluate", str(run.folder), str(pictures)]) == 0
    told = capsys.readouterr().out
    for word in ("accuracy", "95 % interval", "macro F1", "calibration error", "recall", "is \\ called"):
        assert word in told
    assert cli.run(["evaluate", str(run.folder), str(pictures), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accuracy"] == run.accuracy and len(found["per_class"]) == 3
    shutil.copytree(pictures, tmp_path / "digits")
    (tmp_path / "digits" / "test" / "1" / "zz.png").write_bytes(b"no picture")
    assert cli.run(["evaluate", str(run.folder), str(tmp_path / "digits"), "--quiet"]) == 1
    told_now = capsys.readouterr()
    assert float(told_now.out) == round(100 * found["accuracy"], 1) and "zz.png" in told_now.err


def test_an_archive_of_arrays_gives_the_figures_of_its_files(
    run: api.Run, pictures: Path, tmp_path: Path
) -> None:
    files = sorted((pictures / "test").rglob("*.png"))
    x = np.stack([np.asarray(Image.open(file)) for file in files])
    y = np.array([int(file.parent.name) for file in files])
    np.savez(tmp_path / "more.npz", x=x, y=y)
    found = api.evaluate(run.folder, tmp_path / "more.npz")
    assert found.n == len(files) and found.accuracy == run.accuracy


def test_long_class_names_are_whole_in_a_pipe_and_a_narrow_terminal_gets_the_mistakes(
    run: api.Run, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = replace(
        api.evaluate(run.folder, pictures), classes=[f"a class with a long name {i}" for i in range(3)]
    )
    for width, matrix in ((500, True), (60, False)):
        show(found, Console(width=width, highlight=False))
        told = capsys.readouterr().out
        assert ("is \\ called" in told) is matrix and ("most frequent mistakes" in told) is not matrix
        assert "…" not in told


def test_the_threshold_gives_up_no_more_right_answers_than_it_says() -> None:
    """Fresh right answers fall below it as often as the theory of order statistics says: k / (n + 1) on average."""
    random = torch.Generator().manual_seed(0)
    lost, n = [], 59
    for _ in range(400):
        z = torch.randn(2 * n, 4, generator=random) * 2
        truth = z.argmax(1)
        found = threshold(z[:n], truth[:n], 1.3)
        assert found["right_answers"] == n
        fresh = (z[n:] / 1.3).softmax(1).amax(1)
        lost.append(float((fresh < found["threshold"]).double().mean()))
    assert np.mean(lost) == pytest.approx(3 / 60, abs=0.006)  # four standard errors


def test_too_few_right_answers_reject_nothing() -> None:
    z = torch.eye(3).repeat(6, 1) * 4
    truth = z.argmax(1)
    assert threshold(z, truth, 1.0)["threshold"] == 0  # 18 right answers
    assert threshold(torch.cat([z, z[:1]]), truth[[*range(18), 0]], 1.0)["threshold"] > 0.9  # 19
    assert threshold(z.repeat(2, 1), (truth + 1).repeat(2) % 3, 1.0)["threshold"] == 0  # all wrong
    assert threshold(None, None, 1.0)["threshold"] == 0


def test_predictions_say_none_of_these_below_the_threshold(run: api.Run, pictures: Path) -> None:
    from handful.data.manifest import read_folder

    manifest = read_folder(pictures)
    p = torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.2, 0.2]])
    lines = predictions(manifest, torch.tensor([0, 1]), p, 0.55).splitlines()
    assert lines[0] == "path,split,label,probability,best"
    assert [line.split(",")[2:] for line in lines[1:]] == [[NONE, "0.5000", "0"], ["0", "0.6000", "0"]]


def test_predict_uses_the_threshold_of_the_run(run: api.Run, pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "run")
    side_car = tmp_path / "run" / "model.json"
    plain, _ = api.predict(tmp_path / "run", [pictures / "test"])
    assert load_model(run.folder).reject == 0  # 12 labels cannot set one
    middle = sorted(p for _, _, p in plain)[10]
    info = json.loads(side_car.read_text())
    side_car.write_text(json.dumps(info | {"reject": {"threshold": middle + 1e-9}}))
    found, _ = api.predict(tmp_path / "run", [pictures / "test"])
    assert [p for _, _, p in found] == [p for _, _, p in plain]
    assert [label for _, label, _ in found] == [NONE if p <= middle else label for _, label, p in plain]


def test_the_model_card_holds_what_the_run_found(run: api.Run) -> None:
    card = (run.folder / "model-card.md").read_text()
    assert f"**{100 * (run.accuracy or 0):.1f} %**" in card and "a test part of 21 pictures" in card
    assert load_model(run.folder).sha256 in card and "handful fit digits" in card
    for heading in ("What it is", "The data", "How right it is", "Limits", "Licence of the weights"):
        assert f"## {heading}\n" in card
    assert "from your pictures alone" in card
    assert "Never: " in card and "it takes 19 at least" in card


def test_the_card_names_the_licence_of_packaged_weights_and_escapes_names() -> None:
    from handful.run.card import escaped, weights_licence

    assert "Apache-2.0" in weights_licence({"name": "lite0", "channels": 3, "size": 192})
    assert escaped("a|b\n*c*") == "a\\|b \\*c\\*"
