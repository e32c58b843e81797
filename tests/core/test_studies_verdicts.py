"""Verdicts of studies say what the numbers say: in worlds where the truth is known."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xbar_core.lab.studies import Finding, find_study, study_names
from xbar_core.lab.studies.judging import alike, compared, harmful, harmless, lost
from xbar_core.lab.sweep import Table, estimate
from xbar_core.lab.sweep.results import Row
from xbar_core.lab.sweep.store import Result

World = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def in_world(name: str, world: World) -> list[Finding]:
    """Return the findings of a study's small scale in a world where metrics are known."""
    study = find_study(name)
    rng = np.random.default_rng(0)
    rows = []
    for point in study.points("small"):
        metrics = {key: value + rng.normal(0, 1e-4) for key, value in world(point.values).items()}
        rows.append(Row(point.values, Result("", "done", metrics)))
    return study.findings(Table(rows))


def verdicts(findings: list[Finding]) -> dict[str, str]:
    return {finding.claim: finding.verdict for finding in findings}


def test_a_verdict_needs_the_whole_interval() -> None:
    """Harmless is an interval below the limit, harmful one above it; else undecided."""
    assert harmless(estimate([0.05, -0.05, 0.0]), 0.005) == "undecided"
    assert harmless(estimate([0.001, 0.002, 0.0]), 0.005) == "reproduced"
    assert harmless(estimate([0.004, 0.005, 0.003]), 0.005) == "undecided"
    assert harmless(estimate([0.05, 0.051, 0.049]), 0.005) == "not reproduced"
    assert harmful(estimate([0.05, 0.4, 0.6]), 0.3) == "undecided"
    assert harmful(estimate([0.4, 0.41, 0.39]), 0.3) == "reproduced"
    assert harmful(estimate([0.3, 0.36, 0.27]), 0.3) == "undecided"
    assert harmful(estimate([0.04, 0.041, 0.039]), 0.3) == "not reproduced"
    assert harmful(estimate([0.4, 0.41]), 0.3) == "undecided"
    for sign in (1, -1):
        assert alike(estimate([sign * 0.05, sign * 0.051, sign * 0.049]), 0.005) == "not reproduced"
        assert alike(estimate([sign * 0.001, 0.0, 0.001]), 0.005) == "reproduced"
        assert alike(estimate([sign * 0.004, sign * 0.005, sign * 0.003]), 0.005) == "undecided"


def test_a_picked_difference_needs_a_wider_interval() -> None:
    """Bonferroni: the interval of one of n has the level 1 - 0.05 / n."""
    rows = [
        Row({"case": case, "seed": seed}, Result("", "done", {"accuracy": value}))
        for case, values in (("a", (0.9, 0.91, 0.93)), ("b", (0.8, 0.8, 0.8)))
        for seed, value in enumerate(values)
    ]
    one, six = (lost(Table(rows), {"case": "a"}, {"case": "b"}, among=among) for among in (1, 6))
    assert one.half == pytest.approx(estimate([0.1, 0.11, 0.13]).half)
    assert six.half == pytest.approx(estimate([0.1, 0.11, 0.13], 1 - 0.05 / 6).half)
    assert six.half > 2 * one.half


def test_an_undecided_verdict_has_a_reason_of_its_own() -> None:
    """What explains a difference is not said where none is shown."""
    finding = compared("claim", "found", "undecided", "because it differs", 3)
    assert "because" not in finding.reason
    assert "too wide to tell" in finding.reason
    assert (
        compared("claim", "found", "not reproduced", "because it differs", 3).reason == "because it differs"
    )


def _fig10(v_cost: Mapping[float, float], gamma_cost: Mapping[float, float]) -> World:
    def world(values: Mapping[str, Any]) -> dict[str, float]:
        costs = {"reference": {}, "v": v_cost, "gamma": gamma_cost}[values["part"]]
        return {"accuracy": 0.98 - costs.get(values["value"], 0.0)}

    return world


