"""Models from outside: each way in gives the same model, and each mistake one clear line."""

import sys
import textwrap
import warnings

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from repulse.attacks import OBJECTIVES, PGD, Threat
from repulse.common.errors import RepulseError
from repulse.evaluation import EvaluationSettings, evaluate
from repulse.models.foreign import FORMS, Bounded, Normalised, load_foreign

CLASSES = 3


def network():
    """A small network with everything that programs treat in their own way: batch norm, dropout, a linear layer."""
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, CLASSES)
    model = nn.Sequential(*layers)
    with torch.no_grad():
        for _ in range(5):
            model(torch.rand(32, 1, 4, 4))
    return model


@pytest.fixture
def images():
    return torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """A package of models in the current folder, under a name that no other test has imported."""
    monkeypatch.chdir(tmp_path)
    name = f"zoo_{tmp_path.name.replace('-', '_')}"
    write(
        tmp_path,
        f"{name}/models.py",
        """
        import torch
        from torch import nn

        def linear():
            torch.manual_seed(0)
            return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))

        def wide(width, depth=2, *rest, **more): ...
        def broken():
            raise KeyError("no such dataset")
        def leaves():
            raise SystemExit(2)
        def settings():
            return {"width": 3}

        class Builder:
            @staticmethod
            def build():
                return linear()

        ready = linear()
        version = 3
        """,
    )
    write(tmp_path, f"{name}/__init__.py", "")
    return f"{name}.models"


def fails(*arguments, **options):
    with pytest.raises(RepulseError) as caught:
        load_foreign(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Factories


@pytest.mark.parametrize("attribute", ["linear", "ready", "Builder.build"])
def test_a_factory_a_model_and_a_method_in_the_current_folder_give_the_same_model(zoo, attribute, images):
    path = list(sys.path)
    model = load_foreign(f"{zoo}:{attribute}")
    torch.manual_seed(0)
    expected = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES))
    torch.testing.assert_close(model(images), expected(images))
    assert not model.training
    assert sys.path == path


def test_a_file_is_imported_with_its_neighbours_and_without_taking_a_modules_name(tmp_path, monkeypatch, images):
    write(tmp_path, "elsewhere/width_of_my_net.py", "WIDTH = 16")
    path = write(
        tmp_path,
        "elsewhere/textwrap.py",
        """
        from dataclasses import dataclass
        from torch import nn
        from width_of_my_net import WIDTH

        @dataclass
        class Shape:
            outputs: int = 3

        def factory():
            return nn.Sequential(nn.Flatten(), nn.Linear(WIDTH, Shape().outputs))
        """,
    )
    assert load_foreign(f"{path}:factory")(images).shape == (20, CLASSES)
    assert sys.modules["textwrap"] is textwrap


def test_what_is_wrong_with_a_factory_is_said_in_one_line(zoo, tmp_path):
    root = zoo.split(".")[0]
    assert fails("nowhere_to_be_found.models:f") == (
        "no module named 'nowhere_to_be_found', neither in the current folder nor among the installed packages"
    )
    assert fails(f"{root}.modles:f") == (
        f"no module named '{root}.modles', neither in the current folder nor among the installed packages"
    )
    assert fails(f"{zoo}:liner") == f"{zoo} has no 'liner'; did you mean 'linear'?"
    assert fails(f"{zoo}:xyzzy") == (
        f"{zoo} has no 'xyzzy'; it has Builder, broken, leaves, linear, ready, settings, wide"
    )
    assert fails(f"{zoo}:wide") == (
        f"{zoo}:wide needs arguments (width); give a function without any that returns the model"
    )
    assert fails(f"{zoo}:broken") == f"{zoo}:broken raised KeyError: 'no such dataset'"
    assert fails(f"{zoo}:leaves") == f"{zoo}:leaves raised SystemExit: 2"
    assert fails(f"{zoo}:settings") == f"{zoo}:settings must return a torch.nn.Module, got a dict"
    assert fails(f"{zoo}:version") == (
        f"{zoo}:version is an int, neither a torch.nn.Module nor a function that returns one"
    )


