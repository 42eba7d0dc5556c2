"""What `prune` says on the screen: layers cut to the terminal, and ten lines of what matters."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from utils.paper.markdown import counted, megabytes, millions
from utils.planning.budget import budget_line

_WIDTH = 100  # columns of the last lines at most, but for paths
_STATES = {"pruned": "pruned", "recalibrated": "recalibrated", "finetuned_best": "fine-tuned"}


def prune_screen(summary: Mapping[str, Any]) -> str:
    """Return the summary of `prune` (of its dry run too) for a terminal."""
    columns = shutil.get_terminal_size((_WIDTH, 24)).columns
    lines = [
        f"{name:11s} {text}"[:_WIDTH] if cut else f"{name:11s} {text}"
        for name, text, cut in _facts(summary)
    ]
    return "\n".join([*_layers(summary["layers"], columns), "", *lines])


def _layers(layers: Sequence[Mapping[str, Any]], columns: int) -> list[str]:
    """Return the layers in aligned columns, each line cut to so many characters."""
    rows = [("conv", "rate", "filters", "inputs", "MACs", "remarks")]
    for layer in layers:
        macs, inputs = layer["macs"], layer["inputs"]
        rows.append(
            (
                layer["conv"],
                f"{layer['rate']:g}",
                f"{layer['filters']} -> {len(layer['kept'])}",
                f"{inputs['dense']} -> {inputs['pruned']}",
                f"{millions(macs['dense'])} -> {millions(macs['pruned'])}",
                "; ".join(filter(None, [_tie(layer), layer["reason"]])),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return [line if len(line) <= columns else f"{line[: columns - 3]}..." for line in lines]


def _tie(layer: Mapping[str, Any]) -> str:
    """Return that only the index decided, and among which share of the filters."""
    share = layer.get("tied_share")  # summaries of before there was one lack it
    return ("tie" if share is None else f"tie of {share:.0%}") * layer["tied_at_cut"]


def _facts(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """Yield a name, what is to be said, and whether it may be cut where it is too long."""
    scratch = ", from scratch" * (summary["init"] == "scratch")
    yield "network", f"{summary['arch']}, by {summary['criterion']}{scratch}", True
    yield "rates", summary["compress_rate"], not summary["budget"]  # those found are to be copied
    if summary["budget"]:
        yield "target", budget_line(summary["budget"]).removeprefix("target: "), False
    for what in ("macs", "parameters"):
        label = "MACs" if what == "macs" else what
        physical, paper = (_change(summary[rule], what) for rule in ("physical", "paper_rule"))
        yield label, f"{physical}; by the paper's rule {paper}", True
    if "accuracy" in summary:
        yield "top-1", _accuracy(summary), True
        for row in summary.get("steps", ()):
            yield f"step {row['step']}", _step(row), True
        yield "time", _times(summary["latency"]), True
    if summary["paper"] is not None:
        yield "paper", _paper(summary), True
    if "job_dir" in summary:
        folder, file = summary["job_dir"], summary["pruned_file"]
        yield "file", f"{file}, {megabytes(summary['pruned_file_bytes'])}", False
        yield "more", f"{folder}/summary.md; tensorboard --logdir {folder}", False
        arch = f" --arch {summary['arch']}" * (":" in summary["arch"])
        yield "next", f"python main.py export --resume {file}{arch}", False
    else:
        yield "next", "the same command without --dry_run prunes and fine-tunes", False


def _change(counts: Mapping[str, Mapping[str, int]], what: str) -> str:
    dense, pruned = (counts[state][what] for state in ("dense", "pruned"))
    return f"{millions(dense)} -> {millions(pruned)} (-{100 * (1 - pruned / dense):.1f}%)"


def _accuracy(summary: Mapping[str, Any]) -> str:
    """Return top-1 in every state, and the interval of the last one."""
    states = summary["accuracy"]
    shown = [f"{states['dense']['test']['top1_percent']:.2f}% dense"]
    shown += [
        f"{states[state]['test']['top1_percent']:.2f}% {name}"
        for state, name in _STATES.items()
        if state in states
    ]
    last = states[[state for state in ("pruned", *_STATES) if state in states][-1]]["test"]
    low, high = last["interval_percent"]
    tuned = "" if "finetuned_best" in states else ", not fine-tuned (--epochs 0)"
    return (
        f"{' -> '.join(shown)} ({low:.1f} to {high:.1f}, {counted(last['images'], 'image')}){tuned}"
    )


def _step(row: Mapping[str, Any]) -> str:
    pruned, tuned = (row[state]["test"]["top1_percent"] for state in ("pruned", "finetuned"))
    return f"{row['filters_removed']} filters removed: {pruned:.2f}% -> {tuned:.2f}% fine-tuned"


def _times(latency: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{counted(timed['dense']['batch_size'], 'image')} {timed['dense']['median_ms']:.1f} -> "
        f"{timed['pruned']['median_ms']:.1f} ms "
        f"({timed['dense']['median_ms'] / timed['pruned']['median_ms']:.2f} x)"
        for timed in latency.values()
    )


def _paper(summary: Mapping[str, Any]) -> str:
    """Return the published row; its accuracy only beside a network that was fine-tuned."""
    row = summary["paper"]
    counts = f"{row['macs']['published']} MACs, {row['parameters']['published']} parameters"
    said = f"row {row['row']}: {counts}, {row['verdict']}"
    if "finetuned_best" in summary.get("accuracy", ()) and row["top1_percent"]:
        said += f"; top-1 {row['top1_percent']['published']}%"
    return said