def test_fig10_verdicts() -> None:
    """In the paper's world all its claims are reproduced; where v is harmless and noise fatal, none."""
    fatal = dict.fromkeys((1.0, 5.0, 20.0, 100.0), 0.88)
    paper = in_world("fig10", _fig10({0.5: 0.05, **fatal}, {5.0: 0.002, 10.0: 0.1, 20.0: 0.6}))
    assert {finding.verdict for finding in paper} == {"reproduced", "shown"}
    assert "from v = 1 on" in " ".join(finding.claim for finding in paper)
    other = in_world("fig10", _fig10({}, {5.0: 0.03, 10.0: 0.04}))
    claims = [f for f in other if "costs almost nothing" not in f.claim and "own question" not in f.claim]
    assert {finding.verdict for finding in claims} == {"not reproduced"}
    assert all(finding.reason for finding in claims)
    limit = next(f for f in other if f.claim.startswith("Training fails") and "(balanced pair;" in f.claim)
    assert limit.verdict == "not shown"
    assert "up to 100, the largest that the model takes" in limit.reason


def test_fig10_wants_every_larger_v_to_fail() -> None:
    """A v that fails between others that train is no limit from which training fails."""
    once = in_world("fig10", _fig10({1.0: 0.88}, {}))
    limits = [f for f in once if f.claim.startswith("Training fails") and "(balanced pair;" in f.claim]
    assert [f.verdict for f in limits] == ["undecided"]
    assert "at v = 1 repeats fail, but not all of them, or not at every larger v" in limits[0].reason


def test_fig10_judges_convergence_without_a_baseline() -> None:
    """A network that loses ten points already at v = 0.01, and as many at v = 1, has trained."""
    found = in_world("fig10", _fig10(dict.fromkeys((0.01, 0.1, 0.5, 1.0, 5.0, 20.0, 100.0), 0.1), {}))
    fatal = {finding.verdict for finding in found if "is fatal" in finding.claim}
    assert fatal == {"not reproduced"}


def test_fig10_does_not_find_what_one_of_several_comparisons_finds_by_chance() -> None:
    """A loss beyond its own interval, but not beyond that for all mappings together, decides nothing."""

    def world(values: Mapping[str, Any]) -> dict[str, float]:
        spread = 0.003 * (values["seed"] - 1) * (values["value"] == 0.1)
        return {"accuracy": 0.98 - (0.0155 + spread) * (values["value"] == 0.1)}

    small = [f for f in in_world("fig10", world) if "costs almost nothing" in f.claim]
    assert {f.verdict for f in small} == {"undecided"}


def test_fig10_says_nothing_of_v_where_nothing_trains() -> None:
    """A network that is dead at v = 0.01 loses nothing to larger v, and v is not harmless for that."""
    dead = in_world("fig10", lambda v: {"accuracy": 0.98 if v["part"] == "reference" else 0.1})
    of_v = [finding for finding in dead if "gamma" not in finding.claim and "noise" not in finding.claim]
    assert {finding.verdict for finding in of_v} == {"undecided"}
    assert all("at v = 0.01 it reaches 10.0" in finding.reason for finding in of_v)
    few = [finding for finding in dead if "nearly harmless" in finding.claim]
    assert {finding.verdict for finding in few} == {"not reproduced"}


def test_fig10_gives_no_single_device_the_reason_of_a_pair() -> None:
    """The halves of a pair are named for pairs only."""
    for finding in in_world("fig10", _fig10({}, {})):
        if "two halves" in finding.reason:
            assert "pair" in finding.claim
        assert "single device" not in finding.claim or "two halves" not in finding.reason


_BEST_RATIOS = {"r_min = 100k": 5.0, "r_max = 1M": 8.0}


