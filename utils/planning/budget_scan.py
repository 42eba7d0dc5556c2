"""The scan that says what each layer loses, for automatic rates: given, found, or made."""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from utils.graph.network import Network
from utils.metrics.accuracy import ACCURACY
from utils.options.prune_options import PruneConfig
from utils.options.scan_options import ScanConfig
from utils.planning.scanning import ScanPlan, plan_scan
from utils.runs.job_folder import JobFolder
from utils.runs.json_files import read_json
from utils.runs.notes import note
from utils.runs.regular_file import is_there
from utils.runs.schema import OBJECT, TEXT, Nullable, Optional, check, number

_SCAN = {  # the schema of a scan's config.json
    "checkpoint_sha256": Nullable(TEXT),
    "resume": Optional(Nullable(TEXT)),
    "rates": [number(0, below=1)],
    "masks_sha256": TEXT,
}


def scan_folder_for(
    config: PruneConfig,
    dense: Network,
    scores: Mapping[str, Tensor],
    *,
    make_scan: Callable[[ScanPlan], Any],
) -> Path:
    """Return the folder of a finished scan of this network by these scores.

    That is the one given or, made by `make_scan` where it is missing, the one that `scan` writes by
    default.

    Raises:
        ValueError: the one given is another network's or criterion's, or is not finished; or there
            is none, and a dry run makes none.
    """
    shared = [field.name for base in ScanConfig.__bases__ for field in fields(base)]
    names = {*shared, "group", "val_fraction"}
    scan = ScanConfig(**{name: getattr(config, name) for name in names})
    if config.scan is not None:
        _check_scan(config.scan, scan, dense, scores)
        return config.scan
    wanted = plan_scan(scan, dense, scores)
    folder = wanted.folder
    if not JobFolder(folder).summary_json.exists():
        if config.dry_run:
            raise ValueError(
                "--allocation sensitivity needs a scan, which --dry_run does not make: expected "
                f"one in {folder}, where `python main.py scan {_words(scan)}` writes it, or --scan"
            )
        note(f"scanning what each layer loses, into {folder}")
        make_scan(wanted)
    return folder


def dense_losses(scan: Path) -> tuple[float, float]:
    """Return accuracy (0 to 1) and cross-entropy of the dense network on a scan's images."""
    path = JobFolder(scan).summary_json
    dense = read_json(path, {"dense": ACCURACY}, "a scan's summary")["dense"]
    return dense["correct"] / dense["images"], dense["loss"]


def _check_scan(
    folder: Path, scan: ScanConfig, dense: Network, scores: Mapping[str, Tensor]
) -> None:
    """Refuse the folder of a scan that says nothing of this network and these scores."""
    job = JobFolder(folder)
    made = read_json(job.config, OBJECT, "a run's options") if is_there(job.summary_json) else {}
    if made.get("command") != "scan":
        raise ValueError(f"--scan {folder}: expected the folder of a finished `main.py scan`")
    check(made, _SCAN, f"{job.config}", "a scan's options")
    for name in ("arch", "criterion", "group", "granularity"):
        expected = getattr(scan, name)
        if made.get(name, expected) != expected:
            raise ValueError(
                f"--scan {folder} was made with {name} {made[name]}: expected {expected}, as here"
            )
    if made["checkpoint_sha256"] != dense.checkpoint_sha256:
        raise ValueError(
            f"--scan {folder} was made from {made.get('resume')}, a file with other bytes than the "
            "checkpoint to prune: expected a scan of the same network"
        )
    same = replace(scan, rates=tuple(made["rates"]))
    if made["masks_sha256"] != plan_scan(same, dense, scores).identity["masks_sha256"]:
        raise ValueError(
            f"--scan {folder} removed other filters than these scores do: expected a scan by the "
            "same rank files or, of criterion random, the same --seed"
        )


def _words(scan: ScanConfig) -> str:
    """Return the options that make this scan, as a command line has them."""
    words = []
    for field in fields(scan):
        value = getattr(scan, field.name)
        if value != field.default and field.name != "json":
            words.append(f"--{field.name}" + ("" if value is True else f" {value}"))
    return " ".join(words)
