"""Losses of learned prototypes, and prototypes that learn: trained, averaged, resumed, written and folded."""

import math

import pytest
import torch
from test_losses import PlainHead
from torch import nn

from repulse import runs
from repulse.attacks.folding import folded
from repulse.common.errors import RepulseError
from repulse.common.settings import merge
from repulse.config.run import RunConfig
from repulse.evaluation import About, EvaluationSettings, evaluate
from repulse.models import PrototypeClassifier, make_backbone
from repulse.prototypes import Prototypes
from repulse.run_folder import load_run
from repulse.runs import train_run
from repulse.subject.subject import model_record
from repulse.training import LOSSES


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(4, 3, generator=generator)
    head = PlainHead(torch.randn(5, 3, generator=generator))
    return z, torch.tensor([0, 4, 2, 2]), head


def square(a, b):
    return math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def cosine(a, b):
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def cross_entropy(logits, y):
    return math.log(math.fsum(math.exp(value) for value in logits)) - logits[y]


def test_prototype_conformity_agrees_with_a_loop(case):
    z, y, head = case
    w = head.prototypes.tolist()
    expected = []
    for a, own, logits in zip(z.tolist(), y.tolist(), head.classify(z).tolist(), strict=True):
        push = math.fsum(square(a, w[j]) + square(w[own], w[j]) for j in range(5) if j != own) / 4
        expected.append((cross_entropy(logits, own), square(a, w[own]), push))
    by_default = torch.tensor([ce + near - 1e-5 * away for ce, near, away in expected])
    torch.testing.assert_close(LOSSES["prototype-conformity"]().per_example(z, y, head), by_default)
    weighed = torch.tensor([ce + 0.5 * near - 0.25 * away for ce, near, away in expected])
    loss = LOSSES["prototype-conformity"](pull=0.5, push=0.25)
    torch.testing.assert_close(loss.per_example(z, y, head), weighed)
    assert loss.reduction == "mean"


def test_repelling_prototypes_pay_for_their_nearest_neighbours(case):
    z, y, head = case
    w = head.prototypes.tolist()
    crowding = math.fsum(max(cosine(w[i], w[j]) for j in range(5) if j != i) for i in range(5)) / 5
    plain = torch.tensor(
        [cross_entropy(row, own) for row, own in zip(head.classify(z).tolist(), y.tolist(), strict=True)]
    )
    torch.testing.assert_close(LOSSES["repelling-prototypes"]().per_example(z, y, head), plain + crowding)
    torch.testing.assert_close(
        LOSSES["repelling-prototypes"](repulsion=3.0).per_example(z, y, head), plain + 3 * crowding
    )


def test_a_weight_that_a_loss_does_not_have_is_refused():
    with pytest.raises(
        RepulseError,
        match=r"^loss 'repelling-prototypes' has no setting 'pull'; leave out loss\.pull \(it has: repulsion\)$",
    ):
        LOSSES["repelling-prototypes"](pull=1.0)


def test_the_penalty_alone_drives_prototypes_apart():
    """Two at an angle of 37 degrees end opposite each other, the most there is."""
    prototypes = nn.Parameter(torch.tensor([[1.0, 0.0], [0.8, 0.6]]))
    head = PlainHead(prototypes)
    z, y = torch.zeros(2, 2), torch.tensor([0, 1])
    sgd = torch.optim.SGD([prototypes], lr=0.1)
    for _ in range(200):
        sgd.zero_grad()
        LOSSES["repelling-prototypes"]().per_example(z, y, head).mean().backward()
        sgd.step()
    assert cosine(*prototypes.tolist()) < -0.999


def network(*, learn, readout="cosine"):
    torch.manual_seed(0)
    backbone = make_backbone("small-cnn", channels=1, dimension=4, width=0.125)
    return PrototypeClassifier(backbone, torch.eye(3, 4), readout, learn_prototypes=learn)


def test_learned_prototypes_are_a_parameter_of_the_same_name():
    fixed, learned = network(learn=False), network(learn=True)
    assert fixed.state_dict().keys() == learned.state_dict().keys()
    assert learned.state_dict().keys() >= {"prototypes"}
    assert any(parameter is learned.prototypes for parameter in learned.parameters())
    learned(torch.rand(2, 1, 8, 8)).sum().backward()
    assert learned.prototypes.grad is not None
    assert "dimension=4, learned," in repr(learned)
    assert "learned" not in repr(fixed)


def test_a_folded_copy_keeps_what_was_learned():
    model = network(learn=True).eval()
    with torch.no_grad():
        model.prototypes.mul_(torch.rand(3, 4))
    x = torch.rand(5, 1, 8, 8)
    twin = folded(model, x)
    assert twin is not model
    assert torch.equal(twin.prototypes, model.prototypes)
    torch.testing.assert_close(twin(x), model(x).detach(), rtol=1e-4, atol=1e-4)


def config(**changes):
    base = {
        "data": {"train_images": 200},
        "prototypes": {"method": "random"},
        "model": {"width": 0.25, "learn_prototypes": True},
        "loss": {"name": "repelling-prototypes"},
        "fit": {"epochs": 2, "batch_size": 50, "accelerator": "cpu", "devices": "1"},
    }
    return merge(merge(RunConfig(), base, "test"), changes, "test")


@pytest.mark.parametrize("averaging", ["none", {"name": "ema", "decay": 0.9}], ids=str)
def test_a_run_gives_back_the_learned_prototypes_and_resumes_bit_for_bit(tmp_path, averaging):
    chosen = config(fit={"averaging": averaging})
    trained = train_run(chosen, tmp_path / "whole")
    loaded, _, _ = load_run(tmp_path / "whole")
    start = Prototypes.load(tmp_path / "whole" / "prototypes.safetensors").points
    assert torch.equal(loaded.prototypes, trained.prototypes)
    assert float((loaded.prototypes - start).detach().abs().max()) > 0.01

    keep = runs._Keeper.on_epoch

    def once(self, *news):
        keep(self, *news)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs._Keeper, "on_epoch", once)
        with pytest.raises(KeyboardInterrupt):
            train_run(chosen, tmp_path / "stopped")
    resumed = train_run(chosen, tmp_path / "stopped", resume=True)
    for (name, a), (_, b) in zip(trained.state_dict().items(), resumed.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


def test_an_evaluation_keeps_the_learned_prototypes_and_their_digest():
    model = network(learn=True).eval()
    images, labels = torch.rand(6, 1, 8, 8), torch.arange(6) % 3
    before = model_record(model, About())
    with torch.no_grad():
        model.prototypes.add_(0.5)
    evaluation = evaluate(model, images, labels, EvaluationSettings(attacks="paper", steps=(1,), curve=()))
    assert torch.equal(evaluation.outcomes["prototypes"], model.prototypes.detach())
    assert model.prototypes.requires_grad
    assert evaluation.record.model.weights_sha256 != before.weights_sha256
    assert before.parameters == sum(parameter.numel() for parameter in model.parameters())
