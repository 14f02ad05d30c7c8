from itertools import pairwise

import pytest
import torch
from torch import nn

from repulse.cli import main
from repulse.common.errors import RepulseError
from repulse.models import BACKBONES, PrototypeClassifier, make_backbone
from repulse.models.lipschitz import Shift
from repulse.models.settings import ModelSettings
from repulse.run_folder import load_run


def flat(dimension):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(dimension))


def test_logits_are_the_readout_of_the_embedding_over_the_temperature():
    model = PrototypeClassifier(flat(6), torch.eye(4, 6), "linear", temperature=0.5, mean=(0.5,), std=(0.25,))
    x = torch.rand(3, 1, 4, 4)
    embedding = model.backbone((x - 0.5) / 0.25)
    torch.testing.assert_close(model.embed(x), embedding)
    torch.testing.assert_close(model(x), 2 * embedding[:, :4])


def test_outside_training_embeddings_of_mirrored_and_moved_images_are_averaged():
    torch.manual_seed(0)
    options = {"mean": (0.25,), "mirror": True, "shift": 1}
    model = PrototypeClassifier(nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Tanh()), torch.eye(4), **options)
    x = torch.rand(5, 1, 3, 4)
    torch.testing.assert_close(model.embed(x), model.backbone(x - 0.25))
    expected = torch.zeros(5, 4)
    for image in (x, x.flip(-1)):
        up, down = torch.full_like(x, 0.25), torch.full_like(x, 0.25)
        up[..., :-1, :-1], down[..., 1:, 1:] = image[..., 1:, 1:], image[..., :-1, :-1]
        for view, weight in ((image, 1 / 4), (up, 1 / 8), (down, 1 / 8)):
            expected += weight * model.backbone(view - 0.25)
    torch.testing.assert_close(model.eval().embed(x), expected)


def test_prototypes_are_kept_and_not_trained():
    model = PrototypeClassifier(flat(6), torch.eye(4, 6))
    model(torch.rand(3, 1, 4, 4))
    assert "prototypes" in model.state_dict()
    assert all(parameter is not model.prototypes for parameter in model.parameters())


