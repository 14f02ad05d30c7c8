"""What fools only the copy that attacks run on is sought again on the model itself."""

import torch
from torch import nn

from repulse.attacks import OBJECTIVES, PGD, Threat
from repulse.evaluation.attack_runner import AttackRunner
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
    assert float(outcome.adversarial[0, 0, 0, 0]) < 0.5
    assert torch.equal(outcome.adversarial[1:], x[1:])


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
    found = runner.first_steps(long, 4, threat)
    assert short.robust.sum() > long.robust.sum() > 0
    assert torch.equal(found.robust, short.robust)
    assert torch.equal(found.prediction, short.prediction)
    assert torch.equal(found.adversarial, short.adversarial)
    assert torch.equal(found.asked, short.asked)
    assert torch.equal(found.passes.backward, short.passes.backward)
    assert found.largest == short.largest
