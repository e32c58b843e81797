"""Plain torch networks to train natively or to convert: nothing here knows a crossbar.

References
----------
Y. LeCun et al., Gradient-based learning applied to document recognition, Proc. IEEE 86(11), 1998
(LeNet-5); A. Krizhevsky et al., ImageNet classification with deep convolutional neural networks,
NIPS 2012 (AlexNet); K. Simonyan and A. Zisserman, ICLR 2015, arXiv:1409.1556 (VGG-16); K. He et al.,
CVPR 2016, arXiv:1512.03385 (ResNets); A. Dosovitskiy et al., ICLR 2021, arXiv:2010.11929 (ViT).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from xbar_core._checks import check_integer
from xbar_core.errors import ShapeError
from xbar_core.lab.importing import check_network_name
from xbar_torch.own_network import own_network


class MLP(nn.Module):
    """Fully connected layers with ReLU between them, as wide as `hidden`."""

    def __init__(self, classes: int, image_shape: Sequence[int], hidden: Sequence[int] = (300, 100)) -> None:
        super().__init__()
        features = 1
        for length in image_shape:
            features *= length
        widths = [features, *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for fan_in, fan_out in itertools.pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], classes))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes) of samples of any shape."""
        out: Tensor = self.layers(x)
        return out


class LeNet5(nn.Module):
    """LeNet-5 with ReLU and max-pooling: convolutions 6 and 16 of 5x5 without padding, then 120-84.

    On 28x28 images the first linear layer has 256 inputs.
    """

    def __init__(self, classes: int, image_shape: Sequence[int]) -> None:
        super().__init__()
        channels, height, width = _image_shape("lenet5", image_shape, minimum=16)
        side = [((length - 4) // 2 - 4) // 2 for length in (height, width)]
        self.conv1 = nn.Conv2d(channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * side[0] * side[1], 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)
        self.pool = nn.MaxPool2d(2)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes) of images (batch, channels, height, width)."""
        x = self.pool(self.relu(self.conv1(x)))
        x = self.pool(self.relu(self.conv2(x)))
        x = self.relu(self.fc1(torch.flatten(x, 1)))
        x = self.relu(self.fc2(x))
        out: Tensor = self.fc3(x)
        return out


class AlexNet(nn.Module):
    """AlexNet in the size for CIFAR: five 3x3 convolutions, three linear layers with dropout."""

    def __init__(self, classes: int, image_shape: Sequence[int]) -> None:
        super().__init__()
        channels, height, width = _image_shape("alexnet", image_shape, minimum=16)
        self.features = nn.Sequential(
            nn.Conv2d(channels, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 192, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        area = 1
        for length in (height, width):
            area *= (length + 1) // 2 // 8
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(256 * area, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes) of images (batch, channels, height, width)."""
        out: Tensor = self.classifier(self.features(x))
        return out


class VGG16(nn.Module):
    """VGG-16 in the size for CIFAR: 13 convolutions with batch normalisation, one linear layer."""

    def __init__(self, classes: int, image_shape: Sequence[int]) -> None:
        super().__init__()
        channels, _, _ = _image_shape("vgg16", image_shape, minimum=32)
        layers: list[nn.Module] = []
        for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(count):
                layers += [
                    nn.Conv2d(channels, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                ]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes) of images (batch, channels, height, width)."""
        out: Tensor = self.fc(torch.flatten(self.pool(self.features(x)), 1))
        return out


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation beside a shortcut.

    Where the shape changes, the shortcut is a 1x1 convolution if `project`, else the subsampled
    input with channels of 0 added, which has no parameters (the paper's option A).
    """

    def __init__(self, channels: int, width: int, stride: int, *, project: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module
        if stride == 1 and channels == width:
            self.shortcut = nn.Identity()
        elif project:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
            )
        else:
            self.shortcut = _Subsample(stride, width - channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (batch, width, height / stride, width / stride)."""
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out = self.relu(out + self.shortcut(x))
        return out  # type: ignore[no-any-return]


class _Subsample(nn.Module):
    """Every `stride`-th pixel, with `extra` channels of 0 added, half of them before the others."""

    def __init__(self, stride: int, extra: int) -> None:
        super().__init__()
        self.stride, self.extra = stride, extra

    def forward(self, x: Tensor) -> Tensor:
        """Return the smaller image with more channels."""
        before = self.extra // 2
        x = x[:, :, :: self.stride, :: self.stride]
        return nn.functional.pad(x, (0, 0, 0, 0, before, self.extra - before))


class ResNet(nn.Module):
    """Residual network of basic blocks on a 3x3 convolution, for images of 32 to 64 pixels.

    Parameters
    ----------
    classes : int
        Number of classes.
    image_shape : sequence of int
        (channels, height, width) of an image.
    blocks : int
        Blocks in each stage.
    widths : sequence of int
        Channels of each stage; every stage but the first halves height and width.
    project : bool
        Kind of the shortcuts; see `BasicBlock`.
    """

    def __init__(
        self,
        classes: int,
        image_shape: Sequence[int],
        *,
        blocks: int,
        widths: Sequence[int] = (16, 32, 64),
        project: bool = False,
    ) -> None:
        super().__init__()
        channels, _, _ = _image_shape("resnet", image_shape, minimum=8)
        self.conv1 = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        channels = widths[0]
        stages: list[nn.Module] = []
        for stage, width in enumerate(widths):
            layers: list[nn.Module] = []
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(BasicBlock(channels, width, stride, project=project))
                channels = width
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes) of images (batch, channels, height, width)."""
        x = self.stages(self.relu(self.bn1(self.conv1(x))))
        out: Tensor = self.fc(torch.flatten(self.pool(x), 1))
        return out


class LSTMClassifier(nn.Module):
    """An LSTM that reads an image row by row, and a linear layer on its last output."""

    def __init__(
        self, classes: int, image_shape: Sequence[int], *, hidden: int = 128, layers: int = 1
    ) -> None:
        super().__init__()
        channels, _, width = _image_shape("lstm", image_shape, minimum=1)
        self.lstm = nn.LSTM(channels * width, hidden, num_layers=layers, batch_first=True)
        self.fc = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes) of images (batch, channels, height, width)."""
        rows = x.transpose(1, 2).flatten(2)
        states, _ = self.lstm(rows)
        out: Tensor = self.fc(states[:, -1])
        return out


class ViT(nn.Module):
    """A small vision transformer: patches, a learned position, encoder layers, their mean.

    A patch has 4x4 pixels where that divides the image, else 7x7, 8x8, 5x5, 3x3, 2x2 or one pixel.
    """

    def __init__(
        self,
        classes: int,
        image_shape: Sequence[int],
        *,
        width: int = 64,
        depth: int = 4,
        heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        channels, height, length = _image_shape("vit", image_shape, minimum=4)
        patch = next(p for p in (4, 7, 8, 5, 3, 2, 1) if height % p == 0 and length % p == 0)
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.position = nn.Parameter(torch.empty(1, (height // patch) * (length // patch), width))
        nn.init.trunc_normal_(self.position, std=0.02)
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes) of images (batch, channels, height, width)."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.position
        out: Tensor = self.fc(self.norm(self.encoder(tokens)).mean(dim=1))
        return out


def network_names() -> tuple[str, ...]:
    """Return the names that `build` knows."""
    return tuple(_builders())


def build(name: str, classes: int, image_shape: Sequence[int]) -> nn.Module:
    """Return a network with freshly drawn weights (torch's generator).

    Parameters
    ----------
    name : str
        A name of `network_names`, or the import path of the user's own function,
        ``package.module:function``, which is called with `classes` and `image_shape` and returns a
        module.
    classes : int
        Number of outputs.
    image_shape : sequence of int
        (channels, height, width) of one image; the MLP takes any shape.

    Raises
    ------
    ConfigError
        No network has this name (the text gives the nearest one), or the user's function fails or returns
        no module.
    ShapeError
        The images are too small for the network, or no images; or the user's network does not take them,
        or does not return a logit for each class.

    Examples
    --------
    >>> lenet = build("lenet5", classes=10, image_shape=(1, 28, 28))
    >>> lenet(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    known = _builders()
    check_network_name(name, known)
    check_integer("classes", classes, minimum=1)
    shape = tuple(check_integer("image_shape", length, minimum=1) for length in image_shape)
    return known[name](classes, shape) if name in known else own_network(name, classes, shape)


def _builders() -> dict[str, Callable[[int, Sequence[int]], nn.Module]]:
    return {
        "mlp": MLP,
        "lenet5": LeNet5,
        "alexnet": AlexNet,
        "vgg16": VGG16,
        "resnet18": lambda classes, shape: ResNet(
            classes, shape, blocks=2, widths=(64, 128, 256, 512), project=True
        ),
        "resnet20": lambda classes, shape: ResNet(classes, shape, blocks=3),
        "resnet56": lambda classes, shape: ResNet(classes, shape, blocks=9),
        "lstm": LSTMClassifier,
        "vit": ViT,
    }


def _image_shape(network: str, shape: Sequence[int], *, minimum: int) -> tuple[int, int, int]:
    """Return (channels, height, width), after checking that the network can take such images."""
    if len(shape) != 3 or min(shape[1:]) < minimum:
        raise ShapeError(
            f"image_shape: {tuple(shape)} does not fit {network}; it takes (channels, height, width) with "
            f"at least {minimum}x{minimum} pixels"
        )
    channels, height, width = shape
    return channels, height, width