def test_fig12_verdicts() -> None:
    """A sweet spot is one that beats both ends beyond the spread; where it is, is another question."""

    def world(peak: Callable[[Mapping[str, Any]], float]) -> World:
        def metrics(values: Mapping[str, Any]) -> dict[str, float]:
            return {"accuracy": 0.98 - 0.02 * abs(np.log(values["ratio"] / peak(values))), "distortion": 0.1}

        return metrics

    def outcome(peak: Callable[[Mapping[str, Any]], float]) -> list[str]:
        return [finding.verdict for finding in in_world("fig12", world(peak))][:2]

    assert outcome(lambda values: _BEST_RATIOS[values["fixed"]]) == ["reproduced", "reproduced"]
    assert outcome(lambda values: 20.0) == ["reproduced", "not reproduced"]
    assert outcome(lambda values: 50.0) == ["not reproduced", "undecided"]
    assert outcome(lambda values: 2.0) == ["not reproduced", "undecided"]
    flat = in_world("fig12", lambda values: {"accuracy": 0.98, "distortion": 0.1})
    assert [finding.verdict for finding in flat] == ["not reproduced", "undecided"] * 4
    assert "2, 5, 8, 20, 50 cannot be told apart" in flat[0].reason


def test_fig12_does_not_place_a_sweet_spot_between_equals() -> None:
    """Where 5 and 8 do as well and both ends fail, there is a sweet spot, and its place is undecided."""

    def metrics(values: Mapping[str, Any]) -> dict[str, float]:
        return {"accuracy": 0.98 if values["ratio"] in (5.0, 8.0) else 0.8, "distortion": 0.1}

    first, second = in_world("fig12", metrics)[:2]
    assert (first.verdict, second.verdict) == ("reproduced", "undecided")
    assert "ratios 5, 8 cannot be told apart" in second.reason


def test_fig12_names_the_seeds_that_did_not_learn() -> None:
    """Where most networks at an end do not learn, that end is worse, however wide the interval."""

    def metrics(values: Mapping[str, Any]) -> dict[str, float]:
        lost = {2.0: 0.05, 50.0: 0.85 * (values["seed"] > 0)}.get(values["ratio"], 0.0)
        peak = 0.01 * (values["ratio"] == _BEST_RATIOS[values["fixed"]])
        return {"accuracy": 0.95 - lost + peak, "distortion": 0.1}

    findings = in_world("fig12", metrics)
    assert "did not learn: seed 1, 2)" in findings[0].found
    assert {finding.verdict for finding in findings} == {"reproduced"}


def test_fig12_finds_no_sweet_spot_where_nothing_learned() -> None:
    """The best of networks that label a tenth rightly is no best."""
    none = in_world("fig12", lambda v: {"accuracy": 0.1 + 0.02 * (v["ratio"] == 8.0), "distortion": 0.1})
    assert {finding.verdict for finding in none} == {"undecided"}
    assert all("do not learn, either" in finding.reason for finding in none)


def test_fig11_verdicts() -> None:
    """High resistances that lose little and low ones that lose much are the paper's; alike is not."""

    def paper(values: Mapping[str, Any]) -> dict[str, float]:
        steps = np.log2(values["size"] / 16)
        cost = {"100k-1M": 0.002 * steps, "3k-10k": 0.85, "3k-10k, no ends": 0.05 * steps}
        lost = cost[values["device"]]
        return {"accuracy": 0.98 - lost, "test_loss": lost, "distortion": 0.1}

    assert [finding.verdict for finding in in_world("fig11", paper)] == ["reproduced", "reproduced", "shown"]
    flat = in_world("fig11", lambda values: {"accuracy": 0.98, "test_loss": 0.1, "distortion": 0.1})
    assert [finding.verdict for finding in flat] == ["not reproduced", "not reproduced", "not shown"]
    rising = in_world(
        "fig11", lambda v: {"accuracy": 0.9 + 1e-4 * v["size"], "test_loss": 0.1, "distortion": 0.1}
    )
    assert rising[0].verdict == "not reproduced"


