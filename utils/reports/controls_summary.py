"""What the runs of an experiment say together: means over seeds, differences, and their spread."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from utils.metrics.accuracy import Accuracy
from utils.metrics.intervals import student_t_interval

Cell = Mapping[str, Any]  # a run, see `cell_of`
_BySeed = Mapping[int, Cell]  # runs that differ in nothing but the seed


def cell_of(level: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run's summary says for the experiment; accuracies are on the test images."""
    accuracy = summary["accuracy"]
    return {
        "criterion": summary["criterion"],
        "init": summary["init"],
        "level": level,
        "seed": summary["options"]["seed"],
        "compress_rate": summary["compress_rate"],
        **summary["physical"]["pruned"],
        "dense": {**summary["physical"]["dense"], "accuracy": accuracy["dense"]["test"]},
        "before": accuracy["pruned"]["test"],
        **(
            {"recalibrated": accuracy["recalibrated"]["test"]} if "recalibrated" in accuracy else {}
        ),
        "after": accuracy["finetuned_best"]["test"],
        "best_epoch": summary["best_epoch"],
        "seconds_of_finetuning": summary["seconds_of_finetuning"],
        "command": summary["environment"]["command"],
    }


def csv_rows(cells: Iterable[Cell]) -> list[dict[str, Any]]:
    """Return a flat row for each run."""
    names = ("criterion", "init", "level", "seed", "compress_rate", "macs", "parameters")
    return [
        {name: cell[name] for name in names}
        | {"images": cell["after"]["images"], "correct_dense": cell["dense"]["accuracy"]["correct"]}
        | {f"correct_{state}": cell[state]["correct"] for state in ("before", "after")}
        for cell in cells
    ]


def controls_summary(cells: Sequence[Cell], control: str) -> dict[str, Any]:
    """Return the dense network, a row for each level and criterion, and what each level finds.

    Differences are paired: run by run with the same seed. `minus_control` is None where the control
    was not run, and for itself; `scratch` and `minus_scratch` where nothing was trained from
    scratch. The dense network is the first run's, the same for all where the images are.
    """
    grid: dict[str, dict[str, dict[str, dict[int, Cell]]]] = {}
    for cell in cells:
        by_init = grid.setdefault(cell["level"], {}).setdefault(cell["criterion"], {})
        by_init.setdefault(cell["init"], {})[cell["seed"]] = cell
    rows, findings = [], []
    for level, by_criterion in grid.items():
        pruned = {criterion: runs["pruned"] for criterion, runs in by_criterion.items()}
        at_level = [
            _row(runs["pruned"], runs.get("scratch"), pruned.get(control))
            for runs in by_criterion.values()
        ]
        rows += at_level
        findings.append({"level": level, **_finding(at_level, pruned, control)})
    return {
        "dense": cells[0]["dense"],
        "control": control,
        "rows": rows,
        "findings": findings,
        "cells": list(cells),
    }


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Return mean, standard deviation and 95% Student interval of the mean; None for one value."""
    several = len(values) > 1
    return {
        "mean": mean(values),
        "deviation": stdev(values) if several else None,
        "interval": list(student_t_interval(values)) if several else None,
    }


def excludes_zero(difference: Mapping[str, Any]) -> bool:
    """Return whether a difference's interval has 0 outside; not known for a single seed."""
    interval = difference["interval"]
    return interval is not None and not interval[0] <= 0 <= interval[1]


def _row(pruned: _BySeed, scratch: _BySeed | None, control: _BySeed | None) -> dict[str, Any]:
    first = next(iter(pruned.values()))
    other = None if control is pruned else control
    states = [state for state in ("before", "recalibrated", "after") if state in first]
    return {
        "criterion": first["criterion"],
        "level": first["level"],
        "compress_rate": first["compress_rate"],
        "seeds": list(pruned),
        **{what: mean(run[what] for run in pruned.values()) for what in ("macs", "parameters")},
        **{state: _pooled(pruned, state) for state in states},
        "scratch": scratch and _pooled(scratch, "after"),
        "minus_scratch": scratch and _difference(pruned, scratch, "after"),
        "before_minus_control": other and _difference(pruned, other, "before"),
        "minus_control": other and _difference(pruned, other, "after"),
    }


def _pooled(runs: _BySeed, state: str) -> dict[str, Any]:
    """Return top-1 over the seeds, in percent, and all their answers counted together.

    The pooled interval, Wilson's, takes every answer for an independent one.
    """
    found = [run[state] for run in runs.values()]
    correct, images = (sum(test[what] for test in found) for what in ("correct", "images"))
    pooled = Accuracy(correct, images, mean(test["loss"] for test in found)).as_dict()
    return over_seeds([test["top1_percent"] for test in found]) | {"pooled": pooled}


def _difference(runs: _BySeed, others: _BySeed, state: str) -> dict[str, Any]:
    """Return the paired difference of top-1 over the seeds, in points."""
    percents = [
        (runs[seed][state]["top1_percent"], others[seed][state]["top1_percent"]) for seed in runs
    ]
    return over_seeds([one - other for one, other in percents])


def _finding(
    rows: Sequence[Mapping[str, Any]], pruned: Mapping[str, _BySeed], control: str
) -> dict[str, Any]:
    """Return the criterion with the best mean, and its lead on the next and on the control."""
    best, *others = (
        row["criterion"] for row in sorted(rows, key=lambda row: -row["after"]["mean"])
    )
    rivals = [name for name in others if name in (others[0], control)]
    return {
        "best": best,
        "leads": [
            {"over": name, **_difference(pruned[best], pruned[name], "after")} for name in rivals
        ],
        "above_scratch": _clear(rows, 1),
        "below_scratch": _clear(rows, -1),
    }


def _clear(rows: Sequence[Mapping[str, Any]], sign: int) -> list[str] | None:
    """Return the criteria whose difference to scratch is clearly of that sign; None: not known."""
    if rows[0]["minus_scratch"] is None or rows[0]["minus_scratch"]["interval"] is None:
        return None
    return [
        row["criterion"]
        for row in rows
        if excludes_zero(row["minus_scratch"]) and sign * row["minus_scratch"]["mean"] > 0
    ]
