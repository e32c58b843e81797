"""The networks are those of their papers, and they learn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from xbar_core import ConfigError, ShapeError
from xbar_core.lab.data import Batches, evaluation_batches, load_data
from xbar_torch.zoo import MLP, ResNet, ViT, build, network_names

CIFAR, MNIST = (3, 32, 32), (1, 28, 28)


@pytest.mark.parametrize(
    ("name", "image", "parameters"),
    [
        ("mlp", MNIST, 784 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10),
        ("lenet5", MNIST, 156 + 2416 + 256 * 120 + 120 + 120 * 84 + 84 + 84 * 10 + 10),
        ("alexnet", CIFAR, 23_272_266),
        ("vgg16", CIFAR, 14_724_042),
        ("resnet18", CIFAR, 11_173_962),
        ("resnet20", CIFAR, 269_722),  # "0.27M" in the paper's table 6
        ("resnet56", CIFAR, 853_018),  # "0.85M"
        ("lstm", MNIST, 4 * 128 * (28 + 128 + 2) + 1290),
    ],
)
def test_networks_have_their_published_size(name: str, image: tuple[int, ...], parameters: int) -> None:
    """The number of trainable numbers is the known one."""
    network = build(name, 10, image)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == parameters


@pytest.mark.parametrize("image", [MNIST, CIFAR, (3, 64, 64)])
@pytest.mark.parametrize("name", network_names())
def test_networks_take_the_data_sets_images(name: str, image: tuple[int, ...]) -> None:
    """Images of MNIST, CIFAR and Tiny-ImageNet give one logit a class (VGG-16 needs 32 pixels)."""
    if name == "vgg16" and image == MNIST:
        with pytest.raises(ShapeError, match="does not fit vgg16; .* at least 32x32 pixels"):
            build(name, 7, image)
        return
    network = build(name, 7, image).eval()
    with torch.no_grad():
        assert network(torch.zeros(2, *image)).shape == (2, 7)


@pytest.mark.parametrize("name", network_names())
def test_every_parameter_learns(name: str) -> None:
    """A random batch gives every parameter a finite gradient that is not zero throughout."""
    torch.manual_seed(0)
    network = build(name, 5, CIFAR)
    loss = nn.functional.cross_entropy(network(torch.randn(4, *CIFAR)), torch.arange(4))
    loss.backward()
    for path, parameter in network.named_parameters():
        assert parameter.grad is not None, path
        assert torch.isfinite(parameter.grad).all(), path
        assert parameter.grad.abs().max() > 0, path


def test_lenet_has_the_layers_of_the_paper() -> None:
    """6 and 16 kernels of 5x5 without padding, then 256-120-84-10 on 28x28."""
    network = build("lenet5", 10, MNIST)
    kernels = [
        (m.out_channels, m.kernel_size, m.padding) for m in network.modules() if isinstance(m, nn.Conv2d)
    ]
    assert kernels == [(6, (5, 5), (0, 0)), (16, (5, 5), (0, 0))]
    widths = [(m.in_features, m.out_features) for m in network.modules() if isinstance(m, nn.Linear)]
    assert widths == [(256, 120), (120, 84), (84, 10)]


def test_resnet_has_its_depth_and_free_shortcuts() -> None:
    """ResNet-6n+2 has that many weighted layers, halves the image twice, shortcuts without weights."""
    for blocks, depth in ((3, 20), (9, 56)):
        network = ResNet(10, CIFAR, blocks=blocks)
        weighted = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert len(weighted) == depth
    features = network.stages(torch.zeros(1, 16, 32, 32))
    assert features.shape == (1, 64, 8, 8)


def test_lstm_reads_rows_in_order() -> None:
    """The logits are those of a cell stepped over the rows, from the top down."""
    torch.manual_seed(0)
    network = build("lstm", 3, (2, 5, 4)).double()
    x = torch.randn(6, 2, 5, 4, dtype=torch.float64)
    cell = nn.LSTMCell(8, 128).double()
    cell.load_state_dict({key.removesuffix("_l0"): v for key, v in network.lstm.state_dict().items()})
    state = None
    for row in range(5):
        state = cell(x[:, :, row].flatten(1), state)
    assert state is not None
    torch.testing.assert_close(network(x), network.fc(state[0]), rtol=1e-12, atol=1e-12)


def test_vit_patches_cover_the_image() -> None:
    """4x4 patches of 28x28 and 32x32 images; other sizes take another patch that divides them."""
    for image, tokens in {(1, 28, 28): 49, (3, 32, 32): 64, (1, 14, 21): 6, (1, 13, 13): 169}.items():
        assert ViT(10, image).position.shape == (1, tokens, 64)


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        (
            ("resnet-20", 10, CIFAR),
            ConfigError,
            r"network: unknown name 'resnet-20', did you mean 'resnet20'\?",
        ),
        (("lenet5", 10, (1, 8, 8)), ShapeError, "at least 16x16 pixels"),
        (("lstm", 10, (784,)), ShapeError, r"\(784,\) does not fit lstm"),
        (("mlp", 0, MNIST), ConfigError, "classes: 0 is out of range"),
        (("mlp", 10, (1, 0, 3)), ConfigError, "image_shape: 0 is out of range"),
    ],
)
def test_impossible_networks_are_refused(
    arguments: tuple[str, int, tuple[int, ...]], kind: type[Exception], text: str
) -> None:
    """A wrong name gets the nearest one; images that are too small are named with the rule."""
    with pytest.raises(kind, match=text):
        build(*arguments)


def test_mlp_takes_any_widths_and_samples() -> None:
    """Hidden widths can be chosen, none at all gives a linear classifier, samples have any shape."""
    assert [m.out_features for m in MLP(4, (6,), hidden=(8, 7)).modules() if isinstance(m, nn.Linear)] == [
        8,
        7,
        4,
    ]
    assert MLP(4, (2, 3), hidden=())(torch.zeros(5, 2, 3)).shape == (5, 4)


def accuracy(network: nn.Module, data_name: str, folder: Path | None, epochs: int, samples: int) -> float:
    """Train on at most `samples` images and return the share of test images that are right."""
    data = load_data(data_name, folder, fetch=False)
    torch.manual_seed(0)
    batches = Batches(data, 64, seed=0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(epochs):
        for step, (x, y) in enumerate(batches.epoch(epoch)):
            if step * 64 >= samples:
                break
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(torch.from_numpy(x)), torch.from_numpy(y)).backward()
            optimizer.step()
    with torch.no_grad():
        right = [
            (network(torch.from_numpy(x)).argmax(1).numpy() == y).sum()
            for x, y in evaluation_batches(data, 500)
        ]
    return float(sum(right)) / len(data.test_y)


def test_lenet_learns_digits() -> None:
    """Ten epochs of the embedded digits give more than 90% on images not seen (93 to 96 over six seeds)."""
    torch.manual_seed(0)
    assert accuracy(build("lenet5", 10, MNIST), "digits", None, 10, 10**6) > 0.9


def test_lenet_learns_mnist(data_folder: Path) -> None:
    """A sixth of an epoch of MNIST gives more than 90% on its test images."""
    if not (data_folder / "mnist").is_dir():
        pytest.skip(f"no mnist/ in {data_folder}")
    torch.manual_seed(0)
    assert accuracy(build("lenet5", 10, MNIST), "mnist", data_folder, 1, 10_000) > 0.9
