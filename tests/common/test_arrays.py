"""Labels and images as people hold them."""

import numpy as np
import pytest
import torch
from torch import nn

from repulse.common.arrays import as_images, as_labels
from repulse.common.errors import RepulseError
from repulse.evaluation import EvaluationSettings, evaluate

WHOLE = torch.tensor([2, 0, 1])
SEVERAL = "; where several classes are right, or rows are probabilities, give one class for each"


@pytest.mark.parametrize(
    "labels",
    [
        WHOLE,
        WHOLE.int(),
        WHOLE.to(torch.uint8),
        WHOLE.float(),
        WHOLE.view(-1, 1),
        WHOLE.tolist(),
        WHOLE.numpy(),
        WHOLE.numpy().astype("uint16"),
        WHOLE.numpy().astype("float64"),
        WHOLE.numpy()[:, None],
        tuple(WHOLE.tolist()),
        # One-hot rows mean one thing only.
        torch.eye(3)[WHOLE],
        torch.eye(3, dtype=torch.int64)[WHOLE],
        torch.eye(3)[WHOLE].bool(),
        np.eye(3, dtype="uint8")[WHOLE.numpy()],
        torch.eye(3)[WHOLE].tolist(),
    ],
)
def test_whole_numbers_of_any_kind_are_labels(labels):
    found = as_labels(labels)
    assert found.dtype == torch.int64
    assert found.tolist() == [2, 0, 1]


def test_truth_is_0_and_1():
    assert as_labels(torch.tensor([True, False])).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.ones(2, 3), f"labels must be one number per image, got shape (2, 3){SEVERAL}"),
        (torch.zeros(2, 3), f"labels must be one number per image, got shape (2, 3){SEVERAL}"),
        ([[0.9, 0.1], [0.0, 1.0]], f"labels must be one number per image, got shape (2, 2){SEVERAL}"),
        (torch.eye(3)[None], "labels must be one number per image, got shape (1, 3, 3)"),
        ([0.5, 1.0], "labels must be whole numbers, got float32 such as 0.5"),
        ([0.0, float("nan")], "labels must be whole numbers, got float32 such as nan"),
        (["cat", "dog"], "labels must be a tensor, an array or a list of numbers, got list"),
        (np.array(["cat"]), "labels must be a tensor, an array or a list of numbers, got ndarray of <U3"),
        (None, "labels must be a tensor, an array or a list of numbers, got NoneType"),
        (3, "labels must be a tensor, an array or a list of numbers, got int"),
    ],
)
def test_other_labels_are_one_line(labels, message):
    with pytest.raises(RepulseError) as caught:
        as_labels(labels)
    assert str(caught.value) == message


@pytest.mark.parametrize("kind", ["uint8", "int16", "int64", "uint16"])
def test_grey_levels_become_pixels_and_that_is_said_once(kind, capsys):
    levels = np.array([[[[0, 51], [102, 255]]]] * 2, kind)
    for _ in range(2):
        found = as_images(levels)
        assert found.dtype == torch.float32
        assert torch.equal(found, torch.from_numpy(levels.astype("float32")) / 255)
    assert capsys.readouterr().err == (
        f"repulse: note: images of {kind} are taken for grey levels from 0 to 255, and divided by 255\n"
    )


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            np.ones((2, 1, 4, 4), np.uint8),
            "images of uint8 hold nothing above 1, so they may be grey levels or pixels: give pixels in [0, 1] as "
            "floats",
        ),
        (
            torch.tensor([[-1, 3]]),
            "images must hold pixels in [0, 1], or grey levels from 0 to 255, got int64 from -1 to 3",
        ),
        (
            torch.tensor([[0, 256]]),
            "images must hold pixels in [0, 1], or grey levels from 0 to 255, got int64 from 0 to 256",
        ),
        (torch.zeros(2, 3, dtype=torch.complex64), "images must hold pixels in [0, 1], got complex64"),
    ],
)
def test_whole_numbers_that_may_be_something_else_are_one_line(images, message):
    with pytest.raises(RepulseError) as caught:
        as_images(images)
    assert str(caught.value) == message


def test_truth_values_are_black_and_white():
    assert as_images(np.array([[True, False]])).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("of_model", [torch.float16, torch.float32, torch.float64])
def test_images_and_models_of_any_precision_are_measured(kind, of_model):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    # Values that every precision holds exactly.
    images = (torch.rand(6, 1, 4, 4) * 64).round() / 64
    labels = model(images).argmax(1)
    settings = EvaluationSettings(attacks="paper", steps=(2,), curve=())
    found = evaluate(model.to(of_model), images.to(kind), labels.to(torch.uint8).numpy(), settings)
    assert found.record.natural_accuracy == 1
