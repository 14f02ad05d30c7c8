import pytest
import torch
from tasks import CROSS_ENTROPY, Witness, data, grey, linear, losses, margins, outwards, train

from repulse.common.errors import RepulseError
from repulse.training import RECIPES, Task
from repulse.training.phases import phased
from repulse.training.recipes import FGSMRS, PGDTraining, Standard

HALF = FGSMRS(eps=0.1, delay=0.5)


def test_until_it_begins_it_is_plain_training_and_then_it_is_the_recipe():
    model, _ = linear()
    task, (x, y) = Task(model, CROSS_ENTROPY), grey()
    recipe = phased(HALF)
    outcomes = []
    for share in (0.0, 0.49, 0.5, 0.99):
        recipe.on_progress(share)
        torch.manual_seed(5)
        outcomes.append(recipe(task, x, y).values)
    plain = Standard()(task, x, y).values
    torch.manual_seed(5)
    attacked = FGSMRS(eps=0.1)(task, x, y).values
    assert torch.equal(outcomes[0], plain)
    assert torch.equal(outcomes[1], plain)
    assert torch.equal(outcomes[2], attacked)
    assert torch.equal(outcomes[3], attacked)
    assert (attacked > plain).all()


def test_a_delayed_recipe_costs_what_plain_training_costs_until_it_begins():
    """4 epochs of 3 batches: one pass each in the first two, then two."""
    model = train(HALF, data(), {"epochs": 4})
    assert (len(model.backbone.images), model.backbone.backward) == (18, 18)


def test_without_a_delay_it_begins_at_once():
    assert RECIPES["fgsm-rs"]() == FGSMRS()
    plain, delayed = (train(recipe, data()) for recipe in (FGSMRS(eps=0.1), FGSMRS(eps=0.1, delay=0.0)))
    assert torch.equal(plain.backbone.body[1].weight, delayed.backbone.body[1].weight)


def test_a_resumed_run_ends_at_the_same_weights_bit_for_bit():
    witness, changes = Witness(), {"epochs": 4}
    whole = train(HALF, data(), changes, watcher=witness)
    for state in witness.states[:3]:
        resumed = train(HALF, data(), changes, seed=9, state=state)
        assert torch.equal(resumed.backbone.body[1].weight, whole.backbone.body[1].weight)


def test_what_cannot_begin_later_is_refused():
    with pytest.raises(RepulseError, match=r"^recipe 'standard': delay: input should be less than 1, got 1\.0$"):
        Standard(delay=1.0)
    with pytest.raises(
        RepulseError,
        match=r"^recipe 'free': a recipe that replays its batches cannot begin later; leave out recipe",
    ):
        RECIPES["free"](delay=0.5)


def test_the_radius_grows_from_zero_once_the_recipe_has_begun():
    """Delay 0.2, warm-up 0.4: clean, then eps times a share that reaches 1 at 0.6; the linear model's margin tells."""
    model, weight = linear()
    task, (x, y) = Task(model, CROSS_ENTROPY), grey()
    recipe = phased(PGDTraining(eps=0.1, steps=8, delay=0.2, warmup=0.4))
    across = outwards(weight, y).flatten(1).abs().sum(1)
    for share, grown in ((0.0, 0.0), (0.2, 0.0), (0.3, 0.25), (0.5, 0.75), (0.6, 1.0), (0.9, 1.0)):
        recipe.on_progress(share)
        values = recipe(task, x, y).values
        expected = losses(margins(x, y, weight) - 0.1 * grown * across)
        torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)


def test_a_step_of_ones_own_grows_with_the_radius():
    assert FGSMRS(eps=0.2, step_size=0.1).grown(0.5) == FGSMRS(eps=0.1, step_size=0.05)


def test_a_warm_up_that_never_ends_is_refused():
    with pytest.raises(RepulseError, match=r"^recipe 'pgd': delay 0\.5 and warmup 0\.6 leave no steps"):
        PGDTraining(delay=0.5, warmup=0.6)


def test_a_radius_in_grey_levels_is_asked_about(capsys):
    with pytest.raises(RepulseError, match=r"^recipe 'pgd': eps 8 in L-inf reaches every image.*mean 8/255\?$"):
        PGDTraining(eps=8)
    assert PGDTraining(eps=8, norm="l2").eps == 8
    assert capsys.readouterr().err == ""
    FGSMRS(eps=0.6)
    assert "eps 0.6 in L-inf is so wide" in capsys.readouterr().err
