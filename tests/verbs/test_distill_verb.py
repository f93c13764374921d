"""``handful distill``: teachers of every kind, the run folder that comes out, its table, and the ways it says no."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from handful import api
from handful.api import DistillOptions, FitOptions, distill, fit, write_digits
from handful.cli import main as cli
from handful.data.images import from_array
from handful.data.manifest import Manifest
from handful.data.sources import read_data
from handful.inference import costs
from handful.inference.classify import probabilities
from handful.inference.costs import Cost
from handful.inference.model_file import load_model
from handful.inference.teachers import Onnx, agreed_classes, imagenet_classes, read_teacher
from handful.methods.distillation import Distillation
from handful.report.record import read_typed
from handful.types import HandfulError, Interrupted, UsageError
from handful.verbs.distill import AGAIN, Parts, of_classes, options_for, run_data
from handful.verbs.distill_table import TOGETHER, Figures, Row, sentence

PARTS = [*((str(k), 6) for k in range(3)), ("unlabeled", 60), *((f"test/{k}", 12) for k in range(3))]
FEW = {"steps": 30, "batch": 8, "ratio": 3, "ema": 0.0}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    whole, folder = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("data") / "digits"
    write_digits(whole, per_class=6, seed=0)
    for part, most in PARTS:
        (folder / part).mkdir(parents=True)
        for file in sorted((whole / part).iterdir())[:most]:
            shutil.copy(file, folder / part)
    return folder


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HANDFUL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = FitOptions(recipe="logistic", features="pixels")
    return fit(pictures, options, out=tmp_path_factory.mktemp("runs") / "teacher").folder


@pytest.fixture(scope="module")
def student(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By the command line, with the pictures of the teacher's run."""
    out = tmp_path_factory.mktemp("runs") / "student"
    words = ["distill", str(run), "--student", "conv-4", "--out", str(out), "--view", "plain"]
    given = [word for k, v in FEW.items() for word in (f"--training.{k}", str(v))]
    assert cli.run([*words, *given]) == 0
    return out


