"""What became of every module in a conversion: the report of the core, under the adapter's name."""

from __future__ import annotations

from xbar_core.lab.conversion import ConversionReport, ModuleReport

__all__ = ["ConversionReport", "ModuleReport"]
