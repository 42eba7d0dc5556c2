"""What an experiment found, for people: its tables and sentences, and the pages' copy of them.

`python -m utils.reports.controls_table SUMMARY...` stores the summary.json of experiments
in utils/paper/controls/ and renews the block on its page; without SUMMARY it renews the block.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.paper.markdown import counted, millions, portable, table
from utils.paper.pages import write_block
from utils.reports.controls_summary import excludes_zero
from utils.runs.atomic_write import write_json

STORED = Path(__file__).parents[1] / "paper" / "controls"  # NAME/summary.json
_LEGEND = """\
Top-1 in percent on the test images, differences in points. *±* is the standard deviation over the
seeds. *95%, seeds*: Student's interval of the mean over the seeds, or of the mean paired difference
(same seed on both sides); it covers the order and the crops of the images, the draw of `random` and
fresh weights, not the choice of the test images. *95%, images*: Wilson's interval of all seeds'
answers counted together; it covers the test images and is too narrow, since every seed answers the
same ones. No interval allows for several criteria being compared at once. At a rate all rows have
the same widths; MACs differ with what the kept filters of a residual sum have in common."""


def controls_markdown(summary: Mapping[str, Any]) -> str:
    """Return the summary of `main.py compare --experiment` as Markdown."""
    return f"# {summary['arch']}: {summary['experiment']}\n\n{findings(summary)}\n"


def findings(summary: Mapping[str, Any]) -> str:
    """Return both tables of an experiment, its sentences, and how it was made."""
    return "\n\n".join(
        (
            _made_of(summary),
            _accuracies(summary["rows"]),
            _differences(summary["rows"], summary["control"]),
            "\n".join(f"- {_sentence(found, summary['rows'])}" for found in summary["findings"]),
            _LEGEND,
            _provenance(summary),
        )
    )


def stored_text() -> str:
    """Return the findings of the summaries that are kept for the pages."""
    return portable("\n\n".join(map(findings, stored_summaries())))


def stored_summaries() -> list[dict[str, Any]]:
    """Return the summaries that are kept for the pages."""
    return [json.loads(path.read_text()) for path in sorted(STORED.glob("*/summary.json"))]


def _made_of(summary: Mapping[str, Any]) -> str:
    """Name the experiment, and the dense network that all starts from."""
    options, dense = summary["options"], summary["dense"]
    accuracy = dense["accuracy"]
    low, high = accuracy["interval_percent"]
    seeds = ", ".join(map(str, options["seeds"]))
    return (
        f"**{summary['arch']}, {summary['experiment']}**: {counted(options['epochs'], 'epoch')} on "
        f"{summary['train_images']} train images of {summary['dataset']}, seeds {seeds}. Dense: "
        f"{accuracy['top1_percent']:.2f}%, {accuracy['correct']} of {accuracy['images']} test "
        f"images right (95% interval {low:.2f} to {high:.2f}), {millions(dense['macs'])} MACs, "
        f"{millions(dense['parameters'])} parameters."
    )


def _accuracies(rows: Sequence[Mapping[str, Any]]) -> str:
    after = [row["after"] for row in rows]
    right = [found["pooled"] for found in after]
    columns = {
        "criterion": [row["criterion"] for row in rows],
        "rate": [row["level"] for row in rows],
        "MACs, physical": [millions(row["macs"]) for row in rows],
        "parameters": [millions(row["parameters"]) for row in rows],
        "before fine-tuning": [_spread(row["before"]) for row in rows],
        "recalibrated": [_spread(row.get("recalibrated")) for row in rows],
        "after": [_spread(found) for found in after],
        "95%, seeds": [_interval(found["interval"]) for found in after],
        "right, all seeds": [f"{pooled['correct']} of {pooled['images']}" for pooled in right],
        "95%, images": [_interval(pooled["interval_percent"]) for pooled in right],
    }
    return _filled(columns)


def _differences(rows: Sequence[Mapping[str, Any]], control: str) -> str:
    """Return the table of training from scratch and of differences."""
    columns = {
        "criterion": [row["criterion"] for row in rows],
        "rate": [row["level"] for row in rows],
        "from scratch": [_spread(row["scratch"]) for row in rows],
        "pruned - scratch (95%, seeds)": [_difference(row["minus_scratch"]) for row in rows],
        f"before: - {control}": [_mean(row["before_minus_control"]) for row in rows],
        f"after: - {control} (95%, seeds)": [_difference(row["minus_control"]) for row in rows],
    }
    return _filled(columns)


def _filled(columns: Mapping[str, Sequence[str]]) -> str:
    """Return the table of {name: cells} without the columns that would be empty."""
    filled = {name: cells for name, cells in columns.items() if any(cells)}
    return table(tuple(filled), list(zip(*filled.values(), strict=True)))


def _sentence(found: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Say which criterion won at a level, and how sure that is."""
    means = {
        row["criterion"]: row["after"]["mean"] for row in rows if row["level"] == found["level"]
    }
    best = found["best"]
    sentence = f"Rate {found['level']}: `{best}` has the best mean after fine-tuning, "
    sentence += f"{means[best]:.2f}%"
    if found["leads"]:
        leads = (f"{_lead(lead)} over `{lead['over']}`" for lead in found["leads"])
        sentence += f": {'; '.join(leads)}"
    if found["above_scratch"] is None:
        return f"{sentence}."
    above, below = (_names(found[f"{side}_scratch"], of=len(means)) for side in ("above", "below"))
    return (
        f"{sentence}. Against the same network from scratch, the pruned weights end higher (the "
        f"interval is above 0) for {above}, lower (it is below 0) for {below}."
    )


