"""PyTorch layers that run and train on simulated resistive crossbar chips."""

from __future__ import annotations

from xbar_core.engine.calibration import LayerStatistics
from xbar_core.engine.call import Counters
from xbar_core.engine.update import WriteCounts
from xbar_torch.attention import XbarMultiheadAttention
from xbar_torch.calibration import calibrate, native_statistics
from xbar_torch.conv import XbarConv1d, XbarConv2d, XbarConv3d
from xbar_torch.convert import conversion_report, convert, to_native
from xbar_torch.crossbar import Crossbar
from xbar_torch.functional import crossbar_convolution, crossbar_linear
from xbar_torch.group import MatrixGroup, link
from xbar_torch.host import CrossbarModule, crossbars_of, finish_epoch
from xbar_torch.inspect import Inspection, LayerInspection, inspect
from xbar_torch.linear import XbarLinear
from xbar_torch.optim import PulseSGD
from xbar_torch.recurrent import XbarGRU, XbarLSTM, XbarRNN
from xbar_torch.report import ConversionReport, ModuleReport

__all__ = [
    # layers
    "XbarConv1d",
    "XbarConv2d",
    "XbarConv3d",
    "XbarGRU",
    "XbarLSTM",
    "XbarLinear",
    "XbarMultiheadAttention",
    "XbarRNN",
    # whole models
    "ConversionReport",
    "Inspection",
    "LayerInspection",
    "ModuleReport",
    "conversion_report",
    "convert",
    "inspect",
    "to_native",
    # training
    "LayerStatistics",
    "PulseSGD",
    "WriteCounts",
    "calibrate",
    "finish_epoch",
    "native_statistics",
    # for layers of one's own
    "Counters",
    "Crossbar",
    "CrossbarModule",
    "MatrixGroup",
    "crossbar_convolution",
    "crossbar_linear",
    "crossbars_of",
    "link",
]
__version__ = "0.1.0"
