"""The image that a network reads and the classes it tells apart, found by running it."""

import torch
import torch.nn as nn
from torch import Tensor

from utils.graph.forward_pass import left_alone
from utils.runs.borrowed_state import evaluating


@torch.no_grad()
def example_for(
    model: nn.Module,
    spec: str,
    input_size: tuple[int, int, int] | None,
    image_size: tuple[int, int] | None,
) -> tuple[Tensor, int]:
    """Return (a black image [1, C, H, W] that the network reads, the classes of its logits).

    Args:
        input_size: [C, H, W] of the network's maker, None where it does not say. Then the first
            conv says how many channels an image has.
        image_size: height and width, where they are not the maker's.

    Raises:
        ValueError: the network does not run on it, or gives no logits [1, classes].
    """
    if input_size is None and image_size is None:
        raise ValueError(
            f"network {spec!r} does not say what images it reads: expected --image_size"
        )
    convs = [m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)]
    channels = input_size[0] if input_size else (convs or [3])[0]
    height, width = image_size or input_size[1:]
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    example = torch.zeros(1, channels, height, width)
    try:
        with left_alone(model), evaluating(model):
            logits = model(example.to(device))
    except Exception as error:  # whatever the user's code raises
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(
            f"network {spec!r} does not run on an image of {channels} x {height} x {width}: "
            f"{reason}; expected --image_size of images that it reads"
        ) from error
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        found = f"{list(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"network {spec!r} gives {found} for one image: expected logits [1, classes]"
        )
    return example, logits.shape[1]
