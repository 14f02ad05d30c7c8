"""Ensembles, side by side with the AutoAttack that PyPI offers, and the folded copy that attacks are run on."""

from dataclasses import replace

import pytest
import torch
from known import digits, images, linear
from torch import nn

from repulse.attacks import APGD, FAB, OBJECTIVES, PGD, Ensemble, Member, Square, TargetedAPGD, Threat, ensemble
from repulse.attacks.folding import folded
from repulse.common.errors import RepulseError
from repulse.models import PrototypeClassifier
from repulse.prototypes import make_prototypes


def quick():
    """The standard ensemble at a small budget."""
    return Ensemble(
        (
            Member("apgd", "APGD", APGD(OBJECTIVES["cross-entropy"], steps=10)),
            Member("apgd-targeted", "APGD-T", TargetedAPGD(targets=3, steps=10)),
            Member("fab", "FAB", FAB(targets=3, steps=10)),
            Member("square", "Square", Square(queries=50)),
        )
    )


def test_an_ensemble_fools_what_any_of_its_members_fools():
    model, x, y = digits(epochs=2)
    threat = Threat("linf", 0.08)
    alone = [member.attack(model, x, y, threat).fooled for member in quick().members]
    together = quick()(model, x, y, threat).fooled
    assert torch.equal(together, torch.stack(alone).any(0))
    assert len({int(fooled.sum()) for fooled in alone}) > 1


def test_an_ensemble_costs_less_than_its_members_alone():
    model, x, y = digits(epochs=2)
    threat = Threat("linf", 0.08)
    alone = sum(member.attack(model, x, y, threat).forward_passes for member in quick().members)
    assert quick()(model, x, y, threat).forward_passes < alone


def test_standard_has_the_order_and_budgets_of_autoattack():
    members = ensemble("standard").members
    assert [member.name for member in members] == ["apgd-cross-entropy", "apgd-dlr-targeted", "fab-targeted", "square"]
    assert (members[0].attack.steps, members[0].attack.restarts) == (100, 1)
    assert (members[1].attack.steps, members[1].attack.targets) == (100, 9)
    assert (members[2].attack.steps, members[2].attack.targets) == (100, 9)
    assert members[3].attack.queries == 5000


def test_an_unknown_ensemble_is_refused():
    with pytest.raises(RepulseError, match=r"^unknown ensemble 'standart'; did you mean 'standard'\?"):
        ensemble("standart")


def test_an_ensemble_without_members_or_with_twins_is_refused():
    member = Member("a", "A", PGD(OBJECTIVES["margin"]))
    for members in ((), (member, member)):
        with pytest.raises(RepulseError, match=r"^an ensemble needs members of different names, got"):
            Ensemble(members)


def prototype_model(readout, seed=0):
    """A small network trained on digits, then read out by class prototypes."""
    _, x, y = digits(epochs=1)
    backbone, _, _ = digits(epochs=4, seed=seed)
    steps = 50 if readout == "dot" else None
    points = make_prototypes("repulsive-linf" if steps else "simplex", 10, 10, seed=0, steps=steps)
    model = PrototypeClassifier(backbone, points, readout, temperature=0.1 if readout == "cosine" else 1.0)
    return model.eval(), x, y


def cases():
    yield "softmax", lambda: digits(epochs=6), 0.1
    yield "fgsm-rs", lambda: digits(epochs=8, eps=0.15), 0.15
    yield "linf prototypes", lambda: prototype_model("dot"), 0.08
    yield "cosine prototypes", lambda: prototype_model("cosine"), 0.08

    def plain():
        model = linear(5)
        x, y = images(model, count=150)
        return model, x.reshape(-1, 1, 4, 4), y

    yield "linear", plain, 0.02


STEPS, QUERIES = 30, 300


