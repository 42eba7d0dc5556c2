"""`main.py compare --experiment`: a grid of pruning runs, alike but for what is to be compared."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch

from utils.commands.prune import prune_command, run_identity
from utils.commands.ranks import RankConfig, ranks_command
from utils.commands.side_processes import call_side_by_side, threads_of_each
from utils.options.inputs import (
    RESULTS,
    DataOptions,
    DeviceOptions,
    NetworkOptions,
    checkpoint_of,
    note,
    open_device,
    open_images,
)
from utils.options.prune_options import PruneConfig
from utils.options.training_options import TrainingOptions, schedule_name
from utils.pruning.compress_rates import format_rates
from utils.pruning.criteria import CRITERIA, RANK_CRITERIA
from utils.rank.rank_files import read_manifest
from utils.rank.rank_layers import rank_layers
from utils.reports.controls_figures import draw_controls
from utils.reports.controls_summary import cell_of, controls_summary, csv_rows
from utils.reports.controls_table import controls_markdown
from utils.runs import processes
from utils.runs.atomic_write import write_csv, write_json, write_text
from utils.runs.checkpoint import sha256_of
from utils.runs.environment import environment
from utils.runs.job_folder import JobFolder, named_by, open_job
from utils.runs.options import as_dict, option, shared_options
from utils.training.schedules import SCHEDULES


class Experiment(NamedTuple):
    """What a grid compares; `control` is the criterion that the others must beat."""

    criteria: tuple[str, ...]
    control: str
    inits: tuple[str, ...]
    rates: tuple[float, ...]


EXPERIMENTS = {
    "controls": Experiment(
        ("rank", "l1", "l2", "fpgm", "bn_scale", "random", "reverse_rank"),
        control="random",
        inits=("pruned", "scratch"),
        rates=(0.4,),
    ),
    "sorting": Experiment(
        ("first", "input_norm"),
        control="first",
        inits=("pruned",),
        rates=(0.1, 0.2, 0.3, 0.4, 0.5),
    ),
}
# Another call in the same folder may have others: more cells, or the same ones elsewhere.
_MAY_DIFFER = ("criteria", "rates", "compress_rate", "seeds")
_MAY_DIFFER += ("json", "job_dir", "device", "gpu", "workers", "jobs")


@dataclass(frozen=True)
class ControlsConfig(TrainingOptions, NetworkOptions, DataOptions, DeviceOptions):
    """Options of `main.py compare --experiment`."""

    experiment: str = option(
        "controls",
        "controls: what the criterion and the weights that it leaves are worth; sorting: the first "
        "filters of every conv against those whose inputs the next layer weighs most",
        choices=tuple(EXPERIMENTS),
        group="experiment",
    )
    criteria: tuple[str, ...] = option(
        (), "what scores the filters (default: the experiment's)", group="experiment"
    )
    rates: tuple[float, ...] = option(
        (), "compress rates, each for all convs (default: the experiment's)", group="experiment"
    )
    compress_rate: str = option(
        "", "one level with rates of its own, in place of --rates", group="experiment"
    )
    seeds: tuple[int, ...] = option(
        (0, 1, 2),
        "what each run is repeated with: order and crops of the images, random's filters, fresh "
        "weights",
        group="experiment",
    )
    rank_conv: Path | None = option(
        None,
        "folder of the rank files (default: JOB_DIR/rank_conv, made where it is missing)",
        flags=("--rank_conv_prefix",),
        group="experiment",
    )
    num_images: int = option(500, "images to rank on", group="experiment")
    jobs: int = option(
        1,
        "runs at the same time, each in a process of its own with its share of the threads",
        group="experiment",
    )
    epochs: int = option(2, "epochs of every run", group="training")
    lr: float = option(0.05, "learning rate", flags=("--learning_rate",), group="training")
    lr_schedule: str = option(
        "cosine",
        "how the learning rate falls",
        choices=SCHEDULES,
        flags=("--lr_type",),
        type=schedule_name,
        group="training",
    )
    select_on: str = option(
        "last",
        "which epoch counts: the best on a validation split held out of train or on the test "
        "images, or the last",
        choices=("val", "test", "last"),
        group="training",
    )
    seed: int = option(0, "seed of the images to rank on; for the runs: --seeds", group="run")
    job_dir: Path | None = option(
        None,
        "folder of the experiment, and in it one of each run (default: result/ARCH/EXPERIMENT_...)",
        group="run",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.untrained:
            raise ValueError("--untrained with --experiment: expected a trained checkpoint")
        for name, known in (("criteria", CRITERIA), ("rates", None), ("seeds", None)):
            values = getattr(self, name)
            if len(set(values)) < len(values) or not set(values) <= set(known or values):
                expected = f"some of {', '.join(known)}" if known else "numbers"
                raise ValueError(f"--{name} is {values}: expected {expected}, each once")
        if not self.seeds:
            raise ValueError("--seeds is empty: expected at least one, such as 0,1,2")
        if self.compress_rate and self.rates:
            raise ValueError("--compress_rate with --rates: expected one of them")
        if self.epochs < 1:
            raise ValueError(f"--epochs is {self.epochs}: expected 1 or more")
        if self.jobs < 1:
            raise ValueError(f"--jobs is {self.jobs}: expected 1 or more")
        list(self.runs(Path(), checkpoint=None, ranks=Path()))  # refuses what is wrong with them

    @property
    def plan(self) -> Experiment:
        """The experiment, with what is asked for in place of its own."""
        known = EXPERIMENTS[self.experiment]
        return known._replace(
            criteria=self.criteria or known.criteria, rates=self.rates or known.rates
        )

    def levels(self) -> dict[str, str]:
        """Return {name: compress rates of the network} of each level of pruning."""
        if self.compress_rate:
            return {"own": self.compress_rate}
        convs = rank_layers(self.arch).num_rates
        return {f"{rate:g}": format_rates([rate] * convs) for rate in self.plan.rates}

    def runs(
        self, folder: Path, *, checkpoint: Path | None, ranks: Path
    ) -> Iterator[tuple[str, PruneConfig]]:
        """Yield the level and the options of every run, seed by seed.

        Each has its folder in `folder`: criterion_init_level_seed.
        """
        shared = shared_options(PruneConfig, self) | {
            "resume": checkpoint,
            "json": False,
            "num_images": PruneConfig.num_images,  # those here are for rank files
        }
        plan, levels = self.plan, self.levels()
        for seed, level, criterion, init in product(self.seeds, levels, plan.criteria, plan.inits):
            own = {
                "criterion": criterion,
                "rank_conv": ranks if criterion in RANK_CRITERIA else None,
                "compress_rate": levels[level],
                "init": init,
                "seed": seed,
                "job_dir": folder / f"{criterion}_{init}_{level}_{seed}",
                "workers": -(-self.workers // self.jobs),  # 0 stays 0
            }
            yield level, PruneConfig(**shared | own)


def controls_command(config: ControlsConfig) -> dict[str, Any]:
    """Make the runs that the experiment lacks, and return the summary that its folder gets, too.

    Called again it goes on where it was stopped; with more seeds, rates or criteria it makes the
    runs that are new.

    Raises:
        ValueError: bad input, or a folder that holds runs with other options.
    """
    device = _device(config)
    checkpoint = checkpoint_of(config)
    options = as_dict(config, without=_MAY_DIFFER)
    identity = {"command": "compare", **options, "checkpoint_sha256": sha256_of(checkpoint)}
    folder = config.job_dir or RESULTS / config.arch / named_by(config.experiment, identity)
    with open_job(folder, identity) as job:
        ranks = config.rank_conv or _ranks(config, checkpoint, folder / "rank_conv")
        runs = list(config.runs(folder, checkpoint=checkpoint, ranks=ranks))
        if config.jobs > 1:
            _side_by_side(config, [run for _, run in runs], device)
        cells = []
        for number, (level, run) in enumerate(runs, start=1):
            outcome = _finished(run)
            if outcome is None:
                note(f"run {number} of {len(runs)}: {run.job_dir.name}")
                outcome = prune_command(run)
            cells.append(cell_of(level, outcome))
        summary = {
            "command": "compare",
            "experiment": config.experiment,
            "arch": config.arch,
            "checkpoint": str(checkpoint),
            "job_dir": str(folder),
            "dataset": outcome["dataset"],
            "train_images": outcome["train_images"],
            **controls_summary(cells, config.plan.control),
            "options": identity | as_dict(config),
            "environment": environment(device) | {"threads": threads_of_each(config.jobs)},
        }
        write_csv(folder / "controls.csv", csv_rows(cells))
        draw_controls(folder / "controls.png", summary)
        write_text(job.summary_markdown, controls_markdown(summary))
        write_json(job.summary_json, summary)
    return summary


def _device(config: ControlsConfig) -> torch.device:
    """Return the device of the runs.

    Raises:
        ValueError: it cannot be had, or not by several runs at the same time.
    """
    device = open_device(config.device, config.gpu)
    if config.jobs > 1 and (device.type != "cpu" or processes.num_processes() > 1):
        where = "under torchrun" if processes.num_processes() > 1 else f"on {device}"
        raise ValueError(f"--jobs is {config.jobs}: expected 1 {where}; the CPU takes several")
    return device


def _side_by_side(
    config: ControlsConfig, runs: Sequence[PruneConfig], device: torch.device
) -> None:
    """Make the runs that are not finished, `config.jobs` at a time."""
    to_make = {run.job_dir.name: run for run in runs if _finished(run) is None}
    if to_make:
        open_images(config, config.arch, device)  # downloaded once, where they have to be
        call_side_by_side(prune_command, to_make, config.jobs)


def _ranks(config: ControlsConfig, checkpoint: Path, folder: Path) -> Path:
    """Return the folder of the experiment's rank files, made where a criterion lacks them."""
    made = (read_manifest(folder) or {"unfinished": True}).get("unfinished") is None
    if not made and set(config.plan.criteria) & set(RANK_CRITERIA):
        own = {"resume": checkpoint, "output": folder}
        ranks_command(RankConfig(**shared_options(RankConfig, config) | own))
    return folder


def _finished(run: PruneConfig) -> dict[str, Any] | None:
    """Return the summary of a run that is over, None for one that is not.

    Raises:
        ValueError: its folder was made with other options.
    """
    if not JobFolder(run.job_dir).summary_json.exists():
        return None
    with open_job(run.job_dir, run_identity(run, run.resume)) as job:
        return json.loads(job.summary_json.read_text())
