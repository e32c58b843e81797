"""PyTorch layers that run and train on simulated resistive crossbar chips."""

from __future__ import annotations

from xbar_torch.conv import XbarConv1d, XbarConv2d, XbarConv3d
from xbar_torch.crossbar import Counters, Crossbar
from xbar_torch.functional import crossbar_convolution, crossbar_linear
from xbar_torch.group import MatrixGroup, link
from xbar_torch.host import CrossbarModule, crossbars_of, finish_epoch
from xbar_torch.linear import XbarLinear

__all__ = [
    "Counters",
    "Crossbar",
    "CrossbarModule",
    "MatrixGroup",
    "XbarConv1d",
    "XbarConv2d",
    "XbarConv3d",
    "XbarLinear",
    "crossbar_convolution",
    "crossbar_linear",
    "crossbars_of",
    "finish_epoch",
    "link",
]
__version__ = "0.1.0"
