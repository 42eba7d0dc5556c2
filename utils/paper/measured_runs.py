"""Finished runs of `prune` that are kept as evidence: taken in, read, grouped over their seeds.

`measured/ARCH/RUN/` holds a run's `summary.json` and, for other test images than its own, what
`main.py evaluate --json` found there of its `pruned.pt`: `on_DATASET.json`. `latency.json` is what
`evaluate CHECKPOINT --against pruned.pt` measured on an idle machine. A folder without a summary
holds what `evaluate` found of a dense checkpoint.
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
from utils.runs.job_folder import JobFolder
from utils.runs.json_files import read_json
from utils.runs.regular_file import is_there
from utils.runs.schema import OBJECT, TEXT, MapOf, whole

FOLDER = Path(__file__).with_name("measured")
_LATENCY = "latency.json"

# Options that may differ between runs that are set beside each other, and where their files lie:
# the checkpoint is known by its digest, the images by their dataset and number.
_VARIED = {"seed", "criterion", "init", "compress_rate", "rank_conv", "resume", "data_dir"}

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

Accuracies = Mapping[str, Accuracy]  # by the dataset that the test images are of


@dataclass(frozen=True)
class Run:
    """A run of `prune` with fine-tuning: its summary, and its accuracies on test images.

    `tuned` are those of the weights in `pruned.pt`, the run's own dataset first; `dense` those of
    the checkpoint, as far as they are known. `speedups` are {setting: time of the dense network
    divided by that of the pruned one}, empty where they were not measured.
    """

    place: Path
    summary: Mapping[str, Any]
    dense: Accuracies
    tuned: Accuracies
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
    def treatment(self) -> str:
        """What was done to the network before it was trained, in words."""
        removed = "nothing removed" if self.removes_nothing else self.summary["criterion"]
        return f"{removed} from scratch" if self.init == "scratch" else removed

    @property
    def removes_nothing(self) -> bool:
        """Whether the dense network itself was trained."""
        return self.summary["physical"]["dense"] == self.summary["physical"]["pruned"]


@dataclass(frozen=True)
class _Evaluation:
    """What `evaluate` found: of which checkpoint, on the test images of which dataset."""

    arch: str
    checkpoint: str
    form: str
    normalization: str
    dataset: str
    accuracy: Accuracy


def same_recipe(one: Run, other: Run) -> bool:
    """Whether both trained the same architecture and checkpoint on the same images alike.

    An option that one of them does not have, being older, does not tell them apart.
    """
    options = (one.options.keys() & other.options.keys()) - _VARIED
    return all(one.options[name] == other.options[name] for name in options) and all(
        one.summary[name] == other.summary[name] for name in ("dataset", "train_images")
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

    @property
    def datasets(self) -> tuple[str, ...]:
        """Whose test images a run was evaluated on, that of its training first."""
        return tuple(dict.fromkeys(dataset for run in self.runs for dataset in run.tuned))

    def tuned(self, dataset: str) -> dict[int, Accuracy]:
        """Return the accuracy on the test images of `dataset` by seed, as far as it is known."""
        return {run.seed: run.tuned[dataset] for run in self.runs if dataset in run.tuned}

    def mean_percent(self, state: str) -> float:
        """Return the mean top-1 in a state of the summaries, on their own test images."""
        found = (run.summary["accuracy"][state]["test"]["top1_percent"] for run in self.runs)
        return mean(found)

    def top1_percents(self, dataset: str) -> list[float]:
        """Return the percentages of `tuned`, by rising seed."""
        return [accuracy.top1_percent for accuracy in self.tuned(dataset).values()]

    def top1_percent(self, dataset: str) -> float:
        """Return the mean of `tuned` over the seeds."""
        return mean(self.top1_percents(dataset))


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
    images = run.summary["arch"], run.summary["dataset"], run.options["epochs"]
    rates = not run.removes_nothing, run.summary["compress_rate"]
    return *images, *rates, run.init, run.summary["criterion"], run.seed


def _differ_in_seed(one: Run, other: Run) -> bool:
    treatments = [
        (run.summary["criterion"], run.summary["compress_rate"], run.init, run.options["rank_conv"])
        for run in (one, other)
    ]
    return treatments[0] == treatments[1] and same_recipe(one, other)


def read_runs(folder: Path = FOLDER) -> list[Run]:
    """Return all runs that are kept in `folder`, network by network, by name.

    Raises:
        ValueError: a file is not what `prune` or `evaluate` writes.
    """
    places = sorted(path for path in folder.glob("*/*") if path.is_dir())
    dense = {
        (found.checkpoint, found.normalization, found.dataset): found.accuracy
        for place in places
        for found in _evaluations(place).values()
        if found.form == "dense"
    }
    return [_run(place, dense) for place in places if is_there(JobFolder(place).summary_json)]


def take_in(job_dir: Path, folder: Path = FOLDER) -> Path:
    """Copy the JSON files of a job folder that are kept into `folder`, and return their place.

    Raises:
        ValueError: it holds no finished run, nor evaluations of a checkpoint, or another run of
            that name is kept already.
    """
    job = JobFolder(job_dir.resolve())
    files = {name: _json(job.path / name) for name in _evaluations(job.path)}
    if (job.path / _LATENCY).exists():
        files[_LATENCY] = _json(job.path / _LATENCY)
    if is_there(job.summary_json) or not files:
        files[job.summary_json.name] = _run(job.path, {}).summary
    arch = next(iter(files.values()))["arch"]
    kept = JobFolder(folder / arch / job.path.name)
    before = kept.summary_json
    if before.exists() and _json(before) != files.get(before.name):
        raise ValueError(
            f"{kept.path} holds another run: expected a job folder of another name, or delete it"
        )
    for name, value in files.items():
        write_json(kept.path / name, value)
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


def _run(place: Path, dense: Mapping[tuple[str, str, str], Accuracy]) -> Run:
    """Read a run; `dense` has accuracies by checkpoint, normalization and dataset."""
    job = JobFolder(place)
    summary, evaluations = read_summary(job), _evaluations(place)
    with _absence_named(job.summary_json, "the summary of a run of `prune` with fine-tuning"):
        for name in _SHOWN:
            summary[name]  # KeyError: it cannot be shown
        own = summary["dataset"]
        states = summary["accuracy"]
        checkpoint, normalization = summary["checkpoint"], summary["options"]["normalization"]
        for name, found in evaluations.items():
            _check_evaluated(place / name, found, summary)
        tuned = {found.dataset: found.accuracy for found in evaluations.values()}
        keys = {name: (checkpoint, normalization, name) for name in tuned}
        return Run(
            place,
            summary,
            dense={own: _accuracy(states["dense"]["test"])}
            | {name: dense[key] for name, key in keys.items() if key in dense},
            tuned={own: _accuracy(states["finetuned_best"]["test"]), **tuned},
            speedups=_speedups(place, summary["pruned_file"]),
        )


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
        _check_same_file(path, pruned["checkpoint"], pruned_file)
        pairs = zip(found["latency"], pruned["latency"], strict=True)
        return {
            counted(one["batch_size"], "image"): one["median_ms"] / other["median_ms"]
            for one, other in pairs
        }


def _check_same_file(path: Path, checkpoint: str, pruned_file: str) -> None:
    """Check that it was the run's own network that was measured.

    Raises:
        ValueError: it was another one.
    """
    if Path(checkpoint).parts[-2:] != Path(pruned_file).parts[-2:]:
        raise ValueError(f"{path} is of {checkpoint}: expected {pruned_file}")


def _check_evaluated(path: Path, found: _Evaluation, summary: Mapping[str, Any]) -> None:
    """Check that it was the run's own network that was evaluated, on images like its own.

    Raises:
        ValueError: it was not.
    """
    _check_same_file(path, found.checkpoint, summary["pruned_file"])
    expected = summary["options"]["normalization"]
    if found.normalization != expected:
        raise ValueError(
            f"{path} is of images normalized as {found.normalization}: expected {expected}"
        )


def _evaluations(place: Path) -> dict[str, _Evaluation]:
    """Return what `evaluate` found on other test images, by file name."""
    return {path.name: _evaluation(path) for path in sorted(place.glob("on_*.json"))}


def _evaluation(path: Path) -> _Evaluation:
    found = _json(path)
    with _absence_named(path, "what `main.py evaluate --json` prints"):
        dataset, _, split = found["dataset"].rpartition(" ")
        if split == "train":
            raise ValueError(f"{path} is of {found['dataset']} images: expected test images")
        names = ("arch", "checkpoint", "form", "normalization")
        return _Evaluation(
            dataset=dataset, accuracy=_accuracy(found), **{name: found[name] for name in names}
        )


def _accuracy(found: Mapping[str, Any]) -> Accuracy:
    return Accuracy(found["correct"], found["images"], found["loss"])


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
