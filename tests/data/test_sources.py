"""Images from every kind of source, and the one line that each kind of mistake gets."""

import io

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from repulse.common.errors import RepulseError
from repulse.data import ImageSet, StreamedImages, batches, load_data, load_test, subset
from repulse.data.images import balanced_indices, stratified_indices


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Hugging Face datasets keeps a cache; a test's goes with the test."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf-cache"))


def picture(value, size=(6, 8), mode="RGB"):
    """An image whose pixels count up from `value`, so that mixed-up images or axes are noticed."""
    count = size[0] * size[1] * (3 if mode == "RGB" else 1)
    array = (np.arange(count) + value).astype(np.uint8).reshape((*size, 3) if mode == "RGB" else size)
    return Image.fromarray(array)


def as_tensor(image):
    array = np.asarray(image)
    return torch.from_numpy(array.copy()).reshape(*array.shape[:2], -1).permute(2, 0, 1)


def png(image):
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def image_folder(root, classes=("cat", "dog", "emu"), per_class=4, splits=("train", "test"), **options):
    for split in splits:
        for index, name in enumerate(classes):
            folder = root / split / name if split else root / name
            folder.mkdir(parents=True)
            for k in range(per_class):
                picture(10 * index + k, **options).save(folder / f"{k}.png")
    return root


def parquet(root, columns, split="train", labels=None):
    import datasets

    features = datasets.Features()
    for name in columns:
        if name in ("img", "image"):
            features[name] = datasets.Image()
        elif labels is not None and name == "label":
            features[name] = datasets.ClassLabel(names=labels)
        else:
            features[name] = datasets.Value("string" if isinstance(columns[name][0], str) else "int64")
    root.mkdir(exist_ok=True)
    datasets.Dataset.from_dict(columns, features=features).to_parquet(root / f"{split}-00000-of-00001.parquet")
    return root


def rows(count, classes=2):
    return {
        "img": [{"bytes": png(picture(i)), "path": None} for i in range(count)],
        "label": [i % classes for i in range(count)],
    }


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    splits = load_data("digits")
    assert (len(splits.train), len(splits.test), splits.validation) == (1438, 359, None)
    assert splits.train.image_shape == (1, 8, 8)
    ours = torch.cat((splits.train.images, splits.test.images)).flatten(1).double()
    theirs = torch.from_numpy(load_digits().data) * 255 / 16
    assert (ours.sum(0) - theirs.sum(0)).abs().max() <= 0.5 * 1797
    assert {tuple(row) for row in ours.tolist()} == {tuple(row) for row in (theirs + 1e-9).round().tolist()}


def test_digits_take_a_name_and_refuse_what_would_change_them():
    splits = load_data("digits", name="numerals")
    assert (splits.train.name, splits.test.name) == ("numerals", "numerals")
    assert error("digits", image_size=16, channels=3) == (
        "the images of digits are always the same; leave out image_size, channels"
    )
    assert error("digits", image_column="img") == "digits has no columns; leave out image_column and label_column"


def test_a_parquet_folder_gives_its_images_names_and_splits(tmp_path):
    root = parquet(tmp_path / "set", rows(6), labels=["no", "yes"])
    parquet(root, rows(4), split="test", labels=["no", "yes"])
    splits = load_data(str(root))
    assert (len(splits.train), len(splits.test)) == (6, 4)
    assert splits.train.class_names == ("no", "yes")
    assert splits.train.labels.tolist() == [0, 1, 0, 1, 0, 1]
    for index in range(6):
        assert torch.equal(splits.train.images[index], as_tensor(picture(index)))


@pytest.mark.parametrize("name", ["a [1]", "b*", "train"])
def test_a_parquet_folder_may_have_any_name(tmp_path, name):
    root = parquet(tmp_path / name, rows(6), labels=["no", "yes"])
    parquet(root, rows(4), split="test", labels=["no", "yes"])
    assert (len(load_data(str(root)).train), len(load_data(str(root)).test)) == (6, 4)


def test_parquet_files_by_folder_in_any_case(tmp_path):
    (tmp_path / "set" / "data").mkdir(parents=True)
    root = tmp_path / "set"
    parquet(root / "data" / "Train", rows(6), split="0000", labels=["no", "yes"])
    parquet(root / "data" / "Test", rows(4), split="0000", labels=["no", "yes"])
    assert (len(load_data(str(root)).train), len(load_data(str(root)).test)) == (6, 4)