@pytest.fixture(scope="module")
def onnx_file(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return api.export(run, "onnx", out=tmp_path_factory.mktemp("onnx") / "t.onnx").file


def test_the_student_is_a_run_like_any_other(
    student: Path, run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = read_typed(Figures, student / "distill.json", AGAIN)
    teacher, distilled, alone = figures.rows
    assert (distilled.name, alone.name) == ("distilled@conv-4", "labels-alone@conv-4")
    found = api.evaluate(student, pictures)
    assert found.accuracy == distilled.accuracy and found.n == 36
    assert api.evaluate(run, pictures).accuracy == teacher.accuracy
    test = [pictures / "test"]
    said = {p: c for p, c, _ in api.predict(student, test)[0]}
    taught = {p: c for p, c, _ in api.predict(run, test)[0]}
    assert distilled.agreement == pytest.approx(np.mean([said[p] == taught[p] for p in taught]))
    assert distilled.agreement is not None and distilled.agreement > 0.6  # chance is a third
    assert figures.gain is not None and distilled.accuracy is not None and alone.accuracy is not None
    assert figures.gain[0] == pytest.approx(distilled.accuracy - alone.accuracy)
    assert {"model.safetensors", "predictions.csv", "report.html", "splits.csv", "model-card.md"} <= {
        p.name for p in student.iterdir()
    }
    page = (student / "report.html").read_text()
    assert "Teacher and student" in page and "labels-alone@conv-4" in page and "distilled network" in page


def test_costs_are_those_of_the_files(student: Path, run: Path) -> None:
    teacher, distilled, _ = read_typed(Figures, student / "distill.json", AGAIN).rows
    assert distilled.cost.bytes == (student / "model.safetensors").stat().st_size
    assert teacher.cost.bytes == (run / "model.safetensors").stat().st_size
    network = load_model(student).classifier
    assert distilled.cost.parameters == sum(p.numel() for p in network.parameters())
    # four 3 x 3 convolutions of 8, 4, 2, 1 px (1 -> 64 -> 64 -> 64 -> 64 maps) and the head, two FLOPs a multiply-add
    expected = 2 * (9 * 64 * (64 + 64 * 16 + 64 * 4 + 64 * 1) + 64 * 3)
    assert distilled.cost.flops == expected
    assert distilled.cost.torch_ms and distilled.cost.onnx_ms and distilled.cost.onnx_bytes
    assert distilled.cost.difference is not None and distilled.cost.difference < 1e-4
    assert teacher.cost.onnx_bytes and teacher.cost.difference is None, "only what is exported is compared"


def test_the_same_call_again_returns_the_finished_run_and_another_is_refused(
    student: Path, run: Path
) -> None:
    before = (student / "model.safetensors").stat().st_mtime_ns
    method = Distillation(view="plain", taught_view="plain")
    options = DistillOptions("conv-4", method, FEW)
    done = distill(run, None, options, out=student)
    assert (student / "model.safetensors").stat().st_mtime_ns == before
    assert done.figures == read_typed(Figures, student / "distill.json", AGAIN)
    assert done.as_dict()["folder"] == str(student)
    with pytest.raises(UsageError, match="another version"):
        distill(run, None, replace(options, student="lenet"), out=student)


def test_a_student_teaches_in_turn_from_stored_onnx_and_run_together(
    run: Path, pictures: Path, onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three teachers of three kinds, classes in another order in one, no labels; unlabelled pictures are held back
    where there is no test part."""
    measured: dict[str, Any] = {}
    monkeypatch.setattr(
        "handful.verbs.distill.costs",
        lambda networks, files, check, tell: (
            measured.update(networks=networks, files=files) or {name: Cost(1, 2, 3) for name in networks}
        ),
    )
    folder = Path(shutil.copytree(pictures, tmp_path / "data"))
    shutil.rmtree(folder / "test")
    saved = load_model(run)
    manifest = read_data(folder)
    table = ["path,2,0,1"]
    for path in manifest.paths:
        x = torch.from_numpy(np.asarray(Image.open(folder / path)).copy())[None, None]
        p = probabilities(saved, x)[0].tolist()
        table.append(",".join([path, *(repr(p[k]) for k in (2, 0, 1))]))
    (tmp_path / "p.csv").write_text("\n".join(table) + "\n")
    file = onnx_file
    method = Distillation(view="plain", taught_view="plain")
    options = DistillOptions("conv-4", method, FEW, label_free=True)
    done = distill([run, file, tmp_path / "p.csv"], folder, options, out=tmp_path / "run")
    *teachers, together, last = done.figures.rows
    assert [row.name for row in teachers] == [str(run), str(file), str(tmp_path / "p.csv")]
    assert together.name == "all teachers together" and last.name == "distilled@conv-4"
    assert set(measured["networks"]) == {str(run), "distilled@conv-4"} and set(measured["files"]) == {
        str(file)
    }
    assert done.figures.gain is None and last.accuracy is None and done.run.accuracy is None
    assert "no picture has a label" in done.run.measured_on
    assert (
        done.figures.agreed_on == "7 unlabelled pictures held back from the student"
    )  # of 60 + 18 without labels
    assert last.agreement is not None


def test_all_teachers_of_one_network_answer_alike(
    run: Path, pictures: Path, onnx_file: Path, tmp_path: Path
) -> None:
    x = torch.from_numpy(
        np.stack([np.asarray(Image.open(p)) for p in sorted((pictures / "unlabeled").iterdir())])
    )[:, None]
    own = read_teacher(run)
    file = read_teacher(onnx_file)
    assert own.classes == file.classes == ("0", "1", "2") and own.side == 8
    assert own.answer and file.answer
    torch.testing.assert_close(own.answer(x).logits.exp(), file.answer(x).logits.exp(), rtol=0, atol=1e-4)
    assert own.answer(x).features.shape[1] > 0 and file.answer(x).features.shape[1] == 0
    names = np.array([f"unlabeled/{i}" for i in range(len(x))])
    np.savez(
        tmp_path / "p.npz", paths=names, p=own.answer(x).logits.exp().numpy(), classes=np.array(own.classes)
    )
    stored = read_teacher(tmp_path / "p.npz").stored
    assert stored is not None
    torch.testing.assert_close(stored.of(names[5:9]), own.answer(x).logits[5:9], rtol=1e-5, atol=1e-5)
    with pytest.raises(UsageError, match="no prediction for 1 of 2 pictures, such as other"):
        stored.of(["other", names[0]])


def foreign(path: Path, n: Any = "N", outputs: int = 3) -> Path:
    """A linear classifier of 3 x 4 x 4 pictures that handful did not make."""
    onnx = pytest.importorskip("onnx", reason="onnx belongs to handful[fast]")
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.RandomState(0).standard_normal((48, outputs)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["z"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [n, 3, 4, 4])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [n, outputs])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("n", ["N", 1, 4, 8])
def test_a_foreign_onnx_file_with_all_it_needs(n: Any, tmp_path: Path) -> None:
    path = foreign(tmp_path / "f.onnx", n)
    options = Onnx(classes="a,b,c", mean=(0.5,) * 3, std=(0.25,) * 3)
    teacher = read_teacher(path, options)
    x = torch.randint(0, 256, (6, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    weight = torch.from_numpy(np.random.RandomState(0).standard_normal((48, 3)).astype(np.float32))
    z = ((x.float() / 255 - 0.5) / 0.25).flatten(1) @ weight
    assert teacher.answer is not None and teacher.classes == ("a", "b", "c")
    torch.testing.assert_close(teacher.answer(x).logits, z.log_softmax(1), rtol=1e-4, atol=1e-4)
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    assert read_teacher(path, replace(options, classes=str(tmp_path / "names.txt"))).classes == (
        "a",
        "b",
        "c",
    )
    two = read_teacher(path, replace(options, classes="a,b")).answer
    assert two is not None
    with pytest.raises(UsageError, match="3 numbers for 2 classes"):
        two(x)


def test_foreign_onnx_files_that_cannot_be_used(tmp_path: Path) -> None:
    path = foreign(tmp_path / "f.onnx")
    with pytest.raises(UsageError, match="does not say its classes") as caught:
        read_teacher(path)
    assert "--onnx.classes" in caught.value.fix
    with pytest.raises(UsageError, match="nothing that it can give"):
        read_teacher(path, Onnx(classes="a,b,c", gives="scores"))
    with pytest.raises(UsageError, match="takes pictures of 4 px, not of 5"):
        read_teacher(path, Onnx(classes="a,b,c", size=5))
    with pytest.raises(UsageError, match="must be above 0"):
        read_teacher(path, Onnx(classes="a,b,c", std=(0.0, 1.0, 1.0)))
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with pytest.raises(UsageError, match="not an ONNX file"):
        read_teacher(tmp_path / "bad.onnx")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path\nx\n", "no column 'path' with two classes"),
        ("file,a,b\nx,1,0\n", "no column 'path'"),
        ("path,a,b\nx,1,much\n", "not a table of predictions"),
        ("path,a,b\nx,1\n", "not a table of predictions"),
        ("path,a,b\nx,0.7,0.7\n", "the row of x holds no probabilities"),
        ("path,a,b\nx,2,-1\n", "the row of x holds no probabilities"),
        ("path,a,b\nx,1,0\nx,0,1\n", "two rows for one picture"),
    ],
)
def test_tables_that_are_no_predictions(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(UsageError, match=words):
        read_teacher(tmp_path / "p.csv")


def code(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    found = cli.run(["distill", *words])
    return found, capsys.readouterr().err


def test_bad_words_give_2_and_say_what_to_do(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    for name in ("0", "7"):
        shutil.copytree(pictures / "0", other / name)
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.txt").write_text("")
    out = ["--out", str(tmp_path / "run")]
    for words, said in (
        ([str(tmp_path / "gone"), str(pictures)], "there is no such run, file or network"),
        (["lite00", str(pictures)], "did you mean 'lite0'"),
        ([str(tmp_path / "empty"), str(pictures)], "is not a finished run"),
        ([str(tmp_path / "note.txt"), str(pictures)], "not a kind of teacher"),
        (["conv-4", str(pictures)], "no pretrained weights"),
        (["lite0", str(pictures)], "--label-free to imitate the teacher's own classes"),
        (["lite0"], "has no pictures of its own"),
        ([str(run), str(other)], "class '7' is not one of the teacher's 3 (0, 1, 2)"),
        ([str(run), str(tmp_path / "empty")], "or give --label-free"),
        ([str(run), str(tmp_path / "empty"), "--label-free"], "holds no pictures"),
        ([str(run), str(pictures), "--student", "conv-5"], "did you mean 'conv-4'"),
        ([str(run), "--temperature", "0"], "temperature of 0"),
        ([str(run), "--training.backbone", "lenet"], "named by --student"),
        ([str(run), "--time", "soon"], "90s, 5m or 1h"),
        ([str(run), "--side", "4"], "give --side 8"),
    ):
        found, error = code([*words, *out], capsys)
        assert found == 2 and said in error, (words, error)
        shutil.rmtree(tmp_path / "run", ignore_errors=True)


def test_the_seed_of_the_teachers_labels_is_not_the_students(pictures: Path, tmp_path: Path) -> None:
    had = FitOptions(recipe="logistic", features="pixels", labels_per_class=2, seed=1)
    folder = fit(pictures, had, out=tmp_path / "teacher").folder
    place, options, seed = run_data(read_teacher(folder), DistillOptions(seed=7))
    assert (place, options.seed, options.labels_per_class, seed) == (str(pictures), 7, 2, 1)


def test_without_labels_an_asked_for_weight_of_zero_stays() -> None:
    bare = Manifest.__new__(Manifest)
    object.__setattr__(bare, "splits", np.array(["unlabelled"] * 3))
    by_features = Distillation(soft_weight=0.0, feature_weight=1.0)
    assert options_for(bare, DistillOptions(method=by_features)).method.soft_weight == 0
    assert options_for(bare, DistillOptions(method=Distillation(soft_weight=0.0))).method.soft_weight == 1


def test_a_stop_while_costs_are_measured_is_a_stop(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any) -> Any:
        raise Interrupted(2)

    monkeypatch.setattr(costs, "graph", stopped)
    with pytest.raises(Interrupted):
        costs.costs({"a": load_model(run)}, {}, check="a", tell=lambda line: None)


def test_a_policy_file_is_a_view(run: Path, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text('view = "weak+rotate"\n')
    policy = str(tmp_path / "p.toml")
    method = Distillation(view=policy, taught_view=policy)
    few = {**FEW, "steps": 2}
    folder = distill(run, None, DistillOptions("linear", method, few), out=tmp_path / "out").run.folder
    told = (folder / "run.toml").read_text()
    assert 'taught_view = "weak+rotate"' in told and "p.toml" not in told


def test_a_run_whose_pictures_are_gone(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    book = copy / "run.toml"
    lines = book.read_text().splitlines()
    gone = [f'data = "{tmp_path / "nowhere"}"' if line.startswith("data = ") else line for line in lines]
    book.write_text("\n".join(gone))
    with pytest.raises(UsageError, match="no longer at") as caught:
        distill(copy, None, DistillOptions("conv-4"), out=tmp_path / "out")
    assert "DATA" in caught.value.fix


def test_a_damaged_table_says_so(tmp_path: Path) -> None:
    (tmp_path / "distill.json").write_text('{"rows": [')
    with pytest.raises(HandfulError, match="is damaged"):
        read_typed(Figures, tmp_path / "distill.json", AGAIN)


def manifest(splits: str, labels: list[int]) -> Manifest:
    names = {"l": "labelled", "u": "unlabelled", "v": "validation", "t": "test"}
    return Manifest(
        Path("x"), ("a", "b"), tuple(map(str, range(len(splits)))), np.array(labels),
        np.array([names[s] for s in splits]), "f",
    )  # fmt: skip


def test_labels_become_the_teachers_numbers() -> None:
    given = manifest("lluvt", [0, 1, -1, 1, 0])
    mapped = of_classes(given, ("b", "c", "a"), label_free=False)
    assert mapped.labels.tolist() == [2, 0, -1, 0, 2] and mapped.classes == ("b", "c", "a")
    free = of_classes(given, ("b", "c"), label_free=True)  # nobody knows "a"
    assert free.labels.tolist() == [-1, -1, -1, 0, -1]
    assert free.splits.tolist() == ["unlabelled"] * 3 + ["validation", "test"]


def test_which_pictures_are_unseen() -> None:
    images = from_array(np.zeros((40, 8, 8), np.uint8))
    options, u = DistillOptions(), [-1] * 30
    with_test = Parts.of(
        images,
        manifest("l" * 4 + "u" * 30 + "v" * 3 + "t" * 3, [0, 1, 0, 1, *u, 0, 1, -1, 0, 1, -1]),
        options,
    )
    assert with_test.unseen.tolist() == [37, 38, 39] and with_test.pictures.test.tolist() == [37, 38]
    assert with_test.pictures.validation and with_test.pictures.validation.rows.tolist() == [34, 35]
    with_val = Parts.of(
        images, manifest("l" * 4 + "u" * 33 + "v" * 3, [0, 1, 0, 1, *u, -1, -1, -1, 0, 1, 0]), options
    )
    assert with_val.unseen.tolist() == [37, 38, 39] and len(with_val.pictures.task.unlabelled) == 33
    held = Parts.of(images, manifest("l" * 4 + "u" * 36, [0, 1, 0, 1, *([-1] * 36)]), options)
    assert len(held.unseen) == 3 and len(held.pictures.task.unlabelled) == 33
    assert not set(held.unseen.tolist()) & set(held.pictures.task.unlabelled.tolist())


def test_teachers_must_know_the_same_classes(run: Path, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("path,0,1,3\nx,1,0,0\n")
    with pytest.raises(UsageError, match="other classes than"):
        agreed_classes([read_teacher(run), read_teacher(tmp_path / "p.csv")])


def test_a_published_network_teaches_its_own_classes() -> None:
    teacher = read_teacher("lite0")
    assert len(teacher.classes) == len(set(teacher.classes)) == 1000
    assert teacher.classes[1] == "goldfish" and imagenet_classes()[999] == "toilet tissue"
    assert teacher.saved is not None and teacher.side == 0
    assert teacher.answer is not None
    log_p = teacher.answer(torch.zeros(1, 3, 40, 40, dtype=torch.uint8)).logits
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-4)


def test_calls_take_turns_and_medians_are_theirs() -> None:
    order: list[str] = []
    calls: dict[str, Callable[[], None]] = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    threads = torch.get_num_threads()
    times = costs.in_turns(calls, rounds=4)
    assert order == ["a", "b"] * (costs.WARM + 4)
    assert {name: len(values) for name, values in times.items()} == {"a": 4, "b": 4}
    assert torch.get_num_threads() == threads


def test_the_sentence_says_smaller_and_whether_it_is_sure() -> None:
    rows = (
        Row("t", Cost(parameters=800, torch_ms=8.0), 0.9, (0.8, 1.0)),
        Row("s", Cost(parameters=100, torch_ms=2.0), 0.8, (0.7, 0.9), 0.85),
        Row("a", Cost(parameters=100, torch_ms=2.0), 0.7, (0.6, 0.8), 0.7),
    )
    told = sentence(Figures(rows, (0.1, 0.02, 0.18), "50 test pictures", "50 test pictures"), "s", "t")
    assert "8.0 times fewer parameters" in told and "4.0 times quicker" in told and "right more often" in told
    both = (replace(rows[0], name="u"), replace(rows[0], name=TOGETHER, cost=Cost()), *rows[1:])
    told = sentence(Figures((rows[0], *both), None, "", ""), "s", "t and u")
    assert "Against the teachers together: 16.0 times fewer parameters, 8.0 times quicker in PyTorch" in told
    large = (rows[0], replace(rows[1], cost=Cost(parameters=1600, torch_ms=16.0)))
    told = sentence(Figures(large, None, "", ""), "s", "t")
    assert "2.0 times more parameters, 2.0 times slower in PyTorch" in told
    unsure = sentence(Figures(rows, (0.01, -0.02, 0.04), "x", "x"), "s", "t")
    assert "neither surely more nor less" in unsure
