"""Bad input at the public edge: an error that names the field, the value, the rule and the fix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from xbar_core import (
    AAM,
    FCM,
    ConfigError,
    Ideal,
    Interpolated,
    ShapeError,
    Wires,
    effective_conductance,
    effective_conductance_vjp,
    error_report,
    export_netlist,
    interpolation_apply,
    interpolation_begin,
    interpolation_vjp,
    solve,
)

GOOD = np.full((3, 4), 1e-5)
WIRES = Wires(1.0, 4.6, 500.0, 100.0)
VOLTS = np.ones(3)

# Every public function of conductances and wires, with all else in order.
CALLS: dict[str, Callable[[Any, Any], object]] = {
    "effective_conductance": lambda g, w: effective_conductance(g, w),
    "ideal": lambda g, w: effective_conductance(g, w, Ideal()),
    "aam": lambda g, w: effective_conductance(g, w, AAM(1)),
    "solve": lambda g, w: solve(g, w, VOLTS),
    "vjp": lambda g, w: effective_conductance_vjp(g, w, GOOD),
    "interpolation_begin": lambda g, w: interpolation_begin(g, w, Interpolated(3)),
    "interpolation_apply": lambda g, w: interpolation_apply(
        interpolation_begin(GOOD, WIRES, Interpolated(3))[1], g, w
    ),
    "interpolation_vjp": lambda g, w: interpolation_vjp(
        interpolation_begin(GOOD, WIRES, Interpolated(3))[1], g, w, GOOD
    ),
    "error_report": lambda g, w: error_report(g, w, AAM(1)),
    "export_netlist": lambda g, w: export_netlist(g, w, VOLTS, "must-not-be-written.cir"),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def with_value(value: float, dtype: type = np.float64) -> np.ndarray:
    """Return an array whose entries from [1, 2] on are bad, so that the first is named."""
    g = GOOD.astype(dtype)
    g[1, 2:] = value
    g[2, 0] = value
    return g


def test_good_input_is_accepted(tmp_path: Any) -> None:
    """The calls below fail for what is changed, not for what they share."""
    for name, call in CALLS.items():
        if name != "export_netlist":
            call(GOOD, WIRES)
    export_netlist(GOOD, WIRES, VOLTS, tmp_path / "a.cir")


@each_call
@pytest.mark.parametrize("value", [-1e-5, np.nan, np.inf, -np.inf, 1e-16, 1.1e3, -0.5, 5e-324])
def test_conductance_outside_bounds(call: Callable[[Any, Any], object], value: float) -> None:
    """A conductance is 0 or 1e-15 to 1e3 S; the first that is not is named with its index."""
    with pytest.raises(ConfigError) as caught:
        call(with_value(value), WIRES)
    text = str(caught.value)
    assert text.startswith(f"conductance[1, 2]: {value}")
    assert "1e-15" in text
    assert "1000" in text


@pytest.mark.parametrize("value", [-1e-5, np.nan, np.inf, 1e-16, 1.1e3])
def test_conductance_outside_bounds_float32_and_batch(value: float) -> None:
    """The index of a batch has its leading axes, in float32 too."""
    g = np.stack([GOOD, with_value(value)]).astype(np.float32)
    with pytest.raises(ConfigError, match=r"^conductance\[1, 1, 2\]: "):
        effective_conductance(g, WIRES)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("value", [0.0, -0.0, 1e-15, 1e3])
def test_bounds_are_accepted(value: float, dtype: type) -> None:
    """The bounds themselves, as float32 rounds them too, and both zeros."""
    assert np.isfinite(effective_conductance(with_value(value, dtype), WIRES)).all()


@each_call
@pytest.mark.parametrize("shape", [(), (3,), (0,), (0, 4), (3, 0), (2, 3, 0), (0, 0)])
def test_conductance_shape(call: Callable[[Any, Any], object], shape: tuple[int, ...]) -> None:
    """An array has at least a row and a column."""
    with pytest.raises(ShapeError, match="^conductance: ") as caught:
        call(np.full(shape, 1e-5), WIRES)
    assert str(shape) in str(caught.value)


@each_call
@pytest.mark.parametrize(
    "bad",
    [
        GOOD.astype(np.float16),
        GOOD.astype(np.complex128),
        GOOD.astype(np.complex64),
        GOOD.astype(object),
        GOOD.astype(str),
        GOOD > 0,
        np.zeros((3, 4), "datetime64[s]"),
        "1e-5",
        None,
        [[1e-5, 1e-5], [1e-5]],
        {"a": 1e-5},
    ],
    ids=lambda x: str(getattr(x, "dtype", type(x).__name__)),
)
def test_conductance_dtype(call: Callable[[Any, Any], object], bad: Any) -> None:
    """Only float32, float64 and integers are numbers of siemens."""
    with pytest.raises(ShapeError, match="^conductance: "):
        call(bad, WIRES)


@each_call
@pytest.mark.parametrize("bad", [None, (1.0, 4.6, 500.0, 100.0), {"r_row": 1.0}, 1.0, "wires", Wires])
def test_wires_type(call: Callable[[Any, Any], object], bad: Any) -> None:
    """Wires are a Wires."""
    with pytest.raises(ConfigError, match=r"^wires: .*Wires\("):
        call(GOOD, bad)


@pytest.mark.parametrize("field", ["r_row", "r_col", "r_source", "r_sense"])
@pytest.mark.parametrize(
    "value", [-1.0, np.nan, np.inf, -np.inf, 1e-7, 1.1e9, 5e-324, "1", None, True, 1j, [1.0]]
)
def test_resistances(field: str, value: Any) -> None:
    """A resistance is 0 or 1e-6 to 1e9 ohm, and the one that is not is named."""
    with pytest.raises(ConfigError) as caught:
        Wires(**{field: value})
    assert str(caught.value).startswith(f"wires.{field}: {value!r}")


@pytest.mark.parametrize("value", [0, 0.0, 1e-6, 1e9, np.float32(4.6), np.int64(3)])
def test_resistances_accepted(value: Any) -> None:
    """The bounds themselves, and NumPy's numbers; kept as plain floats."""
    assert type(Wires(r_row=value).r_row) is float


