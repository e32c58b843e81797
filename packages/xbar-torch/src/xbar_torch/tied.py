"""A linear layer whose weight is that of another layer: one crossbar, two biases."""

from __future__ import annotations

from torch import Tensor, nn

from xbar_torch.linear import XbarLinear


class XbarTiedLinear(nn.Module):
    """``y = x W^T + b`` with the crossbar of another layer and a bias of its own.

    Parameters
    ----------
    source : XbarLinear
        The layer that owns the crossbar; it is a submodule here, too, as tied modules are in torch.
    bias : Parameter (out_features,) or None
        Digital.
    """

    bias: nn.Parameter | None

    def __init__(self, source: XbarLinear, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.source = source
        self.register_parameter("bias", bias)

    @property
    def in_features(self) -> int:
        """Number of inputs."""
        return self.source.in_features

    @property
    def out_features(self) -> int:
        """Number of outputs."""
        return self.source.out_features

    @property
    def weight(self) -> Tensor:
        """The weights (out_features, in_features) of the source; read-only."""
        return self.source.weight

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x W^T + b``, x (..., in_features)."""
        y = self.source.product(x)
        return y if self.bias is None else y + self.bias

    def to_native(self) -> nn.Linear:
        """Return a native layer with weights and bias of its own; `xbar_torch.to_native` ties them."""
        native = self.source.to_native()
        bias = None if self.bias is None else nn.Parameter(self.bias.detach().clone())
        native.register_parameter("bias", bias)
        return native.train(self.training)

    def extra_repr(self) -> str:
        """Return what `print` shows."""
        return f"in_features={self.in_features}, out_features={self.out_features}, tied"
