"""Pages of the documentation from what studies left: one over all, and one for each study."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from xbar_core.errors import ConfigError
from xbar_core.lab.studies.frame import Report
from xbar_core.lab.whole_file import write_whole


def verdict_text(report: Report) -> str:
    """Return a study's verdict as Markdown."""
    lines = [f"# {report.title}", "", report.conditions, ""]
    if report.cut:
        lines += [
            f"**Cut short: {report.computed} of {report.planned} points have a result"
            + (f", {report.failed} failed" if report.failed else "")
            + ".** What is said below rests on those.",
            "",
        ]
    lines += ["| claim | found | verdict |", "|---|---|---|"]
    lines += [f"| {_cell(f.claim)} | {_cell(f.found)} | {f.verdict} |" for f in report.findings]
    reasons = [f for f in report.findings if f.reason]
    if reasons:
        lines += ["", "Reasons:", ""]
        lines += [f"- *{f.claim}* {f.verdict.capitalize()}: {f.reason}" for f in reasons]
    lines += [
        "",
        "Means over seeds with 95 % intervals; differences are taken in pairs of the same seed.",
        "",
        f"`{report.command}`: {_time(report.seconds)} of computing on {report.machine}; xbar "
        f"{report.version}.",
        "",
    ]
    return "\n".join(lines)


def check_page(out: Path) -> None:
    """Raise `ConfigError` unless `write_pages` can write there."""
    if out.suffix != ".md":
        raise ConfigError(f"page: {str(out)!r} is no page in Markdown; name one, e.g. docs/results.md")
    if out.is_dir() or (out.with_suffix("").exists() and not out.with_suffix("").is_dir()):
        raise ConfigError(f"page: {str(out)!r} and a folder beside it cannot be written; name another")


def write_pages(folders: Sequence[Path], out: Path) -> list[Path]:
    """Write a page over all studies, and beside it a folder with a page, figures and data of each.

    Parameters
    ----------
    folders : sequence of Path
        What `run_study` wrote into.
    out : Path
        The page over all, ``results.md``; the others go into the folder ``results``, made if absent.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    ConfigError
        `out` is no page in Markdown, or a folder holds no finished study.
    """
    check_page(out)
    if not folders:
        raise ConfigError("page: no study was run yet; run xbar reproduce NAME --scale small first")
    beside = out.with_suffix("")
    beside.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    reports: list[Report] = []
    for folder in folders:
        try:
            report = Report.read(folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"page: {str(folder)!r} holds no finished study ({type(error).__name__}); run it first"
            ) from error
        reports.append(report)
        for source, name in (
            ("figure.png", f"{report.name}.png"),
            ("figure.svg", f"{report.name}.svg"),
            ("summary.csv", f"{report.name}.csv"),
        ):
            shutil.copyfile(folder / source, beside / name)
            written.append(beside / name)
        head, _, rest = verdict_text(report).partition("\n\n")
        links = f"Also as [SVG]({report.name}.svg); the [means]({report.name}.csv)."
        page = beside / f"{report.name}.md"
        write_whole(page, f"{head}\n\n![{report.title}]({report.name}.png)\n\n{links}\n\n{rest}")
        written.append(page)
    write_whole(out, _overview(reports, beside.name))
    return [*written, out]


def _overview(reports: Sequence[Report], folder: str) -> str:
    lines = [
        "# The paper's evaluation, again",
        "",
        "Each figure and table of the TxSim paper (arXiv:2002.11151) computed with xbar, with a verdict on "
        "each of its claims.",
        "A difference smaller than the spread over seeds is no finding. `xbar reproduce NAME --scale "
        "small` runs one.",
        "",
        "| study | scale | points | computing | claim | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for report in reports:
        count = str(report.computed) + (f" of {report.planned}, cut short" if report.cut else "")
        for number, finding in enumerate(report.findings):
            link = f"[{report.name}]({folder}/{report.name}.md)"
            first = (link, report.scale, count, _time(report.seconds)) if number == 0 else ("",) * 4
            lines.append("| " + " | ".join((*first, _cell(finding.claim), finding.verdict)) + " |")
    lines += _own_answers(reports, folder)
    total = sum(report.seconds for report in reports)
    machines = "; ".join(dict.fromkeys(report.machine for report in reports))
    lines += ["", f"{_time(total)} of computing together, on {machines}.", ""]
    return "\n".join(lines)


def _own_answers(reports: Sequence[Report], folder: str) -> list[str]:
    """Say what the paper does not: exact circuits at every step, and what dominates in each device."""
    found = {report.name: report for report in reports}
    lines = ["", "## What our own model adds", ""]
    if "fig5b" in found:
        lines += [
            "What the exact circuit (FCM) at every step changes against AAM and interpolation "
            f"([fig5b]({folder}/fig5b.md); the errors of single matrices are in [fig6]({folder}/fig6.md)):",
            "",
            "| model | against FCM |",
            "|---|---|",
        ]
        findings = found["fig5b"].findings
        lines += [f"| {_cell(f.claim.partition(' models ')[0])} | {_cell(f.found)} |" for f in findings]
        lines.append("")
    if "devices" in found:
        lines += [
            f"Which non-ideality dominates for each preset device ([devices]({folder}/devices.md)):",
            "",
            "| device | measured | verdict |",
            "|---|---|---|",
        ]
        lines += [f"| {_cell(f.claim)} | {_cell(f.found)} | {f.verdict} |" for f in found["devices"].findings]
        lines.append("")
    return lines if len(lines) > 3 else []


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _time(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
