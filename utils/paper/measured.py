"""The README's results: measured summaries, kept beside this file, as one table.

`python -m utils.paper.measured` rewrites the table in README.md from `measured/*.json`, which are
`summary.json` files of runs of `main.py prune`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.paper.markdown import table
from utils.paper.readme_block import README, with_block
from utils.paper.tables import rows_of
from utils.runs.atomic_write import write_text

FOLDER = Path(__file__).with_name("measured")

_HEADER = (
    "network, criterion",
    "MACs, paper rule",
    "MACs, physical",
    "parameters, physical",
    "dense",
    "pruned",
    "fine-tuned best (last)",
    "against dense",
    "paper, dense -> fine-tuned",
)


def measured_table() -> str:
    """Return the table of all committed summaries and, below it, how each was made."""
    summaries = [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))]
    rows = [_row(summary) for summary in summaries]
    return "\n\n".join([table(_HEADER, rows), *(_provenance(summary) for summary in summaries)])


def updated(readme: str) -> str:
    """Return the README's text with the table of committed summaries made anew.

    Raises:
        ValueError: if a marker is missing.
    """
    return with_block(readme, "measured", measured_table())


def _row(summary: Mapping[str, Any]) -> tuple[str, ...]:
    states = {name: found["test"] for name, found in summary["accuracy"].items()}
    best, last = states["finetuned_best"], states["finetuned_last"]
    paper = summary["paper"]
    return (
        f"{summary['arch']}, {summary['criterion']}",
        change(summary["paper_rule"], "macs"),
        change(summary["physical"], "macs"),
        change(summary["physical"], "parameters"),
        _percent(states["dense"]),
        _percent(states["pruned"]),
        f"{_percent(best)} ({_percent(last)})",
        f"{best['top1_percent'] - states['dense']['top1_percent']:+.2f}",
        "" if paper is None else _published(paper),
    )


def change(counts: Mapping[str, Any], what: str) -> str:
    """Return the "macs" or "parameters" of `dense` -> `pruned`, in millions, and by how much."""
    dense, pruned = counts["dense"][what], counts["pruned"][what]
    return f"{dense / 1e6:.2f}M -> {pruned / 1e6:.2f}M (-{100 * (1 - pruned / dense):.1f}%)"


def _percent(test: Mapping[str, Any]) -> str:
    return f"{test['top1_percent']:.2f}%"


def _published(paper: Mapping[str, Any]) -> str:
    baseline = rows_of(paper["arch"])[0]
    return f"{baseline.top1_percent.text}% -> {paper['top1_percent']['published']}%"


def _provenance(summary: Mapping[str, Any]) -> str:
    """Return how a row was made, with the command as it was typed."""
    made, options = summary["environment"], summary["options"]
    best = summary["accuracy"]["finetuned_best"]["test"]
    low, high = best["interval_percent"]
    minutes = summary["seconds_of_finetuning"] / 60
    parts = (
        f"{summary['arch']}, {summary['criterion']}: {best['correct']} of {best['images']} test "
        f"images right (95% interval {low:.2f} to {high:.2f}%)",
        f"{summary['dataset']}, {summary['train_images']} train images, {options['epochs']} epochs",
        f"seed {options['seed']}, best epoch {summary['best_epoch']} chosen by "
        f"`--select_on {options['select_on']}`",
        *_latencies(summary),
        f"{minutes:.0f} minutes of fine-tuning on {made['device']} ({made['threads']} threads)",
        f"torch {made['torch']}, commit {made['commit']}",
    )
    return f"{'; '.join(parts)}.\n\n    python {made['command']}"


def _latencies(summary: Mapping[str, Any]) -> list[str]:
    return [
        f"latency for {timed['dense']['batch_size']} image(s) "
        f"{timed['dense']['median_ms']:.1f} -> {timed['pruned']['median_ms']:.1f} ms"
        for timed in summary["latency"].values()
    ]


if __name__ == "__main__":
    write_text(README, updated(README.read_text()))
