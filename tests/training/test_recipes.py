import os
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tasks import CROSS_ENTROPY, grey, linear, losses, margins, network, outwards
from torch import nn

from repulse.attacks import OBJECTIVES, PGD, Threat
from repulse.cli import main
from repulse.common.errors import RepulseError
from repulse.common.settings import merge
from repulse.config.presets import preset
from repulse.config.run import RunConfig, read_config
from repulse.data import ImageSet, load_data
from repulse.models import PrototypeClassifier, make_backbone
from repulse.runs import train_run
from repulse.training import LOSSES, RECIPES, Task, fit, make_fabric
from repulse.training.recipes import FGSMRS, TRADES, GaussianNoise, InputGradient, Jacobian, PGDTraining, Standard
from repulse.training.settings import FitSettings


def test_the_standard_recipe_is_the_loss():
    model, weight = linear()
    x, y = grey()
    values, z = Standard()(Task(model, CROSS_ENTROPY), x, y)
    torch.testing.assert_close(values, losses(margins(x, y, weight)))
    torch.testing.assert_close(z, x.flatten(1) @ weight.T)


@pytest.mark.parametrize("recipe", [FGSMRS(eps=0.1, step_size=0.2), PGDTraining(eps=0.1, steps=8)])
def test_against_a_linear_model_the_worst_corner_of_the_ball_is_found(recipe):
    """Steps that cross the whole ball end at the corner wherever they start: the margin falls by eps |dw|_1."""
    model, weight = linear()
    x, y = grey()
    values, _ = recipe(Task(model, CROSS_ENTROPY), x, y)
    fall = 0.1 * outwards(weight, y).flatten(1).abs().sum(1)
    torch.testing.assert_close(values, losses(margins(x, y, weight) - fall), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "recipe", [FGSMRS(eps=0.1, step_size=100.0, norm="l2"), PGDTraining(eps=0.1, steps=30, norm="l2")]
)
def test_in_an_l2_ball_the_margin_falls_by_the_l2_norm(recipe):
    model, weight = linear()
    x, y = grey()
    values, _ = recipe(Task(model, CROSS_ENTROPY), x, y)
    fall = 0.1 * outwards(weight, y).flatten(1).norm(dim=1)
    torch.testing.assert_close(values, losses(margins(x, y, weight) - fall), rtol=1e-3, atol=1e-4)


def test_fgsm_rs_takes_one_step_of_a_quarter_more_than_eps_from_a_uniform_start():
    model, weight = linear()
    x, y = grey(2000)
    FGSMRS(eps=0.1)(Task(model, CROSS_ENTROPY), x, y)
    start, end = (images - x for images in model.backbone.images)
    step = 0.125 * outwards(weight, y).sign()
    torch.testing.assert_close(end, (start + step).clamp(-0.1, 0.1), rtol=0, atol=1e-6)
    # A uniform start has mean 0 and deviation eps / sqrt(3); 32,000 draws fix both to under a percent of eps.
    assert abs(start.mean()) < 0.001
    assert float(start.std()) == pytest.approx(0.1 / 3**0.5, rel=0.01)


def test_trades_adds_the_divergence_at_a_corner_of_the_ball():
    """The divergence of a linear model rises with the change of the margin, so x' ends at one of two corners."""
    model, weight = linear()
    x, y = grey(40)
    values, _ = TRADES(eps=0.1, steps=10, beta=6.0)(Task(model, CROSS_ENTROPY), x, y)
    margin = margins(x, y, weight)
    change = 0.1 * outwards(weight, y).flatten(1).abs().sum(1)
    p = torch.sigmoid(margin)
    candidates = []
    for moved in (margin - change, margin + change):
        q = torch.sigmoid(moved)
        divergence = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
        candidates.append(losses(margin) + 6 * divergence)
    nearest = torch.stack([(values - candidate).abs() for candidate in candidates])
    assert nearest.amin(0).max() < 1e-4
    assert set(nearest.argmin(0).tolist()) == {0, 1}


@pytest.mark.parametrize(("norm", "order"), [("l2", 2), ("linf", 1)])
def test_the_input_gradient_penalty_is_the_squared_dual_norm(norm, order):
    """The gradient in the image is p_wrong times the difference of the weights."""
    model, weight = linear()
    x, y = grey()
    values, _ = InputGradient(strength=0.7, norm=norm)(Task(model, CROSS_ENTROPY), x, y)
    margin = margins(x, y, weight)
    gradient = torch.sigmoid(-margin).unsqueeze(1) * outwards(weight, y).flatten(1)
    torch.testing.assert_close(values, losses(margin) + 0.7 * gradient.norm(p=order, dim=1) ** 2)


