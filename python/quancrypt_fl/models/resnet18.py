"""ResNet18 with the stem for small images: 11,173,962 parameters at 10 classes and 3 channels.

He et al., "Deep residual learning for image recognition" (CVPR 2016), with a 3x3 first convolution
of stride 1 and no max-pool, as is usual for CIFAR. 62 parameter tensors; 20 batch norms, each with
two floating-point buffers and one counter.
"""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["BasicBlock", "ResNet18", "resnet18"]

_STAGES = (64, 128, 256, 512)


def resnet18(image_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Four stages of two basic blocks, global average pool, linear: any image size."""
    return ResNet18(image_shape[0], classes)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, added to their input.

    Where the number of channels or the stride changes, the input goes through a 1x1 convolution
    with batch norm.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, h, w) -> (batch, outputs, ceil(h / stride), ceil(w / stride))."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.shortcut(x)
        return self.relu(y)  # type: ignore[no-any-return]


class ResNet18(nn.Module):
    """Stem, four stages, global average pool, linear layer."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, _STAGES[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_STAGES[0])
        self.relu = nn.ReLU(inplace=True)
        blocks: list[nn.Module] = []
        inputs = _STAGES[0]
        for index, outputs in enumerate(_STAGES):
            blocks += [
                BasicBlock(inputs, outputs, stride=1 if index == 0 else 2),
                BasicBlock(outputs, outputs, stride=1),
            ]
            inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) -> (batch, classes)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.pool(self.blocks(y)).flatten(1)
        return self.linear(y)  # type: ignore[no-any-return]
