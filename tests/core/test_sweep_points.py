"""Sweeps: what varies, which points that makes, and what is refused before anything runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbar_core.config import preset
from xbar_core.errors import ConfigError
from xbar_core.lab.sweep import (
    Base,
    Field,
    Plan,
    Setup,
    Span,
    assignments,
    make_point,
    parse_field,
    read_plan,
)
from xbar_core.lab.sweep.tasks import find_task

TRAIN = Base(find_task("train"))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("update.v_up=0.01,0.1,1", (0.01, 0.1, 1)),
        ("circuit.kind=fcm,aam", ("fcm", "aam")),
        ("seed=0:3", (0, 1, 2)),
        ("seed=5,7:9", (5, 7, 8)),
        ("array.rows=16:64:16", (16, 32, 48)),
        ("rate=lin(0.1,0.3,3)", (0.1, 0.2, 0.3)),
        ("wires.r_row=log(0.01,100,5)", (0.01, 0.1, 1.0, 10.0, 100.0)),
        ("array.rows=log(16,128,4)", (16, 32, 64, 128)),
        ("rate=log(0.01,1)", Span(0.01, 1.0, log=True)),
        ("input.bits=8,none", (8, None)),
        ("input.nonlinearity=[0.005, 0.001],[0.1]", ([0.005, 0.001], [0.1])),
        ('network="a,b",mlp', ("a,b", "mlp")),
        ("mapping.w_max={rule = 'max_abs', headroom = 2.0}", ({"rule": "max_abs", "headroom": 2.0},)),
    ],
)
def test_values(text: str, values: object) -> None:
    """Lists, ranges and spans mean what the documentation says."""
    assert parse_field(text).values == values


@pytest.mark.parametrize(
    "text",
    [
        "update.v_up",
        "=1",
        "a=",
        "a=1,,2",
        "a=3:1",
        "a=0:5:0",
        "a=log(0,1,3)",
        "a=lin(1)",
        "a=lin(2,1,3)",
        "a=[1",
    ],
)
def test_bad_values(text: str) -> None:
    """A text that is no field is refused with one line."""
    with pytest.raises(ConfigError):
        parse_field(text)


def test_grid() -> None:
    """A grid is every combination, seeds last; linked paths get the same value."""
    fields = [parse_field(text) for text in ("array.rows+array.cols=16,32", "seed=0:2", "rate=0.1,0.2")]
    made = assignments(fields)
    assert len(made) == 8
    assert made[:2] == [
        {"array.rows": 16, "array.cols": 16, "rate": 0.1, "seed": 0},
        {"array.rows": 16, "array.cols": 16, "rate": 0.1, "seed": 1},
    ]


@settings(max_examples=25)
@given(samples=st.integers(1, 20), seed=st.integers(0, 1000))
def test_latin_hypercube_visits_every_part_once(samples: int, seed: int) -> None:
    """In a Latin hypercube each of n equal parts of every range holds exactly one sample."""
    fields = [Field(("rate",), Span(0.0, 1.0)), Field(("update.v_up",), Span(1e-3, 1.0, log=True))]
    made = assignments(fields, "latin", samples=samples, seed=seed)
    parts = np.arange(samples)
    assert sorted(int(p["rate"] * samples) for p in made) == parts.tolist()
    shares = [np.log(p["update.v_up"] / 1e-3) / np.log(1e3) for p in made]
    assert sorted(int(share * samples) for share in shares) == parts.tolist()


@pytest.mark.parametrize("design", ["random", "latin"])
def test_seeds_repeat_and_are_not_drawn(design: str) -> None:
    """Every drawn setting is run for every seed, and the same seed of the design draws the same."""
    fields = [
        Field(("rate",), Span(0.1, 0.2)),
        Field(("circuit.kind",), ("aam", "fcm")),
        parse_field("seed=0:3"),
    ]
    made = assignments(fields, design, samples=4, seed=1)
    assert len(made) == 12
    assert [p["seed"] for p in made[:3]] == [0, 1, 2]
    assert len({p["rate"] for p in made}) == 4
    assert {p["circuit.kind"] for p in made} == {"aam", "fcm"}
    assert made == assignments(fields, design, samples=4, seed=1)
    assert made != assignments(fields, design, samples=4, seed=2)


@pytest.mark.parametrize(
    ("fields", "options", "message"),
    [
        (["rate=lin(0,1)"], {}, "span without a number"),
        (["rate=1", "rate+epochs=2"], {}, "given twice"),
        (["rate=1"], {"design": "latin"}, "samples: missing"),
        (["rate=1"], {"samples": 3}, "leave it out"),
        (["rate=1"], {"design": "latn", "samples": 3}, "did you mean 'latin'"),
    ],
)
def test_bad_designs(fields: list[str], options: dict[str, object], message: str) -> None:
    """A design that cannot be is refused."""
    with pytest.raises(ConfigError, match=message):
        assignments([parse_field(text) for text in fields], **options)  # type: ignore[arg-type]


def test_seed_means_chip_and_training() -> None:
    """A bare seed seeds both; one with a prefix seeds one, and wins."""
    both = make_point(TRAIN, {"seed": 3}).setup
    assert (both.chip.seed, both.recipe.seed) == (3, 3)  # type: ignore[union-attr]
    mixed = make_point(TRAIN, {"chip.seed": 7, "seed": 3}).setup
    assert (mixed.chip.seed, mixed.recipe.seed) == (7, 3)  # type: ignore[union-attr]
    only = make_point(TRAIN, {"train.seed": 7}).setup
    assert (only.chip.seed, only.recipe.seed) == (0, 7)  # type: ignore[union-attr]


def test_device_is_the_chips_with_a_dot() -> None:
    """`device.r_min` is the chip's, `device` where to train; `chip.` and `train.` say it in full."""
    setup = make_point(TRAIN, {"device.r_min": 2e5, "device": "cuda", "chip.device.r_max": 3e6}).setup
    assert (setup.chip.device.r_min, setup.chip.device.r_max) == (2e5, 3e6)  # type: ignore[union-attr]
    assert setup.recipe.device == "cuda"  # type: ignore[union-attr]
    assert make_point(TRAIN, {"train.device": "cuda"}).setup.recipe == setup.recipe


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "epoch: unknown field, did you mean 'epochs'"),
        ({"v_up": 1}, "did you mean 'update.v_up'"),
        ({"update.v_pu": 1}, "did you mean 'v_up'"),
        ({"chip.update.v_pu": 1}, "did you mean 'v_up'"),
        ({"circuit.kind": "fmc"}, "did you mean 'fcm'"),
        ({"device.r_min": -1.0}, "device.r_min: -1.0"),
        ({"device.r_min": 2e6}, "r_max"),
        ({"preset": "txsm"}, "did you mean 'txsim'"),
        ({"epochs": 0}, "epochs: 0 is out of range"),
        ({"rate": "fast"}, "rate: 'fast' is not a real number"),
        ({"limit": 0}, "limit: 0 is out of range"),
        ({"task.arrays": 3}, "has no such argument"),
    ],
)
def test_bad_points(values: dict[str, object], message: str) -> None:
    """Every mistake is found before anything runs, with the nearest name."""
    with pytest.raises(ConfigError, match=message):
        make_point(TRAIN, values)


