"""The model, the data, and local training: nothing here knows of federation or encryption."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    """A small convolutional network for 8 x 8 images of digits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.fc = nn.Linear(32 * 4 * 4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores, of shape (batch, 10), of images of shape (batch, 1, 8, 8)."""
        x = torch.relu(self.norm1(self.conv1(x)))
        x = torch.max_pool2d(torch.relu(self.conv2(x)), 2)
        return self.fc(x.flatten(1))


def load_data(partition: int, partitions: int, batch_size: int) -> tuple[DataLoader, DataLoader]:
    """One client's training and test batches: 80 % and 20 % of its part of the digits."""
    digits = load_digits()
    order = np.random.default_rng(1).permutation(len(digits.target))[partition::partitions]
    images = torch.from_numpy(digits.images[order] / 16.0).float().unsqueeze(1)
    labels = torch.from_numpy(digits.target[order])
    cut = len(order) * 4 // 5
    train = TensorDataset(images[:cut], labels[:cut])
    test = TensorDataset(images[cut:], labels[cut:])
    return DataLoader(train, batch_size, shuffle=True), DataLoader(test, batch_size)


def train(model: nn.Module, batches: DataLoader, epochs: int, lr: float) -> float:
    """Train in place; the mean loss."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    model.train()
    total = 0.0
    for _ in range(epochs):
        for images, labels in batches:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            total += loss.item()
    return total / (epochs * len(batches))


@torch.inference_mode()
def test(model: nn.Module, batches: DataLoader) -> tuple[float, float]:
    """Mean loss and accuracy."""
    model.eval()
    loss, correct, count = 0.0, 0, 0
    for images, labels in batches:
        scores = model(images)
        loss += nn.functional.cross_entropy(scores, labels, reduction="sum").item()
        correct += int((scores.argmax(1) == labels).sum())
        count += len(labels)
    return loss / count, correct / count