def test_parquet_files_without_splits_are_one(tmp_path):
    for name in ("a", "b"):
        parquet(tmp_path / "set", rows(6), split="x", labels=["no", "yes"])
        (tmp_path / "set" / "x-00000-of-00001.parquet").rename(tmp_path / "set" / f"{name}.parquet")
    assert len(load_test(str(tmp_path / "set"), divide=False)) == 12


def test_a_parquet_file_of_no_split_beside_splits_is_named(tmp_path):
    root = parquet(tmp_path / "set", rows(6), labels=["no", "yes"])
    (root / "extra.parquet").write_bytes((root / "train-00000-of-00001.parquet").read_bytes())
    assert error(str(root)) == f"{root}: extra.parquet is of no split, unlike train; rename it or move it away"


def test_several_sets_in_one_folder_are_not_mixed(tmp_path):
    for name in ("fine", "coarse"):
        (tmp_path / "set").mkdir(exist_ok=True)
        parquet(tmp_path / "set" / name, rows(6), labels=["no", "yes"])
    root = str(tmp_path / "set")
    assert error(root) == f"{root} holds several sets: coarse, fine; give the folder of one"


def test_a_readme_for_the_hub_says_which_file_is_which(tmp_path):
    root = parquet(tmp_path / "set", rows(6), split="one", labels=["no", "yes"])
    parquet(root, rows(4), split="two", labels=["no", "yes"])
    files = "".join(f"  - split: {split}\n    path: {name}-*\n" for split, name in (("train", "two"), ("test", "one")))
    (root / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n")
    splits = load_data(str(root))
    assert (len(splits.train), len(splits.test)) == (4, 6)


def test_a_broken_parquet_file_is_one_line(tmp_path):
    root = parquet(tmp_path / "set", rows(6), labels=["no", "yes"])
    (root / "train-00000-of-00001.parquet").write_bytes(b"PAR1 and nothing else")
    assert error(str(root)).startswith(f"cannot read {root} as a folder: ")


def test_a_split_beside_train_that_is_no_test_split_is_not_guessed_at(tmp_path):
    root = parquet(tmp_path / "set", rows(6), labels=["no", "yes"])
    parquet(root, rows(4), split="unsupervised", labels=["no", "yes"])
    assert error(str(root)) == (
        f"{root} has unsupervised beside train, which is no usual name of a split; give test_split, or move it away"
    )
    parquet(root, rows(2), split="test", labels=["no", "yes"])
    assert len(load_data(str(root)).test) == 2


def test_an_image_folder_gives_its_classes(tmp_path):
    splits = load_data(str(image_folder(tmp_path / "set")))
    assert splits.train.class_names == ("cat", "dog", "emu")
    assert splits.train.image_shape == (3, 6, 8)
    found = {
        (int(label), int(image[0, 0, 0])) for image, label in zip(splits.train.images, splits.train.labels, strict=True)
    }
    assert found == {(index, 10 * index + k) for index in range(3) for k in range(4)}


def test_a_folder_without_splits_is_divided_the_same_way_every_time(tmp_path):
    root = image_folder(tmp_path / "set", per_class=10, splits=("",))
    first, second = load_data(str(root)), load_data(str(root), seed=5)
    assert (len(first.train), len(first.test)) == (24, 6)
    assert torch.bincount(first.test.labels).tolist() == [2, 2, 2]
    assert first.test.split == "test"
    assert torch.equal(first.test.images, second.test.images)


def test_validation_is_held_out_balanced_and_by_seed(tmp_path):
    root = str(image_folder(tmp_path / "set", per_class=10))
    splits, other = load_data(root, validation=0.2, seed=1), load_data(root, validation=0.2, seed=2)
    assert torch.bincount(splits.validation.labels).tolist() == [2, 2, 2]
    assert splits.validation.split == "validation"
    both = torch.cat((splits.train.images, splits.validation.images)).flatten(1).tolist()
    assert len(both) == 30
    assert len({tuple(image) for image in both}) == 30
    assert not torch.equal(splits.validation.images, other.validation.images)


def test_grey_and_colour_and_size_can_be_asked_for(tmp_path):
    root = str(image_folder(tmp_path / "set"))
    splits = load_data(root, channels=1, image_size=4)
    assert splits.train.image_shape == (1, 4, 4)
    assert load_data(root, image_size=4, in_memory=False).train.image_shape == (3, 4, 4)


def test_streamed_images_are_the_same_as_those_in_memory(tmp_path):
    root = str(image_folder(tmp_path / "set", per_class=10, size=(8, 8)))
    held = load_data(root, image_size=8, validation=0.2, seed=3)
    streamed = load_data(root, image_size=8, validation=0.2, seed=3, in_memory=False)
    assert isinstance(streamed.train, StreamedImages)
    for a, b in ((held.train, streamed.train), (held.validation, streamed.validation)):
        assert torch.equal(a.labels, b.labels)
        order = torch.randperm(len(a))
        assert torch.equal(a.fetch(order), b.fetch(order))
    assert (
        streamed.train.sha256() == load_data(root, image_size=8, validation=0.2, seed=3, in_memory=False).train.sha256()
    )
    assert streamed.train.sha256() != streamed.validation.sha256()


def test_a_streamed_batch_smaller_than_the_processes_leaves_an_empty_share(tmp_path):
    root = str(image_folder(tmp_path / "set", per_class=3, size=(8, 8)))
    source = load_data(root, image_size=8, in_memory=False).train
    shares = [x.shape for x, _ in batches(source, 4, epoch=0, seed=0, shuffle=False, rank=1, world_size=2)]
    assert shares == [(2, 3, 8, 8), (2, 3, 8, 8), (0, 3, 8, 8)]


def test_string_labels_become_classes_in_alphabetical_order(tmp_path):
    columns = {**rows(4), "label": ["b", "a", "b", "a"]}
    splits = load_data(str(parquet(tmp_path / "set", columns)), test_split=None)
    assert splits.train.class_names == ("a", "b")


def error(*arguments, **options):
    with pytest.raises(RepulseError) as caught:
        load_data(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_no_such_folder(tmp_path):
    assert error(str(tmp_path / "none")) == f"no such folder: {tmp_path / 'none'}"


def test_an_empty_folder(tmp_path):
    (tmp_path / "set").mkdir()
    assert error(str(tmp_path / "set")) == f"the folder {tmp_path / 'set'} is empty"


def test_a_file_instead_of_a_folder(tmp_path):
    file = tmp_path / "a.parquet"
    file.write_bytes(b"")
    assert error(str(file)) == f"{file} is a file; give the folder that holds the images or parquet files"


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.xyz").write_text("nothing")
    assert error(str(tmp_path / "set")).startswith(f"cannot read {tmp_path / 'set'} as a folder: ")


def test_a_broken_image_file_is_named(tmp_path):
    root = image_folder(tmp_path / "set")
    bad = root / "train" / "dog" / "2.png"
    bad.write_bytes(b"this is no image")
    assert error(str(root)) == f"{bad}: the image is broken (not an image file); replace or remove it"


def test_half_an_image_file_is_named(tmp_path):
    root = image_folder(tmp_path / "set", size=(64, 64))
    bad = root / "train" / "dog" / "2.png"
    bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2])
    assert error(str(root)).startswith(f"{bad}: the image is broken (")


