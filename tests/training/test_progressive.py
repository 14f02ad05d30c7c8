import pytest
import tasks
import torch
from tasks import Witness
from torch import nn

from repulse.common.errors import RepulseError
from repulse.data import ImageSet
from repulse.models import PrototypeClassifier
from repulse.training.progressive import smaller


class Sides(nn.Module):
    """A convolutional network that notes the sides of the images that it is trained on."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.seen = []

    def forward(self, x):
        if self.training:
            self.seen.append((x.shape[2], x.shape[3]))
        return self.net(x)


def train(backbone, progressive, **options):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (48, 1, 8, 8), generator=generator, dtype=torch.uint8)
    images = ImageSet(pixels, torch.arange(48) % 3, ("a", "b", "c"), "noise", "train")
    changes = {"epochs": 4, "batch_size": 24, "progressive": progressive}
    model = PrototypeClassifier(backbone, torch.eye(3), "cosine")
    return tasks.train(None, images, changes, model=model, **options)


@pytest.mark.parametrize(("share", "small_epochs"), [(0.0, 0), (0.5, 2), (0.6, 3), (1.0, 4)])
def test_the_first_epochs_see_small_images(share, small_epochs):
    backbone = Sides()
    train(backbone, {"size": 5, "share": share})
    assert backbone.seen == [(5, 5)] * 2 * small_epochs + [(8, 8)] * 2 * (4 - small_epochs)


def test_a_resumed_run_ends_at_the_same_weights_bit_for_bit():
    witness = Witness()
    whole = train(Sides(), {"size": 5}, watcher=witness)
    resumed = train(Sides(), {"size": 5}, state=witness.states[0])
    for (name, a), (_, b) in zip(whole.state_dict().items(), resumed.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


def test_halving_the_side_keeps_what_is_flat_and_takes_a_weighted_mean_of_what_is_not():
    flat = torch.full((1, 3, 8, 8), 1.0)
    assert torch.equal(smaller(flat, 4), torch.ones(1, 3, 4, 4))
    line = torch.zeros(1, 1, 8, 8)
    line[..., 4] = 1
    # Half the size: a triangle four pixels wide, with weights 1, 3, 3, 1 of 8 at the pixels' centres.
    torch.testing.assert_close(smaller(line, 4)[0, 0, 1], torch.tensor([0.0, 1 / 8, 3 / 8, 0.0]))


def test_sizes_that_cannot_be_are_refused_before_the_first_step():
    with pytest.raises(RepulseError, match=r"^fit\.progressive\.size=8 is not smaller than the images, which are 8x8;"):
        train(Sides(), {"size": 8})
    fixed = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(RepulseError, match=r"^this network does not take images of 5x5 \(.+\); leave out fit\.prog"):
        train(fixed, {"size": 5})