def test_tasks_that_do_not_train_refuse_a_recipe() -> None:
    """What a task does not use may not vary: it would seem harmless."""
    with pytest.raises(ConfigError, match="epochs: task 'circuit' does not train"):
        make_point(Base(find_task("circuit")), {"epochs": 3})
    assert make_point(Base(find_task("circuit")), {"task.arrays": 2, "seed": 1}).setup.options == {
        "arrays": 2
    }


def test_whole_arguments_of_a_task_are_drawn_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its annotation says so, or the default where there is none; other arguments are drawn as before."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep_whole.py").write_text(
        "def measure(setup, count: 'int | None' = None, runs=3, share: 'float' = 1, odd: 'Unknown' = 2):\n"
        "    return {}\n"
    )

    def drawn(task: str, name: str) -> list[object]:
        fields = (parse_field(f"task.{name}=lin(1,8)"),)
        points = Plan(fields, task=task, design="random", samples=20).points()
        return [point.values[f"task.{name}"] for point in points]

    for task, name, whole in (
        ("circuit", "arrays", True),
        ("circuit", "change", False),
        ("sweep_whole:measure", "count", True),
        ("sweep_whole:measure", "runs", True),
        ("sweep_whole:measure", "share", False),
    ):
        assert all(isinstance(value, int) for value in drawn(task, name)) is whole, name


def test_bad_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task is known by name or import path, and takes the setup."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep_no_argument.py").write_text("def measure():\n    return {}\n")
    for name, message in (
        ("circut", "did you mean 'circuit'"),
        ("no_such_module:f", "no_such_module"),
        ("sweep_no_argument:measure", "takes no argument"),
    ):
        with pytest.raises(ConfigError, match=message):
            find_task(name)


def test_native_points_are_one() -> None:
    """Chip values mean nothing natively: such points have one key, hence one run."""
    points = Plan((parse_field("preset=native,ideal"), parse_field("update.v_up=0.1,1"))).points()
    assert len(points) == 4
    assert len({point.key for point in points}) == 3


