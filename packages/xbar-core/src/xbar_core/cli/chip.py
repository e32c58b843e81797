"""`xbar presets`, `xbar show` and `xbar device`: chips and their devices."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from xbar_core._checks import check_integer
from xbar_core.cli._chip_screen import show_chip
from xbar_core.cli._files import FIGURE_SUFFIXES, check_output, written
from xbar_core.cli._options import Force, require_plots
from xbar_core.cli._terminal import engineering, say, table, working
from xbar_core.config import Chip, load_chip, preset, preset_names
from xbar_core.devices.curves import default_pulses, label_from_nonlinearity, update_curve
from xbar_core.devices.fit import DeviceFit, fit_device
from xbar_core.devices.fit_jumps import jump_table_device
from xbar_core.errors import ConfigError

CHIP_SUFFIXES = (".toml", ".json")
Name = Annotated[str, typer.Argument(metavar="CHIP", help="Preset name, or chip file (.toml, .json).")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Change one value, for example update.v_up=0.5; repeatable."
    ),
]
Figure = Annotated[Path | None, typer.Option(metavar="FILE", help="Figure to write: .png, .svg or .pdf.")]


def register(app: typer.Typer) -> None:
    """Add the chip commands."""
    app.command("presets")(presets_command)
    app.command("show")(show_command)
    app.command("device")(device_command)


def presets_command() -> None:
    """List the chips that come with xbar."""
    columns = (
        ("preset", "left"),
        ("array", "right"),
        ("resistance (ohm)", "right"),
        ("bits", "right"),
        ("v up / down", "right"),
        ("write noise", "left"),
        ("what", "left"),
    )
    rows = [_row(preset(name)) for name in preset_names()]
    table("Presets", columns, rows, "bits: DAC / ADC, - is unlimited. xbar show NAME tells one in full.")


def show_command(
    chip: Name,
    set_: Set = None,
    sources: Annotated[
        bool, typer.Option("--sources", help="One line for each value, with its source in full.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the chip as a file: .toml or .json.")
    ] = None,
    force: Force = False,
) -> None:
    """Show a chip on one screen: values, where they come from, and what they imply."""
    loaded = load_chip(chip, set_ or ())
    if out is not None:
        check_output("out", out, CHIP_SUFFIXES, force=force)
    with working(f"solving one array of {loaded.name}"):
        show_chip(loaded, sources=sources)
    if out is not None:
        _write_chip(loaded, out)


def device_command(
    chip: Annotated[
        str | None, typer.Argument(metavar="CHIP", help="Preset name, or chip file (.toml, .json).")
    ] = None,
    set_: Set = None,
    pulses: Annotated[
        int | None, typer.Option(help="Pulses of a sweep; default: the device's levels, or 100.")
    ] = None,
    fit: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Measured curves, .csv: cycle, direction, pulse, conductance (S)."),
    ] = None,
    jump_table: Annotated[
        bool, typer.Option("--jump-table", help="With --fit: use the measured steps, no law.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --fit: chip file to write, .toml or .json.")
    ] = None,
    figure: Figure = None,
    force: Force = False,
) -> None:
    """Show a chip's update curve up and down, or fit a device to measured curves.

    With --fit, CHIP is what the fitted device is put into (default: an ideal chip).
    """
    taken: list[Path] = [] if fit is None else [fit]
    for field, path, suffixes in (("out", out, CHIP_SUFFIXES), ("figure", figure, FIGURE_SUFFIXES)):
        if path is not None:
            taken.append(check_output(field, path, suffixes, force=force, inputs=tuple(taken)))
    if figure is not None:
        require_plots()
    if pulses is not None:
        check_integer("pulses", pulses, minimum=1, maximum=1_000_000)
    if fit is not None:
        base = Chip() if chip is None else load_chip(chip, set_ or ())
        _fit(fit, base, named=chip is not None, jump_table=jump_table, out=out, figure=figure)
        return
    if out is not None or jump_table:
        raise ConfigError("fit: missing; --out and --jump-table belong to --fit FILE.csv: add it")
    if chip is None:
        raise ConfigError(
            "chip: missing; name a preset or a chip file, or give measured curves with --fit FILE.csv"
        )
    _curve(load_chip(chip, set_ or ()), pulses, figure)


def _row(chip: Chip) -> tuple[str, ...]:
    noise: Any = chip.update.noise
    bits = " / ".join("-" if b is None else str(b) for b in (chip.input.bits, chip.adc.bits))
    low, high = (engineering(r, "") for r in (chip.device.r_min, chip.device.r_max))
    return (
        chip.name,
        f"{chip.array.rows}x{chip.array.cols}",
        f"{low.strip()} - {high.strip()}",
        bits,
        f"{chip.update.v_up:.3g} / {chip.update.v_down:.3g}",
        "none" if noise.law == "none" else f"{noise.law} {noise.gamma:.2g}",
        chip.description,
    )


def _curve(chip: Chip, pulses: int | None, figure: Path | None) -> None:
    """Print the update curve at ten places, and draw it."""
    curve = update_curve(chip, pulses=pulses)
    count = default_pulses(chip) if pulses is None else pulses
    shown = np.unique(np.linspace(0, count, min(count, 10) + 1).round().astype(int))
    rows = [
        (
            str(p),
            engineering(float(curve.up[p]), "S"),
            engineering(float(curve.up_sigma[p]), "S") if curve.up_sigma[p] else "0",
            engineering(float(curve.down[p]), "S"),
            engineering(float(curve.down_sigma[p]), "S") if curve.down_sigma[p] else "0",
        )
        for p in shown
    ]
    columns = (
        ("pulse", "right"),
        ("up", "right"),
        ("± sigma", "right"),
        ("down", "right"),
        ("± sigma", "right"),
    )
    update, note = chip.update, "sigma: from cycle to cycle, clipping at the ends ignored."
    if chip.device.kind == "analytic":
        up, down = label_from_nonlinearity(update.v_up), -label_from_nonlinearity(update.v_down)
        note += f" v = {update.v_up:.4g} up, {update.v_down:.4g} down; NeuroSim label {up:.3g} / {down:.3g}."
    table(f"Update curve of {chip.name}, {count} pulses", columns, rows, note)
    if figure is not None:
        from xbar_core.plots.device import update_curve_figure

        with written("figure", figure) as part:
            update_curve_figure(curve, title=f"Update curve of {chip.name}").savefig(part)
        say(f"wrote {figure}")


def _fit(
    csv: Path, base: Chip, *, named: bool, jump_table: bool, out: Path | None, figure: Path | None
) -> None:
    """Fit a device to measured curves; print, draw and write what was found."""
    with working(f"fitting {csv.name}"):
        fit = fit_device(csv)
        chip = fit.to_chip(base, name=base.name if named else None)
        if jump_table:
            chip = fit.to_jump_table_chip(jump_table_device(csv), base, name=chip.name)
    _show_fit(fit)
    with contextlib.ExitStack() as stack:
        if figure is not None:
            from xbar_core.plots.device import fit_figure

            fit_figure(fit).savefig(stack.enter_context(written("figure", figure)))
        if out is not None:
            _write(chip, stack.enter_context(written("out", out)))
    for path in (figure, out):
        if path is not None:
            say(f"wrote {path}")


def _show_fit(fit: DeviceFit) -> None:
    errors = fit.errors
    rows = [
        ("v up", f"{fit.v_up:.4g}", f"{errors['v_up']:.2g}"),
        ("v down", f"{fit.v_down:.4g}", f"{errors['v_down']:.2g}"),
        ("g_min", engineering(fit.g_min, "S"), engineering(errors["g_min"], "S")),
        ("g_max", engineering(fit.g_max, "S"), engineering(errors["g_max"], "S")),
        ("r_min .. r_max", f"{engineering(1 / fit.g_max, 'ohm')} .. {engineering(1 / fit.g_min, 'ohm')}", ""),
        ("levels", str(fit.levels), ""),
        ("write noise gamma (law sqrt)", f"{fit.gamma:.4g}", f"{errors['gamma']:.2g}"),
        ("read noise, relative", f"{fit.read_noise:.2g}", ""),
        (
            "device spread of v, g_min, g_max",
            f"{fit.sigma_v:.2g}, {fit.sigma_g_min:.2g}, {fit.sigma_g_max:.2g}",
            "",
        ),
        ("R^2", f"{fit.r_squared:.5f}", ""),
        ("residual rms, of range", f"{fit.residual_rms:.2%}", ""),
        ("systematic misfit, of range", f"{fit.misfit:.2%}", ""),
    ]
    columns = (("quantity", "left"), ("value", "right"), ("standard error", "right"))
    table(f"Fit of {fit.source}: {fit.devices} device(s), {fit.cycles} cycle(s)", columns, rows)
    for warning in fit.warnings:
        say(f"note: {warning}")


def _write_chip(chip: Chip, out: Path) -> None:
    with written("out", out) as part:
        _write(chip, part)
    say(f"wrote {out}")


def _write(chip: Chip, path: Path) -> None:
    if path.suffix == ".json":
        chip.to_json(path)
    else:
        chip.to_toml(path)
