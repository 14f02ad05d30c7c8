"""Misuse is noticed and named, and honest use passes."""

import re

import pytest
import torch
from torch import nn

import zoo
from repulse.common.errors import RepulseError
from repulse.evaluation.checks import check_use
from repulse.models.foreign import Normalised, load_foreign

NAMES = [
    "class-count",
    "logits-not-probabilities",
    "inputs-scaled-right",
    "labels-fit",
    "better-than-chance",
    "evaluation-mode",
    "no-batch-dependence",
]


def checked(model, images, labels, **options):
    records = check_use(model, images, labels, device="cpu", **options)
    assert [record.name for record in records] == NAMES
    return {record.name: record for record in records}


def failed(checks):
    return [name for name, check in checks.items() if check.passed is False]


def fails(model, images, labels, **options):
    with pytest.raises(RepulseError) as caught:
        check_use(model, images, labels, device="cpu", **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Changed(nn.Module):
    """A model with something done to its logits."""

    def __init__(self, inner, change):
        super().__init__()
        self.inner, self.change = inner, change

    def forward(self, x):
        return self.change(self.inner(x))


# Colours: classes that are told apart by their mean colour, so that any change of scale is fatal and exactly known.

COLOURS = torch.tensor(
    [[0.2, 0.3, 0.7], [0.7, 0.3, 0.3], [0.4, 0.7, 0.2], [0.3, 0.6, 0.6], [0.6, 0.6, 0.5], [0.8, 0.75, 0.2]]
)
SCALINGS = {
    "in [-1, 1]": lambda x: 2 * x - 1,
    "from 0 to 255": lambda x: 255 * x,
    "divided by 255 once more": lambda x: x / 255,
    "ImageNet": lambda x: (x - per_channel(0.485, 0.456, 0.406)) / per_channel(0.229, 0.224, 0.225),
    "CIFAR-10": lambda x: (x - per_channel(0.4914, 0.4822, 0.4465)) / per_channel(0.2470, 0.2435, 0.2616),
    "blue, green, red": lambda x: x.flip(1),
    "Caffe": lambda x: 255 * x.flip(1) - per_channel(103.939, 116.779, 123.68),
}


def per_channel(*values):
    return torch.tensor(values).view(1, 3, 1, 1)


def coloured(count=300, seed=0, noise=0.1):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(COLOURS)
    images = COLOURS[labels][:, :, None, None] + noise * torch.randn(count, 3, 4, 4, generator=generator)
    return images.clamp(0, 1), labels


class NearestColour(nn.Module):
    """Names the nearest of the colours as they look after the scaling that it was made for."""

    def __init__(self, scaling=None):
        super().__init__()
        colours = COLOURS[:, :, None, None]
        self.register_buffer("colours", (colours if scaling is None else scaling(colours)).flatten(1))

    def forward(self, x):
        return -(x.mean((2, 3))[:, None] - self.colours).square().sum(2)


def accuracy(model, images, labels):
    return (model(images).argmax(1) == labels).double().mean().item()


@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.parametrize("seed", range(3))
def test_wrongly_scaled_inputs_are_named_and_the_remedy_mends_them(name, seed):
    images, labels = coloured(seed=seed)
    model = NearestColour(SCALINGS[name])
    natural = accuracy(model, images, labels)
    assert natural < 0.7
    check = checked(model, images, labels)["inputs-scaled-right"]
    assert check.passed is False
    assert check.serious
    assert check.measured > 0.2
    if name in ("in [-1, 1]", "from 0 to 255", "divided by 255 once more", "blue, green, red", "Caffe"):
        assert name in check.sentence
    mended = remedied(model, check.sentence)
    assert accuracy(mended, images, labels) > 0.9
    assert checked(mended, images, labels)["inputs-scaled-right"].passed is True


def test_normalisation_by_the_datas_own_mean_and_deviation_is_found():
    """Dark images: what serves ImageNet does not serve these."""
    images, labels = coloured()
    images = images / 5
    mean, std = images.mean((0, 2, 3)), images.std((0, 2, 3))
    model = NearestColour(lambda colours: (colours / 5 - per_channel(*mean)) / per_channel(*std))
    sentence = checked(model, images, labels)["inputs-scaled-right"].sentence
    assert "when they are normalised by their own mean and standard deviation: use `--mean " in sentence
    assert accuracy(remedied(model, sentence), images, labels) > 0.9


def remedied(model, sentence):
    """The model used as the sentence of the check says."""
    if "x.flip(1)" in sentence:
        model = Flipped(model)
    flags = dict(re.findall(r"--(mean|std) ([-\d.,e]+\d)", sentence))
    values = {flag: [float(value) for value in text.split(",")] for flag, text in flags.items()}
    return Normalised(model, values.get("mean", [0.0]), values.get("std", [1.0])) if values else model


class Flipped(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x.flip(1))


def test_the_sentence_about_scaled_inputs_says_what_to_do():
    images, labels = coloured()
    model = NearestColour(SCALINGS["from 0 to 255"])
    assert checked(model, images, labels)["inputs-scaled-right"].sentence == (
        "The model is right on 16.4 % of the images as they are, but on 100.0 % when they are from 0 to 255: "
        "use `--std 0.00392157`."
    )
    model = NearestColour(SCALINGS["Caffe"])
    assert checked(model, images, labels)["inputs-scaled-right"].sentence.endswith(
        "when they are as Caffe's (BGR, 0 to 255, centred): turn the channels round inside the model "
        "(RGB to BGR: `x.flip(1)`) and use `--mean 0.407604,0.457957,0.48502 "
        "--std 0.00392157,0.00392157,0.00392157`."
    )


@pytest.mark.parametrize("count", [1, 2, 7, 12])
def test_a_handful_of_images_is_no_proof_of_misuse(count):
    images, labels = coloured(count, noise=0.8)
    assert not {"inputs-scaled-right", "labels-fit"} & set(failed(checked(NearestColour(), images, labels)))


# Honest use


HONEST = {
    "linear": zoo.linear,
    "undefended": zoo.undefended,
    "adversarially trained": zoo.adversarially_trained,
    "paper": zoo.paper,
}


@pytest.mark.parametrize("name", HONEST)
@pytest.mark.parametrize("seed", range(3))
def test_an_honest_model_passes_every_check(name, seed):
    images, labels = zoo.shown()
    checks = checked(HONEST[name](seed), images, labels)
    assert all(check.passed for check in checks.values()), failed(checks)


@pytest.mark.parametrize("seed", range(3))
def test_a_weak_and_noisy_but_honest_model_is_not_accused(seed):
    images, labels = zoo.shown()
    torch.manual_seed(seed)
    weights = zoo.linear(seed)[1].weight
    noise = torch.randn_like(weights)
    weak = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    for amount in (0.5, 1.0, 2.0, 8.0):
        weak[1].weight.data = weights + amount * weights.std() * noise
        assert not {"labels-fit", "no-batch-dependence"} & set(failed(checked(weak, images, labels)))


def test_the_model_and_random_numbers_are_left_as_they_were():
    images, labels = zoo.shown()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Dropout())
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    checked(model, images, labels)
    assert torch.equal(torch.rand(1), expected)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