def test_fig9_verdicts() -> None:
    """ResNet-20 losing 10 points, ResNet-56 5 and LeNet-5 none is the paper's order; the reverse is not."""

    def found(shallow: float, deep: float, simple: float = 0.0) -> list[Finding]:
        loss = {"ResNet-20": shallow, "ResNet-56": deep, "LeNet-5": simple}
        return in_world(
            "fig9", lambda v: {"accuracy": 0.95 - (v["system"] == "Cross-NI") * loss[v["network"]]}
        )

    def told(findings: list[Finding]) -> list[str]:
        return [findings[k].verdict for k in (0, 1, 3)]  # the range, ResNet-56, LeNet-5

    assert told(found(0.10, 0.05)) == ["reproduced", "reproduced", "reproduced"]
    assert told(found(0.0, 0.05, 0.1)) == ["not reproduced", "not reproduced", "not reproduced"]
    assert told(found(0.05, 0.05, 0.05)) == ["reproduced", "undecided", "undecided"]
    assert told(found(0.5, 0.05))[0] == "not reproduced"  # beyond the paper's worst
    absent = [f.claim for f in found(0.1, 0.05) if f.found == "not run at this scale"]
    assert [any(name in claim for claim in absent) for name in ("VGG-16", "ResNet-18")] == [True, True]


def test_fig8_and_fig5b_verdicts() -> None:
    """Equal accuracies mean that models are faithful and non-idealities harmless."""
    same = {"accuracy": 0.98, "test_loss": 0.1, "seconds": 1.0, "saturated": 0.0}
    assert set(verdicts(in_world("fig5b", lambda values: same)).values()) == {"reproduced", "shown"}
    alike_ = in_world("fig8", lambda values: same)
    assert {f.verdict for f in alike_ if "AlexNet" not in f.claim} == {"reproduced"}
    assert [f.found for f in alike_ if "AlexNet" in f.claim] == ["not run at this scale"]
    better = in_world("fig8", lambda v: {**same, "accuracy": 0.98 - 0.05 * (v["system"] == "native")})
    assert better[-1].verdict == "not reproduced"
    for other in (0.92, 0.88):
        accuracies = {"AAM 0": other}
        coarse = in_world("fig5b", lambda v, a=accuracies: {**same, "accuracy": a.get(v["model"], 0.9)})
        assert [f.claim[:5] for f in coarse if f.verdict == "not reproduced"] == ["AAM 0"]
        assert not any("as fast" in finding.found for finding in coarse)


def test_fig5b_measures_its_floor() -> None:
    """L = 1 is FCM itself: what it differs by is said, and a wide spread decides nothing."""

    def control(size: float) -> Finding:
        def world(values: Mapping[str, Any]) -> dict[str, float]:
            chance = size * (values["seed"] - 4) * values["model"].endswith("L = 1")
            return {"accuracy": 0.9 + chance, "test_loss": 0.0}

        return in_world("fig5b", world)[0]

    for size, verdict in ((0.001, "shown"), (0.005, "undecided")):
        found = control(size)
        assert found.verdict == verdict
        (largest,) = re.findall(r"single runs differ by up to (\S+) points", found.found)
        assert float(largest) == pytest.approx(400 * size, abs=0.05)


