"""ONNX files: both resizes to the gray value, probabilities of real networks, any batch and size of picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch.nn import functional as F

from handful.augment.views import to_input
from handful.inference import onnx as deployed
from handful.inference.classify import classify
from handful.inference.model_file import Saved, load_model, save_model
from handful.models.backbones import create
from handful.models.classifier import Classifier
from handful.models.heads import Centre, Chain, NearestNeighbours
from handful.types import HandfulError, UsageError
from handful.verbs.export import export

CLASSES = ("rose", "tulip", "žluť", "d", "e")


@pytest.mark.parametrize(
    ("height", "width", "side"),
    [(50, 71, 32), (20, 31, 32), (64, 64, 64), (43, 32, 20), (8, 300, 9), (1, 1, 8)],
)
def test_the_first_resize_is_pillows(height: int, width: int, side: int) -> None:
    """Pillow's own answer, to the gray value, for shrinking, enlarging, wide, tall and equal pictures. (Where more than
    twice as many rows as columns go, Pillow 13 does the rows first; such shapes are left out.)"""
    x = torch.randint(
        0, 256, (2, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )
    found = deployed.middle_square(x, side)
    for picture, ours in zip(x, found):
        pillow = Image.fromarray(picture.permute(1, 2, 0).numpy())
        expected = np.asarray(ImageOps.fit(pillow, (side, side), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
        assert np.array_equal(ours.numpy(), expected)


@pytest.mark.parametrize(("side", "size"), [(110, 192), (32, 64), (192, 128), (8, 64), (84, 64), (33, 32)])
def test_the_second_resize_is_torchs(side: int, size: int) -> None:
    x = torch.randint(
        0, 256, (2, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(4)
    )
    expected = F.interpolate(x, (size, size), mode="bicubic", antialias=True)
    assert torch.equal(deployed.ByteResize(side, size)(x.float()), expected.float())


def network(name: str, size: int, side: int, channels: int, folder: Path) -> Saved:
    """A saved classifier whose probabilities are neither all alike nor all certain."""
    wide = 3 if name == "lite0" else channels
    net = create(name, n_classes=len(CLASSES), pretrained=name == "lite0", channels=wide, size=size, seed=5)
    config = {"name": name, "n_classes": len(CLASSES), "channels": wide, "size": size}
    classifier = Classifier(net, None, config, mirror=False).eval()
    x = np.concatenate([x[:, :, :side, :side] for x in deployed.some_pictures(channels, side)])
    saved = Saved(classifier, CLASSES, {"channels": channels, "side": side}, "")
    z = torch.from_numpy(np.log(deployed.reference(saved, x)))
    classifier.temperature.fill_(float((z - z.mean(0)).std() / 2))  # logits that differ by a few units
    save_model(folder, classifier, CLASSES, channels, side, reject={"threshold": 0.4})
    return load_model(folder)


@pytest.mark.parametrize(
    ("name", "size", "side", "channels"),
    [("lite0", 192, 110, 3), ("timm:resnet18", 96, 120, 3), ("wrn-28-2", 32, 28, 1)],
)
def test_probabilities_in_onnxruntime_are_pytorchs(
    name: str, size: int, side: int, channels: int, tmp_path: Path
) -> None:
    """Against ``handful predict``'s own way on files, for batches of 1, 2 and 5, at 1e-4."""
    import onnxruntime

    saved = network(name, size, side, channels, tmp_path)
    done = export(tmp_path)
    assert done.difference is not None and done.difference <= 1e-4
    session = onnxruntime.InferenceSession(str(done.file), providers=["CPUExecutionProvider"])
    (given,), (answer,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, answer.name) == ("images", "tensor(uint8)", "probabilities")
    assert [isinstance(n, str) for n in given.shape] == [True, False, True, True]
    random = np.random.RandomState(1)
    for n, height, width in ((1, side, side), (2, side + 10, 2 * side), (5, 40, 50)):
        coarse = random.randint(0, 256, (n, channels, 6, 6)).astype(np.uint8)
        files, arrays = [], []
        for i, picture in enumerate(coarse):
            pillow = Image.fromarray(picture[0] if channels == 1 else picture.transpose(1, 2, 0))
            pillow = pillow.resize((width, height), Image.Resampling.BILINEAR)
            files.append(tmp_path / f"{n}-{i}.png")
            pillow.save(files[-1])
            array = np.asarray(pillow)
            arrays.append(array[None] if channels == 1 else array.transpose(2, 0, 1))
        (found,) = session.run(None, {"images": np.stack(arrays)})
        expected = classify(saved, files).p.numpy()
        assert found.shape == (n, len(CLASSES))
        assert np.abs(found - expected).max() <= 1e-4
        assert np.ptp(expected, axis=1).min() > 0.05, "equal probabilities would prove nothing"


def test_classes_and_input_stand_in_the_file(tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    saved = network("conv-4", 16, 16, 3, tmp_path)
    file = export(tmp_path, out=tmp_path / "x" / "model.onnx").file
    assert file == tmp_path / "x" / "model.onnx"
    onnx.checker.check_model(str(file))
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["handful.classes"]) == list(CLASSES)
    assert about["handful.weights_sha256"] == saved.sha256
    assert about["handful.reject_below"] == "0.4"


