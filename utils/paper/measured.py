"""The pages' results: what the kept runs of `prune` measured, as tables.

`python -m utils.paper.measured [JOB_DIR...]` takes finished job folders into `measured/` beside
this file, their JSON files alone, and renews the pages' blocks `measured` and `finding`.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from utils.paper.markdown import counted, millions, portable, table
from utils.paper.measured_runs import Group, grouped, read_runs, take_in
from utils.paper.measured_tables import finding_text, results_text
from utils.paper.pages import write_block

_MADE = ("run", "seeds", "train images", "epochs", "training", "weights kept")
_MADE += ("minutes of training", "hardware", "versions")


def measured_text() -> str:
    """Return the kept runs as tables, with what their numbers say and how they were made.

    Raises:
        ValueError: a file is not what `prune` or `evaluate` writes, or a run is there twice.
    """
    groups = grouped(read_runs())
    parts = (
        results_text(groups),
        "<details><summary>How they were made: seeds, training, hardware, commands</summary>",
        table(_MADE, [_made(group) for group in groups]),
        *(_command(group) for group in groups),
        "</details>",
    )
    return "\n\n".join(parts)


def change(counts: Mapping[str, Any], what: str) -> str:
    """Return the "macs" or "parameters" of `dense` -> `pruned`, in millions, and by how much."""
    dense, pruned = counts["dense"][what], counts["pruned"][what]
    return f"{millions(dense)} -> {millions(pruned)} (-{100 * (1 - pruned / dense):.1f}%)"


def _made(group: Group) -> tuple[str, ...]:
    options, made = group.first.options, [run.summary["environment"] for run in group.runs]
    minutes = mean(run.summary["seconds_of_finetuning"] for run in group.runs) / 60
    return (
        group.name,
        ", ".join(str(run.seed) for run in group.runs),
        f"{group.first.summary['train_images']:,} of {group.first.summary['dataset']}",
        group.first.epochs,
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
    """Return the command of the first run."""
    others = ", ".join(str(run.seed) for run in group.runs[1:])
    likewise = f" (and with `--seed` {others})" if others else ""
    command = group.first.summary["environment"]["command"]
    return f"{group.name}{likewise}:\n\n    python {portable(command)}"


def main(argv: Sequence[str]) -> int:
    """Take in the job folders named in `argv`, renew the blocks, return the exit code."""
    try:
        for name in argv:
            print(f"{name} -> {take_in(Path(name))}")
        write_block("measured", measured_text())
        write_block("finding", finding_text(grouped(read_runs())))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
