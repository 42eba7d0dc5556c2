"""Which kept runs are ahead of which on the same test images, and how sure that is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean

from utils.metrics.accuracy import Accuracy
from utils.metrics.intervals import difference_interval_percent, student_t_interval
from utils.paper.markdown import counted, table
from utils.paper.measured_runs import Group, same_recipe

_LEGEND = """\
Points of top-1, fine-tuned, that the first is ahead of the second, and 95% intervals; **bold**:
all of them exclude zero, the two are told apart. *Over seeds*: Student's t interval of the
differences at equal seeds, for other seeds on these test images. *Over images*: Newcombe's interval
of the mean over the seeds, for other test images at these seeds, as if the two had answered images
of their own; which images a run has right is not kept, and pairs of answers would make it narrower.
Each interval is for one pair: of twenty pairs that are really equal, one is outside by chance."""


@dataclass(frozen=True)
class Difference:
    """Points of top-1 that one group is ahead, and {what it is over: the 95% interval}."""

    points: float
    intervals: Mapping[str, tuple[float, float]]

    @property
    def told_apart(self) -> bool:
        """Whether every interval excludes zero."""
        return all(low > 0 or high < 0 for low, high in self.intervals.values())

    def __str__(self) -> str:
        points = f"**{self.points:+.2f}**" if self.told_apart else f"{self.points:+.2f}"
        ranges = (
            f"{low:+.2f} to {high:+.2f} over {others}"
            for others, (low, high) in self.intervals.items()
        )
        return f"{points} ({', '.join(ranges)})"


def difference(one: Group, other: Group, dataset: str) -> Difference:
    """Return how far `one` is ahead of `other` on the test images of `dataset`, once fine-tuned.

    Of several runs with seeds in common it is the mean over these seeds; else that of a run each,
    of a common seed where there is one.
    """
    ours, theirs = one.tuned(dataset), other.tuned(dataset)
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        ours, theirs, seeds = {0: ours[min(ours)]}, {0: theirs[min(theirs)]}, [0]
    points = [ours[seed].top1_percent - theirs[seed].top1_percent for seed in seeds]
    means = (_mean([found[seed] for seed in seeds]) for found in (ours, theirs))
    intervals = {"seeds": student_t_interval(points)} if len(seeds) > 1 else {}
    intervals["images"] = difference_interval_percent(*means)
    return Difference(mean(points), intervals)


def _mean(accuracies: Sequence[Accuracy]) -> Accuracy:
    """Return the mean of accuracies on the same images, in whole answers."""
    correct, loss = (mean(getattr(one, name) for one in accuracies) for name in ("correct", "loss"))
    return Accuracy(round(correct), accuracies[0].images, loss)


def fine_tuned_likewise(group: Group, groups: Sequence[Group]) -> Group | None:
    """Return the dense network, fine-tuned as `group` was; None where it was not, or is `group`."""
    for other in groups:
        run = other.first
        if run.removes_nothing and run.init == "pruned" and same_recipe(run, group.first):
            return None if other is group else other
    return None


def findings(groups: Sequence[Group]) -> list[str]:
    """Return, for each set of groups with equal rates and recipe, which are ahead, in Markdown.

    The dense network is among them where it was fine-tuned likewise. What it means is said below;
    where nothing can be compared, nothing is said.
    """
    families = [family for family in _families(groups) if len(family) > 1]
    tables = [text for family in families for text in (_orders(family), _pairs(family))]
    return [*tables, _LEGEND] if tables else []


def _families(groups: Sequence[Group]) -> list[list[Group]]:
    """Return the groups that may be set beside each other; the last one has something removed."""
    families: list[list[Group]] = []
    for group in groups:
        if group.first.removes_nothing:
            continue
        alike = [family for family in families if _equal_rates(family[-1], group)]
        if alike:
            alike[0].append(group)
        else:
            dense = fine_tuned_likewise(group, groups)
            families.append([group] if dense is None else [dense, group])
    return families


def _equal_rates(one: Group, other: Group) -> bool:
    rates = [group.first.summary["compress_rate"] for group in (one, other)]
    return rates[0] == rates[1] and same_recipe(one.first, other.first)


def _orders(family: Sequence[Group]) -> str:
    """Return, for each set of test images, the groups, best first, and who is not told apart."""
    run = family[-1].first
    epochs = counted(run.options["epochs"], "epoch")
    sentences = [f"{run.summary['arch']}, {epochs} of {run.summary['dataset']}"]
    for dataset in _datasets(family):
        order = _best_first(family, dataset)
        listed = [f"{group.label} {group.top1_percent(dataset):.2f}%" for group in order]
        open_pairs = [
            f"{one.label} from {other.label}"
            for one, other in combinations(order, 2)
            if not difference(one, other, dataset).told_apart
        ]
        verdict = f"not told apart: {', '.join(open_pairs)}" if open_pairs else "all told apart"
        sentences.append(f"On the test images of {dataset}: {', '.join(listed)}; {verdict}")
    return ". ".join(sentences) + "."


def _pairs(family: Sequence[Group]) -> str:
    """Return the table of the differences between any two groups on each set of test images."""
    datasets = _datasets(family)
    rows = [
        (
            f"{one.label} - {other.label}",
            *(
                str(difference(one, other, dataset))
                if one.tuned(dataset) and other.tuned(dataset)
                else ""
                for dataset in datasets
            ),
        )
        for one, other in combinations(_best_first(family, datasets[0]), 2)
    ]
    return table(("pair", *datasets), rows)


def _datasets(family: Sequence[Group]) -> list[str]:
    """Return whose test images two groups or more were evaluated on."""
    every = [dataset for group in family for dataset in group.datasets]
    return [dataset for dataset in dict.fromkeys(every) if every.count(dataset) > 1]


def _best_first(family: Sequence[Group], dataset: str) -> list[Group]:
    there = [group for group in family if group.tuned(dataset)]
    return sorted(there, key=lambda group: -group.top1_percent(dataset))
