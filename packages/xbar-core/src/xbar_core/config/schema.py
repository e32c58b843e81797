"""The chip: one frozen tree that says everything about an array, its devices and its periphery."""

from __future__ import annotations

from collections.abc import Mapping as AbcMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from xbar_core._checks import check_choice, check_integer
from xbar_core.circuit.base import AAM, FCM, CircuitModel, Ideal, Interpolated, Wires
from xbar_core.config import loading
from xbar_core.config._codec import Tagged, check_text, decode, encode
from xbar_core.config.device import AnyDevice, Device, JumpTableDevice
from xbar_core.config.mapping import Mapping
from xbar_core.config.periphery import Adc, Input
from xbar_core.config.update import AnyUpdate, Backward, CrossbarBackward, Pair, Precision, Update, check_pair
from xbar_core.errors import ConfigError

Circuit = Annotated[
    CircuitModel,
    Tagged("kind", {"ideal": Ideal, "aam": AAM, "fcm": FCM, "interpolated": Interpolated}),
]
"""The circuit models; tagged by ``kind``."""


@dataclass(frozen=True)
class Array:
    """One crossbar array.

    Parameters
    ----------
    rows, cols : int
        Driven word lines and sensed bit lines.
    unused : {"open", "g_min"}
        Cells of a partly filled array: select transistor off, or at g_min with their lines in use.
    """

    rows: int = 64
    cols: int = 64
    unused: Literal["open", "g_min"] = "open"

    def __post_init__(self) -> None:
        for name in ("rows", "cols"):
            check_integer(f"array.{name}", getattr(self, name), minimum=1, maximum=65536)
        check_choice("array.unused", self.unused, ("open", "g_min"))


