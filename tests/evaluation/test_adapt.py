"""`evaluate` takes what people have: the same figures come out, or one line says what is wrong."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

from repulse.common.errors import RepulseError
from repulse.evaluation import EvaluationSettings, evaluate
from repulse.models.foreign.adapt import Adapted, adapt_model

SETTINGS = EvaluationSettings(eps=0.1, attacks="paper", steps=(3,), curve=(), gallery=0)
COUNT = 12


@pytest.fixture(scope="module")
def known():
    """A small model, images on the grid of grey levels, labels that it mostly gets right, and the right figures."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    x = torch.randint(0, 256, (COUNT, 1, 4, 4)).float() / 255
    y = model(x).argmax(1)
    y[0] = (y[0] + 1) % 3
    return model, x, y, figures(model, x, y)


def figures(*arguments, **keywords):
    keywords.setdefault("settings", SETTINGS)
    record = evaluate(*arguments, **keywords).record
    return record.natural_accuracy, record.worst_case_accuracy, tuple(a.robust_accuracy for a in record.attacks)


ANSWERS = {
    "a function": lambda model: lambda x: model(x),
    "a tuple": lambda model: Answering(model, lambda z: (z, z.mean())),
    "a mapping": lambda model: Answering(model, lambda z: {"loss": None, "logits": z}),
    "an object": lambda model: Answering(model, lambda z: SimpleNamespace(logits=z, hidden_states=None)),
    "squeezed": lambda model: Answering(model, lambda z: z.squeeze()),
    "maps of one pixel": lambda model: Answering(model, lambda z: z[:, :, None, None]),
    "in place": lambda model: Answering(model, lambda z: z, lambda x: x.sub_(0.0).mul_(1.0)),
}


class Answering(nn.Module):
    def __init__(self, inner, answer, before=None):
        super().__init__()
        self.inner, self.answer, self.before = inner, answer, before

    def forward(self, x):
        return self.answer(self.inner(x if self.before is None else self.before(x)))


@pytest.mark.parametrize("kind", ANSWERS)
def test_models_that_answer_in_their_own_way_are_taken_as_they_are(kind, known):
    model, x, y, expected = known
    kept = x.clone()
    assert figures(ANSWERS[kind](model), x, y) == expected
    assert torch.equal(x, kept)


class Pairs:
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, place):
        return self.items[place]


def pictures(x):
    return [Image.fromarray((255 * image[0]).round().byte().numpy()) for image in x]


def test_data_in_any_form_gives_the_same_figures(known, tmp_path):
    model, x, y, expected = known
    together = torch.utils.data.TensorDataset(x, y)
    assert figures(model, x.numpy(), y) == expected
    assert figures(model, x.double(), y) == expected
    assert figures(model, x.tolist(), y.numpy().astype("int16")) == expected
    assert figures(model, torch.utils.data.DataLoader(together, batch_size=5)) == expected
    assert figures(model, together) == expected
    assert figures(model, Pairs(list(zip(pictures(x), y.tolist(), strict=True)))) == expected
    named = [{"image": picture, "label": int(label)} for picture, label in zip(pictures(x), y, strict=True)]
    assert figures(model, Pairs(named)) == expected


def test_a_data_set_of_hugging_face_with_a_transform_is_taken(known):
    from datasets import Dataset

    model, x, y, expected = known
    rows = Dataset.from_dict({"pixels": x.flatten(1).tolist(), "label": y.tolist()})

    def decoded(batch):
        return {"pixel_values": [torch.tensor(p).view(1, 4, 4) for p in batch["pixels"]], "label": batch["label"]}

    rows.set_transform(decoded)
    assert figures(model, rows) == expected


def test_a_folder_of_images_is_taken_by_its_path(known, tmp_path):
    model, x, _, _ = known
    labels = torch.arange(COUNT) % 3
    for place, (picture, label) in enumerate(zip(pictures(x), labels.tolist(), strict=True)):
        folder = tmp_path / "data" / "test" / f"class {label}"
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"{place}.png")
    expected = figures(model, x, labels)
    for where in (tmp_path / "data", str(tmp_path / "data")):
        natural, worst, _ = figures(model, where)
        assert (natural, worst) == pytest.approx(expected[:2])


def test_settings_may_be_given_by_their_names(known):
    model, x, y, expected = known
    keywords = {"eps": 0.1, "attacks": "paper", "steps": (3,), "curve": (), "gallery": 0}
    assert figures(model, x, y, settings=None, **keywords) == expected
    with pytest.raises(RepulseError, match=r"^give settings as an object or by their names, not both$"):
        evaluate(model, x, y, SETTINGS, eps=0.1)
    with pytest.raises(RepulseError, match="epsilon"):
        evaluate(model, x, y, epsilon=0.1)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_an_evaluation_works_in_any_mode_of_autograd_and_with_tensors_made_there(mode, known):
    model, x, y, expected = known
    with mode():
        assert figures(model, x * 1.0, y * 1) == expected
    with torch.inference_mode():
        made, labels = x * 1.0, y * 1
    assert figures(model, made, labels) == expected


def test_half_precision_and_quantised_models_and_one_image(known):
    model, x, y, expected = known
    natural, _, _ = figures(Answering(model, lambda z: z.half()), x.half(), y)
    assert natural == pytest.approx(expected[0], abs=1 / COUNT)
    import copy

    half = copy.deepcopy(model).bfloat16()
    assert figures(half, x, half(x.bfloat16()).argmax(1))[0] == 1
    assert figures(model, x[:1], y[:1])[0] == 0.0


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_quantised_model_is_measured_without_gradients(known):
    model, x, y, expected = known
    try:
        quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
        quantised(x)
    except (RuntimeError, NotImplementedError):
        pytest.skip("this build of PyTorch has no quantised layers")
    assert figures(quantised, x, y)[0] == pytest.approx(expected[0], abs=2 / COUNT)


def test_what_is_no_model_or_gives_no_logits_is_said_in_one_line(known):
    _, x, y, _ = known
    with pytest.raises(RepulseError, match=r"^a model is a module or a function from images to logits, got a str$"):
        adapt_model("resnet18")
    with pytest.raises(RepulseError, match=r"^the model must give a tensor of logits, got dict; wrap it"):
        evaluate(lambda x: {"boxes": x}, x, y, SETTINGS)

    def broken(x):
        raise AttributeError("'Namespace' object has no attribute 'depth'")

    with pytest.raises(RepulseError, match=r"^the model does not take images of shape .*: AttributeError: 'Namespace'"):
        evaluate(broken, x, y, SETTINGS)


def test_a_model_of_prototypes_keeps_its_interface_and_nothing_is_adapted_twice(known):
    model, *_ = known

    class Prototypes(nn.Module):
        def embed(self, x):
            return x

        def classify(self, z):
            return z

    prototypes = Prototypes()
    assert adapt_model(prototypes) is prototypes
    once = adapt_model(model)
    assert isinstance(once, Adapted)
    assert adapt_model(once) is once


def test_images_with_their_channels_last_are_told():
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(72, 2))
    with pytest.raises(RepulseError, match=r"look like \(N, H, W, C\): permute their axes to 0, 3, 1, 2$"):
        evaluate(model, torch.rand(2, 8, 8, 3), [0, 1], SETTINGS)
