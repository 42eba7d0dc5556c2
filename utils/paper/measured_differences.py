"""Which kept runs are ahead of which, and how sure that is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean

from utils.metrics.accuracy import Accuracy
from utils.metrics.intervals import difference_interval_percent, student_t_interval
from utils.paper.measured_runs import Group, same_recipe


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


def difference(one: Group, other: Group) -> Difference:
    """Return how far `one` is ahead of `other` on the same test images, once fine-tuned.

    Of several runs with seeds in common it is the mean over these seeds; else that of a run each,
    of a common seed where there is one.
    """
    ours, theirs = ({run.seed: run.tuned for run in group.runs} for group in (one, other))
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


def families(groups: Sequence[Group]) -> list[list[Group]]:
    """Return the groups that may be set beside each other; the last one has something removed.

    They have equal rates and recipe; the dense network is among them where it was fine-tuned
    likewise.
    """
    found: list[list[Group]] = []
    for group in groups:
        if group.first.removes_nothing:
            continue
        alike = [family for family in found if _equal_rates(family[-1], group)]
        if alike:
            alike[0].append(group)
        else:
            dense = fine_tuned_likewise(group, groups)
            found.append([group] if dense is None else [dense, group])
    return found


def _equal_rates(one: Group, other: Group) -> bool:
    rates = [group.first.summary["compress_rate"] for group in (one, other)]
    return rates[0] == rates[1] and same_recipe(one.first, other.first)


def not_told_apart(family: Sequence[Group]) -> str:
    """Return the sentence that names the pairs that the test images cannot tell apart."""
    pairs = [
        f"{one.label} from {other.label}"
        for one, other in combinations(family, 2)
        if not difference(one, other).told_apart
    ]
    if pairs:
        return f"Not told apart: {', '.join(pairs)}."
    return "All are told apart." if len(family) > 1 else ""
