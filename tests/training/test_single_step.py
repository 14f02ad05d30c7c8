import pytest
import torch
from tasks import CROSS_ENTROPY, grey, linear, losses, margins, network, outwards

from repulse.attacks.objectives import margin
from repulse.common.errors import RepulseError
from repulse.training import RECIPES, Task
from repulse.training.recipes import NFGSM, CurvaturePenalty, FastTRADES, MarginStep, SlopePenalty


def test_n_fgsm_steps_from_a_wide_start_and_does_not_come_back():
    model, weight = linear()
    x, y = grey(2000, low=0.45, high=0.55)
    NFGSM(eps=0.1)(Task(model, CROSS_ENTROPY), x, y)
    start, end = (images - x for images in model.backbone.images)
    torch.testing.assert_close(end, start + 0.1 * outwards(weight, y).sign(), rtol=0, atol=1e-6)
    # Uniform within twice eps, so its deviation is 2 eps / sqrt(3); some ends lie outside the ball.
    assert float(start.std()) == pytest.approx(0.2 / 3**0.5, rel=0.01)
    assert float(end.abs().max()) > 0.25


def test_n_fgsm_stays_within_the_range_of_pixels():
    model, _ = linear()
    x, y = grey(50, low=0.0, high=1.0)
    NFGSM(eps=0.2)(Task(model, CROSS_ENTROPY), x, y)
    assert all(images.min() >= 0 and images.max() <= 1 for images in model.backbone.images)


def test_the_margin_step_finds_the_worst_corner_whatever_the_loss_is():
    """A loss without any gradient in the image: what is climbed is the margin."""
    model, weight = linear()
    x, y = grey()
    _, z = MarginStep(eps=0.1, step_size=0.2)(Task(model, lambda z, y, head: 0 * z.sum(1)), x, y)
    fall = 0.1 * outwards(weight, y).flatten(1).abs().sum(1)
    torch.testing.assert_close(-margin(z, y), margins(x, y, weight) - fall, rtol=1e-4, atol=1e-5)


def test_the_wrong_margin_is_the_best_wrong_logit_less_the_right_one():
    logits = torch.tensor([[3.0, 1.0, 2.5], [0.0, -1.0, 4.0]])
    assert margin(logits, torch.tensor([0, 1])).tolist() == [-0.5, 5.0]


def test_fast_trades_adds_the_divergence_at_the_worst_corner():
    """The step climbs the loss of a linear model, so x' is the corner where the margin falls by eps |dw|_1."""
    model, weight = linear()
    x, y = grey(40)
    values, _ = FastTRADES(eps=0.1, step_size=0.2, beta=6.0)(Task(model, CROSS_ENTROPY), x, y)
    margin = margins(x, y, weight)
    p, q = (torch.sigmoid(m) for m in (margin, margin - 0.1 * outwards(weight, y).flatten(1).abs().sum(1)))
    divergence = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    torch.testing.assert_close(values, losses(margin) + 6 * divergence, rtol=1e-4, atol=1e-4)


def test_embedding_trades_adds_how_far_the_embedding_turns():
    model, weight = linear()
    x, y = grey(40)
    values, z = RECIPES["embedding-trades"](eps=0.1, step_size=0.2, beta=3.0)(Task(model, CROSS_ENTROPY), x, y)
    moved = (x + 0.1 * outwards(weight, y).sign()).flatten(1) @ weight.T
    turned = 1 - torch.cosine_similarity(z, moved, dim=1)
    torch.testing.assert_close(values, losses(margins(x, y, weight)) + 3 * turned, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("norm", "order"), [("l2", 2), ("linf", 1)])
def test_the_slope_of_a_linear_margin_is_the_dual_norm_at_any_distance(norm, order):
    model, weight = linear()
    x, y = grey()
    dual = outwards(weight, y).flatten(1).norm(p=order, dim=1)
    for distance in (0.01, 0.5):
        recipe = SlopePenalty(strength=0.7, distance=distance, norm=norm, of="margin")
        values, _ = recipe(Task(model, CROSS_ENTROPY), x, y)
        torch.testing.assert_close(values, losses(margins(x, y, weight)) + 0.7 * dual**2, rtol=1e-3, atol=1e-4)


def test_the_slope_of_the_loss_tends_to_its_gradient():
    model, weight = linear()
    x, y = grey()
    values, _ = SlopePenalty(strength=0.7, distance=1e-2)(Task(model, CROSS_ENTROPY), x, y)
    margin = margins(x, y, weight)
    gradient = torch.sigmoid(-margin) * outwards(weight, y).flatten(1).norm(dim=1)
    torch.testing.assert_close(values, losses(margin) + 0.7 * gradient**2, rtol=2e-2, atol=1e-3)


def test_curvature_is_the_change_of_the_gradient_along_its_sign():
    """The gradient of a linear model's loss is p_wrong dw, and moving by h along its sign lowers the margin."""
    model, weight = linear()
    x, y = grey()
    values, _ = CurvaturePenalty(strength=2.0, distance=1.5)(Task(model, CROSS_ENTROPY), x, y)
    margin, towards = margins(x, y, weight), outwards(weight, y).flatten(1)
    ahead = margin - 1.5 / 16**0.5 * towards.abs().sum(1)
    change = (torch.sigmoid(-ahead) - torch.sigmoid(-margin)) * towards.norm(dim=1)
    torch.testing.assert_close(values, losses(margin) + 2 * change**2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["slope", "margin-slope", "curvature"])
def test_a_penalty_of_strength_zero_leaves_the_loss(name):
    torch.manual_seed(0)
    model = network().eval()
    x, y = grey(6, side=8, classes=3)
    task = Task(model, CROSS_ENTROPY)
    values, _ = RECIPES[name](strength=0.0)(task, x, y)
    torch.testing.assert_close(values, task.loss(task.embed(x), y))


@pytest.mark.parametrize(
    ("recipe", "forward", "backward"),
    [
        ("n-fgsm", 2, 2),
        ("margin-step", 2, 2),
        ("fast-trades", 3, 3),
        ("embedding-trades", 3, 3),
        ("slope", 2, 2),
        ("margin-slope", 2, 2),
    ],
)
def test_what_a_recipe_costs(recipe, forward, backward):
    """Batches through the backbone; slope's second holds images twice."""
    model = network().train()
    x, y = grey(6, side=8, classes=3)
    RECIPES[recipe]()(Task(model, CROSS_ENTROPY), x, y).values.sum().backward()
    assert (len(model.backbone.images), model.backbone.backward) == (forward, backward)


@pytest.mark.parametrize("name", ["n-fgsm", "margin-step", "fast-trades", "slope", "margin-slope", "curvature"])
def test_a_recipe_reaches_every_weight(name):
    model = network().train()
    x, y = grey(6, side=8, classes=3)
    RECIPES[name]()(Task(model, CROSS_ENTROPY), x, y).values.sum().backward()
    # The bias of the head alone does not move a loss of a normalised embedding that other weights do not.
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "slope", "distance": 1.0, "eps": 0.1}, "recipe 'slope' has no setting 'eps'"),
        ({"name": "n-fgsm", "beta": 1.0}, "recipe 'n-fgsm' has no setting 'beta'"),
    ],
)
def test_settings_that_a_recipe_lacks_are_refused(settings, message):
    with pytest.raises(RepulseError, match=message):
        RECIPES.make(settings)


def test_impossible_distances_are_refused():
    with pytest.raises(RepulseError, match=r"^recipe 'slope': distance: input should be greater than 0, got 0\.0$"):
        SlopePenalty(distance=0.0)
