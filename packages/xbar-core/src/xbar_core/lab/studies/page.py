"""Pages of the documentation from what studies left: one over all, and one for each study."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from xbar_core.errors import ConfigError
from xbar_core.lab.studies.frame import SCALES, Report
from xbar_core.lab.whole_file import write_whole

_LARGE = ("fig7", "fig8", "fig9")  # studies of networks that need a GPU


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
        f"`{report.command}`: {_time(report.elapsed)} by the clock, {_time(report.seconds)} of computing "
        f"over all workers, on {report.machine}; xbar {report.version}.",
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
        name = f"{report.name}-{report.scale}"
        files = {f"figure{suffix}": f"{name}{suffix}" for suffix in (".png", ".svg")}
        files |= {"summary.csv": f"{name}.csv", "curves.csv": f"{name}-curves.csv"}
        present = {source: copy for source, copy in files.items() if (folder / source).is_file()}
        for source, copy in present.items():
            shutil.copyfile(folder / source, beside / copy)
            written.append(beside / copy)
        head, _, rest = verdict_text(report).partition("\n\n")
        links = f"Also as [SVG]({name}.svg); the [means]({name}.csv)"
        links += f" and the [curves]({name}-curves.csv)." if "curves.csv" in present else "."
        page = beside / f"{name}.md"
        write_whole(page, f"{head}\n\n![{report.title}]({name}.png)\n\n{links}\n\n{rest}")
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
        *_answers(reports, folder),
        *_graphics(reports),
        "",
        "## Claims",
        "",
        "| study | scale | points | by the clock | claim | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for report in reports:
        count = str(report.computed) + (f" of {report.planned}, cut short" if report.cut else "")
        for number, finding in enumerate(report.findings):
            link = f"[{report.name}]({folder}/{report.name}-{report.scale}.md)"
            first = (link, report.scale, count, _time(report.elapsed)) if number == 0 else ("",) * 4
            lines.append("| " + " | ".join((*first, _cell(finding.claim), finding.verdict)) + " |")
    lines += _details(reports, folder)
    clock, total = (sum(each) for each in zip(*((r.elapsed, r.seconds) for r in reports), strict=True))
    machines = "; ".join(dict.fromkeys(report.machine for report in reports))
    lines += ["", f"{_time(clock)} by the clock, {_time(total)} of computing, on {machines}.", ""]
    return "\n".join(lines)


def _graphics(reports: Sequence[Report]) -> list[str]:
    """Say which studies of large networks are at small scale because nothing ran on a GPU."""
    if any("GPU" in report.machine for report in reports):
        return []
    small = [r for r in _best(reports).values() if r.name in _LARGE and r.scale != "paper"]
    if not small:
        return []
    names, scales = ", ".join(r.name for r in small), " and ".join(dict.fromkeys(r.scale for r in small))
    return [
        "",
        f"No GPU was at hand: {names} {'are' if len(small) > 1 else 'is'} at the scale {scales} only: the "
        "paper's large networks are not trained.",
    ]


def _best(reports: Sequence[Report]) -> dict[str, Report]:
    """Return each study's report of the largest scale, of those that are whole if there are any."""
    ranked = sorted(reports, key=lambda report: (not report.cut, SCALES.index(report.scale)))
    found = {report.name: report for report in ranked}
    return {report.name: found[report.name] for report in reports}


def _answers(reports: Sequence[Report], folder: str) -> list[str]:
    """Answer in one paragraph what the paper does not: exact circuits, and what dominates in each device."""
    found = _best(reports)
    said = []
    if "fig5b" in found:
        link = f"[fig5b]({folder}/fig5b-{found['fig5b'].scale}.md)"
        models: dict[str, list[str]] = {}
        for finding in found["fig5b"].findings:
            name, models_it, _ = finding.claim.partition(" models ")
            if models_it:
                models.setdefault(finding.verdict, []).append(name)
        words = {
            "reproduced": "no more than half a point of accuracy against {}",
            "not reproduced": "more than that against {}",
            "undecided": "an amount that is not decided against {}",
        }
        parts = [
            text.format(_joined(models[verdict])) for verdict, text in words.items() if verdict in models
        ]
        said.append(f"Solving the exact circuit at every step changes {'; '.join(parts)} ({link}).")
    if "devices" in found:
        link = f"[devices]({folder}/devices-{found['devices'].scale}.md)"
        for part in ("reads", "updates"):
            causes: dict[str, list[str]] = {}
            for finding in found["devices"].findings:
                device, in_part, rest = finding.claim.partition(f", {part}: ")
                if in_part:
                    by, dominated, cause = rest.partition("dominated by ")
                    shown = cause if dominated else by
                    open_ = {"undecided": "undecided", "not shown": "no single one"}
                    causes.setdefault(open_.get(finding.verdict, shown), []).append(device)
            parts = [f"{cause} ({_joined(names)})" for cause, names in causes.items()]
            said.append(f"What dominates the errors of {part}: {'; '.join(parts)} ({link}).")
    return ["", " ".join(said)] if said else []


def _joined(names: Sequence[str]) -> str:
    """Join names, in parentheses where they hold a comma."""
    return ", ".join(f"({name})" if "," in name else name for name in names)


def _details(reports: Sequence[Report], folder: str) -> list[str]:
    """Return the numbers behind the answers."""
    found = _best(reports)
    lines = ["", "## What our own model adds", ""]
    if "fig5b" in found:
        lines += [
            "What the exact circuit (FCM) at every step changes against AAM and interpolation "
            f"([fig5b]({folder}/fig5b-{found['fig5b'].scale}.md); speeds are in fig7, errors of single "
            "matrices in fig6):",
            "",
            "| model | against FCM | verdict |",
            "|---|---|---|",
        ]
        lines += [
            f"| {_cell(f.claim.partition(' models ')[0])} | {_cell(f.found)} | {f.verdict} |"
            for f in found["fig5b"].findings
        ]
        lines.append("")
    if "devices" in found:
        lines += [
            "Which non-ideality dominates for each preset device "
            f"([devices]({folder}/devices-{found['devices'].scale}.md)):",
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
