"""`PrototypeLoss` is the losses of the package as a module; `perturb` is the recipes' images."""

import copy

import pytest
import torch
from tasks import grey, linear, losses, margins, outwards
from torch import nn

from repulse import PrototypeClassifier, PrototypeLoss, make_prototypes, perturb
from repulse.attacks import Threat
from repulse.common.errors import RepulseError
from repulse.training import LOSSES, RECIPES
from repulse.training.recipe import AdversarialRecipe
from repulse.training.recipes import PGDTraining

POINTS = make_prototypes("simplex", 4, 5)


def batch(count=6):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 5, generator=generator), torch.arange(count) % 4


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_is_that_of_a_classifier_with_the_same_prototypes(name):
    z, y = batch()
    criterion = PrototypeLoss(POINTS, name, temperature=0.2)
    classifier = PrototypeClassifier(nn.Identity(), POINTS, "cosine", temperature=0.2)
    values = LOSSES[name]().per_example(z, y, classifier)
    expected = values.sum() if LOSSES[name].reduction == "sum" else values.mean()
    torch.testing.assert_close(criterion(z, y), expected)
    torch.testing.assert_close(criterion.logits(z), classifier.classify(z))
    torch.testing.assert_close(PrototypeLoss(POINTS, name, temperature=0.2, reduction="none")(z, y), values)
    torch.testing.assert_close(PrototypeLoss(POINTS, name, temperature=0.2, reduction="sum")(z, y), values.sum())


def test_settings_go_to_the_loss():
    z, y = batch()
    smoothed = PrototypeLoss(POINTS, "cross-entropy", label_smoothing=0.2, temperature=0.5)
    expected = nn.functional.cross_entropy(smoothed.logits(z), y, label_smoothing=0.2)
    torch.testing.assert_close(smoothed(z, y), expected)
    assert PrototypeLoss(POINTS, LOSSES["certified-hinge"](offset=2)).loss.offset == 2
    with pytest.raises(RepulseError, match="loss 'cosine' has no setting 'offset'"):
        PrototypeLoss(POINTS, "cosine", offset=2)


def test_it_is_a_module_that_is_saved_copied_and_converted():
    z, y = batch()
    criterion, other = PrototypeLoss(POINTS), PrototypeLoss(torch.eye(4, 5))
    assert list(criterion.state_dict()) == ["prototypes"]
    assert not list(criterion.parameters())
    other.load_state_dict(criterion.state_dict())
    torch.testing.assert_close(other(z, y), criterion(z, y))
    torch.testing.assert_close(copy.deepcopy(criterion).double()(z.double(), y), criterion(z, y).double())


def test_learned_prototypes_are_a_parameter_and_are_trained():
    z, y = batch()
    criterion = PrototypeLoss(POINTS, "repelling-prototypes", learn_prototypes=True)
    (points,) = criterion.parameters()
    before = points.detach().clone()
    optimiser = torch.optim.SGD([points], lr=0.1)
    criterion(z, y).backward()
    optimiser.step()
    assert not torch.equal(points, before)


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast_give_single_precision(name, dtype):
    z, y = batch()
    criterion = PrototypeLoss(POINTS, name)
    half = z.to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = criterion(half, y)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, criterion(half.float(), y))


def test_labels_of_any_whole_numbers():
    z, y = batch()
    criterion = PrototypeLoss(POINTS)
    torch.testing.assert_close(criterion(z, y.to(torch.uint8)), criterion(z, y.to(torch.int32)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PrototypeLoss(POINTS, "cosin"), "unknown loss 'cosin'; did you mean 'cosine'"),
        (lambda: PrototypeLoss(POINTS, readout="cosin"), "unknown readout 'cosin'; did you mean 'cosine'"),
        (lambda: PrototypeLoss(POINTS, temperature=0.0), "temperature must be positive, got 0.0"),
        (lambda: PrototypeLoss(POINTS, reduction="avg"), "reduction must be 'mean', 'sum' or 'none', got 'avg'"),
        (lambda: PrototypeLoss(POINTS)(torch.zeros(2, 3), torch.zeros(2)), r"embeddings must have shape \(N, 5\)"),
        (lambda: perturb(nn.Identity(), *grey(), "noise"), "recipe 'noise' moves no images in a ball"),
        (
            lambda: perturb(nn.Identity(), *grey(), "pgd", epz=1),
            "recipe 'pgd' has no setting 'epz'; did you mean 'eps'",
        ),
    ],
)
def test_mistakes_are_one_line(make, message):
    with pytest.raises(RepulseError, match=f"^{message}"):
        make()


def test_perturbed_images_of_a_linear_model_are_at_the_worst_corner():
    model, weight = linear()
    x, y = grey()
    plain = nn.Sequential(model.backbone.body)
    moved = perturb(plain, x, y, PGDTraining(eps=0.1, steps=8))
    torch.testing.assert_close(moved, x + 0.1 * outwards(weight, y).sign())
    by_name = perturb(plain, x, y, "pgd", nn.CrossEntropyLoss(), eps=0.1, steps=8)
    torch.testing.assert_close(by_name, moved)
    values = nn.functional.cross_entropy(plain(moved), y, reduction="none")
    fall = 0.1 * outwards(weight, y).flatten(1).abs().sum(1)
    torch.testing.assert_close(values, losses(margins(x, y, weight) - fall), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name", sorted(name for name, recipe in RECIPES.items() if issubclass(recipe, AdversarialRecipe))
)
def test_every_adversarial_recipe_moves_images_in_the_ball_and_touches_no_parameter(name):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
    criterion = PrototypeLoss(POINTS, "cross-entropy")
    x, y = grey(classes=4)
    with torch.no_grad():
        moved = perturb(network, x, y, name, criterion, eps=0.05)
    threat = Threat("linf", 0.05 * (3 if name in ("n-fgsm", "repulse") else 1))
    assert float(threat.distance(moved, x).max()) <= threat.eps + threat.tolerance
    assert not torch.equal(moved, x)
    assert not moved.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())


def test_perturb_climbs_a_prototype_loss():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
    for name in ("cosine", "linf", "cross-entropy"):
        criterion = PrototypeLoss(POINTS, name, reduction="none")
        x, y = grey(classes=4)
        moved = perturb(network, x, y, "pgd", criterion, eps=0.05, steps=5)
        assert (criterion(network(moved), y) > criterion(network(x), y)).all()