# Outputs


def test_probabilities_are_noticed_and_their_logarithms_are_not_blamed():
    images, labels = zoo.shown()
    model = zoo.undefended(0)
    checks = checked(Changed(model, lambda logits: logits.softmax(1)), images, labels)
    assert failed(checks) == ["logits-not-probabilities"]
    assert "Remove the softmax" in checks["logits-not-probabilities"].sentence
    assert not checks["logits-not-probabilities"].serious
    checks = checked(Changed(model, lambda logits: logits.log_softmax(1)), images, labels)
    assert failed(checks) == []
    assert "logarithms of probabilities" in checks["logits-not-probabilities"].sentence
    checks = checked(Changed(model, lambda logits: logits.sigmoid()), images, labels)
    assert checks["logits-not-probabilities"].passed


def test_more_outputs_than_classes_are_advice():
    images, labels = zoo.shown()
    wide = Changed(zoo.undefended(0), lambda logits: nn.functional.pad(logits, (0, 2), value=-50.0))
    checks = checked(wide, images, labels)
    assert failed(checks) == ["class-count"]
    assert (checks["class-count"].measured, checks["class-count"].threshold) == (12, 10)
    assert not checks["class-count"].serious
    assert failed(checked(wide, images, labels, classes=12)) == []


# Labels


def test_a_model_with_a_class_before_the_first_is_named():
    images, labels = zoo.shown()
    shifted = Changed(zoo.undefended(0), lambda logits: nn.functional.pad(logits, (1, 0), value=-50.0))
    check = checked(shifted, images, labels)["labels-fit"]
    assert check.passed is False
    assert check.serious
    assert check.sentence.endswith(
        "with others: they are one too low; add 1 to every label, or drop the model's first output."
    )
    check = checked(shifted, images, labels + 1)["labels-fit"]
    assert check.passed


