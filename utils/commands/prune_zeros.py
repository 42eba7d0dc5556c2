"""`main.py prune --remove_zeros`: a network that holds zero filters -> one without them."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from utils.graph.network import Network
from utils.metrics.cost import counts, physical_cost
from utils.metrics.difference import check_equal
from utils.options.networks import checkpoint_of, open_network, prunable, results_of
from utils.options.prune_options import PruneConfig
from utils.planning.plan import check_finite
from utils.removal.network_file import write_network
from utils.removal.zero_filters import ZeroRemoval, remove_zero_filters
from utils.reports.zeros_summary import zeros_markdown
from utils.runs.atomic_write import write_json, write_text
from utils.runs.job_folder import open_job

_IMAGES = 8  # random ones, for the check
_TOLERANCE = 1e-9  # of the outputs' scale, in float64


def prune_zeros_command(config: PruneConfig) -> dict[str, Any]:
    """Remove every channel that is provably constant, and return the summary.

    It needs no ranks, no rates and no images. Writes pruned.pt, summary.json and summary.md, unless
    it is a dry run.

    Raises:
        ValueError: bad input.
    """
    dense = open_network(config, checkpoint_of(config))
    if dense.form == "remove":
        dense = prunable(dense)
    check_finite(dense)
    model = dense.model.double()
    removal = remove_zero_filters(model, dense.example)
    summary = {
        "command": "prune",
        "remove_zeros": True,
        **dense.named,
        "outputs_equal": _difference(model, removal.model, dense.example),
    }
    model.float()
    removal.model.float()
    summary |= _costs(dense, removal)
    summary["stays"] = [asdict(staying) for staying in removal.stays]
    summary["added_biases"] = list(removal.added_biases)
    if not config.dry_run:
        folder = config.job_dir or results_of(dense) / "remove_zeros"
        _write(summary, removal, dense, folder)
    return summary


def _difference(model: nn.Module, slim: nn.Module, example: Tensor) -> dict[str, Any]:
    """Return the largest difference of the outputs on random images, and their scale."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(_IMAGES, *example.shape[1:], generator=generator, dtype=torch.float64)
    what = "outputs before and after the removal"
    largest, scale = check_equal(model, slim, images, tolerance=_TOLERANCE, what=what)
    return {"largest": largest, "scale": scale, "images": _IMAGES}


def _costs(dense: Network, removal: ZeroRemoval) -> dict[str, Any]:
    """Return the summary's `physical`, `uncounted` and `layers`."""
    before, after = (physical_cost(m, dense.example) for m in (dense.model, removal.model))
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
    sha256 = dense.checkpoint_sha256
    options = {"command": "prune --remove_zeros", "arch": dense.spec, "checkpoint_sha256": sha256}
    made_by = {"remove_zeros": True, "checkpoint_sha256": sha256, "torch": str(torch.__version__)}
    network = replace(
        dense,
        model=removal.model,
        form="remove",
        masks=removal.masks,
        provenance=made_by,
        added_biases=(*dense.added_biases, *removal.added_biases),
    )
    with open_job(folder, options) as job:
        write_network(job.pruned, network)
        summary["job_dir"], summary["pruned_file"] = str(folder), str(job.pruned)
        summary["pruned_file_bytes"] = job.pruned.stat().st_size
        write_text(job.summary_markdown, zeros_markdown(summary))
        write_json(job.summary_json, summary)