def test_the_input_gradient_penalty_reaches_the_weights():
    """What training descends is the derivative of the closed form, `softplus(-m) + strength p_wrong^2 |dw|^2`."""
    model, weight = linear()
    x, y = grey()
    InputGradient(strength=5.0)(Task(model, CROSS_ENTROPY), x, y).values.sum().backward()
    weight = weight.clone().requires_grad_()
    margin = margins(x, y, weight)
    penalty = torch.sigmoid(-margin).square() * outwards(weight, y).flatten(1).square().sum(1)
    (expected,) = torch.autograd.grad((losses(margin) + 5 * penalty).sum(), weight)
    torch.testing.assert_close(model.backbone.body[1].weight.grad, expected)


def test_the_jacobian_penalty_is_exact_where_every_projection_has_the_same_length():
    model, weight = linear(weight=3 * torch.eye(16)[:2])
    x, y = grey()
    values, _ = Jacobian(strength=0.5)(Task(model, CROSS_ENTROPY), x, y)
    torch.testing.assert_close(values, losses(margins(x, y, weight)) + 0.5 / 2 * 18)


def test_the_jacobian_penalty_is_unbiased():
    """The rows' lengths differ by a factor of 3; the mean of 20,000 estimates has an error of about 0.4 percent."""
    model, weight = linear(weight=torch.tensor([[3.0], [1.0]]) * torch.eye(16)[:2])
    x, y = grey(1)[0].expand(20_000, 1, 4, 4), torch.zeros(20_000, dtype=torch.int64)
    values, _ = Jacobian(strength=2.0)(Task(model, CROSS_ENTROPY), x, y)
    penalty = (values - losses(margins(x, y, weight))).detach()
    assert float(penalty.mean()) == pytest.approx(10, rel=0.02)
    assert penalty.min() < 4 < 16 < penalty.max()


def test_noise_has_the_deviation_asked_for():
    model, _ = linear()
    x, y = grey(2000)
    GaussianNoise(sigma=0.2)(Task(model, CROSS_ENTROPY), x, y)
    (images,) = model.backbone.images
    assert float((images - x).std()) == pytest.approx(0.2, rel=0.02)
    assert abs(float((images - x).mean())) < 0.005


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("recipe", [FGSMRS, PGDTraining, TRADES])
def test_adversarial_images_lie_in_the_ball_and_are_images(recipe, norm):
    model = network().train()
    x, y = grey(12, low=-0.2, high=1.2, side=8, classes=3)
    x = x.clamp(0, 1)
    recipe(eps=0.15, norm=norm)(Task(model, CROSS_ENTROPY), x, y)
    threat = Threat(norm, 0.15)
    moved = [threat.distance(images, x) for images in model.backbone.images]
    assert all(float(distance.max()) <= 0.15 + threat.tolerance for distance in moved)
    assert all(images.min() >= 0 and images.max() <= 1 for images in model.backbone.images)
    assert moved[-1].min() > 0.02


@pytest.mark.parametrize(
    ("recipe", "forward", "backward"),
    [
        (Standard(), 1, 1),
        (GaussianNoise(), 1, 1),
        (FGSMRS(), 2, 2),
        (PGDTraining(steps=7), 8, 8),
        (TRADES(steps=10), 13, 12),
        (InputGradient(), 1, 2),
        (Jacobian(), 1, 2),
    ],
)
def test_a_step_costs_what_the_recipe_says_and_leaves_no_gradients_on_the_way(recipe, forward, backward):
    model = network().train()
    x, y = grey(6, side=8, classes=3)
    values, _ = recipe(Task(model, CROSS_ENTROPY), x, y)
    assert all(parameter.grad is None for parameter in model.parameters())
    values.mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert (len(model.backbone.images), model.backbone.backward) == (forward, backward)


def test_trades_attacks_in_evaluation_mode_and_the_others_in_training_mode():
    x, y = grey(6, side=8, classes=3)
    for recipe in (FGSMRS(), PGDTraining()):
        model = network().train()
        recipe(Task(model, CROSS_ENTROPY), x, y)
        assert all(model.backbone.modes)
    model = network().train()
    TRADES(steps=2)(Task(model, CROSS_ENTROPY), x, y)
    assert model.backbone.modes == [False, False, False, True, True]
    assert model.training


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_half_precision_gives_nearly_the_same_gradients(name):
    """Autocast keeps converted weights between passes; none of them may be cut off from its parameter."""
    x, y = grey(8, side=8, classes=3)
    found = []
    for enabled in (False, True):
        model = network().eval()
        torch.manual_seed(2)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            values, _ = RECIPES[name]()(Task(model, CROSS_ENTROPY), x, y)
        values.mean().backward()
        found.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert nn.functional.cosine_similarity(*found, dim=0) > 0.95


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_every_prototype_loss_is_climbed(loss):
    model = network(readout="l2").train()
    x, y = grey(12, side=8, classes=3)
    task = Task(model, LOSSES[loss]().per_example)
    torch.manual_seed(0)
    clean = Standard()(task, x, y).values.mean()
    torch.manual_seed(0)
    assert PGDTraining(eps=0.1)(task, x, y).values.mean() > clean