def _lead(lead: Mapping[str, Any]) -> str:
    if lead["interval"] is None:
        return f"{_mean(lead)} points (one seed: no interval)"
    verdict = "excludes" if excludes_zero(lead) else "includes"
    return f"{_mean(lead)} points (95% interval {_signed(lead['interval'])}, which {verdict} 0)"


def _names(criteria: Sequence[str], *, of: int) -> str:
    if len(criteria) in (0, of):
        return f"all {of}" if criteria else "none"
    return ", ".join(f"`{name}`" for name in criteria)


def _spread(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    around = "" if found["deviation"] is None else f" ± {found['deviation']:.2f}"
    return f"{found['mean']:.2f}{around}"


def _mean(found: Mapping[str, Any] | None) -> str:
    return "" if found is None else f"{found['mean']:+.2f}"


def _difference(found: Mapping[str, Any] | None) -> str:
    if found is None or found["interval"] is None:
        return _mean(found)
    return f"{_mean(found)} ({_signed(found['interval'])})"


def _signed(ends: Sequence[float]) -> str:
    return f"{ends[0]:+.2f} to {ends[1]:+.2f}"


def _interval(ends: Sequence[float] | None) -> str:
    return "" if ends is None else f"{ends[0]:.2f} to {ends[1]:.2f}"


def _provenance(summary: Mapping[str, Any]) -> str:
    made, options = summary["environment"], summary["options"]
    minutes = sum(cell["seconds_of_finetuning"] for cell in summary["cells"]) / 60
    return (
        f"`{made['command']}`; {len(summary['cells'])} runs, {minutes:.0f} minutes of training; "
        f"lr {options['lr']:g} ({options['lr_schedule']}), epoch chosen by `--select_on "
        f"{options['select_on']}`; {made['device']}, {counted(made['threads'], 'thread')}; "
        f"torch {made['torch']}; commit {made['commit']}."
    )


def main(argv: Sequence[str]) -> None:
    """Store the summaries named in `argv`; renew the block."""
    for path in map(Path, argv):
        summary = json.loads(path.read_text())
        write_json(STORED / f"{summary['arch']}_{summary['experiment']}" / "summary.json", summary)
    write_block("controls", stored_text())


if __name__ == "__main__":
    main(sys.argv[1:])
