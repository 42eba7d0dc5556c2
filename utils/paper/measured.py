"""The README's results: what the kept runs of `prune` measured, as tables.

`python -m utils.paper.measured [JOB_DIR...]` takes finished job folders into `measured/` beside
this file, their JSON files alone, and renews the README's block.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from utils.metrics.intervals import student_t_interval
from utils.paper.compare import EXACT
from utils.paper.markdown import counted, millions, table
from utils.paper.measured_differences import difference, findings, fine_tuned_likewise
from utils.paper.measured_runs import Group, grouped, read_runs, take_in
from utils.paper.readme_block import README, with_block
from utils.paper.tables import rows_of
from utils.runs.atomic_write import write_text

_COSTS = ("run", "MACs, paper rule", "MACs, physical", "parameters, paper rule")
_COSTS += ("parameters, physical", "published", "latency, one image", "latency, a batch")
_ACCURACIES = ("run", "fine-tuned on", "test images", "dense", "pruned", "fine-tuned", "right")
_ACCURACIES += ("95% interval", "to dense", "to dense, fine-tuned likewise")
_ACCURACIES += ("published", "to the published difference")
_MADE = ("run", "seeds", "train images", "epochs", "training", "weights kept")
_MADE += ("minutes of training", "hardware", "versions")
_LEGEND = """\
Means over the seeds, ± their standard deviation; *right* is of all runs together. The 95% interval
is Wilson's where there is one run (the choice of test images, not the seed), Student's t of the
mean where there are several (the seed, not the choice of images). *Dense* is the checkpoint as it
came, *pruned* before any fine-tuning, *fine-tuned* what `pruned.pt` holds; *fine-tuned likewise* is
the checkpoint with nothing removed, trained on the same images by the same recipe. *Published* is
on the 10,000 original test images."""


def measured_text() -> str:
    """Return the kept runs as tables, with what their numbers say and how they were made.

    Raises:
        ValueError: a file is not what `prune` or `evaluate` writes, or a run is there twice.
    """
    groups = grouped(read_runs())
    accuracies = [
        _accuracy(group, dataset, groups) for group in groups for dataset in group.datasets
    ]
    parts = (
        table(_ACCURACIES, accuracies),
        _LEGEND,
        *findings(groups),
        table(_COSTS, [_cost(group) for group in groups]),
        "<details><summary>How they were made: seeds, training, hardware, commands</summary>",
        table(_MADE, [_made(group) for group in groups]),
        *(_command(group) for group in groups),
        "</details>",
    )
    return "\n\n".join(parts)


def updated(readme: str) -> str:
    """Return the README's text with the block of the kept runs made anew.

    Raises:
        ValueError: if a marker is missing.
    """
    return with_block(readme, "measured", measured_text())


def change(counts: Mapping[str, Any], what: str) -> str:
    """Return the "macs" or "parameters" of `dense` -> `pruned`, in millions, and by how much."""
    dense, pruned = counts["dense"][what], counts["pruned"][what]
    return f"{millions(dense)} -> {millions(pruned)} (-{100 * (1 - pruned / dense):.1f}%)"


def _accuracy(group: Group, dataset: str, groups: Sequence[Group]) -> tuple[str, ...]:
    run, tuned = group.first, list(group.tuned(dataset).values())
    percents = [accuracy.top1_percent for accuracy in tuned]
    low, high = student_t_interval(percents) if len(tuned) > 1 else tuned[0].interval_percent()
    correct, images = (sum(getattr(one, name) for one in tuned) for name in ("correct", "images"))
    before = run.dense.get(dataset)
    points = None if before is None else mean(percents) - before.top1_percent
    reference = fine_tuned_likewise(group, groups)
    likewise = reference is not None and reference.tuned(dataset)
    own = dataset == run.summary["dataset"]
    return (
        group.name,
        f"{run.summary['dataset']}, {counted(run.options['epochs'], 'epoch')}",
        f"{dataset}, {tuned[0].images:,}",
        "" if before is None else f"{before.top1_percent:.2f}%",
        _spread(group, "pruned") if own else "",
        _with_deviation(percents) + (_last(group) if own else ""),
        f"{correct:,} of {images:,}",
        f"{low:.2f} to {high:.2f}",
        "" if points is None else f"{points:+.2f}",
        str(difference(group, reference, dataset)) if likewise else "",
        *_published(run.summary["paper"], points),
    )


def _spread(group: Group, state: str) -> str:
    """Return top-1 in a state of the summary, on its own test images."""
    return _with_deviation(
        [run.summary["accuracy"][state]["test"]["top1_percent"] for run in group.runs]
    )


def _last(group: Group) -> str:
    """Return top-1 of the last epoch where other weights were kept."""
    best, last = (_spread(group, f"finetuned_{which}") for which in ("best", "last"))
    return "" if best == last else f" (last epoch {last})"


def _with_deviation(percents: Sequence[float]) -> str:
    deviation = f" ± {stdev(percents):.2f}" if len(percents) > 1 else ""
    return f"{mean(percents):.2f}%{deviation}"


def _published(paper: Mapping[str, Any] | None, points: float | None) -> tuple[str, str]:
    """Return the published accuracies, and how far `points` is from their difference."""
    if paper is None or paper["row"] == "baseline":
        return "", ""
    baseline = rows_of(paper["arch"], paper.get("publication", "HRank").lower())[0]
    dense, pruned = baseline.top1_percent.text, paper["top1_percent"]["published"]
    published = float(pruned) - float(dense)
    beside = "" if points is None else f"{points - published:+.2f}"
    return f"{dense}% -> {pruned}% ({published:+.2f})", beside


def _cost(group: Group) -> tuple[str, ...]:
    paper = group.first.summary["paper"]
    return (
        group.name,
        *(
            change(_mean_counts(group, rule), what)
            for what in ("macs", "parameters")
            for rule in ("paper_rule", "physical")
        ),
        "" if paper is None else _published_counts(paper),
        _latency(group, "one_image"),
        _latency(group, "batch"),
    )


def _mean_counts(group: Group, rule: str) -> dict[str, dict[str, float]]:
    """Return MACs and parameters by a rule; which filters go may depend on the seed."""
    return {
        state: {
            what: mean(run.summary[rule][state][what] for run in group.runs)
            for what in ("macs", "parameters")
        }
        for state in ("dense", "pruned")
    }


def _published_counts(paper: Mapping[str, Any]) -> str:
    verdict = "exact" if paper["verdict"] == EXACT else paper["verdict"]
    return f"{paper['macs']['published']}, {paper['parameters']['published']} ({verdict})"


def _latency(group: Group, what: str) -> str:
    timed = [run.summary["latency"][what] for run in group.runs]
    dense, pruned = (
        mean(one[state]["median_ms"] for one in timed) for state in ("dense", "pruned")
    )
    images = timed[0]["dense"]["batch_size"]
    return f"{dense:.1f} -> {pruned:.1f} ms" + (f" for {images}" if images > 1 else "")


def _made(group: Group) -> tuple[str, ...]:
    options, made = group.first.options, [run.summary["environment"] for run in group.runs]
    minutes = mean(run.summary["seconds_of_finetuning"] for run in group.runs) / 60
    return (
        group.name,
        ", ".join(str(run.seed) for run in group.runs),
        f"{group.first.summary['train_images']:,} of {group.first.summary['dataset']}",
        options["epochs"],
        f"rate {options['lr']:g}, {_schedule(options)}, batch {options['train_batch_size']}",
        _kept_weights(group),
        f"{minutes:.0f}",
        _distinct(f"{one['device']}, {counted(one['threads'], 'thread')}" for one in made),
        _distinct(f"torch {one['torch']}, commit {one['commit']}" for one in made),
    )


def _schedule(options: Mapping[str, Any]) -> str:
    """Return how the learning rate falls."""
    if options["lr_schedule"] != "step":
        return options["lr_schedule"]
    return f"a tenth from epochs {', '.join(map(str, options['lr_decay_step']))}"


def _kept_weights(group: Group) -> str:
    epochs = ", ".join(str(run.summary["best_epoch"]) for run in group.runs)
    return {
        "last": "last epoch",
        "val": f"best on held-out train images (epoch {epochs})",
        "test": f"best on the TEST images (epoch {epochs})",
    }[group.first.options["select_on"]]


def _distinct(words: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(words))


def _command(group: Group) -> str:
    """Return the command of the first run, as it was typed."""
    others = ", ".join(str(run.seed) for run in group.runs[1:])
    likewise = f" (and with `--seed` {others})" if others else ""
    command = group.first.summary["environment"]["command"]
    return f"{group.name}{likewise}:\n\n    python {command}"


def main(argv: Sequence[str]) -> int:
    """Take in the job folders named in `argv`, renew the README's block, return the exit code."""
    try:
        for name in argv:
            print(f"{name} -> {take_in(Path(name))}")
        write_text(README, updated(README.read_text()))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
