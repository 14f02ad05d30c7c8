import base64
import io
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image
from report_samples import sample

from repulse.prototypes import measure
from repulse.report.collect import collect
from repulse.report.sections.confusion import confusion
from repulse.report.sections.embedding import embedding_pictures
from repulse.report.sections.gallery import gallery, png
from repulse.report.sections.prototypes import gram
from repulse.report.sections.training import training_pictures
from repulse.report.svg import INK, canvas


def decoded(uri):
    assert uri.startswith("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_survives_the_way_to_the_page(channels):
    levels = torch.randint(0, 256, (channels, 5, 7), generator=torch.Generator().manual_seed(0))
    expected = levels[0] if channels == 1 else levels.permute(1, 2, 0)
    assert np.array_equal(decoded(png(levels / 255)), expected.numpy())


def test_the_gallery_draws_no_change_as_grey_and_the_largest_as_black_or_white(tmp_path):
    sample(tmp_path)
    (measured,) = collect([tmp_path])
    shown = gallery(measured)
    delta = measured.outcomes["gallery/adversarial"] - measured.outcomes["gallery/clean"]
    assert shown.magnified == pytest.approx(0.5 / float(delta.abs().max()))
    drawn = np.stack([decoded(item.perturbation) for item in shown.images])
    assert drawn.max() == 255
    assert np.allclose(drawn, 255 * (0.5 + shown.magnified * delta[:, 0].numpy()), atol=0.51)
    first = shown.images[0]
    assert np.array_equal(decoded(first.clean), (measured.outcomes["gallery/clean"][0, 0] * 255).round().byte().numpy())
    names = measured.record.data.class_names
    assert first.after == names[int(measured.outcomes["gallery/adversarial_prediction"][0])]


def test_a_confusion_matrix_says_the_accuracy_and_the_worst_mistake():
    picture = confusion([[8, 2, 0], [0, 5, 5], [1, 0, 9]], ["cat", "dog", "$x$"], "m", attacked=False)
    assert "73.3\N{NO-BREAK SPACE}% right" in picture.caption
    assert picture.caption.endswith("Most often mistaken: dog for $x$, 50.0\N{NO-BREAK SPACE}% of its images.")
    numbers = re.findall(r">(\d+)</text>", picture.svg)
    assert sorted(numbers) == sorted("825519")
    assert "$x$" in picture.svg


def test_an_empty_row_of_a_confusion_matrix_is_no_error():
    assert "100.0" in confusion([[3, 0], [0, 0]], ["a", "b"], "m", attacked=True).caption


def test_the_gram_matrix_names_the_bound():
    # Three vectors of the plane at 120 degrees are the best there is.
    angles = torch.tensor([0, 2 * math.pi / 3, 4 * math.pi / 3])
    points = torch.stack([angles.cos(), angles.sin()], 1)
    picture = gram(points, measure(points), ["a", "b", "c"], "g")
    assert "The largest is −0.500: the two closest are 120.0° apart; at best it is −0.500 (120.0°" in picture.caption


def test_the_histogram_counts_each_pair_once():
    points = torch.nn.functional.one_hot(torch.arange(120)).float()
    picture = gram(points, measure(points), [str(i) for i in range(120)], "g")
    assert "logarithmic" in picture.caption
    assert "pairs of classes" in picture.svg


def test_pca_keeps_what_lies_in_a_plane():
    rng = torch.Generator().manual_seed(0)
    angles = torch.rand(40, generator=rng) * 6
    plane = torch.linalg.qr(torch.randn(7, 2, generator=rng)).Q
    points = torch.stack([angles.cos(), angles.sin()], 1) @ plane.T
    labels = torch.arange(40) % 2
    (picture,) = embedding_pictures(points, labels, None, ["a", "b"], "x")
    assert "The two axes hold 100.0\N{NO-BREAK SPACE}% of the variance." in picture.caption
    assert "Stars" not in picture.caption


def test_tsne_needs_fifty_points_and_marks_the_prototypes():
    rng = torch.Generator().manual_seed(0)
    prototypes = torch.eye(3)
    labels = torch.arange(60) % 3
    points = prototypes[labels] + 0.1 * torch.randn(60, 3, generator=rng)
    pictures = embedding_pictures(points, labels, prototypes, ["a", "b", "c"], "x")
    assert [picture.name for picture in pictures] == ["x-pca", "x-tsne"]
    assert all("Stars mark the prototypes." in picture.caption for picture in pictures)
    assert len(embedding_pictures(points[:40], labels[:40], prototypes, ["a", "b", "c"], "x")) == 1


@pytest.mark.parametrize(
    "embedding",
    [torch.ones(60, 4), torch.full((60, 4), math.nan), torch.zeros(60, 4), torch.ones(2, 4)],
)
def test_no_picture_of_an_embedding_that_shows_nothing(embedding):
    assert embedding_pictures(embedding, torch.zeros(len(embedding), dtype=torch.int64), None, ["a"], "x") == ()


def test_an_embedding_in_one_dimension_and_prototypes_of_another():
    points = torch.linspace(-1, 1, 20)[:, None]
    labels = (points[:, 0] > 0).long()
    (picture,) = embedding_pictures(points, labels, torch.eye(2), ["a", "b"], "x")
    assert "Stars" not in picture.caption


def test_training_curves_without_validation():
    columns = {
        "epoch": (1.0, 2.0),
        "loss": (2.0, 1.0),
        "train_accuracy": (0.3, 0.5),
        "validation_accuracy": (None, None),
    }
    loss, accuracy = training_pictures(columns, "x")
    assert loss.caption == "Mean training loss by epoch: 2 at first, 1 at the end."
    assert "there were no validation images" in accuracy.caption


def test_two_figures_share_no_id_and_text_stays_text():
    pictures = []
    for name in ("p", "q"):
        with canvas(name, 'say "<b>"', "caption") as drawn:
            axes = drawn.figure.subplots()
            axes.plot([0, 1], marker="o", color=INK)
            axes.set_title('<i>&"$1$')
        pictures.append(drawn.picture.svg)
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in pictures]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert '&lt;i&gt;&amp;"$1$</text>' in pictures[0]
    assert 'aria-label="say &quot;&lt;b&gt;&quot;"' in pictures[0]
    assert "currentColor" in pictures[0]
    assert "<metadata" not in pictures[0]
