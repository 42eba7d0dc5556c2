"""Small steps in the words that people write networks in, for the laws of removal.

Each takes and gives [N, channels, H, W]: operations in place, through views and other names,
operands by keyword, parameters and buffers of their own, sizes as numbers, control flow, weights
made on the way.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import parametrizations, prune
from torchvision.ops import DeformConv2d


class InPlace(nn.Module):
    """The skip is the same tensor as the stream, which operations change in place."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        skip = x
        x += self.relu(self.second(x.clone()))
        x.mul_(torch.sigmoid(x.mean((2, 3), keepdim=True)))
        return skip


class InPlaceView(nn.Module):
    """A part of the channels is changed through a view, another is written over."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x[:, :2].add_(0.5)
        x[:, 2:4] = x[:, :2] * 2
        x[:, 4].zero_()
        return x


class InPlaceSlices(nn.Module):
    """Parts of the places and of the channels are changed by `+=`, some by others beside them."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        half = x.shape[1] // 2
        x[..., 0] *= 2
        x[:, :half] -= 0.5
        x[:, :, 1:3] += x[:, :, 3:5]
        left = x[:, :half]
        left += x[:, half:]
        return x


class Keywords(nn.Module):
    """Operands and dimensions by keyword, in numpy's words, too."""

    def __init__(self, channels: int):
        super().__init__()
        self.left = nn.Conv2d(channels, channels, 1)
        self.right = nn.Conv2d(channels, channels, 1)
        self.out = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.left(input=x), self.right(input=x)
        gate = torch.sigmoid(input=left.mean(axis=(2, 3), keepdims=True))
        both = torch.cat(dim=1, tensors=[torch.mul(left, other=gate), right])
        return torch.add(input=x, other=self.out(both), alpha=0.5)


class Parameters(nn.Module):
    """Scales and shifts of its own in several shapes, one made on the way, and slopes."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.scale = nn.Parameter(torch.rand(channels) + 0.5)
        self.shift = nn.Parameter(torch.randn(1, channels, 1, 1))
        self.gain = nn.Parameter(torch.tensor(0.7))
        self.act = nn.PReLU(channels)
        self.register_buffer("taken", torch.rand(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x) * self.scale.view(1, -1, 1, 1) + self.shift
        y = self.act(y) * self.gain * F.softplus(self.scale)[:, None, None]
        return torch.where(y > 0, y, self.taken * y) + x


class HandMadeNorm(nn.Module):
    """A frozen batch norm of buffers, and a running mean of its own that training updates."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.register_buffer("weight", torch.rand(channels) + 0.5)
        self.register_buffer("bias", torch.randn(channels))
        self.register_buffer("variance", torch.rand(channels) + 0.5)
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.training:
            with torch.no_grad():
                self.mean.mul_(0.9).add_(x.mean((0, 2, 3), keepdim=True) * 0.1)
        scale = self.weight * (self.variance + 1e-5).rsqrt()
        return (x - self.mean) * scale.reshape(1, -1, 1, 1) + self.bias.reshape(1, -1, 1, 1)


class Numbers(nn.Module):
    """Numbers of channels are used as numbers; others only work out shapes."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 1)
        self.second = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        y = y / y.shape[1] ** 0.5
        z = self.second(y)
        n, c, h, w = z.shape
        z = z.reshape(n, c, h * w).view(n, -1, h, w)
        return torch.cat([z[:, : c // 2], z[:, c // 2 :]], 1) * torch.ones(z.shape).to(z)


class ControlFlow(nn.Module):
    """Branches, loops and arguments that may be missing; a sum that starts at zero."""

    def __init__(self, channels: int):
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(3))
        self.channels = channels

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        out = 0
        for branch in self.branches:
            out += branch(x)
        if scale is not None or len(x.shape) != 4:
            out = out * scale
        first, *rest = (out, x) if x.dim() == 4 else (x,)
        return sum([first, *rest])


class TrainingOnly(nn.Module):
    """Mixes channels in training alone, and does so by control flow."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y * y.mean(1, keepdim=True) if self.training else y


class Standardized(nn.Conv2d):
    """A conv whose weights are standardized where they are read."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, 3, padding=1)

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        weight = weight - weight.mean((1, 2, 3), keepdim=True)
        return super()._conv_forward(x, weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5), bias)


class Parametrized(nn.Module):
    """A weight norm, and a conv that torch's pruning holds a mask for."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = parametrizations.weight_norm(nn.Conv2d(channels, channels, 3, padding=1))
        self.second = nn.Conv2d(channels, channels, 1)
        prune.l1_unstructured(self.second, "weight", 0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.relu(self.first(x)))


