"""What `prune` and `scan` say on the screen: what matters, the files, and what to do next."""

import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from utils.data.normalization import default_normalization
from utils.options.weight_options import pruned_by
from utils.paper.markdown import counted, megabytes, millions
from utils.planning.budget import budget_line
from utils.reports.scan_results import scan_markdown
from utils.reports.summary import step_cells
from utils.reports.weight_summary import weights_markdown
from utils.reports.zeros_summary import zeros_markdown

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
    for said in summary.get("no_faster", ()):
        yield "slow", said, False
    if "accuracy" in summary:
        yield "top-1", _accuracy(summary), True
        for row in summary.get("steps", ()):
            yield f"step {row['step']}", _step(row), True
        yield "time", _times(summary["latency"]), True
    if summary["paper"] is not None:
        yield "paper", _paper(summary), True
    for name, text in _files(summary, "export --resume {}", "prunes and fine-tunes"):
        yield name, text, False


def _files(summary: Mapping[str, Any], command: str, does: str) -> Iterator[tuple[str, str]]:
    """Yield where the result of `prune` is, and the command that may follow, of the file {}."""
    if "job_dir" not in summary:
        yield "next", f"the same command without --dry_run {does}"
        return
    folder, file = summary["job_dir"], summary["pruned_file"]
    yield "file", f"{file}, {megabytes(summary['pruned_file_bytes'])}"
    board = f"; tensorboard --logdir {folder}" * ("accuracy" in summary)
    yield "more", f"{folder}/summary.md{board}"
    words = [f"--arch {summary['arch']}"] if ":" in summary["arch"] else []
    words += _data_words(summary.get("options", {}))
    yield "next", " ".join(["python main.py", command.format(file), *words])


def _data_words(options: Mapping[str, Any]) -> list[str]:
    """Return the words that name a run's images, but for what every command takes by itself."""
    dataset = options.get("dataset", "cifar10")
    usual = {
        "dataset": "cifar10",
        "data_dir": "data",
        "normalization": default_normalization(dataset),
    }
    return [
        f"--{name} {shlex.quote(str(options[name]))}"
        for name, value in usual.items()
        if options.get(name, value) != value
    ]


def _ended(text: str, last: Iterable[tuple[str, str]]) -> str:
    return "\n".join([text, *(f"{name:11s} {said}" for name, said in last)])


def weights_screen(summary: Mapping[str, Any]) -> str:
    """Return the summary of `prune --granularity weight` (of its dry run too) for a terminal."""
    last = _files(summary, "evaluate --sparse --resume {}", "prunes and fine-tunes")
    return _ended(weights_markdown(summary), last)


def zeros_screen(summary: Mapping[str, Any]) -> str:
    """Return the summary of `prune --remove_zeros` (of its dry run too) for a terminal."""
    last = _files(summary, "export --resume {}", "removes them")
    return _ended(zeros_markdown(summary), last)


def scan_screen(summary: Mapping[str, Any]) -> str:
    """Return the summary of `scan` for a terminal."""
    folder = summary["job_dir"]
    last = [("more", f"{folder}/scan.csv, {folder}/summary.md; tensorboard --logdir {folder}")]
    if pruned_by(summary["options"])[0] == "filters":
        following = f"prune --target_macs 0.5 --allocation sensitivity --scan {folder}"
        last.append(("next", f"python main.py {following}, with the same network and criterion"))
    return _ended(scan_markdown(summary), last)


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
    said, of = f"{' -> '.join(shown)} ({low:.1f} to {high:.1f}", counted(last["images"], "image")
    whole = f"{said}, {of}){tuned}"
    return whole if len(whole) <= _WIDTH - 12 else f"{said}){tuned}"


def _step(row: Mapping[str, Any]) -> str:
    shown = " -> ".join(step_cells(row))
    return f"{row['filters_removed']} filters removed: {shown} fine-tuned"


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