def test_what_is_wrong_with_the_code_of_a_model_is_said_in_one_line(zoo, tmp_path):
    root = zoo.split(".")[0]
    write(tmp_path, f"{root}/needs.py", "import a_package_that_is_absent")
    write(tmp_path, f"{root}/typo.py", "def f(:\n    pass")
    script = write(tmp_path, "script.py", "import sys\nsys.exit('usage: script.py DATA')")
    assert fails(f"{root}.needs:f") == (
        f"importing {root}.needs raised ModuleNotFoundError: No module named 'a_package_that_is_absent'"
    )
    assert fails(f"{root}.typo:f").startswith(f"importing {root}.typo raised SyntaxError: invalid syntax")
    assert fails(f"{script}:f") == f"importing {script} raised SystemExit: usage: script.py DATA"
    assert fails("absent.py:f") == "no such file: absent.py"
    assert fails("script.py") == "script.py may define many things; say which makes the model: script.py:factory"
    assert fails("resnet18") == f"cannot tell what model 'resnet18' is; give {FORMS}"
    assert fails(":f") == f"cannot tell what model ':f' is; give {FORMS}"


# Programs


def saved(kind, folder, model, images):
    """The path of a program of that kind."""
    path = folder / f"{kind}.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        if kind == "scripted in training mode":
            torch.jit.script(model.train()).save(path)
        elif kind == "traced":
            torch.jit.trace(model.eval(), images).save(path)
        elif kind == "frozen":
            torch.jit.freeze(torch.jit.script(model.eval())).save(path)
        else:
            limits = {"exported": {}, "exported for at most 8": {"min": 2, "max": 8}}[kind]
            dynamic = ({0: torch.export.Dim("batch", **limits)},)
            path = folder / f"{kind}.pt2"
            torch.export.save(torch.export.export(model.eval(), (images[:4],), dynamic_shapes=dynamic), path)
    return path


