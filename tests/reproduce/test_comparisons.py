import pytest

from repulse.common.errors import RepulseError
from repulse.evaluation.settings import PAPER_GRID
from repulse.reproduce.comparisons import COMPARISONS, cell_config, comparison, measurement
from repulse.reproduce.grid import Grid
from repulse.reproduce.methods import METHODS
from repulse.training.recipes import FGSMRS


def changed(config):
    """What a configuration says that the defaults don't."""
    return config.model_dump(mode="json", exclude_defaults=True)


CPU_DATA = {"source": "FOLDER", "name": "CIFAR-10 (JPEG 75)", "train_images": 24_000}
CPU_FIT = {"epochs": 2, "batch_size": 64, "accelerator": "cpu", "devices": "1"}


def test_the_cells_of_scale_cpu_stay_as_they_were_trained():
    """Results under `results/` were made with these; a change here makes everybody train anew."""
    softmax = cell_config("paper-cifar10", "softmax", 1, "FOLDER", "CIFAR-10 (JPEG 75)")
    assert changed(softmax) == {
        "name": "softmax",
        "seed": 1,
        "data": CPU_DATA,
        "augment": {"crop_padding": 4, "flip": "random"},
        "prototypes": {"method": "one-hot"},
        "model": {"width": 0.5, "readout": "linear", "temperature": 1.0},
        "fit": CPU_FIT,
    }
    paper = cell_config("fashion", "paper-linf", 0, "FOLDER")
    assert changed(paper) == {
        "name": "paper-linf",
        "data": CPU_DATA | {"name": "Fashion-MNIST"},
        "augment": {"crop_padding": 2, "flip": "random"},
        "prototypes": {"method": "repulsive-linf", "dimension": 100, "steps": 50},
        "model": {"width": 0.5, "readout": "dot", "temperature": 1.0},
        "loss": {"name": "linf"},
        "fit": CPU_FIT,
    }
    trained = cell_config("fashion", "fgsm-rs-simplex", 2, "FOLDER")
    assert changed(trained) == {
        "name": "fgsm-rs-simplex",
        "seed": 2,
        "data": CPU_DATA | {"name": "Fashion-MNIST"},
        "augment": {"crop_padding": 2, "flip": "random"},
        "prototypes": {"method": "simplex"},
        "model": {"width": 0.5},
        "recipe": {"name": "fgsm-rs"},
        "fit": CPU_FIT | {"epochs": 3},
    }
    assert trained.recipe == FGSMRS(eps=8 / 255)


def test_full_is_the_papers_training():
    config = cell_config("paper-cifar100", "paper-linf", 0, "FOLDER", scale="full")
    assert (config.model.backbone.name, config.prototypes.dimension, config.fit.epochs) == ("resnet18", 500, 200)
    assert (config.fit.optimiser.learning_rate, config.fit.optimiser.weight_decay) == (0.006, 5e-5)
    assert config.fit.schedule.name == "cyclic"
    assert config.fit.optimiser.learning_rate * config.fit.schedule.start == pytest.approx(0.001)


def test_fast_is_the_fast_network_that_passes_92_percent():
    softmax = cell_config("paper-cifar10", "softmax", 0, "FOLDER", scale="fast")
    assert (softmax.model.backbone.name, softmax.model.width, softmax.fit.epochs) == ("fast", 1.0, 12)
    assert (softmax.fit.batch_size, softmax.fit.precision) == (512, "auto")
    assert (softmax.fit.progressive.size, softmax.fit.progressive.share) == (24, 0.5)
    assert softmax.loss.label_smoothing == 0.2
    hundred = cell_config("paper-cifar100", "paper-linf", 0, "FOLDER", scale="fast")
    assert (hundred.loss.name, hundred.prototypes.dimension, hundred.prototypes.scale) == ("linf", 500, 0.1)
    robust = cell_config("paper-cifar10", "fgsm-rs", 0, "FOLDER", scale="fast")
    assert (robust.recipe.name, robust.recipe.eps, robust.fit.epochs) == ("fgsm-rs", 8 / 255, 12)


@pytest.mark.parametrize("scale", ["smoke", "cpu", "fast", "full"])
@pytest.mark.parametrize("name", COMPARISONS)
def test_every_method_has_a_configuration_of_its_own_name(name, scale):
    for method in METHODS:
        config = cell_config(name, method, 3, "FOLDER", scale=scale)
        assert (config.name, config.seed, config.data.source) == (method, 3, "FOLDER")


def test_adversarial_training_defends_the_ball_that_is_attacked():
    for data in ("digits", "FOLDER"):
        settings = measurement("fashion", data, "smoke")
        for method, about in METHODS.items():
            if about.family == "adversarial training":
                assert cell_config("fashion", method, 0, data, scale="smoke").recipe.eps == settings.eps


def test_curves_go_as_far_as_the_papers():
    assert measurement("paper-cifar10", "FOLDER", "cpu").curve == pytest.approx(PAPER_GRID)
    assert measurement("paper-cifar10", "digits", "smoke").curve[-1] == pytest.approx(0.4)
    assert comparison("fashion", "digits").flip == "none"


@pytest.mark.parametrize(
    ("name", "method", "message"),
    [
        ("fasion", "softmax", "unknown comparison 'fasion'; did you mean 'fashion'? known: "),
        ("fashion", "softmx", "unknown method 'softmx'; did you mean 'softmax'? known: "),
    ],
)
def test_unknown_names_suggest_the_nearest(name, method, message, tmp_path):
    with pytest.raises(RepulseError) as error:
        cell_config(name, method, 0, "FOLDER")
    assert str(error.value).startswith(message)
    with pytest.raises(RepulseError) as error:
        Grid(name, "cpu", "FOLDER", tmp_path, methods=[method])
    assert str(error.value).startswith(message)


def test_a_grid_takes_the_scales_own_values_for_what_is_left_out(tmp_path):
    grid = Grid("fashion", "cpu", "FOLDER", tmp_path)
    assert (grid.methods, grid.seeds, grid.images) == (tuple(METHODS), (0, 1, 2), 200)
    assert grid.cells[0].folder == tmp_path / "fashion" / "cpu" / "softmax" / "seed-0"
    assert [c.seed for c in grid.cells] == sorted(c.seed for c in grid.cells)
    twice = Grid("fashion", "cpu", "FOLDER", tmp_path, methods=["simplex", "simplex"], seeds=[4, 4])
    assert [(c.method, c.seed) for c in twice.cells] == [("simplex", 4)]
