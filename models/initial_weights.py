"""Fresh weights of convolutional networks."""

import torch.nn as nn


def draw_convs(model: nn.Module) -> None:
    """Draw every conv's weight for a ReLU behind it (He et al., 2015, by fan-out); biases are 0."""
    for module in model.modules():
        # on the meta device there is nothing to draw, and torch would take seconds to find that out
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