KINDS = ["scripted in training mode", "traced", "frozen", "exported", "exported for at most 8"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_is_attacked_as_the_model_that_it_was_made_from(kind, tmp_path, images):
    model = network()
    path = saved(kind, tmp_path, model, images)
    model.eval()
    labels, threat = model(images).argmax(1), Threat("linf", 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        program = load_foreign(str(path))
    attack = PGD(OBJECTIVES["margin"], 10, restarts=2, random_start=True)
    expected, found = attack(model, images, labels, threat), attack(program, images, labels, threat)
    assert 0 < expected.fooled.sum() < len(images)
    assert torch.equal(found.fooled, expected.fooled)
    torch.testing.assert_close(found.adversarial, expected.adversarial)
    assert not program.training
    assert all(parameter.requires_grad for parameter in program.parameters())


@pytest.mark.parametrize("kind", ["traced", "frozen", "exported"])
def test_a_whole_evaluation_of_a_program_finds_what_that_of_the_model_finds(kind, tmp_path, images):
    model = network()
    path = saved(kind, tmp_path, model, images)
    labels = model.eval()(images).argmax(1)
    settings = EvaluationSettings(eps=0.1, attacks="paper", steps=(5,), curve=())
    expected = evaluate(model, images, labels, settings)
    found = evaluate(load_foreign(str(path)), images, labels, settings)
    assert found.record.worst_case_accuracy == expected.record.worst_case_accuracy
    assert torch.equal(found.outcomes["robust/worst-case"], expected.outcomes["robust/worst-case"])


def test_programs_without_weights_of_their_own_are_told_apart(tmp_path, images):
    first = load_foreign(str(saved("frozen", tmp_path, network(), images))).state_dict()
    other = network()
    nn.init.zeros_(other[-1].weight)
    second = load_foreign(str(saved("frozen", tmp_path, other, images))).state_dict()
    assert list(first) == list(second) == ["program_sha256"]
    assert not torch.equal(first["program_sha256"], second["program_sha256"])


def test_a_scripted_model_switches_its_mode_and_an_exported_one_has_none(tmp_path, images):
    scripted = load_foreign(str(saved("scripted in training mode", tmp_path, network(), images)))
    exported = load_foreign(str(saved("exported", tmp_path, network(), images)))
    calm = scripted(images)
    scripted.train()
    assert not torch.allclose(scripted(images), calm)
    before = exported(images)
    assert exported.train().training
    assert torch.equal(exported.train()(images), before)


def test_a_program_that_cannot_be_measured_is_refused_with_what_to_do(tmp_path, images):
    fixed = tmp_path / "fixed.pt2"
    torch.export.save(torch.export.export(network().eval(), (images[:4],)), fixed)
    assert fails(str(fixed)) == (
        f"{fixed} takes batches of exactly 4; export it with a dynamic batch dimension: "
        "torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim('batch')},))"
    )

    class Two(nn.Module):
        def forward(self, x, y):
            return x + y

    two = tmp_path / "two.pt2"
    torch.export.save(torch.export.export(Two(), (images, images)), two)
    assert fails(str(two)) == f"{two} takes 2 inputs; a classifier of images takes one"

    exported = load_foreign(str(saved("exported", tmp_path, network(), images)))
    with pytest.raises(
        RepulseError, match=r"^the exported program does not take images of shape \(2, 1, 5, 4\): Guard"
    ):
        exported(torch.rand(2, 1, 5, 4))


def test_a_file_that_is_no_program_is_refused_with_what_it_is(tmp_path):
    weights, text = tmp_path / "weights.pt", tmp_path / "text.pt"
    torch.save(network().state_dict(), weights)
    text.write_text("hello", encoding="utf-8")
    assert fails(str(weights)) == (
        f"{weights} holds weights, or a pickled model, and no program: give the code that makes the model as "
        "package.module:factory, and this file as the weights"
    )
    assert fails(str(text)) == f"{text} is neither a TorchScript file nor an exported program"
    assert fails("absent.pt2") == "no such file: absent.pt2"


# Weights


def shape_of(kind, state):
    return {
        "plain": state,
        "state_dict": {"epoch": 3, "state_dict": state},
        "model": {"model": state, "optimizer": {"state": {}, "param_groups": []}},
        "net": {"net": state, "acc": 95.0},
        "DataParallel": {f"module.{name}": value for name, value in state.items()},
        "compiled, parallel, nested": {
            "model_state_dict": {f"module._orig_mod.{name}": value for name, value in state.items()}
        },
        "Lightning": {"state_dict": {f"model.{name}": value for name, value in state.items()}},
    }[kind]


@pytest.mark.parametrize(
    "kind", ["plain", "state_dict", "model", "net", "DataParallel", "compiled, parallel, nested", "Lightning"]
)
def test_weights_are_found_wherever_training_scripts_put_them(kind, zoo, tmp_path, images):
    torch.manual_seed(1)
    trained = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES))
    path = tmp_path / "weights.pt"
    torch.save(shape_of(kind, trained.state_dict()), path)
    model = load_foreign(f"{zoo}:linear", path)
    assert torch.equal(model(images), trained(images))
    assert not torch.equal(load_foreign(f"{zoo}:linear")(images), trained(images))


