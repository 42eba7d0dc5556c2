"""The summary of a pruning run for people: Markdown that reads well on a screen, too."""

from collections.abc import Mapping, Sequence
from typing import Any

from utils.metrics.latency import FASTER
from utils.paper.markdown import counted, megabytes, millions, table
from utils.planning.budget import budget_line
from utils.runs.choices import RANK_CRITERIA

_STATES = {
    "dense": "dense",
    "pruned": "pruned, before fine-tuning",
    "recalibrated": "its norms' statistics re-estimated",
    "finetuned_best": "fine-tuned, best epoch",
    "finetuned_last": "fine-tuned, last epoch",
}
_STEP_STATES = {
    "pruned": "pruned",
    "recalibrated": "recalibrated",
    "finetuned": "fine-tuned, best epoch",
}
_RULES = {
    "paper_rule": "paper rule (a filter's own MACs go, the next layer's inputs stay)",
    "physical": "physical (the network that is really there)",
}


def summary_markdown(summary: Mapping[str, Any]) -> str:
    """Return the summary of `prune` (of its dry run too) as Markdown tables."""
    parts = [
        f"# {summary['arch']}: {summary['criterion']}, {summary['mode']}, {summary['schedule']}"
        + ", from scratch" * (summary["init"] == "scratch"),
        f"compress rate `{summary['compress_rate']}`",
        *([budget_line(summary["budget"])] if summary["budget"] else []),
        *([_aligned(summary["align"])] if summary.get("align") else []),
        *([_targets(summary["targets"])] if "targets" in summary else []),
        "## Layers",
        _layers(summary["layers"]),
        *_ties(summary["layers"], summary["criterion"]),
        "## Cost of one image",
        _costs(summary),
        *summary.get("no_faster", ()),
        "Multiplying operations that no MAC here counts: "
        + (", ".join(summary["uncounted"]) or "none")
        + ".",
    ]
    if "accuracy" in summary:
        parts += [
            "## Accuracy",
            accuracy_table(summary["accuracy"]),
            *_steps(summary),
            *_remarks(summary),
        ]
    if summary["paper"] is not None:
        parts += ["## Beside the paper", paper_markdown(summary["paper"])]
    return "\n\n".join(parts) + "\n"


def _aligned(align: Mapping[str, Any]) -> str:
    """Return how channels are left that do not line up, and what the ways to leave them take."""
    ways = {
        "compact": "copied into place",
        "zeros": "left as zeros",
        "blocks": f"given back, up to blocks of {align['block']} channels",
    }
    times = ", ".join(f"{name} {ms:.2f} ms" for name, ms in align["latency_ms"].items())
    timed = f" ({align['runtime']}: {times})" if times else ""
    return f"Filters whose channels a sum needs are {ways[align['align']]}{timed}."


