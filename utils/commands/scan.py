"""`main.py scan`: accuracy against compress rate, one layer or one tied group at a time."""

from typing import Any

from models.registry import example_images
from utils.metrics.cost import physical_cost
from utils.options.images import open_images
from utils.options.networks import checkpoint_of, open_dense_network
from utils.options.scan_options import ScanConfig
from utils.planning.plan import check_finite
from utils.planning.scanning import (
    CURVES,
    Scanning,
    chosen_images,
    layer_scores,
    scan_folder,
    scan_identity,
    wanted_masks,
)
from utils.pruning.sensitivity import (
    read_points,
)
from utils.reports.scan_results import scan_summary, write_scan
from utils.runs.checkpoint import sha256_of
from utils.runs.environment import environment
from utils.runs.job_folder import open_job
from utils.runs.log import RunLog


def scan_command(config: ScanConfig) -> dict[str, Any]:
    """Scan a network and return the summary that is also written to the folder.

    Called again with the same options it goes on where it was stopped.

    Raises:
        ValueError: bad input, or a folder that holds a run with other options.
    """
    checkpoint = checkpoint_of(config)
    dense = open_dense_network(config.arch, checkpoint, config.seed)
    sha256 = None if checkpoint is None else sha256_of(checkpoint)
    check_finite(dense)
    graph = dense.trace()
    scores = layer_scores(config, dense, graph, sha256)
    wanted = wanted_masks(config, graph, scores)
    held_out = config.val_fraction if config.split == "val" else None
    images = open_images(config, config.arch, num_classes=dense.num_classes, val_fraction=held_out)
    chosen, device = chosen_images(config, images), images.device
    identity = scan_identity(config, sha256, wanted)
    folder = scan_folder(config, identity)
    with open_job(folder, identity) as job, RunLog(job) as log:
        scan = Scanning(dense.model.to(device), graph, images, chosen, config.by_weight)
        cost = physical_cost(scan.model, example_images(config.arch).to(device))
        accuracy = scan.accuracy()
        points = scan.points(wanted, cost, log, done=read_points(folder))
        if not job.summary_json.exists():
            log.scalars({f"{CURVES}/dense": accuracy.top1_percent}, step=0)
        summary = {
            "command": "scan",
            "arch": config.arch,
            "checkpoint": None if checkpoint is None else str(checkpoint),
            "job_dir": str(folder),
            "dataset": chosen.name,
            **scan_summary(accuracy, cost, points),
            "options": identity,
            "environment": environment(device),
        }
        write_scan(job, summary)
    return summary