def test_safetensors_and_the_old_format_of_torch_save_are_read_too(zoo, tmp_path, images):
    torch.manual_seed(1)
    trained = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES))
    save_file(trained.state_dict(), tmp_path / "weights.safetensors")
    torch.save(trained.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("weights.safetensors", "old.pth"):
        assert torch.equal(load_foreign(f"{zoo}:linear", tmp_path / name)(images), trained(images))


@pytest.mark.parametrize("kind", ["scripted in training mode", "exported"])
def test_a_program_takes_weights_too(kind, tmp_path, images):
    path = saved(kind, tmp_path, network(), images)
    trained = network().eval()
    nn.init.uniform_(trained[-1].weight)
    torch.save(trained.state_dict(), tmp_path / "weights.pth")
    torch.testing.assert_close(load_foreign(str(path), tmp_path / "weights.pth")(images), trained(images))


def test_a_prefix_that_the_model_has_itself_is_kept(tmp_path, monkeypatch, images):
    monkeypatch.chdir(tmp_path)
    path = write(
        tmp_path,
        "parallel.py",
        """
        from torch import nn
        class Inside(nn.Module):
            def __init__(self):
                super().__init__()
                self.module = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
            def forward(self, x):
                return self.module(x)
        """,
    )
    torch.manual_seed(1)
    trained = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES))
    torch.save(shape_of("DataParallel", trained.state_dict()), tmp_path / "weights.pt")
    assert torch.equal(load_foreign(f"{path}:Inside", tmp_path / "weights.pt")(images), trained(images))


def test_weights_of_another_model_are_refused_with_the_names_that_differ(zoo, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"module.1.weight": torch.zeros(10, 16), "module.bias": torch.zeros(10)}, path)
    assert fails(f"{zoo}:linear", path) == (
        f"{path} does not fit the model: 1 missing: 1.bias (3,); 1 unexpected: bias (10,); "
        "1 of another shape: 1.weight (10, 16), the model's is (3, 16)"
    )
    torch.save({f"layer{i}": torch.zeros(i) for i in range(5)}, path)
    assert fails(f"{zoo}:linear", path) == (
        f"{path} does not fit the model: 2 missing: 1.weight (3, 16), 1.bias (3,); "
        "5 unexpected: layer0 (0,), layer1 (1,), layer2 (2,), ..."
    )


