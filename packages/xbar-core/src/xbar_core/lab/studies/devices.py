"""Our own study: which non-ideality of each preset device costs most, by taking one away at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from xbar_core.config import Chip, preset, preset_names
from xbar_core.errors import ConfigError
from xbar_core.lab.studies.frame import Finding, Scale, Study, lenet, seeds, thinned, trained
from xbar_core.lab.studies.judging import listing, lost, mean_of, percent, points_text
from xbar_core.lab.sweep.points import Point
from xbar_core.lab.sweep.results import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ALL = "all non-idealities"
_DOMINATES = 0.005  # a share of the test samples: less is nothing to design for
# What each name takes away.
_WITHOUT: Mapping[str, Mapping[str, Any]] = {
    "wires": {"wires": {}, "circuit": {"kind": "ideal"}},
    "converters": {
        "input.bits": None,
        "adc.bits": None,
        "input.nonlinearity": None,
        "adc.nonlinearity": None,
    },
    "update non-linearity": {"update.v_up": 0.0, "update.v_down": 0.0},
    "write noise": {"update.noise": {"law": "none"}},
    "variation": {"device.variation": None},
}


def _devices() -> list[str]:
    """Return the presets that describe a device, without the paper's chips and the ideal one."""
    return [name for name in preset_names() if not name.startswith("txsim") and name != "ideal"]


def _cases(chip: Chip) -> dict[str, Chip]:
    """Return the whole chip, and it without each non-ideality that it has."""
    whole = chip.with_("circuit", {"kind": "aam", "order": 1})
    found = {_ALL: whole}
    for name, values in _WITHOUT.items():
        try:
            other = whole.with_values(values)
        except ConfigError:
            continue  # the device of this chip has no such part
        if replace(other, sources=()) != replace(whole, sources=()):
            found[f"without {name}"] = other
    return found


def _points(scale: Scale) -> list[Point]:
    recipe, where, _ = lenet(scale)
    made = []
    for device in thinned(_devices(), scale):
        for name, chip in _cases(preset(device)).items():
            for seed in seeds(scale):
                made.append(trained({"device": device, "case": name, "seed": seed}, chip, recipe, **where))
    for seed in seeds(scale):
        made.append(trained({"device": "native", "case": _ALL, "seed": seed}, None, recipe, **where))
    return made


def _gains(table: Table, device: str) -> dict[str, Any]:
    names = dict.fromkeys(row.values["case"] for row in table.rows if row.values["device"] == device)
    whole = {"device": device, "case": _ALL}
    cases = [name for name in names if name != _ALL]
    return {
        name.removeprefix("without "): lost(
            table, {"device": device, "case": name}, whole, among=max(len(cases), 1)
        )
        for name in cases
    }


def _figure(table: Table) -> Figure:
    from xbar_core.plots._style import COLOURS, new_figure

    devices = [d for d in dict.fromkeys(row.values["device"] for row in table.rows) if d != "native"]
    kinds = list(_WITHOUT)
    figure = new_figure(9.0, 4.0)
    axes = figure.subplots()
    width = 0.8 / len(kinds)
    for number, kind in enumerate(kinds):
        gains = [_gains(table, device).get(kind) for device in devices]
        axes.bar(
            np.arange(len(devices)) + (number - (len(kinds) - 1) / 2) * width,
            [np.nan if gain is None else 100 * gain.mean for gain in gains],
            width,
            yerr=[0.0 if gain is None or gain.count < 2 else 100 * gain.half for gain in gains],
            label=kind,
            color=COLOURS[number],
            capsize=2,
        )
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(devices)), devices, rotation=20)
    axes.set(ylabel="points gained without it")
    axes.legend(fontsize=8)
    figure.suptitle("What each non-ideality of a device costs", fontsize=10)
    return figure


def _findings(table: Table) -> list[Finding]:
    findings = []
    native = mean_of(table, {"device": "native"})
    for device in dict.fromkeys(row.values["device"] for row in table.rows):
        if device == "native":
            continue
        gains = {name: gain for name, gain in _gains(table, device).items() if gain.count}
        whole = mean_of(table, {"device": device, "case": _ALL})
        told = listing(f"without {name} {points_text(gain)}" for name, gain in gains.items())
        found = f"{percent(whole)} against {percent(native)} native; {told}"
        best = max(gains, key=lambda name: gains[name].mean, default=None)
        if best is not None and gains[best].beyond_spread and gains[best].mean >= _DOMINATES:
            findings.append(
                Finding(
                    f"{device}: {best} costs most",
                    found,
                    "shown",
                )
            )
        else:
            findings.append(
                Finding(
                    f"{device}: one non-ideality dominates",
                    found,
                    "undecided",
                    f"no single one gains {100 * _DOMINATES:g} points and more than the spread",
                )
            )
    return findings


def _conditions(scale: Scale) -> str:
    return (
        f"{lenet(scale)[2]} Every preset device with all its non-idealities (AAM of order 1), then without "
        "one at a time; what a device does not have is not shown. Intervals hold for all of a device "
        "together."
    )


DEVICES = Study(
    name="devices",
    title="Which non-ideality dominates for each preset device",
    points=_points,
    figure=_figure,
    findings=_findings,
    conditions=_conditions,
)
