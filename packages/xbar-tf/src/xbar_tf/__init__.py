"""Keras layers that run and train on simulated resistive crossbar chips, on the TensorFlow backend."""

from __future__ import annotations

from xbar_core.engine.calibration import LayerStatistics
from xbar_core.engine.update import WriteCounts
from xbar_core.lab.conversion import ConversionReport, ModuleReport
from xbar_tf._bridge import require_backend
from xbar_tf.attention import XbarMultiHeadAttention
from xbar_tf.calibration import calibrate, native_statistics
from xbar_tf.conv import XbarConv1D, XbarConv2D, XbarConv3D
from xbar_tf.convert import conversion_report, convert, to_native
from xbar_tf.crossbar import Crossbar
from xbar_tf.dense import XbarDense
from xbar_tf.depthwise import XbarDepthwiseConv2D
from xbar_tf.einsum_dense import XbarEinsumDense
from xbar_tf.functional import crossbar_convolution, crossbar_linear
from xbar_tf.group import MatrixGroup, link
from xbar_tf.host import CrossbarLayer, crossbars_of, finish_epoch
from xbar_tf.inspect import Inspection, LayerInspection, inspect
from xbar_tf.optimizers import PulseSGD
from xbar_tf.recurrent import XbarGRU, XbarLSTM, XbarSimpleRNN

require_backend()

__all__ = [
    # layers
    "XbarConv1D",
    "XbarConv2D",
    "XbarConv3D",
    "XbarDense",
    "XbarDepthwiseConv2D",
    "XbarEinsumDense",
    "XbarGRU",
    "XbarLSTM",
    "XbarMultiHeadAttention",
    "XbarSimpleRNN",
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
    "Crossbar",
    "CrossbarLayer",
    "MatrixGroup",
    "crossbar_convolution",
    "crossbar_linear",
    "crossbars_of",
    "link",
]
__version__ = "0.1.0"