def test_a_backbone_of_another_dimension_is_refused():
    model = PrototypeClassifier(flat(5), torch.eye(4, 6))
    with pytest.raises(RepulseError, match=r"embeddings of shape \(N, 6\).*got \(3, 5\)$"):
        model(torch.rand(3, 1, 4, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
        ({"shift": -1}, "shift must not be negative, got -1"),
        ({"std": (0.2, 0.0, 0.2)}, r"std must be positive in every channel, got \[0.2, 0.0, 0.2\]"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(RepulseError, match=f"^{message}$"):
        PrototypeClassifier(flat(6), torch.eye(4, 6), **options)


@pytest.mark.parametrize(("name", "size"), [("small-cnn", 8), ("small-cnn", 28), ("fast", 32), ("resnet18", 32)])
@pytest.mark.parametrize("channels", [1, 3])
def test_backbones_give_embeddings_that_depend_on_every_pixel_region(name, size, channels):
    backbone = make_backbone(name, channels=channels, dimension=11, width=0.25).eval()
    x = torch.rand(2, channels, size, size, requires_grad=True)
    z = backbone(x)
    assert z.shape == (2, 11)
    z.square().sum().backward()
    quarters = x.grad.abs().unfold(2, size // 2, size // 2).unfold(3, size // 2, size // 2).sum((0, 1, 4, 5))
    assert (quarters > 0).all()


def parameters(name):
    with torch.device("meta"):
        return sum(p.numel() for p in make_backbone(name, channels=3, dimension=10).parameters())


def test_published_sizes():
    """ResNet-18 and the Wide ResNets have the numbers of parameters that their papers and RobustBench give."""
    assert parameters("resnet18") == 11_173_962
    assert parameters("wrn-28-10") == 36_479_194
    assert parameters("wrn-34-10") == 46_160_474


def test_every_backbone_is_registered_once():
    residual = {"resnet18", "wrn-28-10", "wrn-34-10"}
    assert set(BACKBONES) == {"small-cnn", "fast", "fast-silu", *residual, "linf-dist", "lipschitz-cnn"}


def test_whitening_makes_patches_white():
    generator = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.avg_pool2d(torch.randn(64, 3, 18, 18, generator=generator), 3, 1)
    backbone = make_backbone("fast", channels=3, dimension=10)
    backbone.initialise(smooth)
    response = backbone.whiten(smooth)[:, :12].permute(1, 0, 2, 3).flatten(1)
    covariance = response @ response.T / response.shape[1]
    # 5e-4 is added to every eigenvalue, so weak directions fall a little short of one.
    torch.testing.assert_close(covariance, torch.eye(12), atol=0.05, rtol=0)


def test_a_floor_keeps_what_is_weaker_than_a_perturbation_weak():
    generator = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.avg_pool2d(torch.randn(64, 3, 18, 18, generator=generator), 3, 1)
    patches = smooth.unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 12).double()
    variances = torch.linalg.eigvalsh(patches.T @ patches / len(patches)).flip(0)
    backbone = make_backbone("fast", channels=3, dimension=10, floor=0.1)
    backbone.initialise(smooth)
    response = backbone.whiten(smooth)[:, :12].permute(1, 0, 2, 3).flatten(1).double()
    covariance = response @ response.T / response.shape[1]
    torch.testing.assert_close(covariance, torch.diag(variances / (variances + 0.1)), atol=1e-4, rtol=0)


def test_timm_without_timm_says_what_to_install():
    try:
        import timm  # noqa: F401
    except ImportError:
        with pytest.raises(RepulseError, match=r"^backbone timm/resnet10t needs timm: pip install 'repulse\[timm\]'$"):
            make_backbone("timm/resnet10t", channels=3, dimension=5)
    else:
        assert make_backbone("timm/resnet10t", channels=3, dimension=5)(torch.rand(2, 3, 32, 32)).shape == (
            2,
            5,
        )


def test_the_small_cnn_is_convolution_norm_relu_and_pooling_bit_for_bit():
    """Written in that order, the usual one, it has the same weights, outputs and gradients."""
    torch.manual_seed(0)
    ours = make_backbone("small-cnn", channels=3, dimension=5)
    order: list[nn.Module] = []
    widths = (3, 32, 64, 128, 128)
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        order += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        order.append(nn.MaxPool2d(2) if i < 3 else nn.AdaptiveAvgPool2d(1))
    usual = nn.Sequential(nn.Sequential(*order, nn.Flatten()), nn.Linear(128, 5))
    usual.load_state_dict(dict(zip(usual.state_dict(), ours.state_dict().values(), strict=True)))
    x = torch.rand(6, 3, 16, 16)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    ours(a).square().sum().backward()
    usual(b).square().sum().backward()
    assert torch.equal(ours(x), usual(x))
    assert torch.equal(a.grad, b.grad)
    for mine, theirs in zip(ours.parameters(), usual.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)


def test_further_arguments_of_a_backbone_are_settings():
    deep = make_backbone("lipschitz-cnn", channels=1, dimension=4, depth=5)
    plain = make_backbone("lipschitz-cnn", channels=1, dimension=4)
    assert sum(isinstance(part, Shift) for part in deep) == 10
    assert sum(isinstance(part, Shift) for part in plain) == 6
    with pytest.raises(RepulseError, match=r"^backbone 'lipschitz-cnn' has no setting 'dept'; did you mean 'depth'\?"):
        make_backbone("lipschitz-cnn", channels=1, dimension=4, dept=5)
    with pytest.raises(RepulseError, match=r"^backbone 'linf-dist': grid: .* greater than or equal to 1, got 0$"):
        make_backbone("linf-dist", channels=1, dimension=4, grid=0)
    with pytest.raises(RepulseError, match=r"^backbone 'fast' has no setting 'depth'"):
        make_backbone("fast", channels=1, dimension=4, depth=5)


def test_a_backbone_of_ones_own_is_one_function_and_is_configured_by_yaml_and_flags(tmp_path, monkeypatch):
    monkeypatch.setattr(BACKBONES, "_entries", dict(BACKBONES._entries))

    @BACKBONES.register("mlp")
    def mlp(channels, dimension, width, *, hidden=16, bias: bool = True):
        layers = (nn.Linear(64 * channels, round(hidden * width)), nn.Linear(round(hidden * width), dimension, bias))
        return nn.Sequential(nn.Flatten(), *layers)

    file = tmp_path / "mlp.yaml"
    file.write_text("model: {backbone: {name: mlp, hidden: 24}, width: 0.5}\n")
    run = tmp_path / "run"
    quick = ["--fit.epochs", "1", "--data.train-images", "50", "--progress", "quiet", "--preset", "softmax"]
    assert main(["train", "--config", str(file), "--model.backbone.no-bias", "--output", str(run), *quick]) == 0
    model, config, _ = load_run(run)
    assert config.model.backbone.model_dump() == {"name": "mlp", "hidden": 24, "bias": False}
    assert (model.backbone[1].out_features, model.backbone[2].bias) == (12, None)


def test_a_configuration_of_before_names_a_backbone_by_its_name():
    assert ModelSettings(backbone="resnet18").backbone == BACKBONES.make("resnet18")
