"""The kept runs as tables: one for each network and recipe, a row for each criterion."""

import textwrap
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from utils.metrics.intervals import student_t_interval
from utils.paper.markdown import counted, millions, table
from utils.paper.measured_differences import difference, families, not_told_apart
from utils.paper.measured_runs import Group
from utils.paper.tables import rows_of

COMPARED = ("l1", "random")  # what the other rows are set beside
_FIRST = ("rank", *COMPARED, "l1 from scratch", "nothing removed")  # rows of the finding
_STATES = ("dense", "pruned", "recalibrated")  # before fine-tuning, as far as a run has them
_DATASETS = {"cifar10": "CIFAR-10"}
_WORDS = {"rank": "rank", "l1": "L1 norm", "random": "random filters"}
_LEGEND = """\
*Removed by*: the criterion; in brackets the number of the run below. *Paper's MACs* are counted by
the paper's rule, MACs and parameters are those of the network that is really there. Percentages are
top-1 on the test images: the checkpoint as it came, pruned before any fine-tuning, and fine-tuned.
Several seeds are shown as their mean ± standard deviation. The 95% confidence interval is Wilson's
for one run (other test images), and Student's t of the mean for several (other seeds). *To l1* and
*to random*: points ahead of that row. **Bold**: told apart, all 95% intervals of the difference
exclude zero. *Over seeds*: Student's t for differences at equal seeds. *Over images*: Newcombe's
interval, as if both networks had answered images of their own. Each interval is for one pair: of
twenty pairs that are really equal, one is outside by chance. *Time*: how many times as fast as the
dense network, measured in turns on an idle machine."""

_SHORT_LEGEND = """\
*Paper's MACs*: by the paper's rule, *MACs*: really there. *Time*: times as fast as dense. *To l1*,
*to random*: points of top-1 ahead, **bold** if the 95% intervals exclude zero.
[More results](utils/paper/README.md#results)."""

Row = Mapping[str, str]  # cell by column


def results_text(groups: Sequence[Group]) -> str:
    """Return a table for each network and recipe, best row first."""
    parts = [part for family in families(groups) for part in _result(family)]
    return "\n\n".join([*parts, _LEGEND])


def finding_text(groups: Sequence[Group]) -> str:
    """Return three sentences and a table of six rows at most: the longest training with controls.

    Without runs by rank and by another criterion, with equal rates and recipe, it is empty.
    """
    found = [family for family in families(groups) if _treatments(family) >= {"rank", COMPARED[0]}]
    if not found:
        return ""
    family = max(found, key=_trained_images)
    said = (_what_was_done(family), _who_is_ahead(family), _what_was_published(family))
    shown = sorted(family, key=_place)[:5]
    rows = [_row(group, family) for group in _best_first(shown)]
    short = [
        {column: cell.split(" (")[0] for column, cell in row.items() if column != "parameters"}
        for row in [*rows, *_paper(family)]
    ]
    prose, legend = (textwrap.fill(text, 120) for text in (" ".join(said), _SHORT_LEGEND))
    return "\n\n".join([prose, _table(short), legend])


def _result(family: Sequence[Group]) -> tuple[str, str]:
    run, there = family[-1].first, _best_first(family)
    heading = (
        f"**{run.summary['arch']}**, {counted(run.epochs, 'epoch')} on "
        f"{run.summary['train_images']:,} train images of {run.summary['dataset']}, "
        f"{run.tuned.images:,} test images. {not_told_apart(there)}"
    )
    rows = [_row(group, family) for group in there]
    return heading.strip(), _table([*rows, *_paper(family)])


def _table(rows: Sequence[Row]) -> str:
    """Return the rows as a table, without the columns that are empty."""
    columns = dict.fromkeys(column for row in rows for column in row)
    filled = [column for column in columns if any(row.get(column) for row in rows)]
    return table(filled, [[row.get(column, "") for column in filled] for row in rows])


def _row(group: Group, family: Sequence[Group]) -> dict[str, str]:
    return {
        "removed by": group.label,
        "paper's MACs": _left(group, "paper_rule", "macs"),
        "MACs": _left(group, "physical", "macs"),
        "parameters": _left(group, "physical", "parameters"),
        **{f"time, {setting}": ratio for setting, ratio in _speedups(group).items()},
        "dense -> pruned -> tuned": _course(group),
        "95% interval": _interval(group),
        **{f"to {name}": _ahead(group, family, name) for name in COMPARED},
    }


