"""A file that was exported answers as the model does; one that would not is never there."""

import json

import pytest
import torch

from conftest import NAMES, made
from repulse.cli import main
from repulse.common.errors import RepulseError
from repulse.common.files import load_tensors
from repulse.deploy import FORMATS, Classifier, export, formats

IMAGES = torch.rand(6, 1, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["small-cnn", "lipschitz-cnn", "linf-dist"])
def each(request, tmp_path):
    """A classifier of each kind of layer: convolutions, orthogonal ones, distances."""
    readout, more = {
        "small-cnn": ("cosine", {}),
        "lipschitz-cnn": ("l2", {"depth": 1}),
        "linf-dist": ("linf", {"grid": 6}),
    }[request.param]
    return made(tmp_path / "run", request.param, readout, width=0.5, **more)


def test_torchscript_answers_alike_for_any_number_of_images(each, tmp_path):
    done = export(each, tmp_path / "net.ts", "torchscript", images=IMAGES)
    loaded = torch.jit.load(str(done.path), _extra_files=(notes := {"classes": ""}))
    assert json.loads(notes["classes"]) == list(NAMES)
    for count in (1, 5):
        torch.testing.assert_close(loaded(IMAGES[:count]), each.model(IMAGES[:count]), atol=1e-4, rtol=1e-4)


def test_an_exported_program_answers_alike_for_any_number_of_images(each, tmp_path):
    export(each, str(tmp_path / "net.pt2"), "pt2", images=IMAGES)
    loaded = torch.export.load(str(tmp_path / "net.pt2")).module()
    for count in (1, 5):
        torch.testing.assert_close(loaded(IMAGES[:count]), each.model(IMAGES[:count]), atol=1e-4, rtol=1e-4)


def test_safetensors_holds_plain_weights_and_the_configuration(each, tmp_path):
    export(each, tmp_path / "net.safetensors", "safetensors", images=IMAGES)
    tensors, notes = load_tensors(tmp_path / "net.safetensors")
    assert not any("parametrizations" in name for name in tensors)
    assert str(tmp_path) not in notes["config"]
    assert json.loads(notes["image_shape"]) == [1, 12, 12]


def test_onnx_opens_in_onnxruntime_and_answers_alike(classifier, tmp_path):
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    done = export(classifier, tmp_path / "net.onnx", "onnx", images=IMAGES)
    assert done.compared == 6
    session = runtime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    for count in (1, 5):
        (logits,) = session.run(["logits"], {"images": IMAGES[:count].numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), classifier.model(IMAGES[:count]), atol=1e-4, rtol=1e-4)
    notes = {entry.key: entry.value for entry in onnx.load(str(tmp_path / "net.onnx")).metadata_props}
    assert json.loads(notes["classes"]) == list(NAMES)


def test_a_file_that_answers_otherwise_is_not_left_behind(classifier, tmp_path, monkeypatch):
    honest = FORMATS["torchscript"]

    def wrong(path, of):
        answers = honest.read(path, of)
        return lambda x: answers(x).flip(1)

    monkeypatch.setitem(FORMATS._entries, "torchscript", formats.Format(".ts", honest.write, wrong))
    with pytest.raises(RepulseError, match=r"^the torchscript file answers otherwise than the model: logits differ by"):
        export(classifier, tmp_path / "out" / "net.ts", "torchscript", images=IMAGES)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_missing_library_is_named(classifier, tmp_path, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(formats.importlib, "import_module", missing)
    with pytest.raises(RepulseError, match=r"^format onnx needs onnx: pip install 'repulse\[onnx\]'$"):
        export(classifier, tmp_path / "net.onnx", images=IMAGES)


def test_the_command_compares_on_test_images(tmp_path, capsys):
    output = tmp_path / "digits.ts"
    assert main(["export", "zoo:digits-softmax", "--format", "torchscript", "--output", str(output)]) == 0
    assert "the same answers on 64 test images" in capsys.readouterr().out
    x = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(torch.jit.load(str(output))(x), Classifier.load("zoo:digits-softmax").model(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["zoo:digits-softmax", "--format", "onx"], "unknown format 'onx'; did you mean 'onnx'? known: onnx, pt2, "),
        ([], "name a model: repulse export RUN --format onnx"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    assert main(["export", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"repulse: error: {message}")