def blobs(count=96, seed=0):
    """Three classes of 8x8 images: noise around three grey levels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    noise = torch.randint(-20, 21, (count, 1, 8, 8), generator=generator)
    images = (60 + 60 * labels.view(-1, 1, 1, 1) + noise).clamp(0, 255).to(torch.uint8)
    return ImageSet(images, labels, ("dark", "grey", "light"), "blobs", "train")


def train(recipe, *, seed=0, readout="cosine", **options):
    torch.manual_seed(seed)
    backbone = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(144, 3)
    )
    model = PrototypeClassifier(backbone, torch.eye(3), readout, temperature=0.2, mean=(0.47,), std=(0.2,))
    settings = FitSettings(epochs=3, batch_size=32, accelerator="cpu", devices="1")
    fabric = make_fabric(settings)
    fabric.launch()
    loss = LOSSES["cross-entropy"]()
    fit(model, loss, blobs(), blobs(30, seed=1), settings, fabric=fabric, recipe=recipe, seed=5, **options)
    return model


class Witness:
    def __init__(self):
        self.states = []

    def on_step(self, epoch, step, steps, images):
        pass

    def on_epoch(self, metrics, state, weights):
        self.states.append(type(state)(state.epoch, {name: value.clone() for name, value in state.tensors.items()}))


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_resumed_run_ends_at_the_same_weights_bit_for_bit(name):
    witness = Witness()
    recipe = RECIPES[name]()
    whole = train(recipe, watcher=witness)
    resumed = train(recipe, seed=99, state=witness.states[1])
    for (key, a), (_, b) in zip(whole.state_dict().items(), resumed.state_dict().items(), strict=True):
        assert torch.equal(a, b), key


def test_a_fit_without_a_recipe_is_the_standard_one():
    without, standard, other = train(None), train(Standard()), train(FGSMRS())
    key = "backbone.5.weight"
    assert torch.equal(without.state_dict()[key], standard.state_dict()[key])
    assert not torch.equal(other.state_dict()[key], standard.state_dict()[key])


def test_a_readout_without_second_derivatives_is_refused_for_penalties():
    with pytest.raises(
        RepulseError,
        match=r"^a part of this model cannot be trained by this recipe \(the derivative for '_cdist_backward' is not "
        r"implemented\.\); a penalty on gradients needs second derivatives, which readout 'linf' lacks, so take "
        r"another recipe or readout$",
    ):
        train(InputGradient(), readout="linf")


def test_fgsm_rs_makes_digits_far_more_robust():
    splits = load_data("digits", validation=0.1, seed=0).limit(train=700, seed=0)
    settings = FitSettings(epochs=12, batch_size=64, accelerator="cpu", devices="1")
    images, labels = splits.test.images[:150].float() / 255, splits.test.labels[:150]
    robust = {}
    for name, recipe in {"standard": Standard(), "fgsm-rs": FGSMRS(eps=0.1)}.items():
        torch.manual_seed(0)
        backbone = make_backbone("small-cnn", channels=1, dimension=10, width=0.25)
        model = PrototypeClassifier(backbone, torch.eye(10), "linear", mean=(0.3,), std=(0.38,))
        fabric = make_fabric(settings)
        fabric.launch()
        fit(model, LOSSES["cross-entropy"](), splits.train, None, settings, fabric=fabric, recipe=recipe)
        result = PGD(OBJECTIVES["margin"], steps=20)(model, images, labels, Threat("linf", 0.1))
        robust[name] = 1 - float(result.fooled.float().mean())
    assert robust["fgsm-rs"] > robust["standard"] + 0.2
    assert robust["fgsm-rs"] > 0.6


def test_an_unknown_recipe_suggests_the_nearest():
    with pytest.raises(
        RepulseError,
        match=rf"^unknown recipe 'fgsm-r'; did you mean 'fgsm-rs'\? known: {', '.join(sorted(RECIPES))}$",
    ):
        RECIPES["fgsm-r"]()


def test_a_setting_that_a_recipe_does_not_have_is_refused():
    with pytest.raises(
        RepulseError,
        match=r"^recipe 'fgsm-rs' has no setting 'beta'; leave out recipe\.beta "
        r"\(it has: delay, eps, step_size, norm, warmup\)$",
    ):
        RECIPES["fgsm-rs"](beta=3.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FGSMRS(eps=-0.1), r"^recipe 'fgsm-rs': eps: input should be greater than or equal to 0, got -0\.1$"),
        (lambda: PGDTraining(steps=0), r"^recipe 'pgd': steps: input should be greater than or equal to 1, got 0$"),
        (lambda: TRADES(step_size=0.0), r"^recipe 'trades': step_size: input should be greater than 0, got 0\.0$"),
        (lambda: TRADES(beta=-1.0), r"^recipe 'trades': beta: input should be greater than or equal to 0, got -1\.0$"),
        (
            lambda: GaussianNoise(sigma=-1.0),
            r"^recipe 'noise': sigma: input should be greater than or equal to 0, got -1\.0$",
        ),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(RepulseError, match=message):
        make()


def test_the_presets_are_the_sources():
    assert preset("fgsm-rs").recipe == FGSMRS(eps=8 / 255)
    assert preset("fgsm-rs-simplex").recipe == FGSMRS(eps=8 / 255)
    assert preset("fgsm-rs-simplex").prototypes.method == "simplex"
    assert preset("pgd-at").recipe == PGDTraining(eps=8 / 255, steps=10)
    assert preset("trades").recipe == TRADES(eps=8 / 255, steps=10, beta=6.0)
    assert preset("pgd-simplex").recipe == preset("pgd-at").recipe
    assert preset("trades-simplex").recipe == preset("trades").recipe
    assert preset("noise").recipe == GaussianNoise(sigma=0.25)
    assert preset("input-gradient").recipe == InputGradient()
    assert preset("jacobian").recipe == Jacobian(strength=0.01)
    assert preset("softmax").recipe == Standard()


SMALL = ["--data.train-images", "100", "--fit.batch-size", "50", "--fit.accelerator", "cpu", "--model.width", "0.125"]


def test_a_recipe_is_set_by_flags_and_kept_in_the_run_folder(tmp_path):
    flags = ["--recipe.name", "fgsm-rs", "--recipe.eps", "8/255", "--fit.epochs", "1", "--progress", "quiet"]
    assert main(["train", "--output", str(tmp_path / "run"), *SMALL, *flags]) == 0
    recipe = read_config(tmp_path / "run").recipe
    assert (recipe.name, recipe.eps) == ("fgsm-rs", 8 / 255)


def test_a_run_folder_from_before_recipes_can_be_resumed(tmp_path):
    changes = {
        "data": {"train_images": 100},
        "model": {"width": 0.125},
        "fit": {"epochs": 1, "batch_size": 50, "accelerator": "cpu", "devices": "1"},
    }
    config = merge(RunConfig(), changes, "test")
    train_run(config, tmp_path)
    path = tmp_path / "config.yaml"
    old = yaml.safe_load(path.read_text(encoding="utf-8"))
    del old["recipe"]
    path.write_text(yaml.safe_dump(old), encoding="utf-8")
    before = load_file(tmp_path / "checkpoints" / "last.safetensors")
    assert read_config(tmp_path) == config
    train_run(config, tmp_path, resume=True)
    for name, value in load_file(tmp_path / "checkpoints" / "last.safetensors").items():
        assert torch.equal(value, before[name])
    with pytest.raises(RepulseError, match=r"with other settings \(recipe\.name\)"):
        train_run(merge(config, {"recipe": {"name": "fgsm-rs"}}, "test"), tmp_path, resume=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe", [["input-gradient"], ["fgsm-rs", "--recipe.eps", "0"], ["free", "--recipe.eps", "0"]]
)
def test_two_processes_agree_with_one(tmp_path, recipe):
    """Passes for the images' gradients don't disturb DDP: the same weights but for the order of sums.

    A ball of radius zero leaves nothing to chance, yet its attack passes are made. No batch norm, whose statistics
    DDP keeps per process. Tolerance 1e-4 relative, 1e-5 absolute, after 8 steps in float32.
    """
    network = tmp_path / "net.py"
    network.write_text(
        "import sys\n"
        "from torch import nn\n"
        "from repulse.models import BACKBONES\n"
        "@BACKBONES.register('plain')\n"
        "def plain(channels, dimension, width):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Softplus(), nn.Linear(32, dimension))\n"
        "from repulse.cli import main\n"
        "sys.exit(main())\n"
    )
    flags = ["--data.train-images", "300", "--fit.batch-size", "75", "--fit.epochs", "2", "--model.backbone", "plain"]
    flags += ["--fit.accelerator", "cpu", "--fit.optimiser.learning-rate", "0.05", "--progress", "quiet"]
    flags += ["--recipe.name", *recipe]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    one = [sys.executable, str(network), "train", "--output", str(tmp_path / "one"), *flags]
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(network)]
    two += ["train", "--output", str(tmp_path / "two"), *flags]
    for command in (one, two):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
    first, second = (load_file(tmp_path / run / "checkpoints" / "last.safetensors") for run in ("one", "two"))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-4, atol=1e-5, msg=name)
