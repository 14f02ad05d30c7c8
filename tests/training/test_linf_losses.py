import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from repulse.common.errors import RepulseError
from repulse.config.presets import preset
from repulse.data import ImageSet
from repulse.models import PrototypeClassifier
from repulse.models.linf_distance import LinfDistanceNet, p_at
from repulse.models.pairwise_distance import pairwise_distance
from repulse.training import LOSSES, fit, make_fabric
from repulse.training.settings import FitSettings
from repulse.training.state import TrainingState

Z = torch.tensor([[0.5, 0.25], [0.5, -0.75], [-0.5, 0.75]])
Y = torch.tensor([0, 0, 2])
POINTS = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]])


def head(p=math.inf, readout="linf", points=POINTS):
    """A classifier whose network trains at p."""
    backbone = LinfDistanceNet(1, points.shape[1], 4, grid=2)
    made = PrototypeClassifier(backbone, points, readout, temperature=0.5)
    made.backbone.p = p
    return made.train()


def test_the_hinge_is_one_less_the_radius_over_the_one_asked_for():
    # Half margins: (1.25 - 0.75) / 2, (0.5 - 1.75) / 2, (1.5 - 0.5) / 2.
    expected = torch.tensor([0.5, 1 + 1.25, 0.0])
    torch.testing.assert_close(LOSSES["linf-hinge"](radius=0.5).per_example(Z, Y, head()), expected)


def test_the_margin_loss_clips_the_hinge_and_adds_a_little_cross_entropy():
    made = head()
    entropy = F.cross_entropy(made.classify(Z), Y, reduction="none")
    expected = torch.tensor([0.5, 1.0, 0.0]) + 0.0005 * entropy
    torch.testing.assert_close(LOSSES["linf-margin"](radius=0.5).per_example(Z, Y, made), expected)


@pytest.mark.parametrize(("p", "weight"), [(8.0, 0.1), (math.sqrt(8000), math.sqrt(0.1 * 0.0005)), (1000.0, 0.0005)])
def test_in_training_distances_have_the_p_of_the_network_and_the_weight_falls_with_it(p, weight):
    scores = -pairwise_distance(Z, POINTS, p)
    margin = torch.stack([scores[i, y] - scores[i, [j for j in range(3) if j != y]].max() for i, y in enumerate(Y)]) / 2
    expected = (1 - margin / 0.5).clamp(0, 1) + weight * F.cross_entropy(scores / 0.5, Y, reduction="none")
    torch.testing.assert_close(LOSSES["linf-margin"](radius=0.5).per_example(Z, Y, head(p)), expected)


def test_one_hot_prototypes_with_a_linear_readout_are_logits():
    z = torch.tensor([[3.0, 1.0, 0.5]])
    loss = LOSSES["linf-hinge"](radius=4.0).per_example(z, torch.tensor([0]), head(8.0, "linear", torch.eye(3)))
    assert loss.item() == pytest.approx(0.75)


def test_an_impossible_radius_is_refused():
    with pytest.raises(RepulseError, match=r"^loss 'linf-margin': radius: input should be greater than 0, got 0\.0$"):
        LOSSES["linf-margin"](radius=0.0).per_example(Z, Y, head())


def blobs(count=96):
    labels = torch.arange(count) % 3
    noise = torch.randint(-20, 21, (count, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    images = (60 + 60 * labels.view(-1, 1, 1, 1) + noise).clamp(0, 255).to(torch.uint8)
    return ImageSet(images, labels, ("dark", "grey", "light"), "blobs", "train")


class Keeper:
    def __init__(self):
        self.states = []

    def on_step(self, epoch, step, steps, images):
        pass

    def on_epoch(self, metrics, state, weights):
        self.states.append(TrainingState(state.epoch, {name: value.clone() for name, value in state.tensors.items()}))


def train(model, epochs=4, state=None, watcher=None):
    chosen = FitSettings(
        epochs=epochs,
        batch_size=32,
        accelerator="cpu",
        devices="1",
        optimiser={"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.0},
    )
    fabric = make_fabric(chosen)
    fabric.launch()
    fit(model, LOSSES["linf-margin"](), blobs(), None, chosen, fabric=fabric, seed=3, state=state, watcher=watcher)
    return model


def linf_model(seed=0):
    torch.manual_seed(seed)
    return PrototypeClassifier(LinfDistanceNet(1, 3, 8, grid=4), torch.eye(3), "linf", temperature=0.1)


def test_the_backbone_is_told_the_share_of_training_before_each_step():
    class Told(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 3)
            self.heard = []

        def on_progress(self, share):
            self.heard.append(share)

        def forward(self, x):
            self.heard.append("step")
            return self.layer(x.flatten(1))

    told = Told()
    train(PrototypeClassifier(told, torch.eye(3), "linf"), epochs=2)
    assert told.heard == [each for step in range(6) for each in (step / 6, "step")]


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_resumed_run_follows_the_rise_of_p_bit_for_bit(stop_after):
    keeper = Keeper()
    whole = train(linf_model(), watcher=keeper)
    resumed = train(linf_model(seed=9), state=keeper.states[stop_after - 1])
    assert whole.backbone.p == resumed.backbone.p == p_at(11 / 12)
    for (name, a), (_, b) in zip(whole.state_dict().items(), resumed.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("name", ["certified-linf", "certified-linf-cifar10"])
def test_presets_train_such_networks_in_pixels(name):
    config = preset(name)
    assert (config.model.backbone.name, config.model.readout, config.loss.name) == ("linf-dist", "linf", "linf-margin")
    assert not config.model.standardise
    assert config.fit.optimiser.weight_decay == 0
