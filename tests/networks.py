"""Small networks with every structure that ties channels together, for the laws of removal."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


class Residual(nn.Module):
    """x + branch(x)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 6, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))) + x)


class PreActivation(nn.Module):
    """Norm and ReLU before the convs, a bare sum after them."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(self.norm(x).relu())


class PaddedResidual(nn.Module):
    """A conv that adds four channels; the shortcut pads them with zeros."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels + 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels + 4)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)) + F.pad(x, (0, 0, 0, 0, 2, 2)))


class Concat(nn.Module):
    """Dense block: the input and a conv of it, side by side."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.conv(F.relu(self.norm(x))), x], 1)


class Depthwise(nn.Module):
    """Depthwise conv with two filters per channel, then a pointwise one."""

    def __init__(self, channels: int):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, 2 * channels, 3, padding=1, groups=channels)
        self.norm = nn.BatchNorm2d(2 * channels)
        self.pointwise = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(F.relu6(self.norm(self.depthwise(x))))


class Grouped(nn.Module):
    """A conv in two groups and a group norm."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, 8, 3, padding=1, groups=2)
        self.norm = nn.GroupNorm(4, 8)
        self.out = nn.Conv2d(8, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.silu(self.norm(self.conv(x))))


class Gate(nn.Module):
    """Squeeze and excite: channels scaled by a sigmoid of their means."""

    def __init__(self, channels: int):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, 3, 1)
        self.excite = nn.Conv2d(3, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.excite(F.relu(self.squeeze(means))))


class SpatialGate(nn.Module):
    """One map, a sigmoid of the mean over channels, scales all of them."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.conv(x.mean(1, keepdim=True)))


class Shuffle(nn.Module):
    """ShuffleNet unit: half goes through a conv, then the halves are interleaved."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels // 2, channels // 2, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        joined = torch.cat([left, F.relu(self.norm(self.conv(right)))], 1)
        batch, channels, height, width = joined.size()
        split = joined.view(batch, 2, channels // 2, height, width)
        return split.transpose(1, 2).contiguous().view(batch, channels, height, width)


class StackedSum(nn.Module):
    """Two branches stacked and summed over the new dimension."""

    def __init__(self, channels: int):
        super().__init__()
        self.left = nn.Conv2d(channels, channels, 1)
        self.right = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.left(x), self.right(x)], 1).sum(1)


class Shared(nn.Module):
    """One conv and one norm, called twice on different inputs."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 1)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) - F.relu(self.norm(self.conv(F.relu(self.first(x)))))


class Transposed(nn.Module):
    """Down, up again by a transposed conv, instance norm, and a scalar scale and shift."""

    def __init__(self, channels: int):
        super().__init__()
        self.down = nn.Conv2d(channels, 5, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(5, channels, 2, stride=2)
        self.norm = nn.InstanceNorm2d(channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.up(F.hardswish(self.down(x)))) * 0.5 + 0.25


class ChannelsLast(nn.Module):
    """ConvNeXt block: depthwise, layer norm and linears with channels last, a learnt scale."""

    def __init__(self, channels: int):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, 7)
        self.reduce = nn.Linear(7, channels)
        self.scale = nn.Parameter(torch.randn(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.reduce(F.gelu(self.expand(y))).permute(0, 3, 1, 2)
        return x + self.scale * y


class Affine(nn.Module):
    """A learnt scale and shift of every channel, channels last: parameters of one dimension."""

    def __init__(self, channels: int):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(channels) + 0.5)
        self.shift = nn.Parameter(torch.randn(channels))
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).permute(0, 2, 3, 1) * self.scale
        return x + (y + self.shift).permute(0, 3, 1, 2)


class BareNorms(nn.Module):
    """Norms without scale and shift: batch norm keeps a mean, instance norm does not."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1)
        self.norm1 = nn.BatchNorm2d(channels, affine=False)
        self.conv2 = nn.Conv2d(channels, channels, 1)
        self.norm2 = nn.InstanceNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))


class PaddedNorm(nn.Module):
    """Zero channels that a norm and a depthwise conv make constants of."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels + 2)
        self.depthwise = nn.Conv2d(channels + 2, channels + 2, 3, padding=1, groups=channels + 2)
        self.conv = nn.Conv2d(channels + 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (0, 0, 0, 0, 1, 1))
        return self.conv(F.relu(self.norm(padded)) + self.depthwise(padded))


class Attention(nn.Module):
    """Softmax over channels of the pooled maps."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * F.softmax(F.adaptive_avg_pool2d(self.conv(x), 1), dim=1)


class Rescaled(nn.Module):
    """Max-pooled, interpolated back, zero-padded and cropped in space."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.interpolate(F.max_pool2d(x, 2), scale_factor=2)
        return self.conv(F.pad(y, (1, 1, 1, 1))) / 2 + x[:, :, :, :]


class PixelShuffled(nn.Module):
    """Sub-pixel conv: four channels become a 2 x 2 block of one."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3, stride=2, padding=1)
        self.out = nn.Conv2d(1, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(F.avg_pool2d(F.pixel_shuffle(self.conv(x), 2), 1)))


STEPS = (
    Residual,
    PreActivation,
    PaddedResidual,
    Concat,
    Depthwise,
    Grouped,
    Gate,
    SpatialGate,
    Shuffle,
    StackedSum,
    Shared,
    Transposed,
    ChannelsLast,
    Affine,
    BareNorms,
    PaddedNorm,
    Attention,
    Rescaled,
)


class Chain(nn.Module):
    """A stem, some of the steps above, and a linear classifier: [N, 3, 8, 8] -> [N, 5]."""

    def __init__(self, steps: list[type[nn.Module]], *, flat: bool = False):
        super().__init__()
        channels = 8
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        modules = []
        for step in steps:
            modules.append(step(channels))
            channels += 4 * (step in (Concat, PaddedResidual))
        self.steps = nn.Sequential(*modules)
        self.pool = nn.AdaptiveAvgPool2d(2 if flat else 1)
        self.head = nn.Linear(channels * (4 if flat else 1), 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.steps(F.relu(self.norm(self.stem(x))))
        return self.head(torch.flatten(self.pool(x), 1))


def randomized(model: nn.Module, seed: int) -> nn.Module:
    """Return the model in float64 with random norm statistics, scales and shifts."""
    generator = torch.Generator().manual_seed(seed)

    def draw(tensor: Tensor, low: float, high: float) -> None:
        tensor.data.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    for module in model.modules():
        if getattr(module, "running_mean", None) is not None:
            draw(module.running_mean, -0.5, 0.5)
            draw(module.running_var, 0.5, 2.0)
        norms = nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm
        if isinstance(module, norms) and module.weight is not None:
            draw(module.weight, 0.5, 1.5)
            draw(module.bias, -1.0, 1.0)
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # a smaller network draws other random numbers
    return model.double()


def random_masks(filters: dict[str, int], rate: float, seed: int) -> dict[str, Tensor]:
    """Return a random mask of every layer that keeps at least one filter."""
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for module, count in filters.items():
        masks[module] = torch.rand(count, generator=generator) >= rate
        masks[module][torch.randint(count, (1,), generator=generator)] = True
    return masks
