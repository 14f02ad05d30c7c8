"""What fools only the copy that attacks run on is sought again on the model itself."""

import torch
from torch import nn

from repulse.attacks import OBJECTIVES, PGD, Threat
from repulse.evaluation.attack_runner import AttackRunner
from repulse.evaluation.pictures import gallery
from repulse.subject import Subject


def plane(offset):
    """Two classes, divided where the first pixel is `offset`."""
    layer = nn.Linear(4, 2)
    layer.weight.data = torch.tensor([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]])
    layer.bias.data = torch.tensor([-offset, offset])
    return nn.Sequential(nn.Flatten(), layer).eval()


def test_a_success_that_the_model_denies_is_sought_again_on_the_model():
    """The copy is fooled nearer by than the model: of three images the model is fooled on one, the copy on two."""
    x = torch.full((3, 1, 2, 2), 0.5)
    x[:, 0, 0, 0] = torch.tensor([0.55, 0.62, 0.8])
    y = torch.zeros(3, dtype=torch.int64)
    runner = AttackRunner(Subject(plane(0.5), x, y))
    runner.attacked_model = plane(0.55)
    outcome = runner.attack(PGD(OBJECTIVES["margin"], steps=5, step_size=0.03), Threat("linf", 0.1), "PGD")
    assert outcome.robust.tolist() == [False, True, True]
    found = outcome.pictures(torch.arange(3), x)
    assert float(found[0, 0, 0, 0]) < 0.5
    assert torch.equal(found[1:], x[1:])


def test_the_first_steps_of_a_long_attack_are_the_short_attack():
    """Image by image: who falls, to what, after how many passes; both attacks start at the same random points."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3)).eval()
    x = torch.rand(40, 1, 4, 4)
    y, threat = model(x).argmax(1), Threat("linf", 0.1)
    runner = AttackRunner(Subject(model, x, y))
    short, long = (
        runner.attack(PGD(OBJECTIVES["margin"], steps=steps, step_size=0.01, random_start=True), threat, "PGD")
        for steps in (4, 12)
    )
    found = runner.first_steps(long, 4)
    assert short.robust.sum() > long.robust.sum() > 0
    assert torch.equal(found.robust, short.robust)
    assert torch.equal(found.prediction, short.prediction)
    both = [int(row) for row in found.shown if row in short.shown]
    assert both
    assert torch.equal(found.pictures(torch.tensor(both), x), short.pictures(torch.tensor(both), x))
    assert torch.equal(found.asked, short.asked)
    assert torch.equal(found.passes.backward, short.passes.backward)
    assert found.largest == short.largest


def test_few_pictures_are_kept_and_they_are_those_that_are_shown():
    """Attacks keep a few adversarial images each; the gallery of all together is as if all had kept all."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 4)).eval()
    x = torch.rand(120, 1, 4, 4)
    y, threat = model(x).argmax(1), Threat("linf", 0.06)

    def worst(pictures):
        runner = AttackRunner(Subject(model, x, y, batch_size=25), pictures=pictures)
        found = None
        for steps in (1, 2, 5):
            attack = PGD(OBJECTIVES["margin"], steps=steps, step_size=0.02, random_start=True)
            each = runner.attack(attack, threat, f"PGD-{steps}")
            assert len(each.shown) <= 2 * pictures
            found = each if found is None else each.after(found)
        return runner, found

    runner, few = worst(6)
    _, every = worst(len(x))
    assert 20 < int((~every.robust).sum()) < len(x)
    assert len(every.shown) == int((~every.robust).sum())
    first, second = gallery(runner, few, 6), gallery(runner, every, 6)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name])
    fell = (~every.robust & runner.right).nonzero().flatten()[:6]
    assert torch.equal(few.pictures(fell, x), every.pictures(fell, x))
    assert few.largest == every.largest