@pytest.mark.slow
@pytest.mark.parametrize(("make", "eps"), [case[1:] for case in cases()], ids=[case[0] for case in cases()])
def test_robust_accuracy_is_never_above_that_of_autoattack(make, eps):
    """Differential, at a third of the steps and fewer queries on both sides; full size is in benchmarks/attacks.py."""
    autoattack = pytest.importorskip("pyautoattack")
    model, x, y = make()
    right = model(x).argmax(1) == y
    x, y = x[right][:40], y[right][:40]
    threat = Threat("linf", eps)
    members = [replace(each, attack=replace(each.attack, steps=STEPS)) for each in ensemble("standard").members[:3]]
    ours = Ensemble((*members, Member("square", "Square", Square(queries=QUERIES))))(model, x, y, threat)
    classes = model(x[:1]).shape[1]
    theirs = autoattack.AutoAttack(
        model,
        eps=eps,
        norm="Linf",
        seed=0,
        version="custom",
        attacks=["apgd-ce", "apgd-t", "fab-t", "square"],
    )
    theirs.apgd.n_restarts = theirs.fab.n_restarts = 1
    theirs.apgd_targeted.n_target_classes = theirs.fab.n_target_classes = min(9, classes - 1)
    theirs.square.n_queries = QUERIES
    for attack in (theirs.apgd, theirs.apgd_targeted, theirs.fab):
        attack.n_iter = STEPS
    for attack in (theirs.apgd, theirs.apgd_targeted):
        # Made of the number of steps when an attack is made.
        attack.n_iter_2, attack.n_iter_min, attack.size_decr = (
            max(int(share * STEPS), 1) for share in (0.22, 0.06, 0.03)
        )
    adversarial, _ = theirs.run_standard_evaluation(x, y, batch_size=200)
    fooled = (model(adversarial).argmax(1) != y) & (threat.distance(adversarial, x) <= eps + threat.tolerance)
    assert 0 < fooled.sum() < len(x)
    assert ours.fooled.sum() >= fooled.sum()


def test_folding_batch_norm_changes_logits_by_rounding_only():
    model, x, _ = digits(epochs=1)
    model.requires_grad_(False)
    twin = folded(model, x)
    assert twin is not model
    assert not any(isinstance(module, nn.BatchNorm2d) for module in twin.modules())
    torch.testing.assert_close(twin(x), model(x), atol=1e-4, rtol=1e-4)
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def test_a_classifier_keeps_its_embedding_when_its_backbone_is_folded():
    backbone, x, _ = digits(epochs=1)
    model = PrototypeClassifier(backbone, torch.eye(10), "cosine").eval().requires_grad_(False)
    twin = folded(model, x)
    assert isinstance(twin, PrototypeClassifier)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in twin.modules())
    torch.testing.assert_close(twin.embed(x), model.embed(x), atol=1e-4, rtol=1e-4)


def test_the_folded_copy_has_the_gradients_of_the_model():
    """Images at both ends of the range, so that pooling meets ties, and ReLU zeros."""
    model, x, y = digits(epochs=1)
    model.requires_grad_(False)
    twin = folded(model, x)
    relus = [module for module in twin.modules() if isinstance(module, nn.ReLU)]
    assert relus
    assert all(relu.inplace for relu in relus)
    for batch in (x[:20], x[:20].round(), torch.zeros_like(x[:20])):
        gradients = []
        for each in (model, twin):
            asked = batch.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(each(asked).gather(1, y[:20, None]).sum(), asked)
            gradients.append(gradient)
        torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-3)


def test_what_somebody_else_looks_at_is_not_overwritten():
    class Skipping(nn.Module):
        """One ReLU called twice; what it gets is used again, and so is what pooling gets."""

        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.relu = nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU()
            self.pool = nn.MaxPool2d(2, padding=1)

        def forward(self, x):
            z = self.norm(self.conv(x))
            w = self.relu(z)
            return self.pool(w).mean((2, 3)) + self.relu(self.pool(z)).mean((2, 3)) + w.sum((2, 3)) - z.mean((2, 3))

    torch.manual_seed(0)
    model, x = Skipping().eval().requires_grad_(False), torch.rand(5, 1, 6, 6)
    twin = folded(model, x)
    assert twin is not model
    assert not twin.relu.inplace
    torch.testing.assert_close(twin(x), model(x), atol=1e-5, rtol=1e-4)


def test_a_model_that_folding_would_change_is_left_alone():
    class Liar(nn.Module):
        """Batch norm after a convolution, whose weights another part uses as well."""

        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
            self.norm.running_mean.fill_(3.0)

        def forward(self, x):
            return self.norm(self.conv(x)).mean((2, 3)) + self.conv(x).mean((2, 3))

    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(16)

        def forward(self, x):
            return self.norm(x.flatten(1)) if x.sum() > 0 else x.flatten(1)

    x = torch.rand(5, 1, 4, 4)
    for model in (Liar().eval(), Branching().eval(), linear()):
        torch.testing.assert_close(folded(model, x)(x), model(x))
