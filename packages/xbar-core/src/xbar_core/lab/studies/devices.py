"""Our own study: which non-ideality of each preset device dominates its reads, and which its updates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from xbar_core.config import Chip, preset, preset_names
from xbar_core.lab.evaluation import deployed
from xbar_core.lab.studies.frame import Finding, Scale, Study, Verdict, lenet, seeds, thinned, trained
from xbar_core.lab.studies.judging import (
    harmless,
    listing,
    lost,
    mean_of,
    more,
    percent,
    points_text,
    rows_of,
)
from xbar_core.lab.sweep.points import Point
from xbar_core.lab.sweep.results import Table
from xbar_core.lab.sweep.spread import Estimate, estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ALL = "all"
_DOMINATES = 0.5  # a share of the power of the error
_NOTHING = 1e-3  # a relative error
_HARMLESS = 0.01  # a share of the test samples


def _levels(chip: Chip) -> Mapping[str, Any]:
    return {"mapping.weight_bits": None, "mapping.cell_bits": None, "device.levels": None}


def _alike(chip: Chip) -> Mapping[str, Any]:
    up, down = chip.update.v_up, chip.update.v_down
    return {} if up == down else {"update.v_up": (up + down) / 2, "update.v_down": (up + down) / 2}


# What each name takes away; nothing where the chip has no such part.
_READS: Mapping[str, Callable[[Chip], Mapping[str, Any]]] = {
    "wires": lambda chip: {"wires": {}, "circuit": {"kind": "ideal"}},
    "converters": lambda chip: {
        "input.bits": None,
        "adc.bits": None,
        "input.nonlinearity": None,
        "adc.nonlinearity": None,
    },
    "levels": _levels,
    "variation": lambda chip: {"device.variation": None},
    "read noise": lambda chip: {"device.read_noise": None},
}
_UPDATES: Mapping[str, Callable[[Chip], Mapping[str, Any]]] = {
    "non-linearity": lambda chip: {"update.v_up": 0.0, "update.v_down": 0.0},
    "asymmetry": _alike,
    "write noise": lambda chip: {"update.noise.law": "none"},
}
_PARTS = {"reads": _READS, "updates": _UPDATES}
_EPOCHS = 3  # of the network whose reads and updates are measured


def _devices() -> list[str]:
    """Return the presets that describe a device, without the paper's chips and the ideal one."""
    return [name for name in preset_names() if not name.startswith("txsim") and name != "ideal"]


def _cases(chip: Chip, part: str) -> dict[str, Chip]:
    """Return the chip, and it without each non-ideality that it has."""
    # A network that is only read fills the range of the devices; one that is trained leaves room.
    chip = deployed(chip) if part == "reads" else chip
    found = {_ALL: chip}
    for name, values in _PARTS[part].items():
        other = chip.with_values(values(chip))
        if replace(other, sources=()) != replace(chip, sources=()):
            found[name] = other
    return found


def _points(scale: Scale) -> list[Point]:
    recipe, where, _ = lenet(scale)
    short = replace(recipe, epochs=min(recipe.epochs, _EPOCHS))
    made = [
        trained({"part": "training", "device": "native", "case": _ALL, "seed": seed}, None, recipe, **where)
        for seed in seeds(scale)
    ]
    for device in thinned(_devices(), scale):
        chip = preset(device)
        for seed in seeds(scale):
            for part in _PARTS:
                for name, case in _cases(chip, part).items():
                    labels = {"part": part, "device": device, "case": name, "seed": seed}
                    point = trained(labels, case, short, **where)
                    task = f"xbar_core.lab.studies.damage:{part}"
                    made.append(replace(point, setup=replace(point.setup, task=task)))
            labels = {"part": "training", "device": device, "case": _ALL, "seed": seed}
            fast = chip.with_("circuit", {"kind": "aam", "order": 1})
            made.append(trained(labels, fast, recipe, **where))
    return made


def _names(table: Table) -> list[str]:
    devices = dict.fromkeys(row.values["device"] for row in table.rows)
    return [device for device in devices if device != "native"]


def _error(table: Table, device: str, part: str, case: str) -> Estimate:
    return mean_of(table, {"part": part, "device": device, "case": case}, "error")


def _shares(table: Table, device: str, part: str) -> dict[str, dict[Any, float]]:
    """Return which share of the power of the error goes with each non-ideality, by seed."""

    def powers(case: str) -> dict[Any, float]:
        rows = rows_of(table, {"part": part, "device": device, "case": case})
        return {row.values["seed"]: row.metric("error") ** 2 for row in rows if row.metric("error") >= 0.0}

    whole = powers(_ALL)
    found = {}
    for name in _PARTS[part]:
        left = powers(name)
        shares = {seed: 1 - left[seed] / whole[seed] for seed in left if whole.get(seed, 0.0) > 0.0}
        if shares:
            found[name] = shares
    return found


