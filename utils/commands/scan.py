"""`main.py scan`: accuracy against compress rate, one layer or one tied group at a time."""

from typing import Any

from utils.metrics.cost import physical_cost
from utils.options.images import open_images
from utils.options.networks import open_prunable
from utils.options.scan_options import ScanConfig
from utils.planning.scanning import CURVES, Scanning, ScanPlan, chosen_images, plan_scan
from utils.pruning.sensitivity import read_points
from utils.reports.scan_results import scan_summary, write_scan
from utils.runs.environment import environment
from utils.runs.job_folder import open_job
from utils.runs.log import RunLog


def scan_command(config: ScanConfig) -> dict[str, Any]:
    """Scan a network and return the summary that is also written to the folder.

    Called again with the same options it goes on where it was stopped.

    Raises:
        ValueError: bad input, or a folder that holds a run with other options.
    """
    return run_scan(plan_scan(config, open_prunable(config)))


def run_scan(plan: ScanPlan) -> dict[str, Any]:
    """Make the scan that is planned, or what is missing of it; return its summary.

    Raises:
        ValueError: bad images, or a folder that holds a run with other options.
    """
    config, dense, folder = plan.config, plan.dense, plan.folder
    held_out = config.val_fraction if config.split == "val" else None
    images = open_images(config, dense, val_fraction=held_out)
    chosen = chosen_images(config, images)
    with open_job(folder, plan.identity) as job, RunLog(job) as log:
        dense.model.to(images.device)
        scanning = Scanning(plan, images, chosen)
        cost = physical_cost(dense.model, dense.image)
        accuracy = scanning.accuracy()
        points = scanning.points(cost, log, done=read_points(folder))
        if not job.summary_json.exists():
            log.scalars({f"{CURVES}/dense": accuracy.top1_percent}, step=0)
        summary = {
            "command": "scan",
            **dense.named,
            "job_dir": str(folder),
            "dataset": chosen.name,
            **scan_summary(accuracy, cost, points),
            "options": plan.identity,
            "environment": environment(images.device),
        }
        write_scan(job, summary)
    return summary
