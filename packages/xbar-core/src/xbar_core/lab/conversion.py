"""What became of every module or layer when a network was put on a chip."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModuleReport:
    """What became of one module of torch or layer of Keras.

    Attributes
    ----------
    name : str
        Its name in the model; of a shared module the first one.
    native : str
        Type it had.
    became : str or None
        Type it has on crossbars; None where it stays digital.
    chip : str or None
        Name of its chip.
    weights : int
        Number of weights on crossbars, or of parameters that stay digital.
    arrays : int
        Physical arrays used.
    utilisation : float
        Share of the cells of these arrays that hold a weight.
    note : str
        Why it stays digital, or with which module it shares its crossbar.
    """

    name: str
    native: str
    became: str | None
    chip: str | None
    weights: int
    arrays: int
    utilisation: float
    note: str


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did; `print` shows it as a table.

    Attributes
    ----------
    modules : tuple of ModuleReport
        Every module that computes something or has parameters, in the order of the model.
    """

    modules: tuple[ModuleReport, ...]

    @property
    def converted(self) -> tuple[ModuleReport, ...]:
        """The modules on crossbars."""
        return tuple(module for module in self.modules if module.became is not None)

    @property
    def digital(self) -> tuple[ModuleReport, ...]:
        """The modules that stay digital."""
        return tuple(module for module in self.modules if module.became is None)

    @property
    def arrays(self) -> int:
        """Number of physical arrays."""
        return sum(module.arrays for module in self.modules)

    def __getitem__(self, name: str) -> ModuleReport:
        """Return the entry of a module by its name."""
        for module in self.modules:
            if module.name == name:
                return module
        raise KeyError(name)

    def __str__(self) -> str:
        """Return the table."""
        head = ("module", "was", "is", "chip", "weights", "arrays", "used", "note")
        rows = [head, *(_row(module) for module in self.modules)]
        widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
        right = {head.index(name) for name in ("weights", "arrays", "used")}
        lines = [
            "  ".join(
                cell.rjust(width) if k in right else cell.ljust(width)
                for k, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        total = sum(module.weights for module in self.converted)
        rest = sum(module.weights for module in self.digital)
        lines.append(f"{total} weights on {self.arrays} arrays; {rest} parameters in digital modules")
        return "\n".join(lines)


def _row(module: ModuleReport) -> tuple[str, ...]:
    on_chip = module.became is not None
    return (
        module.name or "(model)",
        module.native,
        module.became or "digital",
        module.chip or "",
        str(module.weights) if module.weights else "",
        str(module.arrays) if module.arrays else "",
        f"{module.utilisation:.0%}" if on_chip and module.arrays else "",
        module.note,
    )
