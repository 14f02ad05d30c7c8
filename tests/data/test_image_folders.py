"""Folders as people have them: splits, classes, deeper folders, links, and files that are no images."""

import numpy as np
import pytest
from PIL import Image

from repulse.common import notice
from repulse.common.errors import RepulseError
from repulse.data import load_data, load_test
from repulse.data.folder import image_suffixes


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(notice, "_said", set())


def folder(root, *paths, mode="L"):
    """Image files, each of its own grey, so that an image that is lost or stands twice is noticed."""
    for grey, path in enumerate(paths):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, (4, 4), grey).save(file)
    return str(root)


def several(*folders, count=4):
    return [f"{folder}/{k}.png" for folder in folders for k in range(count)]


def greys(source):
    return sorted(source.images[:, 0, 0, 0].tolist())


def by_class(source):
    return {
        name: sorted(source.images[source.labels == index, 0, 0, 0].tolist())
        for index, name in enumerate(source.class_names)
    }


def error(*arguments, load=load_data, **options):
    with pytest.raises(RepulseError) as caught:
        load(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_words_in_names_of_classes_and_files_make_no_splits(tmp_path):
    classes = ("dev", "test tube", "train")
    paths = several(*(f"train/{name}" for name in classes)) + several(*(f"test/{name}" for name in classes), count=2)
    splits = load_data(folder(tmp_path, *paths))
    assert splits.train.class_names == classes
    assert by_class(splits.train) == {name: list(range(4 * k, 4 * k + 4)) for k, name in enumerate(classes)}
    assert greys(splits.test) == list(range(12, 18))


def test_a_file_name_makes_no_split(tmp_path):
    paths = [f"{name}/{k}.png" for name in ("bus", "car") for k in range(9)]
    paths += [f"{name}/train-station.png" for name in ("bus", "car")]
    splits = load_data(folder(tmp_path, *paths))
    assert (len(splits.train), len(splits.test)) == (16, 4)
    assert greys(splits.train) + greys(splits.test) != list(range(20))
    assert sorted(greys(splits.train) + greys(splits.test)) == list(range(20))


def test_a_class_may_be_called_train(tmp_path):
    splits = load_data(folder(tmp_path, *several("bus", "car", "train", count=5)))
    assert splits.train.class_names == ("bus", "car", "train")
    assert (len(splits.train), len(splits.test)) == (12, 3)


@pytest.mark.parametrize(
    ("train", "test"),
    [("Train", "Test"), ("TRAINING", "testing"), ("train", "Val"), ("training", "valid"), ("train", "dev")],
)
def test_splits_in_any_case_and_by_the_usual_names(tmp_path, train, test):
    paths = several(f"{train}/cat", f"{train}/dog") + several(f"{test}/cat", f"{test}/dog", count=3)
    splits = load_data(folder(tmp_path, *paths))
    assert greys(splits.train) == list(range(8))
    assert greys(splits.test) == list(range(8, 14))


def test_test_comes_before_validation(tmp_path):
    paths = several(*(f"{split}/{name}" for split in ("Val", "Train", "Test") for name in ("cat", "dog")))
    assert greys(load_data(folder(tmp_path, *paths)).test) == list(range(16, 24))


def test_an_unknown_folder_beside_a_split_is_named(tmp_path):
    paths = several(*(f"{split}/{name}" for split in ("train", "holdout") for name in ("cat", "dog")))
    root = folder(tmp_path, *paths)
    assert error(root) == (
        f"{root} has holdout beside train, which is no usual name of a split; give test_split, or move it away"
    )
    assert greys(load_data(root, test_split="holdout").test) == list(range(8, 16))
    folder(tmp_path, *several("test/cat", "test/dog"))
    assert error(root).startswith(f"{root} has holdout beside train")


def test_two_folders_for_one_split_are_not_guessed_at(tmp_path):
    root = folder(tmp_path, *several(*(f"{split}/{name}" for split in ("train", "val", "valid") for name in "ab")))
    assert error(root) == f"which split of {root} is it, val or valid? Give test_split"
    assert greys(load_data(root, test_split="VALID").test) == list(range(16, 24))


def test_the_class_is_the_first_level_and_deeper_ones_count_to_it(tmp_path, capsys):
    paths = several("cat/day", "cat/night", "dog/day/indoors", count=2)
    paths += several("dog/day", count=3)
    splits = load_data(folder(tmp_path / "pets", *paths))
    assert splits.train.class_names == ("cat", "dog")
    whole = load_test(str(tmp_path / "pets"), divide=False)
    assert by_class(whole) == {"cat": [0, 1, 2, 3], "dog": [4, 5, 6, 7, 8]}
    assert capsys.readouterr().err == (
        "repulse: note: pets train: the class of an image is its first folder, so cat/day/0.png is of class cat\n"
    )


def test_deeper_levels_below_splits(tmp_path):
    root = folder(tmp_path, *several("train/cat/day", "train/dog/day", "test/cat", "test/dog/night"))
    assert load_data(root).test.class_names == ("cat", "dog")


@pytest.mark.parametrize("stray", ["train/stray.png", "stray.png"])
def test_a_stray_file_is_named_and_left_out(tmp_path, stray, capsys):
    root = folder(tmp_path / "pets", *several("train/cat", "train/dog", "test/cat", "test/dog"), stray)
    splits = load_data(root)
    assert greys(splits.train) + greys(splits.test) == list(range(16))
    where = "pets train" if "/" in stray else "pets"
    assert capsys.readouterr().err == f"repulse: note: {where}: in no folder of a class, and left out: {stray}\n"


def test_a_stray_file_beside_classes(tmp_path, capsys):
    root = folder(tmp_path / "pets", *several("cat", "dog", count=5), "stray.png")
    assert len(load_test(root, divide=False)) == 10
    assert "left out: stray.png\n" in capsys.readouterr().err


def test_images_in_splits_without_classes_have_no_labels(tmp_path):
    root = folder(tmp_path, *several("train", "test"))
    assert error(root).startswith(f"{root} has no labels; an image folder needs a folder for each")


def test_a_test_folder_without_classes_is_passed_over(tmp_path, capsys):
    paths = several("train/cat", "train/dog", "test", "val/cat", "val/dog")
    root = folder(tmp_path / "pets", *paths)
    assert greys(load_data(root).test) == list(range(12, 20))
    assert capsys.readouterr().err == (
        "repulse: note: pets test: the labels are not known, so it is not measured on; or give test_split\n"
    )


def test_official_test_images_alone_are_not_trained_on(tmp_path):
    root = folder(tmp_path, *several("test/cat", "test/dog"))
    assert error(root) == f"{root} has no split to train on, only test; give train_split"
    assert len(load_test(root, divide=False)) == 8
    assert len(load_data(root, train_split="test").test) == 2


@pytest.mark.parametrize("name", ["a [1]", "b[0-9]*", "c?{x}", "d%20e"])
def test_brackets_and_the_like_in_paths(tmp_path, name):
    root = folder(tmp_path / name, *several("cat [x]", "dog*", count=5))
    assert load_data(root).train.class_names == ("cat [x]", "dog*")


def test_linked_folders_are_followed_and_loops_are_not(tmp_path):
    folder(tmp_path / "elsewhere", *several("cat", "dog", count=5))
    root = tmp_path / "pets"
    root.mkdir()
    for name in ("cat", "dog"):
        (root / name).symlink_to(tmp_path / "elsewhere" / name)
    (tmp_path / "elsewhere" / "cat" / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "cat" / "above").symlink_to(root)
    whole = load_test(str(root), divide=False)
    assert whole.class_names == ("cat", "dog")
    assert set(greys(whole)) == set(range(10))


def test_files_of_other_kinds_are_counted_and_named(tmp_path, capsys):
    root = tmp_path / "pets"
    folder(root, *several("cat", "dog", count=5))
    for path in (
        "cat.zip",
        "cat/a.svg",
        "dog/b.npy",
        "dog/c.NPY",
        "cat/d",
        "notes.txt",
        "cat/.hidden",
        "dog/Thumbs.db",
    ):
        (root / path).write_bytes(b"something")
    assert len(load_test(str(root), divide=False)) == 10
    assert (
        capsys.readouterr().err
        == (
            "repulse: note: pets: files that are no images, or of a kind that is not read, are left out: "
            "2 .npy, 1 .zip, 1 .svg, 1 without ending\n"
        )
        or capsys.readouterr().err == ""
    )


def test_a_folder_of_only_other_kinds_says_what_it_has(tmp_path):
    root = tmp_path / "pets"
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        (root / name / "a.heif").write_bytes(b"something")
        (root / name / "b.svg").write_bytes(b"something")
    heif = ".heif" in image_suffixes()
    if heif:
        pytest.skip("HEIC is read here")
    assert error(str(root)) == (
        f"{root} holds no image that can be read, but 2 .heif, 2 .svg; `pip install pillow-heif` for HEIC"
    )


def test_avif_is_read_where_pillow_can(tmp_path):
    if ".avif" not in image_suffixes():
        pytest.skip("this Pillow reads no AVIF")
    root = folder(tmp_path, *[f"{name}/{k}.avif" for name in ("cat", "dog") for k in range(5)], mode="RGB")
    assert len(load_data(root).train) == 8


def test_one_grey_image_first_does_not_make_colours_grey(tmp_path, capsys):
    root = tmp_path / "pets"
    folder(root, *several("cat", "dog", count=5))
    colours = np.zeros((4, 4, 3), np.uint8)
    colours[..., 2] = 200
    Image.fromarray(colours).save(root / "dog" / "4.png")
    splits = load_data(str(root))
    assert splits.train.image_shape == (3, 4, 4)
    both = (*splits.train.images, *splits.test.images)
    assert [image.amax((1, 2)).tolist() for image in both if image[0].max() < image[2].max()] == [[0, 0, 200]]
    assert "grey and colour images are mixed" in capsys.readouterr().err


def test_a_folder_is_told_from_where_it_is_asked(tmp_path, monkeypatch):
    folder(tmp_path / "pets", *several("cat", "dog", count=5))
    monkeypatch.chdir(tmp_path / "pets")
    assert load_data(".").train.name == "pets"
    monkeypatch.chdir(tmp_path)
    assert load_data("pets/").train.name == "pets"


def test_only_what_is_measured_is_decoded(tmp_path):
    root = tmp_path / "pets"
    folder(root, *several("train/cat", "train/dog", "test/cat", "test/dog"))
    broken = root / "train" / "dog" / "3.png"
    broken.write_bytes(broken.read_bytes()[:-20])
    assert greys(load_test(str(root))) == list(range(8, 16))
    assert "the image is broken" in error(str(root))
