"""Labels and images as people hold them."""

import numpy as np
import pytest
import torch
from torch import nn

from repulse.common.errors import RepulseError
from repulse.evaluation import EvaluationSettings, evaluate
from repulse.subject.arrays import as_images, as_labels

WHOLE = torch.tensor([2, 0, 1])


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
        (torch.eye(3), "labels must be one number per image, got shape (3, 3); for one-hot rows give labels.argmax(1)"),
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


def test_grey_levels_are_no_pixels():
    with pytest.raises(
        RepulseError, match=r"^images must hold pixels in \[0, 1\], got uint8; divide grey levels by 255$"
    ):
        as_images(np.zeros((2, 1, 4, 4), np.uint8))


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
