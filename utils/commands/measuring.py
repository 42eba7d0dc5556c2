"""What networks compute, and how long they take, side by side on the same images."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch.nn as nn
from torch import Tensor

from utils.metrics.difference import check_equal
from utils.metrics.latency import compare_latency
from utils.options.inputs import Images
from utils.removal.network_file import Network


def check_normalization(network: Network, path: Path | None, normalization: str) -> None:
    """Refuse images that are normalized otherwise than those that a pruned file was tuned on.

    Raises:
        ValueError: they are; a file that does not say how, such as a dense one, takes any.
    """
    tuned_on = network.provenance.get("normalization", normalization)
    if tuned_on != normalization:
        raise ValueError(
            f"{path} was fine-tuned on images normalized as {tuned_on!r}, and --normalization is "
            f"{normalization!r}: expected --normalization {tuned_on}"
        )


def check_removed(masked: nn.Module, slim: nn.Module, images: Images) -> dict[str, float]:
    """Return the largest |removed - masked| logit on a batch of test images, and their scale.

    Raises:
        RuntimeError: they differ by more than float32 rounding; that would be our bug.
    """
    batch = images.first_batch(images.test)
    what = "removed and masked logits"
    largest, scale = check_equal(masked, slim, batch, tolerance=1e-3, what=what)
    return {"largest": largest, "logit_scale": scale, "images": len(batch)}


def latencies(networks: Mapping[str, nn.Module], batch: Tensor) -> dict[str, Any]:
    """Return the networks' latencies on one image and on the batch of [N, C, H, W], in turns."""
    timed = {
        "one_image": compare_latency(networks, batch[:1], repeats=20),
        "batch": compare_latency(networks, batch, repeats=5, warmup=1),
    }
    return {
        size: {name: asdict(latency) for name, latency in found.items()}
        for size, found in timed.items()
    }
