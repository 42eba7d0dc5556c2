"""`main.py compare --experiment`: a grid of pruning runs, alike but for what is to be compared."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from utils.commands.prune import prune_command
from utils.commands.ranks import ranks_command
from utils.options.controls_options import ControlsConfig
from utils.options.devices import open_device
from utils.options.images import open_images
from utils.options.networks import RESULTS, checkpoint_of, outline_of
from utils.options.prune_options import PruneConfig
from utils.options.rank_options import RankConfig
from utils.paper.measured_runs import read_summary
from utils.rank.rank_files import read_manifest
from utils.reports.controls_figures import draw_controls
from utils.reports.controls_summary import cell_of, controls_summary, csv_rows
from utils.reports.controls_table import controls_markdown
from utils.runs import processes
from utils.runs.atomic_write import write_csv, write_json, write_text
from utils.runs.checkpoint import sha256_of
from utils.runs.choices import RANK_CRITERIA
from utils.runs.environment import environment
from utils.runs.job_folder import JobFolder, named_by, open_job
from utils.runs.notes import note
from utils.runs.options import as_dict, shared_options
from utils.runs.side_processes import call_side_by_side, threads_of_each

# Another call in the same folder may have others: more cells, or the same ones elsewhere.
_MAY_DIFFER = ("criteria", "rates", "compress_rate", "seeds")
_MAY_DIFFER += ("json", "job_dir", "device", "gpu", "workers", "jobs")


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
    folder = config.job_dir or RESULTS / config.arch_folder / named_by(config.experiment, identity)
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
        open_images(
            config, outline_of(config), device, any_classes=True
        )  # downloaded once, where they have to be
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
    with open_job(run.job_dir, run.identity(sha256_of(run.resume))) as job:
        return read_summary(job)
