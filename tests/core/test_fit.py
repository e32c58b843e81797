"""Fitting devices: known parameters come back from noisy curves, and bad files are named."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from xbar_core import ConfigError
from xbar_core.config import Chip, SqrtNoise, preset
from xbar_core.devices.curves import default_pulses, growth, update_curve
from xbar_core.devices.fit import DeviceFit, fit_device
from xbar_core.devices.fit_jumps import jump_table_device

G_MIN, G_MAX, V_UP, V_DOWN, GAMMA, PULSES = 2e-6, 1e-5, 2.0, 1.0, 0.05, 60


def write_curves(
    path: Path,
    *,
    v_up: float = V_UP,
    v_down: float = V_DOWN,
    gamma: float = GAMMA,
    read: float = 0.0,
    cycles: int = 4,
    devices: int = 1,
    sigma_v: float = 0.0,
    clip: bool = False,
    seed: int = 0,
) -> Path:
    """Write curves of devices pulsed one by one by the printed law, with noise of law sqrt."""
    rng = np.random.default_rng(seed)
    span = G_MAX - G_MIN
    lines = ["device,cycle,direction,pulse,conductance"]
    for device in range(devices):
        own = {"up": v_up + sigma_v * rng.standard_normal(), "down": v_down + sigma_v * rng.standard_normal()}
        for cycle in range(cycles):
            for direction, v in own.items():
                g = G_MIN if direction == "up" else G_MAX
                reach, gain = span / -math.expm1(-v), -math.expm1(-v / PULSES)
                for pulse in range(PULSES + 1):
                    seen = g + read * rng.standard_normal()
                    lines.append(f"{device},{cycle},{direction},{pulse},{seen:.9e}")
                    g += (reach + G_MIN - g) * gain if direction == "up" else -(reach - G_MAX + g) * gain
                    g += gamma * span / math.sqrt(PULSES) * rng.standard_normal()
                    if clip:
                        g = min(max(g, G_MIN), G_MAX)
    path.write_text("\n".join(lines) + "\n")
    return path


def deviations(fit: DeviceFit) -> dict[str, float]:
    """Return (estimate - truth) / standard error of every parameter."""
    truth = {"v_up": V_UP, "v_down": V_DOWN, "g_min": G_MIN, "g_max": G_MAX, "gamma": GAMMA}
    return {name: (getattr(fit, name) - value) / fit.errors[name] for name, value in truth.items()}


def test_noiseless_curves_return_their_parameters_exactly(tmp_path: Path) -> None:
    """Without noise the least-squares fit is the truth to rounding of the file."""
    fit = fit_device(write_curves(tmp_path / "a.csv", gamma=0.0))
    assert fit.v_up == pytest.approx(V_UP, rel=1e-6)
    assert fit.v_down == pytest.approx(V_DOWN, rel=1e-6)
    assert fit.g_min == pytest.approx(G_MIN, rel=1e-6)
    assert fit.g_max == pytest.approx(G_MAX, rel=1e-6)
    assert fit.gamma < 1e-6
    assert fit.r_squared > 1 - 1e-10
    assert fit.levels == PULSES + 1


@pytest.mark.parametrize("clip", [False, True])
def test_parameters_return_within_their_stated_errors(clip: bool, tmp_path: Path) -> None:
    """Over ten noisy data sets the deviations / standard errors have an rms near 1, none beyond 4."""
    z = np.array(
        [
            list(
                deviations(
                    fit_device(write_curves(tmp_path / "a.csv", seed=s, clip=clip), resamples=20)
                ).values()
            )
            for s in range(10)
        ]
    )
    assert np.abs(z).max() < 4.0
    rms = np.sqrt((z**2).mean(axis=0))
    assert (rms < 2.0).all()
    assert (rms > 0.3).all()


def test_stated_errors_are_useful(tmp_path: Path) -> None:
    """Standard errors of five cycles are a few percent, not a way out."""
    fit = fit_device(write_curves(tmp_path / "a.csv", cycles=5))
    assert fit.errors["v_up"] < 0.15
    assert fit.errors["v_down"] < 0.15
    assert fit.errors["gamma"] < 0.1 * GAMMA
    assert not [w for w in fit.warnings if "law" in w]


@pytest.mark.parametrize(("v_up", "v_down"), [(6.0, -2.0), (0.0001, 0.0001), (-3.0, 8.0)])
def test_strong_negative_and_linear_curves(v_up: float, v_down: float, tmp_path: Path) -> None:
    """Any sign and size of v comes back within four standard errors."""
    fit = fit_device(write_curves(tmp_path / "a.csv", v_up=v_up, v_down=v_down, gamma=0.03))
    assert abs(fit.v_up - v_up) < 4.0 * fit.errors["v_up"]
    assert abs(fit.v_down - v_down) < 4.0 * fit.errors["v_down"]


def test_read_noise_is_told_from_write_noise(tmp_path: Path) -> None:
    """Read noise correlates neighbouring steps, write noise does not: both come back."""
    read = 4e-8
    fits = [fit_device(write_curves(tmp_path / "a.csv", read=read, seed=s), resamples=5) for s in range(6)]
    assert np.mean([f.gamma for f in fits]) == pytest.approx(GAMMA, rel=0.08)
    assert np.mean([f.read_noise for f in fits]) * 0.5 * (G_MIN + G_MAX) == pytest.approx(read, rel=0.15)
    assert all(f.read_noise == 0.0 for f in [fit_device(write_curves(tmp_path / "a.csv"), resamples=5)])


def test_device_spread_comes_back(tmp_path: Path) -> None:
    """Twelve devices with sigma_v = 0.3: the spread returns within its own sampling error."""
    fit = fit_device(
        write_curves(tmp_path / "a.csv", devices=12, cycles=3, sigma_v=0.3, seed=3), resamples=10
    )
    assert fit.devices == 12
    assert fit.sigma_v == pytest.approx(0.3, abs=3 * 0.3 / math.sqrt(2 * 2 * 11))
    alike = fit_device(write_curves(tmp_path / "a.csv", devices=12, cycles=3, seed=3), resamples=10)
    assert alike.sigma_v < 0.1


def test_a_law_that_does_not_fit_is_said(tmp_path: Path) -> None:
    """An S-shaped curve has a systematic misfit, and the fit says so."""
    rows = ["cycle,direction,pulse,conductance"]
    for cycle in range(4):
        for direction in ("up", "down"):
            x = np.linspace(0.0, 1.0, 61)
            s = 0.5 * (1.0 - np.cos(np.pi * x))
            g = G_MIN + (G_MAX - G_MIN) * (s if direction == "up" else 1.0 - s)
            rows += [f"{cycle},{direction},{p},{v:.9e}" for p, v in enumerate(g)]
    path = tmp_path / "s.csv"
    path.write_text("\n".join(rows))
    fit = fit_device(path)
    assert fit.misfit > 0.03
    assert any("the exponential law does not describe these curves" in w for w in fit.warnings)
    assert not any("does not describe" in w for w in fit_device(write_curves(tmp_path / "a.csv")).warnings)


def test_noise_alone_is_not_called_a_misfit(tmp_path: Path) -> None:
    """Strong write noise lowers R^2, but the law is right: only the noise is named."""
    fit = fit_device(write_curves(tmp_path / "a.csv", gamma=0.25, cycles=20, clip=True), resamples=5)
    assert not any("does not describe" in w for w in fit.warnings)


def test_fit_makes_a_chip_that_reproduces_the_curve(tmp_path: Path) -> None:
    """The chip of a fit has the measured mean curve, says measured, and survives its file."""
    fit = fit_device(write_curves(tmp_path / "a.csv", cycles=8))
    chip = fit.to_chip(preset("txsim-8bit"))
    assert chip.device.r_min == pytest.approx(1.0 / fit.g_max)
    assert chip.update.noise == SqrtNoise(gamma=fit.gamma, stage="before_lr")
    assert chip.wires == preset("txsim-8bit").wires
    assert chip.source_of["device"].startswith("measured: fit of a.csv")
    assert "device.r_min" not in chip.source_of
    curve = update_curve(chip, pulses=PULSES)
    truth = G_MIN + (G_MAX - G_MIN) * growth(V_UP, np.linspace(0.0, 1.0, PULSES + 1))
    assert np.abs(curve.up - truth).max() < 0.03 * (G_MAX - G_MIN)
    chip.to_toml(tmp_path / "chip.toml")
    assert Chip.from_toml(tmp_path / "chip.toml") == chip


def test_seed_makes_the_errors_repeatable(tmp_path: Path) -> None:
    """The same file and seed give the same standard errors."""
    path = write_curves(tmp_path / "a.csv")
    first, again, other = (fit_device(path, resamples=3, seed=seed).errors for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_jump_table_walks_like_the_data(tmp_path: Path) -> None:
    """A table of measured steps reproduces the mean curve that the steps were taken from."""
    path = write_curves(tmp_path / "a.csv", cycles=30, clip=True)
    fit = fit_device(path, resamples=2)
    chip = fit.to_jump_table_chip(jump_table_device(path))
    assert chip.device.kind == "jump-table"
    assert chip.source_of["device"].startswith("measured")
    assert default_pulses(chip) == pytest.approx(PULSES, rel=0.1)
    curve = update_curve(chip, pulses=30, devices=2000)
    truth = G_MIN + (G_MAX - G_MIN) * growth(V_UP, np.arange(31) / PULSES)
    assert np.abs(curve.up - truth).max() < 0.03 * (G_MAX - G_MIN)
    with pytest.raises(ConfigError, match="bins: 5000 bins for 1800 measured steps"):
        jump_table_device(path, bins=5000)


HEAD = "cycle,direction,pulse,conductance\n"
UP = "".join(f"0,up,{p},{1e-6 * (1 + p)}\n" for p in range(6))
DOWN = "".join(f"0,down,{p},{1e-6 * (6 - p)}\n" for p in range(6))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEAD + UP, "holds no curve of direction 'down'"),
        (HEAD + UP + DOWN + "1,up,0,\n", "column conductance: '' is not a finite number"),
        (HEAD + UP + "0,down,0\n", "line 8 has 3 cells for 4 columns; the file may be truncated"),
        (HEAD + UP + DOWN + "0,sideways,0,1e-6\n", "unknown word 'sideways'; write up or down"),
        (HEAD + UP + DOWN + "0,up,3,1e-6\n", "pulse 3 of this cycle occurs twice"),
        (HEAD + UP + DOWN + "1,up,0.5,1e-6\n", "'0.5' is not a pulse number"),
        (HEAD + UP + DOWN + "1,up,0,1e5\n", "100000 S is out of range"),
        (HEAD + UP + DOWN + "1,up,0,1e-6\n", "1 points are too few"),
        (HEAD + UP + DOWN.replace("0,down,2,", "0,down,9,"), "pulse 2 is missing"),
        (HEAD + UP.replace("up", "down") + DOWN.replace("down", "up"), "check the direction column"),
        ("cycle,direction,pulses,conductance\n", "has no column 'pulse', did you mean 'pulses'?"),
        ("", "has no column 'cycle'"),
        ("\x00\x01\x02", "is not a CSV text file"),
    ],
)
def test_foreign_and_truncated_curves_are_named(text: str, expected: str, tmp_path: Path) -> None:
    """Each error names the file, the line and what to do."""
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ConfigError) as error:
        fit_device(tmp_path / "a.csv")
    assert expected in str(error.value)
    assert "a.csv" in str(error.value)


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    """A mistyped name gets the nearest existing one."""
    write_curves(tmp_path / "curves.csv")
    with pytest.raises(ConfigError, match=r"did you mean 'curves.csv'"):
        fit_device(tmp_path / "curve.csv")


def test_words_comments_and_extra_columns_are_understood(tmp_path: Path) -> None:
    """LTP and LTD, comment lines, blank lines and unknown columns do not stand in the way."""
    text = "# lab 3\n\nnote,Cycle,direction,pulse,conductance\n"
    text += "".join(f"x,{line}\n" for line in (UP.replace("up", "LTP") + DOWN.replace("down", "LTD")).split())
    (tmp_path / "a.csv").write_text(text)
    fit = fit_device(tmp_path / "a.csv")
    assert (fit.pulses_up, fit.pulses_down) == (5, 5)
    assert abs(fit.v_up) < 0.05