def test_a_broken_row_is_named(tmp_path):
    columns = rows(6)
    columns["img"][3]["bytes"] = b"nonsense"
    root = parquet(tmp_path / "set", columns, labels=["no", "yes"])
    assert error(str(root)) == "set train row 3: the image is broken (not an image file); replace or remove it"


def test_a_missing_column_is_named_with_the_nearest(tmp_path):
    root = str(parquet(tmp_path / "set", rows(6), labels=["no", "yes"]))
    assert error(root, image_column="imgs") == (
        f"unknown column of {root} 'imgs'; did you mean 'img'? known: img, label"
    )
    assert error(root, label_column="labell").startswith(f"unknown column of {root} 'labell'; did you mean 'label'?")


def test_a_set_without_labels_says_what_it_has(tmp_path):
    columns = {"img": rows(4)["img"], "weight": [1, 2, 3, 4]}
    root = str(parquet(tmp_path / "set", columns))
    assert error(root) == (
        f"{root} has no column that is plainly the label; besides 'img' it has weight; give label_column"
    )


def test_one_class_only(tmp_path):
    root = str(image_folder(tmp_path / "folders", classes=("cat",)))
    assert error(root) == "folders train: there is one class only (cat); a classifier needs two"
    root = str(parquet(tmp_path / "set", rows(4, classes=1), labels=["cat"]))
    assert error(root) == "set train: there is one class only (cat); a classifier needs two"