class Unpickled:
    """Leaves a trace if a reader runs it."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return exec, (f"open({str(self.trace)!r}, 'w').close()",)


def test_pickled_objects_are_refused_and_not_run(zoo, tmp_path):
    trace = tmp_path / "it-ran"
    kinds = {
        "model.pt": (nn.Linear(16, 3), "torch.nn.modules.linear.Linear"),
        "evil.pt": ({"state_dict": Unpickled(trace)}, "exec"),
    }
    for name, (content, kind) in kinds.items():
        path = tmp_path / name
        torch.save(content, path)
        assert fails(f"{zoo}:linear", path) == (
            f"{path} holds pickled objects ({kind}), which could run code when read; have its author save "
            "model.state_dict(), best as safetensors; or convert it, which runs its code, at your own risk: "
            f"python -m repulse.models.foreign.convert {path} {path.with_suffix('.safetensors')}"
        )
    assert not trace.exists()


def test_a_file_without_weights_is_refused_with_what_it_is(zoo, tmp_path, images):
    path = tmp_path / "weights.pt"
    torch.save({"settings": {"width": 1}, "epoch": 3}, path)
    assert fails(f"{zoo}:linear", path) == f"{path} holds no state dict; it has settings, epoch"
    torch.save({"ema": {"w": torch.zeros(1)}, "epoch": 3}, path)
    assert fails(f"{zoo}:linear", path) == (
        f"{path} does not fit the model: 2 missing: 1.weight (3, 16), 1.bias (3,); 1 unexpected: w (1,) "
        "(those under ema)"
    )
    torch.save([1, 2], path)
    assert fails(f"{zoo}:linear", path) == f"{path} holds a list, not a state dict"
    path.write_text("hello", encoding="utf-8")
    assert fails(f"{zoo}:linear", path).startswith(f"{path} is not a file of weights: ")
    program = saved("traced", tmp_path, network(), images)
    said = f"{program} is a program, not weights: give it as the model, --model {program}"
    assert fails(f"{zoo}:linear", program) == said
    assert fails(f"{zoo}:linear", tmp_path / "absent.pt") == f"no such file: {tmp_path / 'absent.pt'}"
    assert fails(f"{zoo}:linear", tmp_path / "absent.safetensors") == f"no such file: {tmp_path / 'absent.safetensors'}"


def test_counters_of_batches_may_be_missing(tmp_path, monkeypatch, images):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, "net.py", "from torch import nn\ndef f():\n    return nn.BatchNorm2d(1)")
    torch.save({name: torch.full((1,), 2.0) for name in ("weight", "bias", "running_mean", "running_var")}, "old.pt")
    model = load_foreign(f"{path}:f", tmp_path / "old.pt")
    torch.testing.assert_close(model(images), 2 * (images - 2) / (2 + 1e-5) ** 0.5 + 2)


# Normalisation and devices


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 7), (5, 3, 4, 4)])
def test_normalisation_is_per_channel_for_any_shape(shape):
    x, mean, std = torch.rand(shape), (0.1, 0.2, 0.3), (1.0, 2.0, 4.0)
    found = Normalised(nn.Identity(), mean, std)(x)
    for channel in range(3):
        torch.testing.assert_close(found[:, channel], (x[:, channel] - mean[channel]) / std[channel])
    torch.testing.assert_close(Normalised(nn.Identity(), (0.5,), (0.25,))(x), 4 * (x - 0.5))


def test_a_model_with_a_mean_alone_or_a_std_alone_takes_the_other_as_nothing(zoo, images):
    plain = load_foreign(f"{zoo}:linear")
    torch.testing.assert_close(load_foreign(f"{zoo}:linear", mean=[0.5])(images), plain(images - 0.5))
    torch.testing.assert_close(load_foreign(f"{zoo}:linear", std=[1 / 255])(images), plain(255 * images))


def test_a_normalisation_that_cannot_be_is_refused(zoo, images):
    assert fails(f"{zoo}:linear", std=[0.2, 0]) == "std must be positive in every channel, got 0.2, 0"
    assert fails(f"{zoo}:linear", mean=[]) == "mean and std need at least one value each"
    with pytest.raises(RepulseError, match=r"^mean has 3 values, but the images have 1 channels$"):
        load_foreign(f"{zoo}:linear", mean=[0.1, 0.2, 0.3])(images)


def test_a_device_that_is_not_there_is_refused(zoo):
    assert fails(f"{zoo}:linear", device="warp").startswith("cannot use device 'warp': ")
    if not torch.cuda.is_available():
        assert fails(f"{zoo}:linear", device="cuda").startswith("cannot use device 'cuda': ")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("kind", KINDS)
def test_a_program_that_was_saved_on_a_cpu_runs_on_a_gpu(kind, tmp_path, images):
    path = str(saved(kind, tmp_path, network(), images))
    torch.testing.assert_close(
        load_foreign(path, device="cuda")(images.cuda()).cpu(), load_foreign(path)(images), rtol=1e-3, atol=1e-3
    )


# timm

FAKE_TIMM = """
from types import SimpleNamespace
from torch import nn

CONFIG = {"mean": (0.5,), "std": (0.25,), "num_classes": 3}

def is_model(name):
    return name in ("tiny", "gone")

def list_models(pattern=""):
    return [name for name in ("tiny_a", "tiny_b") if pattern.strip("*") in name]

def get_pretrained_cfg(name):
    return SimpleNamespace(**CONFIG)

def create_model(name, pretrained, num_classes=3):
    if name == "gone":
        raise OSError("the Hub cannot be reached\\nat all")
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, num_classes))
    if pretrained:
        nn.init.ones_(model[1].weight)
        nn.init.zeros_(model[1].bias)
    model.pretrained_cfg = CONFIG
    return model
