"""Figures: every axis and colour bar is labelled, values and limits are those of the arrays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from xbar_core import AAM, FCM, Ideal, ShapeError, Wires, effective_conductance, solve

pytest.importorskip("matplotlib", reason="the extra xbar-core[plots] is not installed")

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from xbar_core import plots

WIRES = Wires(r_row=1, r_col=4.6, r_source=500, r_sense=100)


@pytest.fixture(scope="module")
def conductance() -> np.ndarray:
    g = 1 / np.random.default_rng(0).uniform(1e4, 1e5, (12, 8))
    g[3, 2] = 0
    return g


@pytest.fixture(scope="module")
def exact(conductance: np.ndarray) -> np.ndarray:
    return effective_conductance(conductance, WIRES)


def figures(g: np.ndarray, exact: np.ndarray) -> dict[str, Figure]:
    models = {"ideal": g, "AAM order 1": effective_conductance(g, WIRES, AAM(1))}
    solution = solve(g, WIRES, np.linspace(0, 1, g.shape[0]))
    return {
        "distortion": plots.distortion_map(g, exact, title="an array"),
        "error": plots.error_map(g, exact, title="ideal"),
        "errors": plots.error_maps(models, exact),
        "voltage": plots.voltage_figure(solution),
        "power": plots.power_figure(solution),
    }


def texts(figure: Figure) -> str:
    """Every text of a figure, joined."""
    return "\n".join(t.get_text() for t in figure.findobj(Text))


@pytest.mark.parametrize("shape", [(12, 8), (1, 1), (1, 9), (9, 1), (40, 3)], ids=str)
def test_every_figure_is_labelled_and_drawn(shape: tuple[int, int], tmp_path: Path) -> None:
    """Each figure of any array shape saves, names its axes and never leaves a colour bar bare."""
    g = 1 / np.random.default_rng(1).uniform(1e4, 1e5, shape)
    for name, figure in figures(g, effective_conductance(g, WIRES)).items():
        figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
        shown = texts(figure)
        assert "row" in shown
        assert "column" in shown
        for axes in figure.axes:
            if axes.get_label() == "<colorbar>":
                assert axes.get_ylabel(), name
            elif axes.axison and name != "errors":  # those panels share the figure's labels
                assert axes.get_xlabel(), name
                assert axes.get_title(), name


def drawn_texts(figure: Figure) -> list[Text]:
    """Every text that is drawn: the tick labels outside the view are not."""
    found = [*figure.texts, *(t for t in (figure._suptitle, figure._supxlabel, figure._supylabel) if t)]
    for axes in figure.axes:
        found += [*axes.texts, axes.title]
        for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            low, high = sorted(limits)
            ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            found += [axis.label, *(label for tick in ticks for label in (tick.label1, tick.label2))]
    return [t for t in dict.fromkeys(found) if t.get_text() and t.get_visible()]


def test_nothing_overlaps(conductance: np.ndarray, exact: np.ndarray) -> None:
    """No text of a figure runs into another or out of the page."""
    for name, figure in figures(conductance, exact).items():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        boxes = {t: t.get_window_extent(canvas.get_renderer()) for t in drawn_texts(figure)}
        assert len(boxes) > 8
        page = figure.bbox
        for text, box in boxes.items():
            assert page.x0 <= box.x0 < box.x1 <= page.x1, (name, text)
            assert page.y0 <= box.y0 < box.y1 <= page.y1, (name, text)
            for other, place in boxes.items():
                width = min(box.x1, place.x1) - max(box.x0, place.x0)
                height = min(box.y1, place.y1) - max(box.y0, place.y0)
                assert other is text or width < 1 or height < 1, (name, text, other)


def test_maps_show_the_definition(conductance: np.ndarray, exact: np.ndarray) -> None:
    """The distortion map holds 100 (G - G_ni) / G; an open cell is masked, drawn grey and explained."""
    figure = plots.distortion_map(conductance, exact)
    shown = figure.axes[0].images[0].get_array()
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = 100 * (conductance - exact) / conductance
    present = conductance > 0
    np.testing.assert_allclose(shown[present], expected[present])
    assert shown.mask[3, 2]
    assert shown.mask.sum() == 1
    assert "grey: open cell" in texts(figure)


def test_error_map_holds_the_relative_error(conductance: np.ndarray, exact: np.ndarray) -> None:
    """The error map holds 100 (G_model - G_ni) / G_ni."""
    model = effective_conductance(conductance, WIRES, AAM(1))
    shown = plots.error_map(model, exact).axes[0].images[0].get_array()
    np.testing.assert_allclose(shown[exact > 0], (100 * (model - exact) / exact)[exact > 0], atol=1e-9)


def test_both_signs_share_a_symmetric_scale() -> None:
    """Errors of both signs: zero is the middle of a diverging map; of one sign: zero is an end."""
    exact = np.ones((4, 4))
    mixed = exact + np.linspace(-0.2, 0.1, 16).reshape(4, 4)
    image = plots.error_map(mixed, exact).axes[0].images[0]
    assert image.norm.vmin == -image.norm.vmax
    assert image.cmap.name == "PuOr_r"
    above = plots.error_map(exact + np.linspace(0.01, 0.1, 16).reshape(4, 4), exact).axes[0].images[0]
    assert above.norm.vmin == 0
    assert above.norm.vmax == pytest.approx(10)


def test_outliers_do_not_hide_the_rest() -> None:
    """One cell a thousand times worse ends the scale, marked on the colour bar, not the picture."""
    exact = np.ones((20, 20))
    model = exact + 1e-3 * np.random.default_rng(0).uniform(0.5, 1, exact.shape)
    model[4, 4] = 2
    figure = plots.error_map(model, exact)
    image = figure.axes[0].images[0]
    assert image.norm.vmax < 0.2
    assert image.colorbar.extend == "max"


def test_exact_models_have_a_drawable_map(conductance: np.ndarray, exact: np.ndarray) -> None:
    """No error at all is a map too, alone and beside others."""
    same = effective_conductance(conductance, WIRES, FCM())
    plots.error_map(same, same).draw_without_rendering()
    ideal = effective_conductance(conductance, WIRES, Ideal())
    plots.error_maps({"exact": same, "ideal": ideal}, exact).draw_without_rendering()


def test_voltages_are_the_solution(conductance: np.ndarray) -> None:
    """The lines are the node voltages of the chosen wires."""
    solution = solve(conductance, WIRES, np.ones(12))
    left, right = plots.voltage_figure(solution, rows=[-1], cols=[0, 5]).axes
    np.testing.assert_array_equal(left.lines[0].get_ydata(), solution.voltages_row[11])
    np.testing.assert_array_equal(right.lines[1].get_ydata(), solution.voltages_col[:, 5])
    assert [line.get_label() for line in right.lines] == ["column 0", "column 5"]


def test_power_bars_add_up(conductance: np.ndarray) -> None:
    """The bars are the four places and add to the total; the device map adds to the devices' bar."""
    solution = solve(conductance, WIRES, np.ones(12))
    left, right = plots.power_figure(solution).axes[:2]
    widths = [bar.get_width() for bar in left.patches]
    power = solution.power
    np.testing.assert_allclose(widths, [power.devices, power.wires, power.source, power.sense], rtol=1e-12)
    assert sum(widths) == pytest.approx(float(power.total), rel=1e-6)
    factor = 1e6 if "µW" in texts(plots.power_figure(solution)) else 1e3
    assert right.images[0].get_array().sum() / factor == pytest.approx(float(power.devices), rel=1e-6)


