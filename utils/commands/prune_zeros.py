"""`main.py prune --remove_zeros`: a network that holds zero filters -> one without them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn

from models.registry import example_images
from utils.metrics.cost import counts, physical_cost
from utils.metrics.difference import check_equal
from utils.options.networks import RESULTS, open_network
from utils.planning.plan import check_finite
from utils.removal.network_file import Network, write_network
from utils.removal.zero_filters import ZeroRemoval, remove_zero_filters
from utils.reports.zeros_summary import zeros_markdown
from utils.runs.atomic_write import write_json, write_text
from utils.runs.checkpoint import sha256_of
from utils.runs.job_folder import open_job

_IMAGES = 8  # random ones, for the check
_TOLERANCE = 1e-9  # of the outputs' scale, in float64


def remove_zeros(
    arch: str,
    checkpoint: Path | None,
    *,
    seed: int = 0,
    job_dir: Path | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Remove every channel that is provably constant, and return the summary.

    It needs no ranks, no rates and no images. Writes pruned.pt, summary.json and summary.md, unless
    it is a dry run.

    Raises:
        ValueError: bad input; or the network in `checkpoint` is a smaller one already.
    """
    dense = open_network(arch, checkpoint, seed)
    if dense.form == "remove":
        raise ValueError(
            f"{checkpoint} holds a network that is smaller already: expected dense shapes, with "
            f"filters that are zero"
        )
    check_finite(dense)
    model = dense.model.double()
    removal = remove_zero_filters(model, example_images(arch))
    summary = {
        "command": "prune",
        "remove_zeros": True,
        "arch": arch,
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "outputs_equal": _difference(model, removal.model, arch),
    }
    model.float()
    removal.model.float()
    summary |= _costs(arch, model, removal)
    summary["stays"] = [asdict(staying) for staying in removal.stays]
    summary["added_biases"] = list(removal.added_biases)
    if not dry_run:
        _write(summary, removal, dense, job_dir or RESULTS / arch / "remove_zeros")
    return summary


def _difference(model: nn.Module, slim: nn.Module, arch: str) -> dict[str, Any]:
    """Return the largest difference of the outputs on random images, and their scale."""
    shape = example_images(arch).shape[1:]
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(_IMAGES, *shape, generator=generator, dtype=torch.float64)
    what = "outputs before and after the removal"
    largest, scale = check_equal(model, slim, images, tolerance=_TOLERANCE, what=what)
    return {"largest": largest, "scale": scale, "images": _IMAGES}


def _costs(arch: str, model: nn.Module, removal: ZeroRemoval) -> dict[str, Any]:
    """Return the summary's `physical`, `uncounted` and `layers`."""
    before, after = (physical_cost(m, example_images(arch)) for m in (model, removal.model))
    small = {layer.name: layer for layer in after.layers}
    return {
        "physical": {"dense": counts(before), "pruned": counts(after)},
        "uncounted": sorted({*before.uncounted, *after.uncounted}),
        "layers": [
            {
                "conv": layer.name,
                "filters": layer.filters,
                "kept": removal.kept[layer.name],
                "inputs": {"dense": layer.inputs, "pruned": small[layer.name].inputs},
                "macs": {"dense": layer.macs, "pruned": small[layer.name].macs},
            }
            for layer in before.layers
        ],
    }


def _write(summary: dict[str, Any], removal: ZeroRemoval, dense: Network, folder: Path) -> None:
    """Write the network and the summary, which learns where."""
    path = summary["checkpoint"]
    sha256 = None if path is None else sha256_of(path)
    options = {"command": "prune --remove_zeros", "arch": dense.arch, "checkpoint_sha256": sha256}
    network = Network(
        removal.model,
        dense.arch,
        dense.num_classes,
        "remove",
        removal.masks,
        {"remove_zeros": True, "checkpoint_sha256": sha256, "torch": str(torch.__version__)},
        removal.added_biases,
    )
    with open_job(folder, options) as job:
        write_network(job.pruned, network)
        summary["job_dir"], summary["pruned_file"] = str(folder), str(job.pruned)
        summary["pruned_file_bytes"] = job.pruned.stat().st_size
        write_text(job.summary_markdown, zeros_markdown(summary))
        write_json(job.summary_json, summary)