def _targets(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what targets can reach."""
    names = {"macs": "--target_macs", "params": "--target_params", "latency": "--target_latency"}
    cells = [
        (
            names.get(row["of"], "--target_ms"),
            *(f"{row[x]:.3g}" for x in ("least", "typical", "most")),
        )
        for row in rows
    ]
    return table(("target", "least", "at half of each layer's filters", "dense"), cells)


def _layers(layers: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            number,
            layer["conv"],
            f"{layer['rate']:g}",
            f"{layer['filters']} -> {len(layer['kept'])}",
            "" if layer["cut_score"] is None else f"{layer['cut_score']:.4g}",
            "; ".join(filter(None, ["tie" * layer["tied_at_cut"], layer["reason"]])),
            f"{layer['inputs']['dense']} -> {layer['inputs']['pruned']}",
            f"{millions(layer['macs']['dense'])} -> {millions(layer['macs']['pruned'])}",
        )
        for number, layer in enumerate(layers, start=1)
    ]
    names = ("#", "conv", "rate", "filters", "cut score", "remarks", "inputs", "MACs")
    return table(names, rows)


def _ties(layers: Sequence[Mapping[str, Any]], criterion: str) -> list[str]:
    """Return the sentence that warns where filters cannot be told apart by their scores."""
    tied = [layer for layer in layers if layer["tied_at_cut"]]
    if not tied:
        return []
    shares = ", ".join(_with_share(layer) for layer in tied)
    why = "their ranks saturate, and " if criterion in RANK_CRITERIA else ""
    return [
        f"Filters tie at the cut in {len(tied)} convs (and so many of theirs have its very score: "
        f"{shares}): {why}of equal scores the lower index is removed; the official code's unstable "
        "sort may keep another of them."
    ]


def _with_share(layer: Mapping[str, Any]) -> str:
    share = layer.get("tied_share")  # summaries of before there was one lack it
    return layer["conv"] if share is None else f"{layer['conv']} {share:.0%}"


def _costs(summary: Mapping[str, Any]) -> str:
    rows = []
    for rule, name in _RULES.items():
        for what in ("macs", "parameters"):
            dense, pruned = (summary[rule][state][what] for state in ("dense", "pruned"))
            label = "MACs" if what == "macs" else what
            less = f"{100 * (1 - pruned / dense):.1f}%"
            rows.append((f"{label}, {name}", millions(dense), millions(pruned), less))
    return table(("", "dense", "pruned", "less by"), rows)


def accuracy_table(states: Mapping[str, Any]) -> str:
    """Return the accuracies of a summary, {state: {"test": ...}}, as a Markdown table."""
    rows = []
    dense = states["dense"]["test"]["top1_percent"]
    for state, found in states.items():
        test = found["test"]
        low, high = test["interval_percent"]
        rows.append(
            (
                _STATES[state],
                f"{test['top1_percent']:.2f}%",
                f"{test['correct']} of {test['images']}",
                f"{low:.2f} to {high:.2f}",
                f"{test['top1_percent'] - dense:+.2f}",
            )
        )
    return table(("test images", "top-1", "right", "95% interval", "against dense"), rows)


def _steps(summary: Mapping[str, Any]) -> list[str]:
    steps = summary.get("steps", ())
    rows = [(row["step"], row["filters_removed"], *step_cells(row)) for row in steps]
    names = ("step", "filters gone", *step_names(steps))
    return [table(names, rows)] if rows else []


def step_names(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the columns of `step_cells` are called."""
    return [
        f"top-1, {name}" for state, name in _STEP_STATES.items() if any(state in x for x in steps)
    ]


def step_cells(row: Mapping[str, Any]) -> list[str]:
    """Return the accuracies of a step in the states that were measured."""
    return [f"{row[x]['test']['top1_percent']:.2f}%" for x in _STEP_STATES if x in row]


def _remarks(summary: Mapping[str, Any]) -> list[str]:
    law = summary["removed_equals_masked"]
    options = summary["options"]
    chosen = {
        "val": f"chosen on {options['val_fraction']:.0%} of the train images, held out",
        "test": "chosen on the test images, as the official code does: read it with care",
        "last": "the last epoch",
    }[options["select_on"]]
    return [
        f"Data: {summary['dataset']}, {summary['train_images']} train images, normalized as "
        f"{options['normalization']}; seed {options['seed']}; {counted(options['epochs'], 'epoch')}"
        + " of each step" * ("steps" in summary)
        + (f"; best epoch {summary['best_epoch']}, {chosen}." if summary["best_epoch"] else "."),
        f"Removed = masked: logits of {law['images']} real images differ by at most "
        f"{law['largest']:.1e} (at a scale of {law['logit_scale']:.1f}).",
        _latency(summary["latency"], summary["environment"]),
        f"Pruned network: `{summary['pruned_file']}`, {megabytes(summary['pruned_file_bytes'])}.",
    ]


def _latency(latency: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    parts = []
    for timed in latency.values():
        dense, pruned = timed["dense"], timed["pruned"]
        ratio = dense["median_ms"] / pruned["median_ms"]
        parts.append(
            f"{dense['median_ms']:.1f} ms -> {pruned['median_ms']:.1f} ms for "
            f"{counted(dense['batch_size'], 'image')} ({ratio:.2f} times as fast)"
        )
    threads = counted(made["threads"], "thread")
    said = f"Latency, medians, {made['device']}, {threads}: {'; '.join(parts)}."
    if all(x["pruned"]["median_ms"] > FASTER * x["dense"]["median_ms"] for x in latency.values()):
        said += " Smaller but not faster: `--target_latency 0.8` aims at the time itself."
    return said


def paper_markdown(row: Mapping[str, Any]) -> str:
    """Return a published row beside what was measured, as `compare_row` gives it, in Markdown."""
    names = {"macs": "MACs (“FLOPs”)", "parameters": "parameters", "top1_percent": "top-1"}
    rows = [
        (label, row[key]["published"], _measured(key, row[key]["measured"]), row[key]["verdict"])
        for key, label in names.items()
        if row[key] is not None
    ]
    lines = [f"Row {row['row']} of {row['arch']}: {row['source']}.", table(_PAPER_HEADER, rows)]
    if row["note"]:
        lines.append(f"Note: {row['note']}")
    return "\n\n".join(lines)


_PAPER_HEADER = ("", "published", "here, same rule", "verdict")


def _measured(key: str, value: float) -> str:
    return f"{value:.2f}%" if key == "top1_percent" else f"{value:,}"