def test_shapes_are_checked(conductance: np.ndarray, exact: np.ndarray) -> None:
    """Batches, foreign shapes and wires that do not exist are named."""
    with pytest.raises(ShapeError, match=r"conductance: shape \(1, 12, 8\).*one array"):
        plots.distortion_map(conductance[None], exact)
    with pytest.raises(ShapeError, match=r"approximate: shape \(8, 12\) differs"):
        plots.error_map(exact.T, exact)
    with pytest.raises(ShapeError, match="no model"):
        plots.error_maps({}, exact)
    with pytest.raises(ShapeError, match="rows: 12 is out of range"):
        plots.voltage_figure(solve(conductance, WIRES, np.ones(12)), rows=[12])


def test_no_global_state(tmp_path: Path) -> None:
    """Drawing figures never imports pyplot, and the package does not import matplotlib by itself."""
    code = (
        "import sys, numpy as np, xbar_core\n"
        "assert 'matplotlib' not in sys.modules\n"
        "from xbar_core import plots\n"
        "plots.distortion_map(np.ones((2, 2)), np.ones((2, 2))).savefig(sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "map.png")], check=True)


@pytest.mark.parametrize("bad", ["map", np.ones((2, 2), complex), [[1.0], [1.0, 2.0]], None], ids=repr)
def test_what_is_no_matrix_is_named(bad: object) -> None:
    """Text, complex numbers and ragged lists are refused by the field's name."""
    with pytest.raises(ShapeError, match="^approximate: "):
        plots.error_map(bad, np.ones((2, 2)))
