"""Whose number a label is: by the data's names, by the user's, and never by chance."""

import datasets
import pytest
import torch
from PIL import Image

from repulse.common import notice
from repulse.common.errors import RepulseError
from repulse.data import load_data, load_test
from repulse.data.labels import in_order, named


@pytest.fixture(autouse=True)
def nothing_said(tmp_path, monkeypatch):
    monkeypatch.setattr(notice, "_said", set())
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf-cache"))


def table(root, split, labels, names=None):
    """A parquet file whose images have the grey of their row."""
    feature = (
        datasets.ClassLabel(names=names) if names else datasets.Value("string" if str in map(type, labels) else "int64")
    )
    features = datasets.Features({"image": datasets.Image(), "label": feature})
    images = [Image.new("L", (4, 4), row) for row in range(len(labels))]
    root.mkdir(exist_ok=True)
    data = datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
    datasets.disable_progress_bars()
    data.to_parquet(root / f"{split}-00000-of-00001.parquet")
    return str(root)


def folder(root, counts):
    for grey, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for k in range(count):
            Image.new("L", (4, 4), 10 * grey + k).save(root / name / f"{k}.png")
    return str(root)


def classes_of(source):
    """The class name of each image, by its grey."""
    greys = source.images[:, 0, 0, 0].tolist()
    return {grey: source.class_names[label] for grey, label in zip(greys, source.labels.tolist(), strict=True)}


def error(load, *arguments, **options):
    with pytest.raises(RepulseError) as caught:
        load(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_names_in_another_order_in_the_test_split_are_mapped(tmp_path):
    table(tmp_path / "set", "train", [0, 1, 2, 0], ["cat", "dog", "emu"])
    root = table(tmp_path / "set", "test", [0, 1, 2, 2], ["emu", "cat", "dog"])
    splits = load_data(root)
    assert splits.train.class_names == splits.test.class_names == ("cat", "dog", "emu")
    assert classes_of(splits.test) == {0: "emu", 1: "cat", 2: "dog", 3: "dog"}
    assert splits.test.labels.tolist() == [2, 0, 1, 1]


def test_names_in_another_order_keep_their_new_names(tmp_path):
    table(tmp_path / "set", "train", [0, 1, 2, 0], ["cat", "dog", "emu"])
    root = table(tmp_path / "set", "test", [0, 1, 2], ["emu", "cat", "dog"])
    assert load_data(root, class_names=["x", "y", "z"]).test.labels.tolist() == [2, 0, 1]


def test_a_class_of_the_test_split_alone_is_refused(tmp_path):
    table(tmp_path / "set", "train", [0, 1], ["cat", "dog"])
    root = table(tmp_path / "set", "test", [1, 0], ["cat", "fox"])
    assert error(load_data, root) == "set test row 0: unknown label 'fox'; known: cat, dog"


def test_a_name_that_no_test_image_has_is_fine(tmp_path):
    table(tmp_path / "set", "train", [0, 1], ["cat", "dog"])
    root = table(tmp_path / "set", "test", [2, 0], ["cat", "fox", "dog"])
    assert load_data(root).test.labels.tolist() == [1, 0]


def test_the_datas_own_names_in_another_order_permute_the_labels(tmp_path):
    root = folder(tmp_path / "set", {"cat": 5, "dog": 5, "emu": 5})
    plain = load_test(root, divide=False)
    given = load_test(root, divide=False, class_names=["emu", "cat", "dog"])
    assert given.class_names == ("emu", "cat", "dog")
    assert classes_of(given) == classes_of(plain)
    assert given.labels.tolist() == [(label + 1) % 3 for label in plain.labels.tolist()]


def test_new_names_rename(tmp_path):
    root = folder(tmp_path / "set", {"n01": 5, "n02": 5})
    given = load_test(root, divide=False, class_names=["cat", "dog"])
    assert classes_of(given)[0] == "cat"
    assert given.labels.tolist() == load_test(root, divide=False).labels.tolist()


def test_numbers_take_any_names(tmp_path):
    root = table(tmp_path / "set", "train", [0, 2, 1])
    given = load_test(root, divide=False, class_names=["a", "b", "c", "d"])
    assert given.labels.tolist() == [0, 2, 1]
    assert given.class_names == ("a", "b", "c", "d")
    permuted = load_test(root, divide=False, class_names=["2", "0", "1"])
    assert permuted.labels.tolist() == [1, 0, 2]


def test_the_models_full_list_maps_the_folders_there_are(tmp_path):
    root = folder(tmp_path / "set", {"0": 3, "2": 3, "3": 3})
    full = load_test(root, divide=False, class_names=["0", "1", "2", "3"])
    assert full.labels.tolist() == [0, 0, 0, 2, 2, 2, 3, 3, 3]
    one = load_test(folder(tmp_path / "one", {"emu": 3}), divide=False, class_names=["cat", "emu", "dog"])
    assert one.labels.tolist() == [1, 1, 1]


def test_classes_without_images_are_refused_in_training(tmp_path):
    root = folder(tmp_path / "set", {"cat": 5, "dog": 5})
    assert error(load_data, root, class_names=["cat", "cow", "dog"]) == (
        "set train: no image of class 1 (cow); labels must have no gaps"
    )


def test_the_list_may_be_a_file(tmp_path):
    root = folder(tmp_path / "set", {"cat": 5, "dog": 5})
    names = tmp_path / "names.txt"
    names.write_text("dog, domestic\ndog\n\ncat\n", encoding="utf-8")
    assert load_test(root, divide=False, class_names=[str(names)]).labels.unique().tolist() == [1, 2]
    missing = str(tmp_path / "none.txt")
    assert error(load_test, root, class_names=[missing]).startswith(f"cannot read the class names in {missing}: ")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["cat", "dog"], "set: 2 class_names are given, but the data has 3 classes (cat, dog, emu)"),
        (["a", "b", "c", "d"], "set: 4 class_names are given, but the data has 3 classes (cat, dog, emu)"),
        (["a", "b", "a"], "class_names names a twice"),
        (
            ["dog", "cat", "fox"],
            "set: class_names has cat, dog of the data, but not emu; give all names of the data, in the order of the "
            "model",
        ),
    ],
)
def test_names_that_fit_neither_way(given, message):
    assert error(named, ["cat", "dog", "emu"], given, "set") == message


