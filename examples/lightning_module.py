"""The same as a Lightning module: the criterion is a part of it, and so moves and is saved with it."""

import lightning
import torch
from torch import Tensor, nn

import repulse


class PrototypeModule(lightning.LightningModule):
    """A network on class prototypes.

    Args:
        network: images to embeddings (N, dimension).
        classes: how many there are.
        dimension: of the embeddings.
        eps: L-inf radius of adversarial training; 0: plain training.
    """

    def __init__(self, network: nn.Module, classes: int, dimension: int, eps: float = 0.0) -> None:
        super().__init__()
        self.network, self.eps = network, eps
        self.criterion = repulse.PrototypeLoss(repulse.make_prototypes("simplex", classes, dimension), "cross-entropy")

    def forward(self, x: Tensor) -> Tensor:
        """The logits of images: what `repulse evaluate --model` attacks."""
        return self.criterion.logits(self.network(x))

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """The loss of a batch."""
        x, y = batch
        if self.eps:
            x = repulse.perturb(self.network, x, y, "n-fgsm", self.criterion, eps=self.eps)
        return self.criterion(self.network(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=3e-3)