def test_labels_that_count_from_one_are_named():
    images, labels = zoo.shown()
    some = labels < 9
    check = checked(zoo.undefended(0), images[some], labels[some] + 1)["labels-fit"]
    assert check.passed is False
    assert check.sentence.endswith("with others: they are one too high; subtract 1 from every label.")
    assert fails(zoo.undefended(0), images, labels + 1) == (
        "labels run from 1 to 10, but classes count from 0 to 9: subtract 1 from every label"
    )


@pytest.mark.parametrize("seed", range(3))
def test_classes_in_another_order_are_named(seed):
    images, labels = zoo.shown()
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    place = torch.tensor([sorted(names).index(name) for name in names])
    checks = checked(zoo.undefended(seed), images, place[labels])
    assert checks["labels-fit"].passed is False
    assert (
        "the classes are in another order (the model's output 0 is label 9, 1 is label 4, 2 is label 8, ...)"
        in checks["labels-fit"].sentence
    )
    assert checks["inputs-scaled-right"].passed


def test_two_swapped_classes_are_named():
    images, labels = zoo.shown()
    some = labels < 2
    model = Changed(zoo.undefended(0), lambda logits: logits[:, :2])
    assert failed(checked(model, images[some], labels[some])) == []
    check = checked(model, images[some], 1 - labels[some])["labels-fit"]
    assert "(the model's output 0 is label 1, 1 is label 0)" in check.sentence