def test_fig6_verdicts() -> None:
    """All three claims must hold for one order; an order that is good and one that is bad do not do."""

    def world(errors: Mapping[int, tuple[float, float, float]], bare: float = 1.0) -> World:
        def metrics(v: Mapping[str, Any]) -> dict[str, float]:
            error = errors[v["order"]][["100k-1M", "20k-200k", "3k-10k"].index(v["resistance"])]
            return {"error": error * (bare if v["ends"] == "none" else 1.0)}

        return metrics

    right, bad, good = (0.001, 0.02, 0.3), (0.5, 0.5, 0.5), (0.001, 0.001, 0.001)
    found = in_world("fig6", world({0: bad, 1: right, 2: right, 3: good}))
    assert {finding.verdict for finding in found} == {"reproduced"}
    assert "with ends: order 1, 2; without: order 1, 2" in found[-1].found
    rests = in_world("fig6", world({0: bad, 1: right, 2: right, 3: good}, bare=0.1))[-1]
    assert "rests on the source and sense resistances" in rests.reason
    split = in_world("fig6", world({0: bad, 1: bad, 2: good, 3: good}))
    assert [finding.verdict for finding in split] == ["reproduced"] * 3 + ["not reproduced"]
    at_the_limit = in_world("fig6", world(dict.fromkeys(range(4), (0.01, 0.05, 0.05))))
    assert {finding.verdict for finding in at_the_limit} == {"undecided"}


def test_devices_verdicts() -> None:
    """The non-ideality that takes most of the error with it dominates; of equals none does."""

    def world(errors: Mapping[str, float]) -> World:
        def metrics(values: Mapping[str, Any]) -> dict[str, float]:
            if values["part"] == "training":
                return {"accuracy": 0.95, "test_loss": 0.1}
            return {"accuracy": 0.95, "test_loss": 0.1, "error": errors.get(values["case"], 1.0)}

        return metrics

    found = verdicts(in_world("devices", world({"wires": 0.1, "write noise": 0.2})))
    assert found["gst-pcm, reads: dominated by wires"] == "shown"
    assert found["gst-pcm, updates: dominated by write noise"] == "shown"
    assert found["gst-pcm: training on the device costs at most 1 point"] == "shown"
    equal = verdicts(in_world("devices", world({"wires": 0.8, "converters": 0.8})))
    assert equal["gst-pcm, reads: one non-ideality dominates"] == "not shown"
    none = in_world(
        "devices", lambda v: {"accuracy": 0.9 * (v["device"] == "native"), "test_loss": 1.0, "error": 0.0}
    )
    assert verdicts(none)["dwmtj, updates: nothing is lost"] == "shown"
    assert verdicts(none)["dwmtj: training on the device costs at most 1 point"] == "not shown"


def _fig7(exact: Callable[[int], float]) -> list[Finding]:
    rows = []
    for point in find_study("fig7").points("small"):
        slow = {"native": 1.0, "FCM": exact(point.values["seed"])}.get(point.values["setting"], 3.0)
        times = [100.0, slow, 1.5 * slow]
        rows.append(Row(point.values, Result("", "done", {"epoch_seconds": times, "seconds": sum(times)})))
    return find_study("fig7").findings(Table(rows))


def test_fig7_verdicts() -> None:
    """Ratios are taken between repeats of the same seed, without the first epoch, with their intervals."""
    slow = _fig7(lambda seed: 20.0)
    assert [finding.verdict for finding in slow[:2]] == ["not reproduced"] * 2
    assert "FCM: 20.00" in slow[0].found
    assert _fig7(lambda seed: 10.0)[0].verdict == "reproduced"
    assert _fig7(lambda seed: 12.0 + seed)[0].verdict == "undecided"  # 13 ± 2.5 reaches over 14
    assert [(f.found, f.verdict) for f in slow if "CrossSim" in f.claim] == [("not measured", "undecided")]
    assert any("resnet18" in f.claim and f.found == "not run at this scale" for f in slow)


def test_missing_points_decide_nothing() -> None:
    """With no result at all every study still writes its findings, and none is decided."""
    for name in study_names():
        study = find_study(name)
        table = Table([Row(point.values, None) for point in study.points("small")])
        findings = [f for f in study.findings(table) if not f.found.startswith("tested: ")]
        assert {finding.verdict for finding in findings} <= {"undecided"}, name
        study.figure(table)