@dataclass(frozen=True)
class Chip:
    """A crossbar chip; without arguments an ideal one.

    Parameters
    ----------
    name : str
        Name for reports.
    seed : int
        Seed of every random draw of this chip.
    description : str
        One line for people.
    array, wires, circuit, device, precision, mapping, input, adc, update, backward
        The parts, each documented at its class.
    sources : tuple of (str, str)
        For a dotted path, where its value comes from: ``"measured: ..."``, ``"published: ..."`` or
        ``"assumed: ..."``. An entry of a table covers what lies below it.

    Raises
    ------
    ConfigError
        Parts that cannot go together; the text names path, value, rule and fix.
    """

    name: str = "chip"
    seed: int = 0
    description: str = ""
    array: Array = field(default_factory=Array)
    wires: Wires = field(default_factory=Wires)
    circuit: Circuit = field(default_factory=Ideal)
    device: AnyDevice = field(default_factory=Device)
    precision: Precision | None = None
    mapping: Mapping = field(default_factory=Mapping)
    input: Input = field(default_factory=Input)
    adc: Adc = field(default_factory=Adc)
    update: AnyUpdate = field(default_factory=Update)
    backward: Backward = field(default_factory=CrossbarBackward)
    sources: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for name in ("name", "description"):
            check_text(name, getattr(self, name))
        check_integer("seed", self.seed, minimum=0, maximum=2**63 - 1)
        pairs = self.sources.items() if isinstance(self.sources, AbcMapping) else self.sources
        object.__setattr__(self, "sources", tuple((str(path), str(text)) for path, text in pairs))
        self._check_levels()
        self._check_update()
        self._check_backward()

    def _check_levels(self) -> None:
        asked, held = self.mapping.device_levels, self.device.levels
        if asked is not None and held is not None and held < asked:
            raise ConfigError(
                f"device.levels: {held} is fewer than the {asked} levels that mapping.kind = "
                f"{self.mapping.kind!r} asks of a device with {self.mapping.device_bits} bits; "
                "lower mapping.cell_bits (or weight_bits)"
            )
        if held == 2 and self.mapping.kind != "differential" and self.mapping.slices == 1:
            raise ConfigError(
                f"device.levels: 2 with mapping.kind = {self.mapping.kind!r}; a device of two states has no "
                "middle for w = 0: use kind = 'differential', or slice the weight with mapping.cell_bits = 1"
            )
        if self.update.snap != "off" and asked is None and held is None:
            raise ConfigError(
                f"update.snap: {self.update.snap!r} without levels to snap to; "
                "set device.levels or mapping.weight_bits, or snap = 'off'"
            )

    def _check_update(self) -> None:
        update = self.update
        check_pair(update.pair, self.mapping.kind)
        if update.pulsed and self.mapping.slices > 1:
            raise ConfigError(
                f"update.encoding: {update.encoding!r} with {self.mapping.slices} slices per weight; "
                "sliced weights are rewritten from a digital word: use encoding = 'ideal', "
                "or leave mapping.cell_bits out"
            )
        if isinstance(self.device, JumpTableDevice):
            for name, value in (("v_up", update.v_up), ("v_down", update.v_down)):
                if value != 0.0:
                    raise ConfigError(
                        f"update.{name}: {value} with device.kind = 'jump-table'; "
                        "the table already holds the non-linearity: leave it out"
                    )
            if update.noise.law != "none":
                raise ConfigError(
                    f"update.noise.law: {update.noise.law!r} with device.kind = 'jump-table'; "
                    "the table already holds the noise: use law = 'none'"
                )
            if self.device.variation is not None and self.device.variation.sigma_v > 0.0:
                raise ConfigError(
                    f"device.variation.sigma_v: {self.device.variation.sigma_v} with device.kind = "
                    "'jump-table'; a table has no v to spread: leave it out"
                )

    def _check_backward(self) -> None:
        if self.input.bits == 1 and self.backward.mode == "crossbar":
            raise ConfigError(
                "input.bits: 1 with backward.mode = 'crossbar'; "
                "errors are signed and a signed 1-bit word has only the value 0: use at least 2 bits, "
                "or backward.mode = 'exact'"
            )

    @property
    def pair(self) -> Pair:
        """The pair rule in force: ``update.pair``, or ``carry`` with differential and ``both`` otherwise."""
        if self.update.pair is not None:
            return self.update.pair
        return "carry" if self.mapping.kind == "differential" else "both"

    @property
    def source_of(self) -> dict[str, str]:
        """The entries of `sources` by dotted path."""
        return dict(self.sources)

    def to_dict(self) -> dict[str, Any]:
        """Return the chip as nested dicts, lists, strings and numbers; absent means None."""
        data: dict[str, Any] = encode(self, type(self))
        data["sources"] = dict(self.sources)
        return data

    @classmethod
    def from_dict(cls, data: AbcMapping[str, Any], *, folder: str | Path = ".") -> Self:
        """Build a chip from plain data; relative file paths in it start at `folder`."""
        table = dict(data)
        sources = table.get("sources", {})
        if not isinstance(sources, AbcMapping) or not all(isinstance(v, str) for v in sources.values()):
            raise ConfigError('sources: must be a table of texts; write "dotted.path" = "published: ..."')
        table["sources"] = tuple(sources.items())
        chip: Self = decode(table, cls, "", Path(folder))
        return chip

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Read a chip file; relative file paths in it start at its folder."""
        return cls.from_dict(loading.read_toml(path), folder=Path(path).parent)

    @classmethod
    def from_json(cls, path: str | Path) -> Self:
        """Read a chip from a JSON file; relative file paths in it start at its folder."""
        return cls.from_dict(loading.read_json(path), folder=Path(path).parent)

    def to_toml(self, path: str | Path | None = None) -> str:
        """Return the chip as TOML, and write it to `path` if given."""
        return loading.write(path, loading.toml_text(self.to_dict()))

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the chip as JSON, and write it to `path` if given."""
        return loading.write(path, loading.json_text(self.to_dict()))

    def with_(self, path: str, value: Any) -> Self:
        """Return a copy with one value changed.

        Parameters
        ----------
        path : str
            Dotted path, such as ``"update.v_up"``. A new tag (``"circuit.kind"``) keeps what the two
            models share.
        value : number, str, list, dict, part of a chip or None
            The new value; None takes an optional value away.
        """
        return self.with_values({path: value})

    def with_values(self, values: AbcMapping[str, Any], *, folder: str | Path = ".") -> Self:
        """Return a copy with several values changed at once, checked once, in any order."""
        return self.from_dict(loading.set_values(self, values), folder=folder)
