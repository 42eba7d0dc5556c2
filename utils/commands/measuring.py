"""What `prune` measures of two networks side by side, on real images."""

from dataclasses import asdict
from typing import Any

import torch.nn as nn

from utils.commands.inputs import Images
from utils.metrics.difference import largest_difference
from utils.metrics.latency import compare_latency
from utils.runs.borrowed_state import evaluating


def check_removed(masked: nn.Module, slim: nn.Module, images: Images) -> dict[str, float]:
    """Return the largest |removed - masked| logit on a batch of test images, and their scale.

    Raises:
        RuntimeError: they differ by more than float32 rounding; that would be our bug.
    """
    batch = images.first_batch(images.test)
    with evaluating(masked), evaluating(slim):
        largest, scale = largest_difference(masked, slim, batch)
    if not largest <= 1e-3 * max(scale, 1.0):
        raise RuntimeError(f"removed and masked logits differ by {largest} at a scale of {scale}")
    return {"largest": largest, "logit_scale": scale, "images": len(batch)}


def latencies(dense: nn.Module, pruned: nn.Module, images: Images) -> dict[str, Any]:
    """Return the latency of both networks on one image and on a batch, timed in turns."""
    batch = images.first_batch(images.test)
    networks = {"dense": dense, "pruned": pruned}
    return {
        name: {state: asdict(found) for state, found in timed.items()}
        for name, timed in (
            ("one_image", compare_latency(networks, batch[:1], repeats=20)),
            ("batch", compare_latency(networks, batch, repeats=5, warmup=1)),
        )
    }