def test_key_is_the_setups_content() -> None:
    """A key depends on everything that a result does, and on nothing else."""
    point = make_point(TRAIN, {"update.v_up": 0.5})
    same = make_point(TRAIN, {"chip.update.v_up": 0.5})
    assert point.key == same.key
    for values in ({"update.v_up": 0.6}, {"seed": 1}, {"epochs": 3}, {"dataset": "mnist"}, {"limit": 100}):
        assert make_point(TRAIN, {"update.v_up": 0.5, **values}).key != point.key
    renamed = Setup("train", preset("txsim").with_("name", "other"), TRAIN.recipe)
    assert renamed.key == Setup("train", preset("txsim"), TRAIN.recipe).key
    elsewhere = Setup("train", preset("txsim"), TRAIN.recipe, data_folder="/elsewhere")
    assert elsewhere.key == renamed.key


def test_setup_survives_json() -> None:
    """A setup that went to a worker as plain data is the same there."""
    setup = make_point(TRAIN, {"input.bits": None, "seed": 2, "clip": 1.0}).setup
    assert Setup.from_dict(setup.to_dict()) == setup


def test_limit_cuts_the_data() -> None:
    """A limit takes that many samples, the same for every point."""
    data = make_point(TRAIN, {"limit": 50}).setup.load_data()
    assert (len(data.train_x), len(data.test_x)) == (50, 50)


def test_sweep_file(tmp_path: Path) -> None:
    """A file says what a command line says; quoted paths and tables are the same."""
    path = tmp_path / "sweep.toml"
    path.write_text(
        'task = "circuit"\npreset = "txsim"\n[fields]\n"wires.r_row" = "log(1, 100, 3)"\nseed = "0:2"\n'
        '"array.rows+array.cols" = 16\n[fields.circuit]\nkind = ["aam", "fcm"]\n'
    )
    points = read_plan(path).points()
    assert len(points) == 3 * 2 * 2
    assert points[0].values == {
        "wires.r_row": 1,
        "array.rows": 16,
        "array.cols": 16,
        "circuit.kind": "aam",
        "seed": 0,
    }
    assert points[0].label == "wires.r_row=1 circuit.kind=aam seed=0"
    path.write_text("[[points]]\nrate = 0.1\n[[points]]\nrate = 0.2\nepochs = 3\n[fields]\nseed = '0:2'\n")
    assert [p.values for p in read_plan(path).points()][1:3] == [
        {"rate": 0.1, "seed": 1},
        {"rate": 0.2, "epochs": 3, "seed": 0},
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task", "not a TOML file"),
        ("desing = 'grid'\n", "did you mean 'design'"),
        ("samples = 'many'\n", "is not a int"),
        ("fields = 3\n", "fields: is not a table"),
        ("[points]\nrate = 1\n", "points: is not a list of tables"),
        ("[fields]\nrate = []\n", "an empty list"),
    ],
)
def test_bad_sweep_files(tmp_path: Path, text: str, message: str) -> None:
    """A wrong sweep file is refused with its name and what is wrong."""
    path = tmp_path / "sweep.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_plan(path)


def test_monte_carlo_draws_chips_and_keeps_the_training() -> None:
    """`chips` varies the chip's seed only, also beside a bare seed."""
    points = Plan((parse_field("seed=5,6"),), chips=3).points()
    seeds = [(p.setup.recipe.seed, p.setup.chip.seed) for p in points]  # type: ignore[union-attr]
    assert seeds == [(5, 0), (5, 1), (5, 2), (6, 0), (6, 1), (6, 2)]


def test_points_name_their_fault() -> None:
    """An impossible chip in the middle of a grid is named by its values."""
    with pytest.raises(ConfigError, match=r"point device.r_min=20000000.0"):
        Plan((parse_field("device.r_min=1e5,2e7"),)).points()


@pytest.mark.parametrize("design", ["random", "latin"])
def test_whole_fields_are_drawn_whole(design: str) -> None:
    """A span of whole numbers draws whole ones, both ends included, for fields that take no others."""
    fields = ("epochs=lin(1,3)", "array.rows+array.cols=log(16,256)", "update.v_up=lin(0,1)")
    points = Plan(tuple(parse_field(f) for f in fields), design=design, samples=60).points()
    epochs = [point.setup.recipe.epochs for point in points]  # type: ignore[union-attr]
    assert set(epochs) == {1, 2, 3}
    assert min(epochs.count(k) for k in (1, 2, 3)) >= 10
    rows = [point.values["array.rows"] for point in points]
    assert all(isinstance(row, int) and 16 <= row <= 256 for row in rows)
    assert sum(row < 64 for row in rows) > 20  # half of them: equal ratios
    assert not all(float(point.values["update.v_up"]).is_integer() for point in points)
