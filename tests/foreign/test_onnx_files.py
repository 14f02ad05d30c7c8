"""ONNX files as models: with gradients where they can be converted, else without, and both say what they are."""

import importlib.util
import sys

import pytest
import torch
from torch import nn

from repulse.attacks import OBJECTIVES, PGD, Threat
from repulse.common.errors import RepulseError
from repulse.evaluation import evaluate
from repulse.models.foreign import load_foreign
from repulse.report import write_report

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
if importlib.util.find_spec("onnx2pytorch") is None:
    pytest.skip("needs onnx2pytorch", allow_module_level=True)
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

CLASSES = 3


def network():
    torch.manual_seed(5)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, CLASSES)).eval()


def write(path, *, batch="N", last=False, rounded=False, kind=TensorProto.FLOAT, outputs=("scores",)):
    """The network above as an ONNX file, built by hand: exporting takes seconds."""
    state = network().state_dict()
    names = ("0.weight", "0.bias", "3.weight", "3.bias")
    weights = [numpy_helper.from_array(state[name].numpy(), name) for name in names]
    shape = [batch, 4, 4, 1] if last else [batch, 1, 4, 4]
    nodes = [helper.make_node("Transpose", ["x"], ["turned"], perm=[0, 3, 1, 2])] if last else []
    seen = "turned" if last else "x"
    if rounded:
        nodes.append(helper.make_node("Round", [seen], ["rounded"]))
        seen = "rounded"
    nodes += [
        helper.make_node("Conv", [seen, "0.weight", "0.bias"], ["a"], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Flatten", ["b"], ["c"]),
        helper.make_node("Gemm", ["c", "3.weight", "3.bias"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["scores"]),
        helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0),
    ]
    made = {"scores": TensorProto.FLOAT, "logits": TensorProto.FLOAT, "label": TensorProto.INT64}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, shape)],
        [
            helper.make_tensor_value_info(name, made[name], [batch] if name == "label" else [batch, CLASSES])
            for name in outputs
        ],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return str(path)


@pytest.fixture
def images():
    return torch.rand(7, 1, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "how", [{}, {"batch": 1}, {"batch": 4}, {"last": True}, {"outputs": ("label", "scores", "logits")}]
)
def test_answers_and_gradients_are_those_of_the_network(tmp_path, images, how):
    model = load_foreign(write(tmp_path / "net.onnx", **{"outputs": ("logits",), **how}))
    asked, again = images.clone().requires_grad_(), images.clone().requires_grad_()
    expected = network()(again)
    torch.testing.assert_close(model(asked), expected)
    expected[:, 0].sum().backward()
    model(asked)[:, 0].sum().backward()
    torch.testing.assert_close(asked.grad, again.grad)


def test_attacks_by_gradients_fool_it_where_they_fool_the_network(tmp_path, images):
    model = load_foreign(write(tmp_path / "net.onnx", outputs=("logits",)))
    labels = network()(images).argmax(1)
    attack, threat = PGD(OBJECTIVES["margin"], steps=20), Threat("linf", 1.0)
    found, expected = (attack(each, images, labels, threat) for each in (model, network()))
    assert torch.equal(found.fooled, expected.fooled)
    torch.testing.assert_close(found.adversarial, expected.adversarial)
    assert found.fooled.any()


def test_without_the_converter_there_are_black_box_attacks_only_and_the_verdict_says_so(
    tmp_path, images, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "onnx2pytorch", None)
    model = load_foreign(write(tmp_path / "net.onnx", outputs=("logits",)))
    said = capsys.readouterr().err
    assert "net.onnx has no gradients here" in said
    assert "onnx2pytorch is missing: pip install 'repulse[onnx]'" in " ".join(said.split())
    torch.testing.assert_close(model(images), network()(images))
    images = images[:2]
    labels = network()(images).argmax(1)
    kept = evaluate(model, images, labels, eps=0.02, attacks="quick", folder=tmp_path / "record")
    record = kept.record
    assert [attack.name for attack in record.attacks] == ["square"]
    assert set(record.curve[-1].robust_accuracy) == {"worst case"}
    page = tmp_path / "report.html"
    write_report([tmp_path / "record"], page)
    assert "upper bound" in page.read_text(encoding="utf-8")
    assert record.verdict.word == "upper-bound"
    assert any("no usable gradient" in reason for reason in record.verdict.reasons)


def test_what_converts_to_something_without_gradients_is_run_without(tmp_path, capsys):
    write(tmp_path / "net.onnx", outputs=("label",))
    with pytest.raises(RepulseError, match=r"gives no logits, a matrix \(N, classes\) of numbers, but label: tensor"):
        load_foreign(str(tmp_path / "net.onnx"))


def test_a_conversion_that_answers_otherwise_is_not_trusted(tmp_path, images, monkeypatch, capsys):
    from repulse.models.foreign import onnx_files

    honest = onnx_files._converted

    def skewed(program):
        inner = honest(program)
        return nn.Sequential(inner, nn.Linear(CLASSES, CLASSES))

    monkeypatch.setattr(onnx_files, "_converted", skewed)
    model = load_foreign(write(tmp_path / "net.onnx", outputs=("logits",)))
    assert "answers otherwise than onnxruntime" in capsys.readouterr().err
    torch.testing.assert_close(model(images), network()(images))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be loaded"),
        (b"\x08\x07 not a graph", "cannot be loaded"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
    ],
)
def test_what_is_no_onnx_file_is_one_line(tmp_path, content, said):
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(RepulseError, match=said) as caught:
        load_foreign(str(tmp_path / "net.onnx"))
    assert "\n" not in str(caught.value)


def test_other_inputs_weights_and_images_are_one_line(tmp_path, images):
    doubled = write(tmp_path / "double.onnx", kind=TensorProto.DOUBLE)
    with pytest.raises(RepulseError):
        load_foreign(doubled)
    path = write(tmp_path / "net.onnx")
    torch.save(network().state_dict(), tmp_path / "w.pt")
    with pytest.raises(RepulseError, match="has weights of its own"):
        load_foreign(path, tmp_path / "w.pt")
    with pytest.raises(RepulseError, match="no such file"):
        load_foreign(str(tmp_path / "absent.onnx"))


def test_without_onnxruntime_the_extra_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "net.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RepulseError, match=r"needs: pip install 'repulse\[onnx\]'"):
        load_foreign(path)