def test_gaps_in_the_labels(tmp_path):
    columns = {**rows(6), "label": [0, 1, 3, 0, 1, 3]}
    root = str(parquet(tmp_path / "set", columns))
    assert error(root) == "set train: no image of class 2 (2); labels must have no gaps"


def test_a_label_of_no_class(tmp_path):
    columns = {**rows(6), "label": [0, 1, 0, -1, 1, 0]}
    root = str(parquet(tmp_path / "set", columns))
    assert error(root) == "set train row 3: label -1 is not one of the 2 classes 0 to 1"
    columns["label"][3] = 1
    root = str(parquet(tmp_path / "set2", columns))
    parquet(tmp_path / "set2", {**rows(2), "label": [0, 2]}, split="test")
    assert error(root) == "set2 test row 1: label 2 is not one of the 2 classes 0 to 1"


def numbers(root, labels, kind="float64"):
    import datasets

    features = datasets.Features({"img": datasets.Image(), "label": datasets.Value(kind)})
    columns = {"img": rows(len(labels))["img"], "label": labels}
    root.mkdir()
    datasets.Dataset.from_dict(columns, features=features).to_parquet(root / "train-00000-of-00001.parquet")
    return str(root)


@pytest.mark.parametrize("label", [float("nan"), float("inf"), 0.5])
def test_a_label_that_is_no_whole_number(tmp_path, label):
    root = numbers(tmp_path / "set", [0.0, 1.0, label, 1.0])
    assert error(root) == f"set train row 2: label {label} is not a whole number"


def test_whole_labels_stored_as_floats_keep_their_order(tmp_path):
    splits = load_data(numbers(tmp_path / "set", [float(i % 12) for i in range(60)]))
    assert splits.train.class_names == tuple(map(str, range(12)))


def test_an_id_in_place_of_a_label_does_not_fill_the_memory(tmp_path):
    root = numbers(tmp_path / "set", [0, 4_000_000_000, 1], "int64")
    assert error(root) == (
        "set train: labels go up to 4000000000, but there are only 3 images; labels must have no gaps"
    )


def test_columns_of_the_wrong_kind(tmp_path):
    root = str(parquet(tmp_path / "set", rows(6), labels=["no", "yes"]))
    assert error(root, label_column="img") == (
        f"column 'img' of {root} does not hold one label per image; its columns are img, label; give label_column"
    )
    assert error(root, image_column="label") == "column 'label' does not hold images; give image_column"


def test_a_rare_class_stays_in_every_part_in_proportion(tmp_path):
    root = numbers(tmp_path / "set", [0] * 100 + [1] * 20, "int64")
    splits = load_data(root, validation=0.25)
    assert torch.bincount(splits.test.labels).tolist() == [20, 4]
    assert torch.bincount(splits.validation.labels).tolist() == [20, 4]
    assert torch.bincount(splits.train.labels).tolist() == [60, 12]


@given(sizes=st.lists(st.integers(2, 40), min_size=2, max_size=6), share=st.floats(0.05, 0.45), seed=st.integers(0, 9))
@example(sizes=[40, 2, 2, 2, 2, 2], share=0.24, seed=0)
def test_each_class_gives_its_proportion_up_to_rounding(sizes, share, seed):
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    count = round(share * len(labels))
    held = stratified_indices(labels, count, seed)
    assert len(held.unique()) == len(held) == count
    got = torch.bincount(labels[held], minlength=len(sizes))
    # One threshold t rounds each class's t * size to a whole number, by at most 1/2 each, k/2 in all; so t differs
    # from the share by at most k / 2N.
    size = torch.tensor(sizes)
    slack = 0.5 + size * len(sizes) / (2 * len(labels))
    assert ((got - size * count / len(labels)).abs() <= slack + 1e-6).all()
    assert (got < size).all()


@given(classes=st.integers(2, 6), size=st.integers(1, 30), count=st.integers(0, 60), seed=st.integers(0, 9))
def test_classes_of_one_size_are_divided_as_in_equal_shares(classes, size, count, seed):
    labels = torch.arange(classes * size) % classes
    assert torch.equal(stratified_indices(labels, count, seed), balanced_indices(labels, count, seed))


