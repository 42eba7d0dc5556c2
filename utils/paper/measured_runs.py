"""Finished runs of `prune` that are kept as evidence: taken in, read, grouped over their seeds.

`measured/ARCH/RUN/` holds a run's `summary.json` and, where it was measured on an idle machine,
`latency.json`: what `main.py evaluate --resume CKPT --against RUN/pruned.pt --json` printed.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from utils.metrics.accuracy import ACCURACY, Accuracy
from utils.paper.markdown import counted
from utils.runs.atomic_write import write_json
from utils.runs.choices import RANK_CRITERIA
from utils.runs.job_folder import JobFolder
from utils.runs.json_files import read_json
from utils.runs.regular_file import is_there
from utils.runs.schema import OBJECT, TEXT, MapOf, whole

FOLDER = Path(__file__).with_name("measured")
_LATENCY = "latency.json"

# Options that may differ between runs that are set beside each other, and where their files lie:
# the checkpoint is known by its digest, the images by their dataset and number.
_VARIED = {"seed", "criterion", "init", "compress_rate", "rank_conv", "resume", "data_dir"}
_VARIED |= {"schedule", "epochs"}  # epochs are compared in all

# What tables show of a summary, besides its accuracies and options.
_SHOWN = ("arch", "criterion", "compress_rate", "paper_rule", "physical", "paper", "train_images")
_SHOWN += ("best_epoch", "seconds_of_finetuning", "latency", "environment")

_json = partial(read_json, schema=OBJECT, expected="what a command wrote")
_COUNTS = {state: {"macs": whole(1), "parameters": whole(1)} for state in ("dense", "pruned")}
_SUMMARY = {  # the schema of the summary of a run of `prune`, which this reads and others show
    "arch": TEXT,
    "criterion": TEXT,
    "compress_rate": TEXT,
    "options": OBJECT,
    "physical": _COUNTS,
    "paper_rule": _COUNTS,
    "accuracy": MapOf(MapOf(ACCURACY)),
}


@dataclass(frozen=True)
class Run:
    """A run of `prune` with fine-tuning: its summary, and how often it is right afterwards.

    `tuned` is the accuracy of the weights in `pruned.pt` on the test images. `speedups` are
    {setting: time of the dense network divided by that of the pruned one}, empty where they were
    not measured.
    """

    place: Path
    summary: Mapping[str, Any]
    tuned: Accuracy
    speedups: Mapping[str, float]

    @property
    def options(self) -> Mapping[str, Any]:
        """The options of the run."""
        return self.summary["options"]

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.options["seed"]

    @property
    def init(self) -> str:
        """Where the small network's weights came from: "pruned" or "scratch"."""
        return self.options.get("init", "pruned")

    @property
    def schedule(self) -> str:
        """How the filters went: "oneshot", "layerwise" or "iterative"."""
        return self.options.get("schedule", "oneshot")

    @property
    def epochs(self) -> int:
        """How many epochs of fine-tuning there were in all stages together."""
        in_stages = self.schedule != "oneshot"
        return self.summary["epochs_trained"] if in_stages else self.options["epochs"]

    @property
    def treatment(self) -> str:
        """What was done to the network, in words."""
        scratch = " from scratch" if self.init == "scratch" else ""
        if self.removes_nothing:
            return f"nothing removed{scratch}"
        ranks = self.options["rank_conv"]
        ranked = ranks and self.summary["criterion"] in RANK_CRITERIA
        by = f" of {Path(ranks).name}" if ranked else ""
        how = {"layerwise": ", layer by layer", "iterative": ", in steps"}.get(self.schedule, "")
        return f"{self.summary['criterion']}{by}{how}{scratch}"

    @property
    def removes_nothing(self) -> bool:
        """Whether the dense network itself was trained."""
        return removes_nothing(self.summary)


def removes_nothing(summary: Mapping[str, Any]) -> bool:
    """Whether the network that a run of `prune` left is the dense one."""
    return summary["physical"]["dense"] == summary["physical"]["pruned"]