class Functional(nn.Module):
    """A conv and a norm by functions on the parameters of modules; one weight is read twice."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.tied = nn.Conv2d(channels, channels, 3, padding=1)
        self.tied.weight = self.conv.weight
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        n = self.norm
        x = F.conv2d(x, self.conv.weight, self.conv.bias, padding=1)
        x = F.batch_norm(
            x, n.running_mean, n.running_var, n.weight, n.bias, self.training, 0.1, n.eps
        )
        return self.tied(F.relu(x))


class Products(nn.Module):
    """Layers as products with weights of the module's own, square and transposed ones."""

    def __init__(self, channels: int):
        super().__init__()
        self.square = nn.Parameter(torch.randn(channels, channels) / 3)
        self.weight = nn.Parameter(torch.randn(channels, 6) / 3)
        self.back = nn.Parameter(torch.randn(channels, 6) / 3)
        self.bias = nn.Parameter(torch.rand(6))

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.matmul(x.flatten(2).mT, self.square)
        hidden = F.relu(tokens @ self.weight + self.bias)
        return x + (hidden @ self.back.t()).mT.reshape(x.shape)


class Einsums(nn.Module):
    """Sums, gates, scales and layers that are written as einsum."""

    def __init__(self, channels: int):
        super().__init__()
        self.gate = nn.Linear(channels, channels)
        self.scale = nn.Parameter(torch.rand(channels) + 0.5)
        self.weight = nn.Parameter(torch.randn(channels, channels) / 3)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(torch.einsum("bchw->bc", x) / 64).sigmoid()
        y = torch.einsum("...c, bchw -> bchw", self.scale, torch.einsum("bc,bchw->bchw", gate, x))
        return x + torch.einsum("bchw,oc->bohw", y, self.weight)


class Preallocated(nn.Module):
    """The results of two layers are weighed, and written into zeros of their size."""

    def __init__(self, channels: int):
        super().__init__()
        self.left, self.right = nn.Conv2d(channels, 6, 1), nn.Conv2d(channels, 6, 1)
        self.out, self.weights = nn.Conv2d(12, channels, 1), nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.left(x), self.right(x)
        n, c, h, w = left.shape
        both = x.new_zeros(n, 2 * c, h, w)
        weights = F.relu(self.weights)
        both[:, :c] = left * weights[0]
        both[:, c:] = right * weights[1]
        return self.out(both)


class Neighbours(nn.Module):
    """Poolings over channels that keep the shape: a channel attention and a local norm."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)
        self.norm = nn.LocalResponseNorm(3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        means = F.avg_pool1d(x.mean((2, 3)).unsqueeze(1), 3, 1, 1).squeeze(1)
        return x * torch.sigmoid(means)[:, :, None, None]


class SelfAttention(nn.Module):
    """Queries, keys and values of tokens, which nobody follows, and an MLP, which is."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 6), nn.GELU(), nn.Linear(6, channels))
        self.scale = nn.Parameter(torch.rand(channels))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(tokens)).chunk(3, dim=-1)
        tokens = tokens + F.scaled_dot_product_attention(q, k, v)
        tokens = tokens + self.scale * self.mlp(tokens)
        return tokens.transpose(1, 2).reshape(x.shape)


class Deformed(nn.Module):
    """Convs that read at places which the image decides."""

    def __init__(self, channels: int):
        super().__init__()
        self.offset, self.weigh = nn.Conv2d(channels, 18, 1), nn.Conv2d(channels, 9, 1)
        self.first = DeformConv2d(channels, 6, 3, padding=1, bias=False)
        self.second = DeformConv2d(6, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        offset, mask = self.offset(x).tanh(), self.weigh(x).sigmoid()
        return self.second(F.relu(self.first(x, offset)), offset, mask)


class LinearAttention(nn.Module):
    """Queries that are normalized alone, beside keys that lie in the same memory."""

    def __init__(self, channels: int):
        super().__init__()
        self.qk = nn.Conv2d(channels, 2 * channels, 1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        q, k = self.qk(x).tanh().chunk(2, dim=1)
        q = self.norm(q).flatten(2)
        k = k.flatten(2).softmax(-1)
        return x + (k @ q.mT @ q).reshape(x.shape)


IDIOMS = (
    InPlace,
    InPlaceView,
    InPlaceSlices,
    Keywords,
    Parameters,
    HandMadeNorm,
    Numbers,
    ControlFlow,
    TrainingOnly,
    Standardized,
    Parametrized,
    Functional,
    Neighbours,
    Products,
    Einsums,
    Preallocated,
    SelfAttention,
    LinearAttention,
    Deformed,
)
