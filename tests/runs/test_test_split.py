"""The test images of a run, numbered as its model numbers classes."""

import pytest
from PIL import Image

from repulse.common.errors import RepulseError
from repulse.common.settings import merge
from repulse.config.run import RunConfig
from repulse.run_folder import Classes, load_test_split

TRAINED = Classes(("cat", "dog", "emu"), (1, 4, 4), (0.5,), (0.5,), "pets", "")


def pets(root, *names, size=4):
    for grey, name in enumerate(names):
        (root / "test" / name).mkdir(parents=True)
        Image.new("L", (size, size), grey).save(root / "test" / name / "1.png")
    return merge(RunConfig(), {"data": {"source": str(root)}}, "test")


def test_classes_that_are_left_out_keep_the_others_numbers(tmp_path):
    test = load_test_split(pets(tmp_path, "dog", "emu"), TRAINED)
    assert test.labels.tolist() == [1, 2]
    assert test.class_names == ("cat", "dog", "emu")


def test_data_of_other_classes_are_refused(tmp_path):
    with pytest.raises(RepulseError, match=r"^the run was trained on 3 classes, but this data has 2$"):
        load_test_split(pets(tmp_path / "a", "cat", "fox"), TRAINED)
    message = r"^the run was trained on 3 classes, but this data has 3 of other names \(ant, cat, emu\)$"
    with pytest.raises(RepulseError, match=message):
        load_test_split(pets(tmp_path / "b", "ant", "cat", "emu"), TRAINED)


def test_images_of_another_shape_are_refused(tmp_path):
    with pytest.raises(RepulseError, match=r"^the run was trained on images of shape \(1, 4, 4\), but these are"):
        load_test_split(pets(tmp_path, "cat", "dog", "emu", size=5), TRAINED)
