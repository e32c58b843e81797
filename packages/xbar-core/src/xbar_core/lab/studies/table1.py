"""Table I: which non-idealities, networks and data sets are supported, each cell backed by a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xbar_core.config import preset
from xbar_core.lab.data import load_data
from xbar_core.lab.data.files import MissingDataError
from xbar_core.lab.studies.frame import Finding, Scale, Study, seeds, trained
from xbar_core.lab.studies.judging import rows_of
from xbar_core.lab.sweep.points import Point
from xbar_core.lab.sweep.results import Row, Table
from xbar_core.lab.sweep.setup import Setup
from xbar_core.lab.trainer import Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Each switches one thing on, on an otherwise ideal chip; the cell holds if training then differs.
_EFFECTS: Mapping[str, Mapping[str, Any]] = {
    "DAC non-linearity": {"input.nonlinearity": [0.02]},
    "ADC non-linearity": {"adc.nonlinearity": [0.02]},
    "DAC precision": {"input.bits": 6},
    "ADC precision": {"adc.bits": 6},
    "ADC thermal noise": {"adc.noise": 1e-9},
    "wire, source and sense resistance (exact)": {
        "circuit.kind": "fcm",
        "wires": {"r_row": 1.0, "r_col": 4.6, "r_source": 500.0, "r_sense": 100.0},
    },
    "update non-linearity": {"update.v_up": 1.0, "update.v_down": 1.0},
    "update noise": {"update.noise": {"law": "txsim", "gamma": 5.0}},
    "device variation": {"device.variation": {"sigma": 0.1}},
    "stuck devices": {"device.faults": {"stuck_at_g_min": 0.01, "stuck_at_g_max": 0.01}},
    "read noise": {"device.read_noise": {"sigma": 0.05}},
    "finite levels": {"device.levels": 32, "update.snap": "nearest"},
    "16-bit words": {"precision": {"bits": 16}},
    "ADC gain error": {"adc.gain_error": 0.02},
    "ADC offset error": {"adc.offset_error": 1e-8},
    "update noise of law sqrt (Agarwal)": {"update.noise": {"law": "sqrt", "gamma": 0.05}},
}
# What training alone does not show, or momentum forbids: the tests of the repository that do.
_TESTED: Mapping[str, tuple[str, ...]] = {
    "drift": ("tests/core/test_devices.py::test_drift_is_a_power_law",),
    "programming error": ("tests/core/test_devices.py::test_programming_error",),
    "bit slicing": (
        "tests/core/test_mapping.py::test_digits_are_those_of_the_integer_code",
        "tests/core/test_engine_ideal.py::test_sliced_words_follow_sgd",
    ),
    "pulse encodings: deterministic and stochastic": (
        "tests/core/test_update.py::test_deterministic_writes_are_products_of_codes",
        "tests/core/test_update.py::test_coincidences_make_the_product",
    ),
    "customizability to other devices and architectures (the paper: CrossSim low, NeuroSim medium, TxSim "
    "high): measured devices, networks and data sets of one's own": (
        "tests/core/test_engine_life.py::test_measured_devices_are_written_by_whole_pulses",
        "tests/torch/test_own_network.py::test_it_is_called_with_classes_and_image_shape",
        "tests/core/test_lab_data.py::test_own_data_set_by_import_path",
    ),
}
_READERS: Mapping[str, str] = {
    "fashion-mnist": "tests/core/test_lab_idx.py::test_idx_files_are_found_and_read",
    "cifar10": "tests/core/test_lab_cifar.py::test_cifar_is_found_and_read",
    "cifar100": "tests/core/test_lab_cifar.py::test_cifar_is_found_and_read",
    "tiny-imagenet": "tests/core/test_lab_images.py::test_tiny_imagenet_is_read",
}
_PUBLISHED = {"cifar10": (50000, 10000)}  # training images, and those of a file
_NETWORKS = {"MLP": "mlp", "CNN": "lenet5", "RNN (LSTM)": "lstm", "transformer": "vit"}
_LARGE = {"AlexNet": "alexnet", "VGG-16": "vgg16", "ResNet-20": "resnet20", "ResNet-18": "resnet18"}
_DATA = ("digits", "mnist", "fashion-mnist", "cifar10", "cifar100", "tiny-imagenet")
_FALLS = 0.9  # what is left of a loss that falls
_CROSSSIM: Mapping[str, str] = {
    "DAC non-linearity": "CrossSim yes, NeuroSim yes",
    "ADC non-linearity": "CrossSim yes, NeuroSim yes",
    "wire, source and sense resistance (exact)": "CrossSim no, NeuroSim simple",
    "update non-linearity": "CrossSim yes, NeuroSim yes",
    "update noise": "CrossSim yes, NeuroSim yes",
}


def loads(setup: Setup, *, name: str) -> dict[str, float]:
    """Read a data set from files that are there, downloading nothing; ``here`` is 0 without them.

    Raises
    ------
    ConfigError
        The files are damaged.
    """
    try:
        data = load_data(name, setup.data_folder, fetch=False)
    except MissingDataError:
        return {"here": 0}
    return {"here": 1, "samples": len(data.train_x), "tests": len(data.test_x)}


def _points(scale: Scale) -> list[Point]:
    # At least two steps: the first loss does not know of updates yet.
    epochs, batch = (1, 16) if scale == "smoke" else (3, 32)
    recipe = Recipe("lenet5", epochs, batch, rate=0.02)
    where: dict[str, Any] = {"dataset": "digits", "limit": 32 if scale == "smoke" else 640}
    chip = preset("ideal")
    made = []
    for seed in seeds(scale):
        made.append(trained({"kind": "effect", "cell": "none", "seed": seed}, chip, recipe, **where))
        for name, values in _EFFECTS.items():
            labels = {"kind": "effect", "cell": name, "seed": seed}
            made.append(trained(labels, chip.with_values(values), recipe, **where))
    networks = _NETWORKS | (_LARGE if scale == "paper" else {})
    longer = recipe if scale == "smoke" else replace(recipe, epochs=5, rate=0.05)
    for name, network in networks.items():
        data = where if scale == "smoke" else {"dataset": "digits"}
        training = replace(longer, network=network)
        if name in _LARGE:
            training, data = replace(recipe, network=network), {"dataset": "cifar10", "limit": 640}
        for seed in seeds(scale):
            labels = {"kind": "network", "cell": name, "seed": seed}
            made.append(trained(labels, preset("txsim").with_("circuit.kind", "aam"), training, **data))
    for name in _DATA:
        read = Setup(f"{__name__}:loads", options={"name": name})
        made.append(Point({"kind": "data", "cell": name, "seed": 0}, read))
    return made


def _figure(table: Table) -> Figure:
    from xbar_core.plots._style import COLOURS, new_figure

    findings = _findings(table)
    colours = {"shown": COLOURS[2], "not shown": COLOURS[1], "undecided": "#BBBBBB"}
    figure = new_figure(11.0, 0.6 + 0.24 * len(findings))
    axes = figure.subplots()
    for number, finding in enumerate(findings):
        tested = finding.found.startswith("tested: ")
        colour = COLOURS[5] if tested else colours[finding.verdict]
        marker = "o" if tested else {"shown": "s", "not shown": "X"}.get(finding.verdict, "D")
        axes.plot(0.01, -number, marker, color=colour, markersize=8)
        claim, _, _ = finding.claim.partition(" (the paper: ")
        axes.text(0.03, -number, claim, va="center", fontsize=8)
        axes.text(
            0.99, -number, "by a test" if tested else finding.found, va="center", ha="right", fontsize=8
        )
    axes.set(xlim=(0, 1), ylim=(-len(findings), 1))
    axes.set_axis_off()
    title = (
        "Table I: square, shown by a run of this study; circle, by a test; cross, not shown; diamond, open"
    )
    figure.suptitle(title, fontsize=10)
    return figure


def _findings(table: Table) -> list[Finding]:
    findings = []
    for name in dict.fromkeys(row.values["cell"] for row in table.rows if row.values["kind"] == "effect"):
        if name != "none":
            findings.append(_effect(table, name))
    networks = rows_of(table, {"kind": "network"})
    findings += [_network(table, name) for name in dict.fromkeys(row.values["cell"] for row in networks)]
    for claim, tests in _TESTED.items():
        findings.append(Finding(claim, f"tested: {', '.join(tests)}", "shown"))
    findings += [_data(row) for row in rows_of(table, {"kind": "data"})]
    return findings


def _data(row: Row) -> Finding:
    """Judge one data set: read here, else by the test of its reader."""
    name = row.values["cell"]
    claim = f"data set {name}"
    if row.metric("here") == 1:
        count, tests = int(row.metric("samples")), int(row.metric("tests"))
        whole, file = _PUBLISHED.get(name, (count, count))
        part = f" (only {count // file} of {whole // file} training files are here)" if count < whole else ""
        return Finding(claim, f"{count} + {tests} samples read{part}", "shown")
    if row.result is None or row.result.status == "failed":
        reason = "points are missing" if row.result is None else row.result.error
        return Finding(claim, "no result", "undecided", reason)
    if name in _READERS:
        reason = "its files were not there when this ran; the test reads files of its format"
        return Finding(claim, f"tested: {_READERS[name]}", "shown", reason)
    return Finding(claim, "not read", "undecided", "its files were not in the data folder when this ran")


def _network(table: Table, name: str) -> Finding:
    """Judge one network: its loss must fall by a tenth with every seed."""
    claim = f"{name} on crossbars"
    rows = rows_of(table, {"kind": "network", "cell": name})
    losses = [losses for losses in (row.series("losses") for row in rows) if losses]
    if len(losses) < len(rows):
        errors = [row.result.error for row in rows if row.result is not None and row.result.error]
        reason = errors[0] if errors else "points are missing"
        return Finding(claim, f"{len(losses)} of {len(rows)} seeds have a result", "undecided", reason)
    diverged = sum(row.metric("diverged") == 1 for row in rows)
    if diverged:
        return Finding(claim, f"{diverged} of {len(rows)} seeds", "not shown", "training turned to NaN")
    first, last = [each[0] for each in losses], [each[-1] for each in losses]
    if min(map(len, losses)) == 1:
        return Finding(claim, f"trains, loss {min(first):.3g}", "shown")
    found = (
        f"loss {min(first):.3g} to {max(first):.3g} in the first epoch, {min(last):.3g} to {max(last):.3g} "
        f"in the last ({len(losses)} seeds)"
    )
    if all(each[-1] < _FALLS * each[0] for each in losses):
        return Finding(claim, found, "shown")
    return Finding(claim, found, "not shown", "the loss did not fall by a tenth with every seed")


def _effect(table: Table, name: str) -> Finding:
    """Judge one non-ideality: with it training must take another course than without."""
    claim = name + (f" (the paper: {_CROSSSIM[name]}, TxSim yes)" if name in _CROSSSIM else "")
    plain = {row.values["seed"]: row for row in rows_of(table, {"kind": "effect", "cell": "none"})}
    pairs = [
        (row.series("losses"), plain[row.values["seed"]].series("losses"))
        for row in rows_of(table, {"kind": "effect", "cell": name})
        if row.values["seed"] in plain
    ]
    pairs = [(with_it, without) for with_it, without in pairs if with_it and without]
    if not pairs or len(pairs) < len(plain):
        told = f"{len(pairs)} of {len(plain)} seeds have a result" if pairs else "no result"
        return Finding(claim, told, "undecided", "points are missing or failed")
    changes = []
    for with_it, without in pairs:
        last = min(len(with_it), len(without)) - 1  # a training that turned to NaN has fewer epochs
        changes.append(abs(with_it[last] - without[last]) / without[last])
    found = f"the training loss changes by {min(changes):.1e} to {max(changes):.1e}"
    if min(changes) > 1e-9:
        return Finding(claim, found, "shown")
    return Finding(claim, found, "not shown", "training is the same with and without it")


def _conditions(scale: Scale) -> str:
    size = "32 digits, one epoch" if scale == "smoke" else "640 digits, three epochs"
    longer = "" if scale == "smoke" else "; networks on all digits, five epochs"
    return (
        f"LeNet-5 on {size}{longer}. Shown means that a run of this study shows it: each non-ideality "
        "alone, on an otherwise ideal chip, changes training; each network trains on the chip txsim (AAM of "
        "order 1); each data set is read from its original files where they are here. For the rest the test "
        "is named that shows it; the tests of the repository also check the physics of each."
    )


TABLE1 = Study(
    name="table1",
    title="Table I: what is supported",
    points=_points,
    figure=_figure,
    findings=_findings,
    conditions=_conditions,
    metric="loss",
)