DIRECTED: dict[str, Callable[[Any], object]] = {
    "effective_conductance": lambda d: effective_conductance(GOOD, WIRES, FCM(), d),
    "vjp": lambda d: effective_conductance_vjp(GOOD, WIRES, GOOD, FCM(), d),
    "interpolation_begin": lambda d: interpolation_begin(GOOD, WIRES, Interpolated(3), d),
    "interpolation_apply": lambda d: interpolation_apply(
        interpolation_begin(GOOD, WIRES, Interpolated(3))[1], GOOD, WIRES, d
    ),
    "error_report": lambda d: error_report(GOOD, WIRES, AAM(1), d),
}


@pytest.mark.parametrize("call", DIRECTED.values(), ids=DIRECTED)
@pytest.mark.parametrize(
    ("direction", "hint"), [("foward", "forward"), ("backwards", "backward"), ("Forward", "forward")]
)
def test_direction_with_its_nearest_match(call: Callable[[Any], object], direction: str, hint: str) -> None:
    """A misspelt direction is met with the one that was meant."""
    with pytest.raises(ConfigError, match=f"^direction: .*'{direction}'.*did you mean '{hint}'"):
        call(direction)


@pytest.mark.parametrize("call", DIRECTED.values(), ids=DIRECTED)
@pytest.mark.parametrize("direction", [None, 0, "", "sideways", ["forward"]])
def test_direction_of_another_kind(call: Callable[[Any], object], direction: Any) -> None:
    """Whatever else is given, the two directions are listed."""
    with pytest.raises(ConfigError, match="^direction: .*'forward', 'backward'"):
        call(direction)


MODELLED: dict[str, Callable[[Any], object]] = {
    "effective_conductance": lambda m: effective_conductance(GOOD, WIRES, m),
    "vjp": lambda m: effective_conductance_vjp(GOOD, WIRES, GOOD, m),
    "interpolation_begin": lambda m: interpolation_begin(GOOD, WIRES, m),
    "error_report": lambda m: error_report(GOOD, WIRES, m),
}


@pytest.mark.parametrize("call", MODELLED.values(), ids=MODELLED)
@pytest.mark.parametrize("model", ["fcm", FCM, 1, WIRES, ["aam"]])
def test_model_type(call: Callable[[Any], object], model: Any) -> None:
    """A model is one of the models, not its name or its class."""
    with pytest.raises(ConfigError, match="^model: .*use "):
        call(model)


