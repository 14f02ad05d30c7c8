import math

import pytest
import torch
from tasks import Witness
from torch import nn

from repulse.common.errors import RepulseError
from repulse.common.settings import merge
from repulse.config.run import RunConfig
from repulse.data import Augment, ImageSet
from repulse.models import PrototypeClassifier
from repulse.training import LOSSES, fit, make_fabric
from repulse.training.settings import FitSettings
from repulse.training.state import TrainingState


def blobs(count=96, seed=0):
    """Three classes of 8x8 images: noise around three grey levels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    noise = torch.randint(-20, 21, (count, 1, 8, 8), generator=generator)
    images = (60 + 60 * labels.view(-1, 1, 1, 1) + noise).clamp(0, 255).to(torch.uint8)
    return ImageSet(images, labels, ("dark", "grey", "light"), "blobs", "train")


def model(seed=0, dropout=0.0):
    torch.manual_seed(seed)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 3))
    return PrototypeClassifier(backbone, torch.eye(3), "cosine", temperature=0.2, mean=(0.47,), std=(0.2,))


def settings(**changes):
    base = FitSettings(epochs=4, batch_size=32, accelerator="cpu", devices="1")
    return merge(base, changes, "test")


def train(trained, changes=None, **options):
    chosen = settings(**(changes or {}))
    fabric = make_fabric(chosen)
    fabric.launch()
    options = {"augment": Augment(crop_padding=1, flip="random"), "seed": 5, **options}
    fit(trained, LOSSES["cross-entropy"](), blobs(), blobs(30, seed=1), chosen, fabric=fabric, **options)
    return trained


def test_it_learns_what_is_plainly_there():
    witness = Witness()
    train(model(), {"epochs": 8, "optimiser": {"learning_rate": 0.01}}, watcher=witness)
    assert witness.metrics[-1].validation_accuracy > 0.9
    assert witness.metrics[-1].loss < witness.metrics[0].loss


def test_the_watcher_hears_of_every_step_and_epoch():
    witness = Witness()
    train(model(), {"epochs": 2}, watcher=witness)
    assert witness.steps == [(epoch, step, 3, 32) for epoch in (0, 1) for step in (1, 2, 3)]
    assert [metrics.epoch for metrics in witness.metrics] == [1, 2]


def test_one_step_is_plain_gradient_descent():
    """A whole-batch step of the loop equals the step written out by hand."""
    trained, by_hand = model(), model()
    data = blobs(32)
    chosen = settings(
        epochs=1,
        channels_last=False,
        schedule={"name": "constant"},
        optimiser={"learning_rate": 0.1, "momentum": 0.0, "weight_decay": 0.01},
    )
    fabric = make_fabric(chosen)
    fabric.launch()
    fit(trained, LOSSES["cross-entropy"](), data, None, chosen, fabric=fabric)
    loss = nn.functional.cross_entropy(by_hand(data.images.float() / 255), data.labels)
    parameters = list(by_hand.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.data -= 0.1 * (gradient + 0.01 * parameter.data)
    for ours, theirs in zip(trained.parameters(), parameters, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"averaging": {"name": "ema", "decay": 0.9}},
        {"averaging": {"name": "lookahead"}},
        {"optimiser": {"name": "adamw", "learning_rate": 0.01}},
        {"optimiser": {"bias_factor": 4.0, "clip_norm": 0.5}, "schedule": {"name": "cosine"}},
    ],
)
@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_resumed_run_ends_at_the_same_weights_bit_for_bit(changes, stop_after):
    witness = Witness()
    whole = train(model(dropout=0.3), changes, watcher=witness)
    resumed = train(model(seed=99, dropout=0.3), changes, state=witness.states[stop_after - 1])
    for (name, a), (_, b) in zip(whole.state_dict().items(), resumed.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


def test_another_seed_ends_elsewhere():
    a, b = train(model(), seed=1), train(model(), seed=2)
    assert not torch.equal(a.backbone[1].weight, b.backbone[1].weight)


def test_a_state_of_another_network_is_refused():
    witness = Witness()
    train(model(), watcher=witness)
    other = PrototypeClassifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), torch.eye(3))
    with pytest.raises(RepulseError, match=r"^the checkpoint belongs to another network; start a new run folder$"):
        train(other, state=witness.states[0])


def test_a_state_whose_optimiser_counts_the_weights_in_another_order_is_refused():
    witness = Witness()
    train(model(), watcher=witness)
    tensors = dict(witness.states[0].tensors)
    first, second = "optimiser/0/momentum_buffer", "optimiser/1/momentum_buffer"
    tensors[first], tensors[second] = tensors[second], tensors[first]
    with pytest.raises(RepulseError, match=r"^the checkpoint was made by another version, with its weights in another"):
        train(model(), state=TrainingState(1, tensors))


def test_a_loss_that_is_no_number_stops_with_the_step_named():
    broken = model()
    with torch.no_grad():
        broken.backbone[1].weight[0, 0] = math.inf
    witness = Witness()
    with pytest.raises(
        RepulseError,
        match=r"^the loss is no longer a number in epoch 1, step 3: training stopped, and the last good checkpoint is "
        r"kept\. Try a smaller learning rate or clip_norm$",
    ):
        train(broken, watcher=witness)
    assert witness.states == []


def test_the_backbone_is_given_training_images_to_start_from():
    class Starting(nn.Sequential):
        seen = None

        def initialise(self, images):
            self.seen = images

    torch.manual_seed(0)
    backbone = Starting(nn.Flatten(), nn.Linear(64, 3))
    trained = PrototypeClassifier(backbone, torch.eye(3), mean=(0.5,), std=(0.25,))
    train(trained, {"epochs": 1})
    expected = (blobs().images.float() / 255 - 0.5) / 0.25
    assert backbone.seen.shape == expected.shape
    torch.testing.assert_close(backbone.seen.sum(), expected.sum(), rtol=1e-4, atol=1e-2)


def test_presets_are_whole_configurations():
    from repulse.config.presets import PRESETS, preset

    assert all(isinstance(preset(name), RunConfig) for name in PRESETS)


def test_the_presets_of_rivals_are_their_papers():
    """Prototypes, readout, loss and learning rate of each; learned where they are."""
    from repulse.config.presets import preset

    rivals = {
        "hpn": ("hyperspherical", "cosine", "cosine-squared", 0.01, False),
        "mmc": ("max-mahalanobis", "l2", "mmc", 0.01, False),
        "ecoc": ("hadamard", "code", "code-hinge", 0.1, False),
        "pcl": ("random", "l2", "prototype-conformity", 0.01, True),
        "learned": ("random", "cosine", "repelling-prototypes", 0.1, True),
        "sphere": ("repulsive-sphere", "cosine", "cross-entropy", 0.1, False),
    }
    for name, expected in rivals.items():
        config = preset(name)
        head = (config.prototypes.method, config.model.readout, config.loss.name)
        assert (*head, config.fit.optimiser.learning_rate, config.model.learn_prototypes) == expected
    assert preset("ecoc").prototypes.dimension == 16
    assert preset("label-smoothing").loss.label_smoothing == 0.1
    assert preset("paper-cosine").loss.name == "cosine"


def test_the_papers_preset_is_the_papers():
    from repulse.config.presets import preset

    config = preset("paper-cifar10")
    assert (config.model.backbone.name, config.model.readout, config.loss.name) == ("resnet18", "dot", "linf")
    assert (config.prototypes.method, config.prototypes.dimension) == ("repulsive-linf", 100)
    assert (config.fit.epochs, config.fit.batch_size) == (200, 128)
    optimiser = config.fit.optimiser
    assert (optimiser.learning_rate, optimiser.momentum, optimiser.weight_decay) == (0.006, 0.9, 5e-5)
    assert config.fit.schedule.start * optimiser.learning_rate == pytest.approx(0.001)
    assert (config.augment.crop_padding, config.augment.flip) == (4, "random")
    assert preset("paper-cifar100").prototypes.dimension == 500
