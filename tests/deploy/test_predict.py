"""Answers are those of the model on images prepared as in training, and what is called proved is."""

import csv
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from conftest import NAMES, made
from repulse.certification.lipschitz_bound import lipschitz_bound
from repulse.cli import main
from repulse.common.errors import RepulseError
from repulse.deploy import Classifier


def by_hand(classifier, file):
    with Image.open(file) as image:
        small = ImageOps.fit(image.convert("L"), (12, 12))
    return classifier.model(torch.from_numpy(np.array(small)).float()[None, None] / 255)[0]


def test_files_are_prepared_as_training_images_are(classifier, photographs):
    found = classifier.predict(photographs, top_k=2)
    files = [photographs / "a.png", photographs / "b.jpg", photographs / "more" / "c.png"]
    assert [each.image for each in found] == [str(file) for file in files]
    for file, each in zip(files, found, strict=True):
        shares, order = by_hand(classifier, file).detach().softmax(0).sort(descending=True)
        assert [label for label, _ in each.top] == [NAMES[i] for i in order[:2]]
        assert [share for _, share in each.top] == pytest.approx(shares[:2].tolist(), abs=1e-6)
        assert (each.label, each.index, each.probability) == (each.top[0][0], order[0], each.top[0][1])
        assert each.radius is None


def test_paths_pillow_images_and_pixels_are_one(classifier, photographs):
    file = photographs / "a.png"
    expected = classifier.predict(file)[0].probability
    with Image.open(file) as image:
        small = np.asarray(ImageOps.fit(image.convert("L"), (12, 12)))
        ways = [str(file), [file], [image]]
        levels = torch.from_numpy(small.copy())[None]
        ways += [levels, levels[None], levels[None] / 255, small[None, None]]
        for way in ways:
            assert classifier.predict(way)[0].probability == pytest.approx(expected, abs=1e-6)


def test_batches_change_no_answer_and_progress_counts_images(classifier, photographs):
    told = []
    files = [photographs] * 3
    one = classifier.predict(files, batch_size=2, progress=lambda *news: told.append(news))
    assert [each.label for each in one] == [each.label for each in classifier.predict(files)]
    assert told[-1] == ("predicting", 9, 9)
    assert len(told) == 5


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("nowhere.png", "no such image file or folder: nowhere.png"),
        ([], "there are no images; name files or folders that hold some"),
        (torch.zeros(2, 1, 5, 5), r"images must have shape \(N, 1, 12, 12\) as in training, got \(2, 1, 5, 5\); .*"),
        (
            torch.full((1, 1, 12, 12), 2.0),
            r"pixels must lie in \[0, 1\], got 2 to 2; normalisation is inside.*",
        ),
        ([3], "an image is a path, a Pillow image or pixels, got a int"),
    ],
)
def test_what_is_no_image_is_refused(classifier, images, message):
    with pytest.raises(RepulseError, match=f"^{message}$"):
        classifier.predict(images)


def test_a_broken_image_is_named(classifier, tmp_path):
    (tmp_path / "broken.png").write_text("nothing")
    with pytest.raises(RepulseError, match=r"broken.png: the image is broken"):
        classifier.predict(tmp_path / "broken.png")


def test_what_is_proved_holds(tmp_path):
    classifier = made(tmp_path / "run", "lipschitz-cnn", "l2", width=0.5)
    x = torch.rand(20, 1, 12, 12)
    found = classifier.predict(x, certify=0.01)
    constant = lipschitz_bound(classifier.model, (1, 12, 12)).constant
    z = classifier.model.embed(x).detach()
    prototypes = classifier.model.prototypes
    generator = torch.Generator().manual_seed(0)
    for row, each in enumerate(found):
        assert each.norm == "l2"
        assert each.proved is (each.radius >= 0.01)
        # The textbook's margin, without what is taken off for rounding.
        distances = (z[row] - prototypes).square().sum(1)
        own = distances[each.index]
        margins = [
            float((other - own) / (2 * (prototypes[j] - prototypes[each.index]).norm())) / constant
            for j, other in enumerate(distances)
            if j != each.index
        ]
        assert 0 <= each.radius <= max(0.0, min(margins))
        assert each.radius == pytest.approx(max(0.0, min(margins)), abs=1e-4)
        step = torch.randn(50, 1, 12, 12, generator=generator)
        moved = x[row] + each.radius * step / step.flatten(1).norm(dim=1)[:, None, None, None]
        assert (classifier.model(moved).argmax(1) == each.index).all()
    assert any(each.proved for each in found)


def test_a_network_that_proves_nothing_says_so(classifier, photographs):
    with pytest.raises(RepulseError, match=r"^nothing built into this model proves its answers .*certified-l2"):
        classifier.predict(photographs, certify=0.1)


@pytest.fixture
def run(classifier, tmp_path):
    """The folder of the classifier, as it is shared."""
    classifier.save_pretrained(tmp_path / "shared")
    return tmp_path / "shared"


def test_the_command_prints_a_table(run, photographs, capsys):
    assert main(["predict", str(run), str(photographs), "--top-k", "2"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert list(rows[0]) == ["image", "label", "probability", "label_2", "probability_2"]
    assert [row["label"] for row in rows] == [each.label for each in Classifier.load(run).predict(photographs)]


def test_the_command_writes_json(run, photographs, tmp_path, capsys):
    output = tmp_path / "answers.json"
    file = str(photographs / "a.png")
    assert main(["predict", str(run), file, "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"answers: {output} (1 images)\n"
    (row,) = json.loads(output.read_text())
    assert row["image"] == file
    assert set(row) == {"image", "label", "index", "probability", "top"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a model and images: repulse predict RUN IMAGES..."),
        (
            ["zoo:digts-softmax", "x.png"],
            "unknown checkpoint of the zoo 'digts-softmax'; did you mean 'digits-",
        ),
        (["nowhere", "x.png"], "nowhere is no run folder"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    assert main(["predict", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"repulse: error: {message}")
    assert said.count("\n") == 1