def _paper(family: Sequence[Group]) -> list[Row]:
    """Return the published row, if there is one; its counts are by the paper's rule."""
    found = next((run for group in family for run in group.runs if _published(run.summary)), None)
    if found is None:
        return []
    paper = found.summary["paper"]
    dense, pruned = _published(found.summary)
    counts = paper["macs"]["published"], paper["parameters"]["published"]
    return [
        {
            "removed by": f"*paper, {paper['row']}*",
            "paper's MACs": counts[0],
            "parameters": counts[1],
            "dense -> pruned -> tuned": f"{dense} -> {pruned}%",
        }
    ]


def _published(summary: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the published accuracies, dense and pruned; None where nothing was published."""
    paper = summary["paper"]
    if paper is None or paper["row"] == "baseline":
        return None
    baseline = rows_of(paper["arch"], paper.get("publication", "HRank").lower())[0]
    return baseline.top1_percent.text, paper["top1_percent"]["published"]


def _left(group: Group, rule: str, what: str) -> str:
    """Return what is left of MACs or parameters; which filters are removed may vary with seeds."""
    dense, pruned = (
        mean(run.summary[rule][state][what] for run in group.runs) for state in ("dense", "pruned")
    )
    return f"{millions(pruned)} (-{100 * (1 - pruned / dense):.1f}%)"


def _speedups(group: Group) -> dict[str, str]:
    """Return {setting: how many times as fast}, where it was measured on an idle machine."""
    found = next((run.speedups for run in group.runs if run.speedups), {})
    return {setting: f"{ratio:.2f} x" for setting, ratio in found.items()}


def _course(group: Group) -> str:
    """Return top-1 through the states of a run."""
    states = [state for state in _STATES if state in group.first.summary["accuracy"]]
    before = [f"{group.mean_percent(state):.2f}" for state in states]
    tuned = group.top1_percents()
    deviation = f" ± {stdev(tuned):.2f}" if len(tuned) > 1 else ""
    return " -> ".join([*before, f"{mean(tuned):.2f}%{deviation}"])


def _interval(group: Group) -> str:
    tuned = group.top1_percents()
    one = group.first.tuned.interval_percent()
    low, high = student_t_interval(tuned) if len(tuned) > 1 else one
    return f"{low:.2f} to {high:.2f}"


def _ahead(group: Group, family: Sequence[Group], treatment: str) -> str:
    """Return how far a group is ahead of that of `treatment`."""
    other = _of(family, treatment)
    return "" if other is None or other is group else str(difference(group, other))


def _of(family: Sequence[Group], treatment: str) -> Group | None:
    return next((group for group in family if group.first.treatment == treatment), None)


def _treatments(family: Sequence[Group]) -> set[str]:
    return {group.first.treatment for group in family}


def _trained_images(family: Sequence[Group]) -> int:
    run = family[-1].first
    return run.summary["train_images"] * run.epochs


def _place(group: Group) -> int:
    treatment = group.first.treatment
    return _FIRST.index(treatment) if treatment in _FIRST else len(_FIRST)


def _best_first(family: Sequence[Group]) -> list[Group]:
    return sorted(family, key=lambda group: -mean(group.top1_percents()))


def _what_was_done(family: Sequence[Group]) -> str:
    run = family[-1].first
    dataset = run.summary["dataset"]
    row = run.summary["paper"]
    rates = (
        "equal compress rates" if row is None else f"the paper's compress rates for {row['row']}"
    )
    return (
        f"**The finding.** A `{run.summary['arch']}` was pruned at {rates} by several criteria, "
        f"each fine-tuned for {counted(run.epochs, 'epoch')} on "
        f"{run.summary['train_images']:,} images of {_DATASETS.get(dataset, dataset)}."
    )


def _who_is_ahead(family: Sequence[Group]) -> str:
    """Return the sentence on rank beside the criteria that it is compared with."""
    rank, said = _of(family, "rank"), []
    for name in COMPARED:
        other = _of(family, name)
        if other is not None:
            found = difference(rank, other)
            side = "ahead of" if found.points > 0 else "behind"
            doubt = "" if found.told_apart else ", which is within the noise"
            said.append(f"{abs(found.points):.2f} points {side} {_WORDS[name]}{doubt}")
    return f"Rank ends {' and '.join(said)}."


def _what_was_published(family: Sequence[Group]) -> str:
    rows = _paper(family)
    if not rows:
        return "The paper has no row for it."
    accuracies = rows[0]["dense -> pruned -> tuned"]
    return f"The paper's row, {accuracies}, took 30 epochs of fine-tuning for each layer."
