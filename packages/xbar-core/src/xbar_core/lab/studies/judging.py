"""Numbers behind verdicts: means over seeds, differences in pairs of the same seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from xbar_core.lab.studies.frame import Finding, Verdict
from xbar_core.lab.sweep.results import Row, Table
from xbar_core.lab.sweep.spread import LEVEL, Estimate, estimate

Labels = Mapping[str, Any]
_ONE_POINT = 0.01


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

    Where the largest of several differences is picked, `among` says how many: the interval is wide
    enough to hold for all of them together (Bonferroni).
    """
    base = {row.values.get("seed"): row.metric(metric) for row in rows_of(table, reference)}
    found = [
        base[row.values.get("seed")] - row.metric(metric)
        for row in rows_of(table, case)
        if row.values.get("seed") in base
    ]
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


def harmless(loss: Estimate, at_most: float) -> Verdict:
    """Judge the claim that something costs at most `at_most` (a share).

    Reproduced where the mean is within the limit and the interval goes at most one point beyond it; not
    reproduced where the mean is beyond the limit by more than the interval.
    """
    if loss.count < 3:
        return "undecided"
    if loss.mean - loss.half > at_most:
        return "not reproduced"
    within = loss.mean <= at_most and loss.mean + loss.half <= at_most + _ONE_POINT
    return "reproduced" if within else "undecided"


def harmful(loss: Estimate, at_least: float) -> Verdict:
    """Judge the claim that something costs `at_least` (a share) or more, by more than the spread."""
    if loss.count < 3:
        return "undecided"
    if loss.mean >= at_least and loss.beyond_spread:
        return "reproduced"
    return "not reproduced" if loss.mean + loss.half < at_least else "undecided"


def compared(claim: str, found: str, verdict: Verdict, differs: str, repeats: int) -> Finding:
    """Return a finding with the reason that fits its verdict.

    Parameters
    ----------
    claim, found, verdict
        As in `Finding`.
    differs : str
        Why it differs, where it does.
    repeats : int
        Seeds that the numbers rest on.
    """
    if verdict == "reproduced":
        return Finding(claim, found, verdict)
    if repeats < 3:
        return Finding(claim, found, verdict, f"only {repeats} of at least three repeats have a result")
    if verdict == "undecided":
        return Finding(
            claim, found, verdict, f"the spread over {repeats} seeds is too wide to tell. {differs}"
        )
    return Finding(claim, found, verdict, differs)


def listing(parts: Iterable[str]) -> str:
    """Join parts of a sentence."""
    return "; ".join(parts)