def _figure(table: Table) -> Figure:
    from xbar_core.plots._style import COLOURS, new_figure

    devices = _names(table)
    figure = new_figure(10.5, 5.6)
    for axes, part in zip(figure.subplots(2, 1, sharex=True), _PARTS, strict=True):
        known = list(_PARTS[part])
        shares = {device: _shares(table, device, part) for device in devices}
        width = 0.8 / len(known)
        for number, name in enumerate(known):
            means = [estimate(shares[device].get(name, {}).values()) for device in devices]
            if not any(mean.count for mean in means):
                continue
            axes.bar(
                np.arange(len(devices)) + (number - (len(known) - 1) / 2) * width,
                [100 * mean.mean for mean in means],
                width,
                yerr=[0.0 if mean.count < 2 else 100 * mean.half for mean in means],
                label=name,
                color=COLOURS[number],
                capsize=2,
            )
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set(ylabel=f"error of {part}\nthat goes with it [%]", ylim=(-20, 105))
        axes.set_xticks(range(len(devices)), devices, rotation=20)
        if axes.containers:
            axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.suptitle("Which non-ideality dominates (share of the power of the error)", fontsize=10)
    return figure


def _findings(table: Table) -> list[Finding]:
    findings = []
    for device in _names(table):
        findings += [_dominant(table, device, part) for part in _PARTS]
        findings.append(_training(table, device))
    return findings


def _dominant(table: Table, device: str, part: str) -> Finding:
    """Say with which non-ideality most of the error goes."""
    whole = _error(table, device, part, _ALL)
    claim = f"{device}, {part}: one non-ideality dominates"
    if whole.count < 3:
        return Finding(claim, _relative(whole), "undecided", f"only {whole.count} of three repeats")
    if whole.mean < _NOTHING:
        return Finding(f"{device}, {part}: nothing is lost", f"{_relative(whole)} error", "shown")
    shares = _shares(table, device, part)
    order = sorted(shares, key=lambda name: -estimate(shares[name].values()).mean)
    told = listing(
        f"without {name} {_relative(_error(table, device, part, name))} "
        f"({100 * estimate(shares[name].values()).mean:.0f} % of the power goes)"
        for name in order
    )
    found = f"error {_relative(whole)}; {told}"
    if not order:
        return Finding(claim, found, "undecided", "points are missing")
    first = shares[order[0]]
    second = shares[order[1]] if len(order) > 1 else dict.fromkeys(first, 0.0)
    # First and second are picked afterwards: the intervals hold for all pairs, and for all of them.
    ahead = more(first, second, among=max(len(order) * (len(order) - 1) // 2, 1))
    most = more(first, dict.fromkeys(first, 0.0), among=len(order))
    if ahead.beyond_spread and most.mean - most.half >= _DOMINATES:
        return Finding(f"{device}, {part}: dominated by {order[0]}", found, "shown")
    if ahead.count >= 3 and most.mean + most.half < _DOMINATES:
        return Finding(claim, found, "not shown", "no single one takes half the power of the error with it")
    return Finding(claim, found, "undecided", f"{order[0]} leads by {points_text(ahead)} of the power")


def _training(table: Table, device: str) -> Finding:
    native = {"part": "training", "device": "native"}
    case = {"part": "training", "device": device}
    loss = lost(table, native, case)
    tests = [mean_of(table, labels, "test_loss") for labels in (native, case)]
    judged = harmless(loss, _HARMLESS)
    named: dict[Verdict, Verdict] = {"reproduced": "shown", "not reproduced": "not shown"}
    return Finding(
        f"{device}: training on the device costs at most {100 * _HARMLESS:g} point",
        f"{percent(mean_of(table, case))} against {percent(mean_of(table, native))} native, lost "
        f"{points_text(loss)}; test loss {tests[1].mean:.3f} against {tests[0].mean:.3f}",
        named.get(judged, "undecided"),
        {
            "reproduced": "",
            "not reproduced": "the whole interval is beyond that; the error of its reads is "
            f"{_relative(_error(table, device, 'reads', _ALL))}, of its first update "
            f"{_relative(_error(table, device, 'updates', _ALL))}",
        }.get(judged, f"the interval over {loss.count} seeds reaches over the limit: {points_text(loss)}"),
    )


def _relative(value: Estimate) -> str:
    """Return a relative error: in per cent below 1, as a factor above."""
    if value.count == 0:
        return "(no result)"
    return f"{100 * value.mean:.2g} %" if value.mean < 1 else f"{value.mean:.2g} times the signal"


def _conditions(scale: Scale) -> str:
    return (
        f"{lenet(scale)[2]} Every preset device as it is, then without one non-ideality at a time; what a "
        "device does not have is not shown. Reads: a network trained natively for three epochs is written "
        "into the chip, whose range its weights fill (exact circuit); the error of a layer's output against "
        "x @ W, root mean square over layers. Updates: the first step of training on the device; the error "
        "of the change of the weights against the change without non-linearity and noise. One dominates if "
        "half the power of the error goes with it and less with any other. Training: with all of them, from "
        "new weights (AAM of order 1)."
    )


DEVICES = Study(
    name="devices",
    title="Which non-ideality dominates for each preset device",
    points=_points,
    figure=_figure,
    findings=_findings,
    conditions=_conditions,
    metric="error",
    others=("accuracy", "test_loss"),
)
