import pytest
import torch
from tasks import CROSS_ENTROPY, Witness, data, grey, linear, train

from repulse.common.errors import RepulseError
from repulse.config.settings import RecipeSettings
from repulse.training import Task, make_recipe
from repulse.training.delayed import Delayed
from repulse.training.recipes import FGSMRS, Standard

HALF = RecipeSettings(name="fgsm-rs", eps=0.1, delay=0.5)


def test_until_it_begins_it_is_plain_training_and_then_it_is_the_recipe():
    model, _ = linear()
    task, (x, y) = Task(model, CROSS_ENTROPY), grey()
    recipe = make_recipe(HALF)
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
    model = train(make_recipe(HALF), data(), {"epochs": 4})
    assert (len(model.backbone.images), model.backbone.backward) == (18, 18)


def test_without_a_delay_it_begins_at_once():
    assert make_recipe(RecipeSettings(name="fgsm-rs")) == FGSMRS()
    plain, delayed = (train(recipe, data()) for recipe in (FGSMRS(eps=0.1), Delayed(FGSMRS(eps=0.1), 0.0)))
    assert torch.equal(plain.backbone.body[1].weight, delayed.backbone.body[1].weight)


def test_a_resumed_run_ends_at_the_same_weights_bit_for_bit():
    witness, changes = Witness(), {"epochs": 4}
    whole = train(make_recipe(HALF), data(), changes, watcher=witness)
    for state in witness.states[:3]:
        resumed = train(make_recipe(HALF), data(), changes, seed=9, state=state)
        assert torch.equal(resumed.backbone.body[1].weight, whole.backbone.body[1].weight)


def test_what_cannot_begin_later_is_refused():
    with pytest.raises(RepulseError, match=r"^a recipe's delay must lie in \[0, 1\), got 1.0$"):
        Delayed(Standard(), 1.0)
    with pytest.raises(
        RepulseError, match=r"^a recipe that replays its batches cannot begin later; leave out recipe\.delay$"
    ):
        make_recipe(RecipeSettings(name="free", delay=0.5))
