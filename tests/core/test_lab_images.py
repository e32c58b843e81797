"""Folders of images and Tiny-ImageNet are decoded as they are, or refused by name."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from core.data_files import image_tree, md5, picture, write

from xbar_core import ConfigError
from xbar_core.lab.data import load_data
from xbar_core.lab.data.image_folder import load_image_folder
from xbar_core.lab.data.tiny_imagenet import load_tiny_imagenet


def test_image_folder_is_read(tmp_path: Path) -> None:
    """Classes are the folders in the order of their names; pixels keep their channels' order."""
    image_tree(tmp_path)
    write(tmp_path / "train" / "ant" / "notes.txt", b"no image")
    data = load_image_folder(tmp_path)
    assert data.train_x.shape == (6, 3, 4, 6)
    assert data.train_x[:, :, 0, 0].tolist() == [[v, 2, 3] for v in (0, 1, 2, 10, 11, 12)]
    assert data.train_y.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.class_names == ("ant", "bee")
    assert np.array_equal(load_data(f"{tmp_path}/").test_x, data.test_x)


def test_grey_images_have_one_channel_until_one_is_coloured(tmp_path: Path) -> None:
    """All grey: one channel; one in colour: three for all, equal where it was grey."""
    image_tree(tmp_path, mode="L")
    assert load_image_folder(tmp_path).image_shape == (1, 4, 6)
    write(tmp_path / "test" / "bee" / "9.png", picture(mode="RGB"))
    data = load_image_folder(tmp_path)
    assert data.image_shape == (3, 4, 6)
    assert np.array_equal(data.train_x[:, 0], data.train_x[:, 2])


def test_image_size_scales_the_middle(tmp_path: Path) -> None:
    """Different sizes are refused, or scaled and cut to one; the middle square is kept."""
    image_tree(tmp_path)
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, 2:6] = 200
    pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    pillow.fromarray(pixels).save(tmp_path / "test" / "bee" / "wide.png")
    with pytest.raises(ConfigError, match=r"wide.png: has 8x4 pixels and 0.png has 6x4; give an image size"):
        load_image_folder(tmp_path)
    data = load_image_folder(tmp_path, image_size=3)
    assert data.image_shape == (3, 3, 3)
    assert (data.test_x[-1] == 200).all()


@pytest.mark.parametrize(
    ("path", "content", "text"),
    [
        ("train/ant/x.png", b"not an image", "x.png: cannot be read as an image"),
        ("train/ant/x.png", "half", "x.png: cannot be read as an image"),
        ("train/ant/x.png", b"no image", r"x.png: cannot be read as an image \(it is of no known format\)"),
        ("train/ant/x.png", "16 bit", "x.png: has mode I;16; save it with 8 bits"),
        ("test/be/x.png", b"", "class without training images, did you mean 'bee'"),
        ("train/cat/x.txt", b"", "cat holds no images"),
    ],
)
def test_bad_image_folders_are_refused(tmp_path: Path, path: str, content: Any, text: str) -> None:
    """Damaged images and classes without images are named."""
    image_tree(tmp_path)
    if content == "half":
        content = picture((60, 40))[:80]
    elif content == "16 bit":
        content = picture(mode="I;16")
    write(tmp_path / path, content)
    with pytest.raises(ConfigError, match=text):
        load_image_folder(tmp_path)


def test_missing_image_folder_says_the_layout(tmp_path: Path) -> None:
    """Without train/ or test/ the text gives the layout."""
    with pytest.raises(ConfigError, match=r"train is not a folder; put images into .*/train/<class>/"):
        load_image_folder(tmp_path)


def tiny_files() -> dict[str, bytes]:
    classes = ("n02", "n01")
    jpeg = {name: picture((64, 64), form="JPEG", value=50 * k) for k, name in enumerate(classes)}
    grey = picture((64, 64), "L", "JPEG", value=77)
    files = {f"train/{n}/images/{n}_{k}.JPEG": jpeg[n] for n in classes for k in range(2)}
    files |= {"val/images/val_0.JPEG": jpeg["n01"], "val/images/val_1.JPEG": grey}
    boxes = "".join(f"val_{k}.JPEG\t{name}\t0\t0\t9\t9\n" for k, name in enumerate(("n01", "n02")))
    return {**files, "val/val_annotations.txt": boxes.encode(), "wnids.txt": b"n02\nn01\n"}


@pytest.mark.parametrize("packed", [True, False])
def test_tiny_imagenet_is_read(tmp_path: Path, packed: bool) -> None:
    """Labels follow the sorted class names; grey images get three channels; zip or folder."""
    files = tiny_files()
    checksum = ""
    if packed:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name, content in files.items():
                archive.writestr(f"tiny-imagenet-200/{name}", content)
        checksum = md5(write(tmp_path / "tiny-imagenet-200.zip", out.getvalue()).read_bytes())
    for name, content in files.items():
        if not packed:
            write(tmp_path / "tiny-imagenet" / "tiny-imagenet-200" / name, content)
    data = load_tiny_imagenet(tmp_path, fetch=False, md5=checksum)
    assert data.image_shape == (3, 64, 64)
    assert data.train_y.tolist() == [0, 0, 1, 1]
    assert data.train_x[:, 0, 9, 9].tolist() == pytest.approx([50, 50, 0, 0], abs=3)
    assert data.test_y.tolist() == [0, 1]
    assert (data.test_x[1] == 77).all()


@pytest.mark.parametrize("name", ["val/images/val_1.JPEG", "val/val_annotations.txt"])
def test_incomplete_tiny_imagenet_is_refused(tmp_path: Path, name: str) -> None:
    """A file that the data set must have is named."""
    for file, content in tiny_files().items():
        if file != name:
            write(tmp_path / file, content)
    with pytest.raises(ConfigError, match=f"{name} is missing"):
        load_tiny_imagenet(tmp_path, fetch=False)


def test_tiny_imagenet_needs_its_archive_whole(tmp_path: Path) -> None:
    """A missing archive is named with its place, a damaged one by its checksum."""
    with pytest.raises(ConfigError, match="tiny-imagenet-200.zip or its folder"):
        load_tiny_imagenet(tmp_path, fetch=False)
    write(tmp_path / "tiny-imagenet-200.zip", b"PK")
    with pytest.raises(ConfigError, match="wrong checksum"):
        load_tiny_imagenet(tmp_path, fetch=False)