def test_interpolation_begins_with_interpolated_only() -> None:
    """The other models keep nothing between updates."""
    with pytest.raises(ConfigError, match="^model: .*Interpolated"):
        interpolation_begin(GOOD, WIRES, FCM())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: AAM(-1), "circuit.order: -1"),
        (lambda: AAM(1.5), "circuit.order: 1.5"),  # type: ignore[arg-type]
        (lambda: AAM(True), "circuit.order: True"),
        (lambda: FCM(0.0), "circuit.rtol: 0.0"),
        (lambda: FCM(-1e-9), "circuit.rtol: -1e-09"),
        (lambda: FCM(np.nan), "circuit.rtol: nan"),
        (lambda: FCM("tight"), "circuit.rtol: 'tight'"),  # type: ignore[arg-type]
        (lambda: Interpolated(0), "circuit.period: 0"),
        (lambda: Interpolated(2.0), "circuit.period: 2.0"),  # type: ignore[arg-type]
        (lambda: Interpolated(3, "anchord"), "circuit.reuse: .*did you mean 'anchored'"),  # type: ignore[arg-type]
        (lambda: Interpolated(3, rtol=1.0), "circuit.rtol: 1.0"),
    ],
)
def test_model_fields(make: Callable[[], object], field: str) -> None:
    """A model's own numbers are checked when it is made."""
    with pytest.raises(ConfigError, match=f"^{field}"):
        make()


@pytest.mark.parametrize(
    "bad",
    [np.ones(4), np.ones((2, 4)), np.ones((1, 1, 3)), np.ones((0, 3)), np.float64(1.0), np.ones((3, 1))],
)
def test_voltages_shape(bad: Any) -> None:
    """Voltages are one for each row."""
    with pytest.raises(ShapeError, match="^voltages: shape ") as caught:
        solve(GOOD, WIRES, bad)
    assert str(np.shape(bad)) in str(caught.value)


@pytest.mark.parametrize("dtype", [np.float16, complex, object, str, bool])
def test_voltages_dtype(dtype: type) -> None:
    """Voltages are real numbers of a usable precision."""
    with pytest.raises(ShapeError, match="^voltages: "):
        solve(GOOD, WIRES, np.ones(3).astype(dtype))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voltages_finite(value: float) -> None:
    """The first voltage that is no number is named."""
    with pytest.raises(ConfigError, match=rf"^voltages\[1\]: {value}"):
        solve(GOOD, WIRES, [1.0, value, value])
    with pytest.raises(ConfigError, match=rf"^voltages\[1, 0\]: {value}"):
        solve(GOOD, WIRES, [[1.0, 1.0, 1.0], [value, 1.0, 1.0]])


def test_solve_takes_one_array() -> None:
    """A batch of arrays is refused with its shape."""
    with pytest.raises(ShapeError, match=r"^conductance: shape \(2, 3, 4\)"):
        solve(np.stack([GOOD, GOOD]), WIRES, VOLTS)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("shape", [(4, 4), (3,), (1, 3, 4), ()])
def test_cotangent_shape(shape: tuple[int, ...], direction: Any) -> None:
    """A cotangent has the shape of the matrix that the direction gives."""
    with pytest.raises(ShapeError, match="^cotangent: shape "):
        effective_conductance_vjp(GOOD, WIRES, np.ones(shape), FCM(), direction)


def test_cotangent_of_the_other_direction() -> None:
    """A forward cotangent does not fit the backward matrix."""
    with pytest.raises(ShapeError, match=r"^cotangent: shape \(3, 4\).*\(4, 3\)"):
        effective_conductance_vjp(GOOD, WIRES, np.ones((3, 4)), FCM(), "backward")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_cotangent_finite(value: float) -> None:
    """NaN does not spread silently into gradients."""
    cotangent = np.ones((3, 4))
    cotangent[2, 1] = value
    with pytest.raises(ConfigError, match=rf"^cotangent\[2, 1\]: {value}"):
        effective_conductance_vjp(GOOD, WIRES, cotangent)


@pytest.mark.parametrize("dtype", [np.float16, complex, object, str])
def test_cotangent_dtype(dtype: type) -> None:
    """A cotangent is real and of a usable precision."""
    with pytest.raises(ShapeError, match="^cotangent: "):
        effective_conductance_vjp(GOOD, WIRES, GOOD.astype(dtype))


def test_interpolation_state_of_other_arrays() -> None:
    """A state belongs to the shape that it was made from."""
    _, state = interpolation_begin(GOOD, WIRES, Interpolated(3))
    with pytest.raises(ShapeError, match="^state: .*interpolation_begin"):
        interpolation_apply(state, np.full((4, 4), 1e-5), WIRES)
    with pytest.raises(ValueError, match="^state: .*interpolation_begin"):
        interpolation_apply(None, GOOD, WIRES)  # type: ignore[arg-type]


def test_errors_are_value_errors() -> None:
    """Whoever catches ValueError catches both."""
    assert issubclass(ConfigError, ValueError)
    assert issubclass(ShapeError, ValueError)