@pytest.mark.parametrize("seed", range(3))
def test_guesses_are_not_said_to_be_an_order(seed):
    """With 100 classes the best order of 300 guesses fits many of them; judged on others, none."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = torch.rand(300, 20, generator=generator), torch.arange(300) % 100
    torch.manual_seed(100 + seed)
    checks = checked(nn.Linear(20, 100), images, labels)
    assert checks["labels-fit"].passed
    assert failed(checks) == ["better-than-chance"]


def test_a_model_that_always_says_the_commonest_class_is_no_better_than_chance():
    images, labels = zoo.shown()
    labels = (labels == 3).long()
    constant = Changed(zoo.undefended(0), lambda logits: logits[:, :2] * 0 + torch.tensor([2.0, 0.0]))
    checks = checked(constant, images, labels)
    assert accuracy(constant, images, labels) > 0.85
    assert failed(checks) == ["better-than-chance"]
    assert not checks["better-than-chance"].serious
    assert checked(constant, images[labels == 0], labels[labels == 0], classes=2)["better-than-chance"].passed is None


# Modes and neighbours


def convolutional(**options):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, **options), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(32, 6)
    )
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    for step in range(60):
        images, labels = coloured(60, seed=step)
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimiser.step()
    return model


def test_a_model_handed_over_in_training_mode_is_noticed():
    images, labels = coloured(seed=100)
    model = convolutional()
    checks = checked(model, images, labels)
    assert failed(checks) == ["evaluation-mode"]
    assert checks["evaluation-mode"].sentence.startswith(
        "The model was handed over in training mode, with BatchNorm2d, Dropout inside."
    )
    assert not checks["evaluation-mode"].serious
    assert failed(checked(model.eval(), images, labels)) == []
    # Dropout alone may have been left on, whatever the model as a whole says.
    model[3].train()
    assert failed(checked(model, images, labels)) == ["evaluation-mode"]
    # Where no layer cares, the mode says nothing.
    assert checked(NearestColour().train(), images, labels)["evaluation-mode"].passed


def test_batch_norm_without_running_statistics_depends_on_its_neighbours():
    images, labels = coloured(seed=100)
    checks = checked(convolutional(track_running_stats=False).eval(), images, labels)
    assert failed(checks) == ["no-batch-dependence"]
    assert checks["no-batch-dependence"].serious
    assert checks["no-batch-dependence"].measured > 0.01


def test_a_program_that_was_exported_in_training_mode_depends_on_its_neighbours(tmp_path):
    images, labels = coloured(seed=100)
    model = convolutional()
    model[3] = nn.Identity()
    exported = torch.export.export(model.train(), (images[:4],), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(exported, tmp_path / "model.pt2")
    assert failed(checked(load_foreign(str(tmp_path / "model.pt2")), images, labels)) == ["no-batch-dependence"]


def test_a_stochastic_model_is_not_asked_about_its_neighbours():
    images, labels = zoo.shown()
    checks = checked(zoo.Noisy(zoo.undefended(0)), images, labels)
    assert checks["no-batch-dependence"].passed is None
    assert "is stochastic" in checks["no-batch-dependence"].sentence
    assert failed(checks) == []


def test_rounding_of_half_precision_is_not_taken_for_neighbours():
    images, labels = coloured()
    model = Changed(NearestColour().bfloat16(), lambda logits: logits + 0.02 * (len(logits) == 1))
    check = checked(model, images.bfloat16(), labels)["no-batch-dependence"]
    assert check.passed
    assert 1e-3 < check.measured < check.threshold
    assert checked(Changed(NearestColour(), model.change), images, labels)["no-batch-dependence"].passed is False


# Other shapes


@pytest.mark.parametrize("shape", [(12,), (2, 6), (1, 2, 2, 3)])
@pytest.mark.parametrize("classes", [2, 3])
def test_signals_tables_and_volumes_are_checked_without_what_only_images_have(shape, classes):
    torch.manual_seed(0)
    images = torch.rand(200, *shape)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, classes))
    with torch.no_grad():
        model[1].bias -= model(images).mean(0)
    checks = checked(model, images, model(images).argmax(1))
    assert checks.pop("inputs-scaled-right").passed is None
    assert all(check.passed for check in checks.values())
    assert failed(checked(model, images, 1 - model(images).argmax(1).clamp(0, 1))) != []


def test_one_image_is_enough_to_ask_what_can_be_asked():
    images, labels = zoo.shown()
    checks = checked(zoo.undefended(0), images[:1], labels[:1], classes=10)
    assert failed(checks) == []
    assert checks["no-batch-dependence"].passed is None


# What cannot be measured at all


def test_what_cannot_be_measured_is_refused_in_one_line():
    images, labels = zoo.shown()
    model = zoo.undefended(0)
    assert fails(model, images[:0], labels[:0]) == "there are no images to measure"
    assert fails(model, images, labels - 1) == "labels must not be negative, got -1"
    assert fails(model, images, labels, classes=11) == (
        "the model gives 10 outputs, but the data has 11 classes; give the model that was made for this data"
    )
    assert fails(Changed(model, lambda logits: logits[:, :3]), images, labels) == (
        "the model gives 3 outputs, but the data has 10 classes; give the model that was made for this data"
    )
    assert fails(Changed(model, lambda logits: logits[:, :1]), images, labels) == (
        "the model gives one output per image; for two classes let it return two, such as 0 and z"
    )
    assert fails(Changed(model, lambda logits: {"logits": logits}), images, labels) == (
        "the model must give a tensor of logits, got dict; wrap it in a module that returns the logits alone"
    )
    assert fails(Changed(model, lambda logits: logits.argmax(1)), images, labels) == (
        "the model must give logits, got torch.int64; return what the argmax is taken of"
    )
    assert fails(Changed(model, lambda logits: logits.flatten()), images, labels) == (
        "the model must give logits of shape (N, classes), got (20,)"
    )
    assert fails(Changed(model, lambda logits: logits[:1]), images, labels) == (
        "the model gives 1 rows of logits for 2 images"
    )
    assert fails(Changed(model, lambda logits: logits * torch.nan), images, labels) == (
        "the model's logits are not finite numbers; nothing can be measured with them"
    )


def test_images_that_the_model_does_not_take_are_refused_with_its_own_words():
    images, labels = zoo.shown()
    assert fails(nn.Sequential(nn.Flatten(), nn.Linear(3, 10)), images, labels) == (
        "the model does not take images of shape (2, 1, 8, 8): "
        "mat1 and mat2 shapes cannot be multiplied (2x64 and 3x10)"
    )
    # A model of double precision gets images of double precision.
    assert failed(checked(zoo.undefended(0).double(), images, labels)) == []
    zoo.undefended(0).float()


def test_a_model_that_needs_neighbours_is_refused():
    images, labels = zoo.shown()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10, track_running_stats=False))
    assert fails(model, images, labels).startswith("the model takes a batch of images but not one alone (Expected more")


# Several explanations at once


def test_a_missing_normalisation_that_costs_a_third_of_the_accuracy_is_seen():
    """About 33 % instead of 50 %: a threshold of 20 points saw nothing."""
    images, labels = coloured(600, noise=0.05)
    model = Weakened(labels, images, plain=0.33, centred=0.5)
    check = checked(model, images, labels)["inputs-scaled-right"]
    assert 0.1 < check.measured < 0.2
    assert check.passed is False
    assert "in [-1, 1]" in check.sentence
    # The same difference on 24 images may be luck.
    few = checked(model, images[:24], labels[:24])["inputs-scaled-right"]
    assert few.passed


class Weakened(nn.Module):
    """Right on one share of known images as they are, and on a larger one when they are centred."""

    def __init__(self, labels, images, plain, centred):
        super().__init__()
        self.labels, self.plain, self.centred = labels, plain, centred
        self.images = images
        self.luck = torch.rand(len(images), generator=torch.Generator().manual_seed(3))

    def forward(self, x):
        found = torch.full((len(x), len(COLOURS)), 0.0)
        for share, look in ((self.plain, self.images), (self.centred, 2 * self.images - 1)):
            same = (x[:, None] - look).abs().flatten(2).amax(2) < 1e-5
            row, place = same.nonzero().T
            right = self.luck[place] < share
            guess = torch.where(right, self.labels[place], (self.labels[place] + 1) % len(COLOURS))
            found[row, guess] = 1.0
        return found + 1e-3 * torch.arange(len(COLOURS))


def test_all_scalings_that_are_near_the_best_are_named():
    images, labels = coloured()
    check = checked(NearestColour(SCALINGS["ImageNet"]), images, labels)["inputs-scaled-right"]
    assert "normalised as for ImageNet" in check.sentence
    assert "normalised as for CIFAR-10" in check.sentence
    assert check.sentence.endswith("So many images don't tell these apart: ask the model's author.")


def test_what_another_order_explains_is_not_put_down_to_the_scaling_too():
    """Labels permuted, and a model that also prefers another scaling a little by accident."""
    images, labels = coloured()
    order = torch.tensor([3, 0, 1, 2, 5, 4])
    model = NearestColour()
    checks = checked(model, images, order[labels])
    assert failed(checks) == ["labels-fit", "better-than-chance"] or failed(checks) == ["labels-fit"]
    assert checks["inputs-scaled-right"].passed is not False


def test_the_order_of_the_classes_is_given_as_the_flag_that_mends_it():
    images, labels = zoo.shown()
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    place = torch.tensor([sorted(names).index(name) for name in names])
    check = checked(zoo.undefended(0), images, place[labels], class_names=sorted(names))["labels-fit"]
    assert check.sentence.endswith("; use `--class-names zero,one,two,three,four,five,six,seven,eight,nine`.")
    # Folders 0 to 10 sorted as text put 10 behind 1.
    numbers = [str(number) for number in range(11)]
    place = torch.tensor([sorted(numbers).index(number) for number in numbers])
    wide = Changed(zoo.undefended(0), lambda logits: nn.functional.pad(logits, (0, 1), value=-50.0))
    check = checked(wide, images, place[labels], class_names=sorted(numbers))["labels-fit"]
    assert check.sentence.endswith(" (the classes are named by numbers, and stand as text does: 1, 10, 2).")


# Models that fail in their own ways


class Raises(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, x):
        raise self.error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (AssertionError("Input height (28) doesn't match model (224)."), "--image-size 224"),
        (KeyError("pixel_values"), "KeyError: 'pixel_values'"),
        (AttributeError("'NoneType' object has no attribute 'shape'"), "AttributeError: 'NoneType' object has no"),
        (RuntimeError("expected input[2, 1, 8, 8] to have 3 channels, but got 1 channels instead"), "--channels 3"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (NotImplementedError(), "NotImplementedError"),
    ],
)
def test_whatever_a_model_raises_is_one_line_with_its_words_and_what_may_help(error, said):
    images, labels = zoo.shown()
    found = fails(Raises(error), images, labels)
    assert found.startswith("the model does not take images of shape (2, 1, 8, 8): ")
    assert said in found


def test_a_lazy_model_that_never_ran_is_named():
    images, labels = zoo.shown()

    class Uninitialised(nn.Module):
        def forward(self, x):
            return x.flatten(1) @ nn.parameter.UninitializedParameter()

    assert fails(Uninitialised(), images, labels).endswith(
        "; let the code that makes the model call it once on a batch of images"
    )


def test_a_model_that_keeps_a_tensor_of_its_first_call_can_still_be_attacked():
    """Inference tensors cannot be saved for backward: rotary positions, masks, cached weights."""
    images, labels = zoo.shown()
    inner = zoo.undefended(0)

    class Caches(nn.Module):
        kept = None

        def forward(self, x):
            if self.kept is None:
                self.kept = torch.ones_like(x[:1]) * (1 + 0 * x[:1])
            return inner(x * self.kept)

    model = Caches().eval()
    checked(model, images, labels)
    x = images[:4].clone().requires_grad_()
    model(x).sum().backward()
    assert x.grad is not None