def test_a_share_that_takes_all_of_a_class(tmp_path):
    root = image_folder(tmp_path / "set", classes=("cat", "dog"), per_class=10)
    for extra in range(1, 10):
        (root / "train" / "dog" / f"{extra}.png").unlink()
    assert error(str(root), validation=0.9) == (
        "set without a validation share of 0.9: no image of class 1 (dog); labels must have no gaps"
    )


def test_mixed_sizes_name_both_rows(tmp_path):
    root = image_folder(tmp_path / "set")
    odd = root / "train" / "dog" / "1.png"
    picture(0, size=(5, 5)).save(odd)
    message = error(str(root))
    assert message.startswith(f"{odd}: the image has 5x5 pixels, but ")
    assert message.endswith(" has 6x8; give image_size to bring all to one size")
    assert load_data(str(root), image_size=6).train.image_shape == (3, 6, 6)


def test_train_and_test_of_different_shapes(tmp_path):
    root = image_folder(tmp_path / "set", splits=("train",))
    image_folder(root, splits=("test",), size=(4, 4))
    assert error(str(root)) == (
        "set: training images are 6x8 with 3 channels, test images 4x4 with 3 channels; give image_size and channels"
    )


def test_a_wrong_split_is_named_with_the_nearest(tmp_path):
    root = str(image_folder(tmp_path / "set"))
    assert error(root, train_split="trian") == (
        f"unknown split of {root} 'trian'; did you mean 'train'? known: test, train"
    )


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_an_impossible_validation_share(share):
    assert error("digits", validation=share) == f"validation must be a share in [0, 1), got {share}"


def test_an_impossible_size():
    assert error("digits", image_size=0) == "image_size must be at least 1 pixel, got 0"


def test_a_hub_that_cannot_be_reached_is_asked_once(monkeypatch, capfd):
    import socket

    import huggingface_hub

    asked = []

    def unreachable(*arguments, **options):
        asked.append(arguments)
        raise socket.gaierror(-2, "Name or service not known")

    # Each request used to be made six times, with half a minute of waiting between.
    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    assert error("nobody/nothing") == (
        "there is no folder nobody/nothing, and the Hugging Face Hub, whose id it may be, cannot be reached"
    )
    assert len(asked) <= 2
    assert not huggingface_hub.constants.HF_HUB_OFFLINE
    assert capfd.readouterr().err == ""


def test_what_the_hub_does_not_have_is_said_as_such():
    assert error("my images/of cats") == (
        "my images/of cats is neither a folder nor a data set of the Hugging Face Hub (or that is private, and needs "
        "`hf auth login`)"
    )


def test_subsets_are_balanced_and_the_same_for_a_seed():
    test = load_data("digits").test
    some = subset(test, 50, 7)
    assert torch.bincount(some.labels).tolist() == [5] * 10
    assert torch.equal(some.images, subset(test, 50, 7).images)
    assert not torch.equal(some.images, subset(test, 50, 8).images)
    with pytest.raises(RepulseError, match=r"^digits test has 359 images; 360 were asked for$"):
        subset(test, 360, 0)


def test_a_digest_tells_sets_apart():
    images, labels = torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 0, 1])
    one = ImageSet(images, labels, ("a", "b"), "x", "train")
    changed = images.clone()
    changed[3, 0, 1, 1] = 1
    assert one.sha256() == ImageSet(images.clone(), labels, ("a", "b"), "y", "test").sha256()
    assert one.sha256() != ImageSet(changed, labels, ("a", "b"), "x", "train").sha256()
    assert one.sha256() != ImageSet(images, labels.flip(0), ("a", "b"), "x", "train").sha256()


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "shape", "first"),
    [
        ("fashion-mnist", (1, 28, 28), "T - shirt / top"),
        ("cifar10", (3, 32, 32), "airplane"),
    ],
)
def test_real_sets_are_whole(real_data, name, shape, first):
    splits = load_data(str(real_data(name)))
    assert (len(splits.train), len(splits.test)) == ({"fashion-mnist": 60_000}.get(name, 50_000), 10_000)
    assert splits.train.image_shape == shape
    assert torch.bincount(splits.test.labels).tolist() == [1000] * 10
    assert splits.train.class_names[0] == first