def test_table1_names_tests_that_exist() -> None:
    """A cell that rests on a test names one of this repository; a part of a data set is said to be one."""
    rows = [
        Row(point.values, Result("", "done", {"here": 1, "samples": 20000, "tests": 10000}))
        for point in find_study("table1").points("small")
        if point.values["cell"] == "cifar10"
    ]
    absent = [
        Row(point.values, Result("", "done", {"here": 0}))
        for point in find_study("table1").points("small")
        if point.values["cell"] in ("cifar100", "fashion-mnist", "tiny-imagenet")
    ]
    findings = find_study("table1").findings(Table([*rows, *absent]))
    named = re.findall(r"(tests/\S+?)::(test_\w+)", " ".join(finding.found for finding in findings))
    assert len(named) >= 10
    for file, function in named:
        text = (Path(__file__).parents[2] / file).read_text()
        assert f"def {function}(" in text, (file, function)
    assert any("only 2 of 5 training files" in finding.found for finding in findings)
    assert all(finding.verdict == "shown" for finding in findings)


def test_table1_verdicts() -> None:
    """NaN is not shown, losses are compared after the same epoch, damaged files are not absent ones."""

    def cells(losses: Callable[[Mapping[str, Any]], list[float]], diverged: int = 0) -> dict[str, str]:
        rows = []
        for point in find_study("table1").points("small"):
            metrics = {
                "losses": losses(point.values),
                "diverged": diverged,
                "here": 1,
                "samples": 1,
                "tests": 1,
            }
            rows.append(Row(point.values, Result("", "done", metrics)))
        return verdicts(find_study("table1").findings(Table(rows)))

    same = cells(lambda v: [2.0, 1.0, 0.5])
    assert same["update noise of law sqrt (Agarwal)"] == "not shown"
    assert same["MLP on crossbars"] == "shown"
    shorter = cells(lambda v: [2.0, 1.0, 0.5] if v["cell"] == "none" else [2.0, 1.0])
    assert shorter["update noise of law sqrt (Agarwal)"] == "not shown"
    assert cells(lambda v: [2.0, 1.0], diverged=1)["MLP on crossbars"] == "not shown"
    one_seed = cells(lambda v: [2.0, 1.0 + 0.1 * (v["cell"] != "none")] if v["seed"] == 0 else [])
    assert one_seed["device variation"] == "undecided"
    points = [p for p in find_study("table1").points("small") if p.values["kind"] == "data"]
    damaged = [Row(p.values, Result("", "failed", {}, error="wrong checksum")) for p in points]
    findings = [f for f in find_study("table1").findings(Table(damaged)) if f.claim.startswith("data set")]
    assert {(f.verdict, f.reason) for f in findings} == {("undecided", "wrong checksum")}


def test_one_part_refutes_a_claim_about_all() -> None:
    """ResNet-20 that loses nothing decides, though ResNet-56 has no result, and is the reason."""
    points = [p for p in find_study("fig9").points("small") if p.values["network"] != "ResNet-56"]
    rows = [Row(point.values, Result("", "done", {"accuracy": 0.9})) for point in points]
    absent = [p for p in find_study("fig9").points("small") if p.values["network"] == "ResNet-56"]
    first = find_study("fig9").findings(Table([*rows, *(Row(p.values, None) for p in absent)]))[0]
    assert first.verdict == "not reproduced"
    assert first.reason.startswith("ResNet-20: the whole interval is outside")


def test_fig9_says_where_data_differ() -> None:
    """ResNet-20 on CIFAR-10 and ResNet-56 on CIFAR-100 are not compared on the same data."""
    rows = [
        Row(point.values, Result("", "done", {"accuracy": 0.9}))
        for point in find_study("fig9").points("paper")
    ]
    found = {f.claim: f.found for f in find_study("fig9").findings(Table(rows))}
    assert "data are not the same" in found["ResNet-20 is hurt more than ResNet-56"]
    assert "data are not the same" not in found["ResNet-20 is hurt more than VGG-16"]
    assert "data are not the same" in found["VGG-16 is hurt more than the simple LeNet-5"]
