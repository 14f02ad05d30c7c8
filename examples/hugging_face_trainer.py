"""The same with the Hugging Face `Trainer`: a model that gives `loss` and `logits`."""

from typing import Any

from torch import Tensor, nn

import repulse


class PrototypeModel(nn.Module):
    """A network on class prototypes, with the inputs and outputs that `Trainer` asks for.

    Args:
        network: images to embeddings (N, dimension); a transformers backbone fits behind its own pooling.
        classes: how many there are.
        dimension: of the embeddings.
    """

    def __init__(self, network: nn.Module, classes: int, dimension: int) -> None:
        super().__init__()
        self.network = network
        self.criterion = repulse.PrototypeLoss(repulse.make_prototypes("simplex", classes, dimension), "cross-entropy")

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> dict[str, Any]:
        """Logits, and the loss where labels are given."""
        z = self.network(pixel_values)
        output = {"logits": self.criterion.logits(z)}
        return output if labels is None else {"loss": self.criterion(z, labels), **output}