"""


@pytest.fixture
def fake_timm(tmp_path, monkeypatch):
    """A stand-in with timm's interface; returns a function that writes it."""

    def install(text):
        write(tmp_path, "site/timm/__init__.py", text)
        for name in [name for name in sys.modules if name.split(".")[0] == "timm"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.syspath_prepend(tmp_path / "site")

    yield install
    sys.modules.pop("timm", None)


def test_a_pretrained_timm_model_gets_the_normalisation_of_its_weights(fake_timm, images, tmp_path):
    fake_timm(FAKE_TIMM)
    expected = (4 * (images - 0.5)).flatten(1).sum(1, keepdim=True).expand(-1, 3)
    torch.testing.assert_close(load_foreign("timm/tiny")(images), expected)
    torch.testing.assert_close(load_foreign("timm/tiny", classes=3)(images), expected)
    torch.testing.assert_close(
        load_foreign("timm/tiny", mean=[0.0])(images), images.flatten(1).sum(1, keepdim=True).expand(-1, 3)
    )


def test_a_timm_model_with_weights_has_the_classes_that_are_asked_for(fake_timm, images, tmp_path):
    fake_timm(FAKE_TIMM)
    state = {"1.weight": torch.ones(5, 16), "1.bias": torch.zeros(5)}
    torch.save(state, tmp_path / "weights.pt")
    model = load_foreign("timm/tiny", tmp_path / "weights.pt", classes=5)
    torch.testing.assert_close(model(images), images.flatten(1).sum(1, keepdim=True).expand(-1, 5))


def test_what_is_wrong_with_a_timm_model_is_said_in_one_line(fake_timm):
    fake_timm(FAKE_TIMM)
    assert fails("timm/tiny_") == "timm has no model 'tiny_'; near: tiny_a, tiny_b"
    assert fails("timm/tniy_a") == "timm has no model 'tniy_a'; near: tiny_a, tiny_b"
    assert fails("timm/huge") == "timm has no model 'huge'"
    assert fails("timm/gone") == "timm/gone raised OSError: the Hub cannot be reached"
    assert fails("timm/tiny", classes=10) == (
        "the pretrained weights of timm/tiny know 3 classes, not 10; give weights that do"
    )


def test_a_timm_that_cannot_be_imported_is_said_to_be_so(fake_timm, monkeypatch):
    fake_timm("import torchvision_is_absent")
    assert fails("timm/tiny") == "timm/tiny: timm needs torchvision_is_absent, which is not there: pip install it"
    fake_timm("raise RuntimeError('operator torchvision::nms does not exist')")
    assert fails("timm/tiny") == (
        "timm/tiny: importing timm raised RuntimeError: operator torchvision::nms does not exist"
    )
    monkeypatch.setitem(sys.modules, "timm", None)
    assert fails("timm/tiny") == "timm/tiny needs timm: pip install 'repulse[timm]'"


def test_features_with_bounds_of_their_own_are_attacked_in_shares_of_their_range():
    """A linear model of features in very different units: the radius is a closed form in shares of the ranges."""
    from repulse.attacks import TargetedAPGD, Threat

    low, high = torch.tensor([18.0, 0.0, -5.0]), torch.tensor([99.0, 1e5, 5.0])
    inner = nn.Linear(3, 2)
    with torch.no_grad():
        inner.weight.copy_(torch.tensor([[0.02, -3e-5, 0.3], [-0.03, 1e-5, 0.1]]))
        inner.bias.copy_(-inner.weight @ (low + high) / 2)
    model = Bounded(inner, low, high)
    features = low + (0.4 + 0.2 * torch.rand(50, 3, generator=torch.Generator().manual_seed(0))) * (high - low)
    x = model.scaled(features)
    torch.testing.assert_close(model(x), inner(features), atol=1e-4, rtol=1e-4)
    logits = model(x).detach()
    y = logits.argmax(1)
    slope = ((inner.weight[0] - inner.weight[1]) * (high - low)).abs().sum().item()
    radius = (logits[:, 0] - logits[:, 1]).abs() / slope
    eps = radius.median().item()
    fooled = TargetedAPGD(steps=20)(model, x, y, Threat("linf", eps)).fooled
    sure = (radius - eps).abs() > 1e-3 * eps
    assert torch.equal(fooled[sure], (radius < eps)[sure])


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (1.0, 0.0), (0.0, float("inf"))])
def test_an_empty_range_is_refused(low, high):
    with pytest.raises(RepulseError, match=r"^every feature needs a finite range: low below high$"):
        Bounded(nn.Linear(3, 2), low, high)