@pytest.mark.parametrize("mirror", [False, True])
def test_neighbours_and_mirrored_features_export(mirror: bool, tmp_path: Path) -> None:
    net = create("conv-4", n_classes=0, channels=3, size=16, seed=1)
    random = torch.Generator().manual_seed(0)
    features, labels = torch.randn(20, net.dim, generator=random), torch.arange(20) % 5
    head = Chain(Centre(net.dim).fit(features), NearestNeighbours(net.dim, 5, 20, k=3).fit(features, labels))
    config = {"name": "conv-4", "n_classes": 0, "channels": 3, "size": 16}
    save_model(tmp_path, Classifier(net, head, config, mirror=mirror), CLASSES, 3, 20)
    difference = export(tmp_path).difference
    assert difference is not None and difference <= 1e-4


def test_the_guides_program_sees_what_predict_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A turned photograph of a camera, and a picture with transparent parts."""
    network("conv-4", 16, 16, 3, tmp_path / "run")
    export(tmp_path / "run", out=tmp_path / "deploy.onnx")
    draw = np.random.RandomState(0).randint(0, 256, (16, 16, 4)).astype(np.uint8)
    draw[:8] //= 3
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(draw[..., :3]).save(tmp_path / "turned.png", exif=turned)
    draw[..., 3] = np.where(np.arange(16) < 11, 255, 0)
    Image.fromarray(draw).save(tmp_path / "clear.png")
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "deploy.md").read_text()
    program = guide.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    saved = load_model(tmp_path / "run")
    for name in ("turned.png", "clear.png"):
        capsys.readouterr()
        exec(compile(program.replace("new.jpg", name), "guide", "exec"), {})
        told = float(capsys.readouterr().out.split()[-1])
        found = classify(saved, [tmp_path / name], [name])
        assert told == pytest.approx(float(found.p.max()), abs=1e-4)


def test_a_file_whose_answers_differ_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network("conv-4", 16, 16, 3, tmp_path)
    right = deployed.reference
    monkeypatch.setattr(deployed, "reference", lambda saved, x: right(saved, x) + 2e-4)
    with pytest.raises(HandfulError, match=r"largest difference 2\.0e-04") as caught:
        export(tmp_path)
    assert "safetensors" in caught.value.fix
    assert not (tmp_path / "deploy.onnx").exists()


def test_a_file_that_gives_no_numbers_is_not_written(tmp_path: Path) -> None:
    saved = network("conv-4", 16, 16, 3, tmp_path)
    head: Any = saved.classifier.backbone.head
    with torch.no_grad():
        head.bias.fill_(float("nan"))
    assert np.isnan(deployed.parity(saved, deployed.to_onnx(saved)))
    save_model(tmp_path / "nan", saved.classifier, CLASSES, 3, 16)
    with pytest.raises(HandfulError, match="difference nan"):
        export(tmp_path / "nan")


def test_without_the_packages_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network("conv-4", 16, 16, 3, tmp_path)
    monkeypatch.setattr(deployed, "NEEDS", ("onnx", "no_such_package"))
    with pytest.raises(UsageError, match="needs no_such_package") as caught:
        export(tmp_path)
    assert "handful[fast]" in caught.value.fix


def test_one_safetensors_file_answers_as_the_folder_does(tmp_path: Path) -> None:
    saved = network("conv-4", 16, 16, 3, tmp_path)
    done = export(tmp_path, "safetensors", out=tmp_path / "one.safetensors")
    assert done.difference is None and done.bytes == done.file.stat().st_size
    one = load_model(done.file)
    assert (one.classes, one.store, one.reject) == (saved.classes, saved.store, 0.4)
    x = torch.from_numpy(deployed.some_pictures(3, 16)[0])
    with torch.inference_mode():
        inputs = to_input(x, saved.classifier.spec)
        assert torch.equal(one.classifier(inputs).logits, saved.classifier(inputs).logits)


def test_a_safetensors_file_that_was_changed_or_is_not_ours(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    network("conv-4", 16, 16, 3, tmp_path)
    file = export(tmp_path, "safetensors").file
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    (tmp_path / "changed.safetensors").write_bytes(content)
    with pytest.raises(HandfulError, match="SHA-256 differs"):
        load_model(tmp_path / "changed.safetensors")
    save_file(load_file(file), tmp_path / "plain.safetensors")
    torch.save({"a": 1}, tmp_path / "pickle.safetensors")
    for name in ("plain", "pickle"):
        with pytest.raises(UsageError, match="not a model that handful exported"):
            load_model(tmp_path / f"{name}.safetensors")


def test_formats_and_places_that_do_not_go(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no format 'pickle'") as caught:
        export(tmp_path, "pickle")
    assert "onnx or safetensors" in caught.value.fix
    with pytest.raises(UsageError, match="not a finished run"):
        export(tmp_path)
    network("conv-4", 16, 16, 3, tmp_path)
    with pytest.raises(UsageError, match="is a folder"):
        export(tmp_path, out=tmp_path)
