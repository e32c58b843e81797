"""Data sets as NumPy arrays, read from their original files, and batches of them."""

from __future__ import annotations

from xbar_core.lab.data.augment import Augmentation, Flip, PadCrop, augmentation, default_augmentation
from xbar_core.lab.data.batches import Batches, ahead, evaluation_batches, shard
from xbar_core.lab.data.dataset import DataSet, limited
from xbar_core.lab.data.files import data_folder
from xbar_core.lab.data.registry import data_set_names, load_data

__all__ = [
    "Augmentation",
    "Batches",
    "DataSet",
    "Flip",
    "PadCrop",
    "ahead",
    "augmentation",
    "data_folder",
    "data_set_names",
    "default_augmentation",
    "evaluation_batches",
    "limited",
    "load_data",
    "shard",
]
