"""What is known about a layer before any number: its arrays, its words, its converters.

A `Layout` is a frozen value: chip, matrix shape and name. Everything else here follows from them, so
two layouts that compare equal behave alike, and a framework may use one as a static argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from xbar_core._checks import check_integer
from xbar_core.circuit.base import Direction, Ideal, Interpolated
from xbar_core.config import Chip
from xbar_core.config.ranges import AnyRange
from xbar_core.config.update import CrossbarBackward
from xbar_core.errors import ConfigError
from xbar_core.mapping import WeightCode
from xbar_core.random import Stream
from xbar_core.slicing import Phases
from xbar_core.tiling import Bounds, Tiling

RangeName = Literal["input_range", "current_range", "error_range", "error_current_range"]


@dataclass(frozen=True)
class ReadPlan:
    """One direction of read through the arrays of a layer.

    Parameters
    ----------
    direction : {"forward", "backward"}
        Rows driven and columns sensed, or the reverse.
    phases : Phases
        How a number becomes voltages.
    bounds : tuple of (int, int)
        Lines driven by each tile; the partial sums of the tiles are added digitally.
    coefficients : tuple of float
        Share of each plane of the matrix in the result.
    converts_input, converts_current : bool
        Whether DAC and ADC change anything (else no range is needed).
    unipolar : bool
        Currents cannot be negative: the ADC spends all its codes on one sign.
    linear : bool
        Nothing happens between the arrays' currents and the sum: one product does the whole read.
    input_rule, current_rule : range rule
        How the full scales of DAC and ADC are found.
    input_range, current_range : str
        Names of the buffers that hold them.
    """

    direction: Direction
    phases: Phases
    bounds: tuple[Bounds, ...]
    coefficients: tuple[float, ...]
    converts_input: bool
    converts_current: bool
    unipolar: bool
    linear: bool
    input_rule: AnyRange
    current_rule: AnyRange
    input_range: RangeName
    current_range: RangeName


@dataclass(frozen=True)
class Layout:
    """One weight matrix on one chip.

    Parameters
    ----------
    chip : Chip
        The chip's description.
    inputs, outputs : int
        Shape of the weight matrix (in, out).
    name : int or str
        Keys every random draw of the layer; give each layer of a network its own.
    signed_input : bool
        False where the inputs cannot be negative (after a ReLU): their words then have no sign bit.

    Raises
    ------
    ConfigError
        The chip cannot hold the matrix; the text says which field to change.
    """

    chip: Chip
    inputs: int
    outputs: int
    name: int | str = 0
    signed_input: bool = True

    def __post_init__(self) -> None:
        check_integer("layout.inputs", self.inputs, minimum=1)
        check_integer("layout.outputs", self.outputs, minimum=1)
        if self.code.kind == "offset" and self.chip.array.cols < 2:
            raise ConfigError(
                "array.cols: 1 with mapping.kind = 'offset'; the reference column takes one column of "
                "every array: use at least 2 columns"
            )
        if self.signed_input and self.chip.input.bits == 1:
            raise ConfigError(
                "input.bits: 1 with signed inputs; a signed 1-bit word has only the value 0: use at least "
                "2 bits, or declare the layer's inputs unsigned"
            )
        plans = (self.forward, self.backward) if self.chip.backward.mode == "crossbar" else (self.forward,)
        for plan in plans:
            if self.chip.adc.bits == 1 and not plan.unipolar:
                raise ConfigError(
                    f"adc.bits: 1 with signed currents in the {plan.direction} read; a signed 1-bit code has "
                    "only the value 0: use at least 2 bits, or input.signed = 'two_phase' with adc.subtract "
                    "= 'digital'"
                )

    @cached_property
    def code(self) -> WeightCode:
        """How a weight is written in devices."""
        mapping = self.chip.mapping
        return WeightCode(mapping.kind, mapping.weight_bits, mapping.cell_bits, self.chip.device.levels)

    @cached_property
    def tiling(self) -> Tiling:
        """How the matrix is cut into arrays."""
        cols = self.chip.array.cols - (1 if self.code.kind == "offset" else 0)
        return Tiling(self.inputs, self.outputs, self.chip.array.rows, cols)

    @cached_property
    def stream(self) -> Stream:
        """All random draws of the layer."""
        return Stream(self.chip.seed, self.name)

    @property
    def state_shape(self) -> tuple[int, int, int]:
        """Shape of the state: (devices, in, out)."""
        return self.code.devices, self.inputs, self.outputs

    @property
    def g_range(self) -> float:
        """R = g_max - g_min, siemens."""
        return self.chip.device.g_max - self.chip.device.g_min

    @property
    def current_unit(self) -> float:
        """R v_read, ampere: the current of a full-scale weight under a full-scale voltage."""
        return self.g_range * self.chip.input.v_read

    @property
    def arrays(self) -> int:
        """Number of physical arrays."""
        return len(self.tiling.tiles) * self.code.devices

    @property
    def reciprocal(self) -> bool:
        """One solution serves both directions of read."""
        wires = self.chip.wires
        return wires.r_source == wires.r_sense or isinstance(self.chip.circuit, Ideal)

    @property
    def plain_devices(self) -> bool:
        """Every device conducts what its state says."""
        device = self.chip.device
        return device.variation is None and device.faults is None and device.drift is None

    @property
    def redraws_conductance(self) -> bool:
        """Conductances differ from call to call, so matrices must not be cached."""
        noise = self.chip.device.read_noise
        return noise is not None and noise.sigma > 0.0 and noise.kind == "per_batch"

    @property
    def current_noise(self) -> float:
        """Relative read noise that is added to the currents."""
        noise = self.chip.device.read_noise
        return noise.sigma if noise is not None and noise.kind == "current" else 0.0

    @property
    def interpolates(self) -> bool:
        """The circuit model keeps a reference between exact solutions."""
        return isinstance(self.chip.circuit, Interpolated)

    @cached_property
    def forward(self) -> ReadPlan:
        """The read that computes x @ W."""
        return self._plan("forward")

    @cached_property
    def backward(self) -> ReadPlan:
        """The transposed read that computes dy @ W.T (crossbar mode)."""
        return self._plan("backward")

    def _plan(self, direction: Direction) -> ReadPlan:
        chip, forward = self.chip, direction == "forward"
        backward = chip.backward if isinstance(chip.backward, CrossbarBackward) else CrossbarBackward()
        signed = self.signed_input if forward else True
        phases = Phases(chip.input.bits, chip.input.dac_bits, signed, chip.input.signed)
        converts_current = chip.adc.bits is not None or chip.adc.nonlinearity is not None
        current_rule = chip.adc.range if forward else backward.current_range
        converts_current |= current_rule.rule == "fixed"
        adc = chip.adc
        linear = not (
            converts_current or adc.gain_error or adc.offset_error or adc.noise or self.current_noise
        )
        # A current in ampere means something only when the voltages do.
        absolute = adc.offset_error or adc.noise or current_rule.rule == "fixed"
        input_rule = chip.input.range if forward else backward.error_range
        converts_input = bool(
            chip.input.bits is not None
            or chip.input.nonlinearity is not None
            or chip.precision is not None
            or input_rule.rule == "fixed"
            or absolute
        )
        apart = adc.subtract == "digital" and not linear
        positive = chip.input.signed == "two_phase" or not signed
        pairs = self.code.sides == 2
        return ReadPlan(
            direction=direction,
            phases=phases,
            bounds=self.tiling.row_bounds if forward else self.tiling.col_bounds,
            coefficients=self._coefficients(apart, linear),
            converts_input=converts_input,
            converts_current=converts_current,
            unipolar=positive and (apart if pairs or forward else True),
            linear=linear,
            input_rule=input_rule,
            current_rule=current_rule,
            input_range="input_range" if forward else "error_range",
            current_range="current_range" if forward else "error_current_range",
        )

    def _coefficients(self, apart: bool, linear: bool) -> tuple[float, ...]:
        code = self.code
        if linear:
            return (1.0,)
        if apart or code.kind == "offset":
            return code.gains
        return code.significance
