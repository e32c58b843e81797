"""Numbers behind verdicts: means over seeds, differences in pairs of the same seed."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from xbar_core.lab.studies.frame import Finding, Verdict
from xbar_core.lab.sweep.results import Row, Table
from xbar_core.lab.sweep.spread import LEVEL, Estimate, estimate

Labels = Mapping[str, Any]
_REPEATS = 3  # the least that show a spread


def rows_of(table: Table, labels: Labels) -> list[Row]:
    """Return the rows that carry all these labels."""
    return [row for row in table.rows if all(row.values.get(name) == value for name, value in labels.items())]


def mean_of(table: Table, labels: Labels, metric: str = "accuracy") -> Estimate:
    """Return a metric over the repeats of one setting."""
    return estimate([row.metric(metric) for row in rows_of(table, labels)])


def lost(
    table: Table, reference: Labels, case: Labels, metric: str = "accuracy", *, among: int = 1
) -> Estimate:
    """Return metric(reference) - metric(case) over pairs of the same seed; positive is a loss.

    Where one of several differences is picked, or any of them would be a finding, `among` says how many:
    the interval is wide enough to hold for all of them together (Bonferroni).
    """
    return estimate(losses(table, reference, case, metric).values(), 1 - (1 - LEVEL) / among)


def losses(table: Table, reference: Labels, case: Labels, metric: str = "accuracy") -> dict[Any, float]:
    """Return metric(reference) - metric(case) by seed."""
    base = {row.values.get("seed"): row.metric(metric) for row in rows_of(table, reference)}
    found = {
        row.values.get("seed"): base[row.values.get("seed")] - row.metric(metric)
        for row in rows_of(table, case)
        if row.values.get("seed") in base
    }
    return {seed: loss for seed, loss in found.items() if not math.isnan(loss)}


def more(first: Mapping[Any, float], second: Mapping[Any, float], *, among: int = 1) -> Estimate:
    """Return first - second over the seeds that both have; `among` as `lost` takes it."""
    found = [first[seed] - second[seed] for seed in first if seed in second]
    return estimate(found, 1 - (1 - LEVEL) / among)


def percent(value: Estimate) -> str:
    """Return a share in per cent with its interval."""
    if value.count == 0:
        return "(no result)"
    spread = f" ± {100 * value.half:.2f}" if value.count > 1 else ""
    return f"{100 * value.mean:.2f}{spread} %"


def points_text(value: Estimate) -> str:
    """Return a difference of shares in percentage points with its interval."""
    if value.count == 0:
        return "(no result)"
    spread = f" ± {100 * value.half:.2f}" if value.count > 1 else ""
    return f"{100 * value.mean:+.2f}{spread} points"


def within(value: Estimate, low: float, high: float) -> Verdict:
    """Judge the claim that a number lies from `low` to `high`.

    Reproduced where its whole interval does, not reproduced where none of it does.
    """
    if value.count < _REPEATS:
        return "undecided"
    if low <= value.low and value.high <= high:
        return "reproduced"
    return "not reproduced" if value.high < low or value.low > high else "undecided"


def harmless(loss: Estimate, at_most: float) -> Verdict:
    """Judge the claim that something costs at most `at_most` (a share); see `within`."""
    return within(loss, -math.inf, at_most)


def harmful(loss: Estimate, at_least: float) -> Verdict:
    """Judge the claim that something costs `at_least` (a share) or more; see `within`."""
    return within(loss, at_least, math.inf)


def alike(difference: Estimate, at_most: float) -> Verdict:
    """Judge the claim that two things differ by at most `at_most`, in either direction; see `within`."""
    return within(difference, -at_most, at_most)


def all_of(verdicts: Collection[Verdict]) -> Verdict:
    """Return the verdict on a claim that must hold in every case."""
    if "not reproduced" in verdicts:
        return "not reproduced"
    return "reproduced" if set(verdicts) == {"reproduced"} else "undecided"


def beyond_chance(plain: Verdict, wide: Verdict, difference: Verdict = "not reproduced") -> Verdict:
    """Return `plain`, but undecided where one of several comparisons would find a difference by chance.

    Parameters
    ----------
    plain, wide : Verdict
        With the interval of one comparison, and with that for all of them (`among`).
    difference : Verdict
        The verdict that finds one.
    """
    return "undecided" if plain == difference != wide else plain


def compared(
    claim: str, found: str, verdict: Verdict, differs: str, repeats: int, unsure: str = ""
) -> Finding:
    """Return a finding with the reason that fits its verdict.

    Parameters
    ----------
    claim, found, verdict
        As in `Finding`.
    differs : str
        Why it differs, where it does.
    repeats : int
        Seeds that the numbers rest on.
    unsure : str
        Why it cannot be decided, where it cannot; the spread unless given.
    """
    if verdict == "reproduced":
        return Finding(claim, found, verdict)
    if verdict != "undecided":  # one part that is known well enough refutes the whole
        return Finding(claim, found, verdict, differs)
    if repeats < _REPEATS:
        return Finding(claim, found, verdict, f"only {repeats} of at least three repeats have a result")
    return Finding(claim, found, verdict, unsure or f"the spread over {repeats} seeds is too wide to tell")


def listing(parts: Iterable[str]) -> str:
    """Join parts of a sentence."""
    return "; ".join(parts)