def same_recipe(one: Run, other: Run) -> bool:
    """Whether both trained the same architecture and checkpoint on the same images alike.

    An option that one of them does not have, being older, does not tell them apart.
    """
    options = (one.options.keys() & other.options.keys()) - _VARIED
    return (
        one.epochs == other.epochs
        and all(one.options[name] == other.options[name] for name in options)
        and all(one.summary[name] == other.summary[name] for name in ("dataset", "train_images"))
    )


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone, by rising seed, and their number in the tables."""

    number: int
    runs: tuple[Run, ...]

    @property
    def first(self) -> Run:
        """The run of the lowest seed, for what all have in common."""
        return self.runs[0]

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.number}: {self.first.summary['arch']}, {self.first.treatment}"

    @property
    def label(self) -> str:
        """What sentences call it that name the network already."""
        return f"{self.first.treatment} ({self.number})"

    def mean_percent(self, state: str) -> float:
        """Return the mean top-1 on the test images in a state of the summaries."""
        found = (run.summary["accuracy"][state]["test"]["top1_percent"] for run in self.runs)
        return mean(found)

    def top1_percents(self) -> list[float]:
        """Return the fine-tuned top-1 in percent, by rising seed."""
        return [run.tuned.top1_percent for run in self.runs]


def grouped(runs: Iterable[Run]) -> list[Group]:
    """Return the runs in groups over their seeds, by network, data and epochs, numbered.

    Raises:
        ValueError: two members have the same seed.
    """
    groups: list[list[Run]] = []
    for run in sorted(runs, key=_order):
        group = next((group for group in groups if _differ_in_seed(group[0], run)), None)
        if group is None:
            groups.append([run])
            continue
        same = [other.place for other in group if other.seed == run.seed]
        if same:
            raise ValueError(
                f"{same[0]} and {run.place} are the same run twice: expected another seed or recipe"
            )
        group.append(run)
    return [Group(number, tuple(group)) for number, group in enumerate(groups, start=1)]


def _order(run: Run) -> tuple[Any, ...]:
    images = run.summary["arch"], run.summary["dataset"], run.epochs
    rates = not run.removes_nothing, run.summary["compress_rate"]
    return *images, *rates, run.treatment, run.seed


def _differ_in_seed(one: Run, other: Run) -> bool:
    treatments = [
        (
            *(run.summary["criterion"], run.summary["compress_rate"]),
            *(run.init, run.schedule, run.options["rank_conv"]),
        )
        for run in (one, other)
    ]
    return treatments[0] == treatments[1] and same_recipe(one, other)


def read_runs(folder: Path = FOLDER) -> list[Run]:
    """Return all runs that are kept in `folder`, network by network, by name.

    Raises:
        ValueError: a file is not what `prune` or `evaluate` writes.
    """
    places = sorted(path for path in folder.glob("*/*") if path.is_dir())
    return [_run(place) for place in places]


def take_in(job_dir: Path, folder: Path = FOLDER) -> Path:
    """Copy the JSON files of a job folder that are kept into `folder`, and return their place.

    Raises:
        ValueError: it holds no finished run, or another run of that name is kept already.
    """
    job = JobFolder(job_dir.resolve())
    summary = _run(job.path).summary
    kept = JobFolder(folder / summary["arch"] / job.path.name)
    if kept.summary_json.exists() and _json(kept.summary_json) != summary:
        raise ValueError(
            f"{kept.path} holds another run: expected a job folder of another name, or delete it"
        )
    write_json(kept.summary_json, summary)
    if (job.path / _LATENCY).exists():
        write_json(kept.path / _LATENCY, _json(job.path / _LATENCY))
    return kept.path


def read_summary(job: JobFolder) -> Mapping[str, Any]:
    """Return the summary of a finished run.

    Raises:
        ValueError: there is none, or it is not JSON.
    """
    if not is_there(job.summary_json):
        raise ValueError(
            f"{job.path} holds no {job.summary_json.name}: expected the folder of a "
            "finished run of `prune`"
        )
    return read_json(job.summary_json, _SUMMARY, "the summary of a run of `prune`")


def _run(place: Path) -> Run:
    job = JobFolder(place)
    summary = read_summary(job)
    with _absence_named(job.summary_json, "the summary of a run of `prune` with fine-tuning"):
        for name in _SHOWN:
            summary[name]  # KeyError: it cannot be shown
        found = summary["accuracy"]["finetuned_best"]["test"]
        tuned = Accuracy(found["correct"], found["images"], found["loss"])
        return Run(place, summary, tuned, _speedups(place, summary["pruned_file"]))


def _speedups(place: Path, pruned_file: str) -> dict[str, float]:
    """Return what `latency.json` says of the run's network, if it is there.

    Raises:
        ValueError: it is of another network, or not what `evaluate --against` prints.
    """
    path = place / _LATENCY
    if not path.exists():
        return {}
    found = _json(path)
    with _absence_named(path, "what `main.py evaluate --against pruned.pt --json` prints"):
        pruned = found["against"]
        if Path(pruned["checkpoint"]).parts[-2:] != Path(pruned_file).parts[-2:]:
            raise ValueError(f"{path} is of {pruned['checkpoint']}: expected {pruned_file}")
        pairs = zip(found["latency"], pruned["latency"], strict=True)
        return {
            counted(one["batch_size"], "image"): one["median_ms"] / other["median_ms"]
            for one, other in pairs
        }


@contextmanager
def _absence_named(path: Path, expected: str) -> Iterator[None]:
    """Turn an absent key of what `path` holds into a ValueError.

    Raises:
        ValueError: a key is absent.
    """
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} lacks {error}: expected {expected}") from None
