"""Somebody's network on class prototypes, in a loop of its own, with adversarial images: plain PyTorch."""

import torch
from torch import nn
from torch.utils.data import DataLoader

import repulse


def train(network: nn.Module, loader: DataLoader, classes: int, dimension: int) -> repulse.PrototypeLoss:
    """Train `network`, from images in [0, 1] to embeddings (N, dimension); returns the loss, which classifies."""
    criterion = repulse.PrototypeLoss(repulse.make_prototypes("simplex", classes, dimension), "cross-entropy")
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(5):
        for x, y in loader:
            x = repulse.perturb(network, x, y, "n-fgsm", criterion, eps=0.05)  # leave out for plain training
            loss = criterion(network(x), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return criterion


if __name__ == "__main__":
    splits = repulse.load_data("digits", seed=0)
    pixels, labels = splits.train.images.float() / 255, splits.train.labels
    batches = DataLoader(torch.utils.data.TensorDataset(pixels, labels), batch_size=64, shuffle=True)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    criterion = train(network, batches, classes=10, dimension=10)
    test = splits.test
    found = criterion.logits(network(test.images.float() / 255)).argmax(1)
    print(f"natural accuracy: {float((found == test.labels).float().mean()):.3f}")