def test_a_name_that_is_corrected_in_its_place_is_a_new_name():
    assert named(["cat", "dog", "emu"], ["cat", "hound", "emu"], "set") == (("cat", "hound", "emu"), (0, 1, 2))


def test_folders_that_are_numbers_are_in_the_order_of_the_numbers(tmp_path, capsys):
    root = folder(tmp_path / "set", {str(number): 3 for number in range(12)})
    assert load_test(root, divide=False).class_names == tuple(map(str, range(12)))
    assert capsys.readouterr().err == (
        "repulse: note: set train: class names are numbers, so classes are in the order 0, 1, 2, 3, 4, 5, ...; "
        "torchvision's ImageFolder has them as text, 0, 1, 10, 11, 2, 3, ...: for a model of that order, give "
        "class_names in it\n"
    )


def test_numbers_that_do_not_count_from_zero_get_a_hint(capsys):
    assert in_order(["2", "3", "0"], "set") == ("0", "2", "3")
    assert capsys.readouterr().err == (
        "repulse: note: set: class names are the numbers 0, 2, 3, which become the classes 0 to 2; for a model of "
        "other or more classes, give all of its class_names\n"
    )


def test_labels_that_are_digits_as_text(tmp_path, capsys):
    root = table(tmp_path / "set", "train", [str(number) for number in range(11)])
    assert load_test(root, divide=False).labels.tolist() == list(range(11))
    assert "class names are numbers" in capsys.readouterr().err


@pytest.mark.parametrize("names", [["b", "a"], ["0", "1", "2"], ["1x", "10", "2"]])
def test_other_names_are_in_alphabetical_order_without_a_word(names, capsys):
    assert in_order(names, "set") == tuple(sorted(names))
    assert capsys.readouterr().err == ""


def test_a_test_split_without_labels_gives_way_to_the_validation_split(tmp_path, capsys):
    table(tmp_path / "set", "train", [0, 1, 0, 1], ["cat", "dog"])
    table(tmp_path / "set", "test", [-1, -1], ["cat", "dog"])
    root = table(tmp_path / "set", "validation", [1, 1, 0], ["cat", "dog"])
    assert load_data(root).test.labels.tolist() == [1, 1, 0]
    assert capsys.readouterr().err == (
        "repulse: note: set test: the labels are not known, so it is not measured on; or give test_split\n"
    )
    assert error(load_data, root, test_split="test") == "set test row 0: label -1 is not one of the 2 classes 0 to 1"


def test_a_test_split_without_labels_and_no_other(tmp_path, capsys):
    table(tmp_path / "set", "train", [0, 1] * 5, ["cat", "dog"])
    root = table(tmp_path / "set", "test", [-1, -1], ["cat", "dog"])
    assert torch.bincount(load_data(root).test.labels).tolist() == [1, 1]
    assert "the labels are not known" in capsys.readouterr().err


def test_text_in_one_split_and_numbers_in_the_other_are_refused(tmp_path):
    table(tmp_path / "set", "train", ["b", "a", "b"])
    root = table(tmp_path / "set", "test", [0, 1])
    assert error(load_data, root) == (
        "set test: the labels are numbers, but those of set train are names, and which is which is not known"
    )
