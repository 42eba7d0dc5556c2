"""Attention over several heads: they go whole, by whatever words a network's code says it."""

import copy
from functools import partial

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from tests.networks import randomized
from utils.benchmarks.networks_table import differences
from utils.graph.channel_graph import trace_channels
from utils.graph.groups import channel_groups
from utils.library import prune
from utils.metrics.cost import physical_cost
from utils.pruning.group_plan import plan_groups
from utils.pruning.scores import score_filters
from utils.removal.masks import ChannelMasks
from utils.removal.surgery import remove_filters
from utils.removal.zero_filters import remove_zero_filters

WIDTH, HEADS, EACH = 12, 3, 4
IMAGE = torch.zeros(1, 3, 8, 8)


class Packed(nn.Module):
    """One linear for queries, keys and values; the heads' sizes are attributes."""

    def __init__(self):
        super().__init__()
        self.num_heads, self.head_dim, self.attn_dim = HEADS, EACH, WIDTH
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def split(self, x: Tensor) -> Tensor:
        return self.qkv(x).reshape(*x.shape[:2], 3, self.num_heads, self.head_dim)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)

    def forward(self, x: Tensor) -> Tensor:
        out = self.attend(*self.split(x).permute(2, 0, 3, 1, 4).unbind(0))
        return self.proj(out.transpose(1, 2).reshape(*x.shape[:2], self.attn_dim))


class WrittenOut(Packed):
    """The products are the code's own; a parameter for each head is added to the scores."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.randn(HEADS, 1, 1))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = q * self.head_dim**-0.5 @ k.transpose(-2, -1) + self.bias
        return scores.softmax(-1) @ v


class Outside(Packed):
    """A module of its own multiplies."""

    class Attend(nn.Module):
        """Softmax of queries times keys, times values."""

        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return (q @ k.transpose(-2, -1)).softmax(-1) @ v

    def __init__(self):
        super().__init__()
        self.attend = self.Attend()


class Biased(WrittenOut):
    """The parameter is the mask of torch's attention."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mask = self.bias.expand(-1, q.size(2), q.size(2)).unsqueeze(0)
        return F.scaled_dot_product_attention(q, k, v, mask)


class Einsum(Packed):
    """The products are sums by letters."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = torch.einsum("bhqd,bhkd->bhqk", q, k).softmax(-1)
        return torch.einsum("bhqk,bhkd->bhqd", weights, v)


class Normed(Packed):
    """Queries and keys have a norm of their own, the same for all heads."""

    def __init__(self):
        super().__init__()
        self.q_norm, self.k_norm = nn.LayerNorm(EACH), nn.RMSNorm(EACH)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v)


class Cosine(Packed):
    """Queries and keys have length one."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)).softmax(-1) @ v


class Rotary(Packed):
    """Queries and keys are rotated by their places (Su et al., 2021)."""

    def __init__(self):
        super().__init__()
        self.register_buffer("cosine", torch.randn(16, EACH))
        self.register_buffer("sine", torch.randn(16, EACH))

    def rotated(self, x: Tensor) -> Tensor:
        one, other = x.chunk(2, -1)
        return x * self.cosine + torch.cat((-other, one), -1) * self.sine

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(self.rotated(q), self.rotated(k), v)


class CrossCovariance(Packed):
    """Channels of a head weigh one another (El-Nouby et al., 2021)."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = (F.normalize(q, dim=2).transpose(-2, -1) @ F.normalize(k, dim=2)).softmax(-1)
        return (weights @ v.transpose(-2, -1)).transpose(-2, -1)


class Separate(Packed):
    """Three linears; how many heads there are follows from what they give."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        heads = (*x.shape[:2], -1, EACH)
        out = self.attend(*(layer(x).view(heads).transpose(1, 2) for layer in self.qkv))
        return self.proj(out.transpose(1, 2).flatten(2))


class Grouped(nn.Module):
    """Two heads share keys and values (Ainslie et al., 2023)."""

    def __init__(self):
        super().__init__()
        self.num_heads, self.num_kv_heads = 2 * HEADS, HEADS
        self.q, self.k, self.v = (nn.Linear(WIDTH, width) for width in (2 * WIDTH, WIDTH, WIDTH))
        self.proj = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        shape = *x.shape[:2], self.num_kv_heads, EACH
        q = self.q(x).view(*x.shape[:2], self.num_heads, EACH).transpose(1, 2)
        k, v = (layer(x).view(shape).transpose(1, 2) for layer in (self.k, self.v))
        k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class JoinedBias(Packed):
    """The bias is put together of two parameters and zeros."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.q_bias, self.v_bias = (nn.Parameter(torch.randn(WIDTH)) for _ in range(2))
        self.register_buffer("k_bias", torch.zeros(WIDTH))

    def split(self, x: Tensor) -> Tensor:
        bias = torch.cat([self.q_bias, self.k_bias, self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias)
        return qkv.reshape(*x.shape[:2], 3, self.num_heads, -1)


class AsWideAsItsInput(Packed):
    """What the heads give is as wide as the stream."""

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        out = self.attend(*self.split(x).permute(2, 0, 3, 1, 4).unbind(0))
        return self.proj(out.transpose(1, 2).reshape(batch, tokens, width))


class Torchs(nn.Module):
    """torch's own module, which gives the weights, too, or does not."""

    def __init__(self, **options: bool):
        super().__init__()
        self.attn, self.options = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True), options

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(x, x, x, **self.options)[0]


class Causal(nn.Module):
    """Tokens that see those before them alone."""

    def __init__(self):
        super().__init__()
        self.attn = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.size(1)
        later = torch.full((tokens, tokens), -torch.inf, dtype=x.dtype).triu(1)
        return self.attn(x, x, x, attn_mask=later)[0]


class Tokens(nn.Module):
    """Patches, attention beside them, and a classifier."""

    def __init__(self, attention: nn.Module):
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, WIDTH, 2, 2), nn.LayerNorm(WIDTH)
        self.attention, self.head = attention, nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.head((x + self.attention(self.norm(x))).mean(1))


def encoder(**options: bool | float) -> nn.Module:
    """torch's own block, of which fused code computes the whole where nothing hinders it."""
    return nn.TransformerEncoderLayer(WIDTH, HEADS, 6, batch_first=True, **options)


FREE = (Packed, WrittenOut, Outside, Biased, Einsum, Normed, Cosine, Rotary)
FREE += (CrossCovariance, Separate, JoinedBias)
ENCODERS = (partial(encoder, dropout=0.0, norm_first=True), partial(encoder, dropout=0.0))
TIED = (AsWideAsItsInput, Causal, Torchs, partial(Torchs, need_weights=False), *ENCODERS)


def pruned(make, ratio, across_sums):
    """Return (graph, masked, removed) of a network, by the norms of its filters."""
    torch.manual_seed(0)
    model = randomized(Tokens(make()), 1)
    graph = trace_channels(model, IMAGE)
    plan = plan_groups(
        channel_groups(graph, across_sums=across_sums), score_filters(model, graph, "l1"), ratio
    )
    masked = copy.deepcopy(model)
    ChannelMasks(masked, graph, plan.masks()).apply()
    return graph, masked, remove_filters(model, graph, plan.masks())


@pytest.mark.parametrize("across_sums", [False, True])
@pytest.mark.parametrize("make", [*FREE, *TIED, Grouped])
def test_removed_is_masked(make, across_sums):
    images = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    for ratio in (0.4, 0.7):
        _, masked, removed = pruned(make, ratio, across_sums)
        for mode, found in differences(masked, removed, images).items():
            assert found["largest_difference"] <= 1e-9 * found["scale"], (mode, found)


@pytest.mark.parametrize("make", FREE)
def test_heads_go_whole_and_the_code_is_told(make):
    graph, _, removed = pruned(make, 0.4, across_sums=False)
    (heads,) = [g for g in channel_groups(graph, across_sums=False) if "qkv" in g.layers[0]]
    assert len(heads.channels) == HEADS and not heads.protected
    assert all(len(members) == 3 * EACH for members in heads.channels)
    attention = removed.attention
    assert attention.proj.in_features == 2 * EACH
    qkv = attention.qkv if make is Separate else [attention.qkv]
    assert sum(layer.out_features for layer in qkv) == 3 * 2 * EACH
    assert (attention.num_heads, attention.head_dim, attention.attn_dim) == (2, EACH, 2 * EACH)


def test_heads_that_share_keys_go_together():
    _, _, removed = pruned(Grouped, 0.4, across_sums=False)
    attention = removed.attention
    assert (attention.num_heads, attention.num_kv_heads) == (4, 2)
    layers = (attention.q, attention.k, attention.v)
    assert [layer.out_features for layer in layers] == [4 * EACH, 2 * EACH, 2 * EACH]


@pytest.mark.parametrize("make", [*TIED, encoder])
def test_a_stream_is_as_wide_as_heads_that_the_code_makes_as_wide(make):
    for ratio, needed in ((0.4, 8), (0.55, 6)):  # 2 heads of 4 are left, both times
        _, _, removed = pruned(make, ratio, across_sums=True)
        attention = next(m for m in removed.modules() if hasattr(m, "num_heads"))
        read: list[torch.Size] = []
        attention.register_forward_pre_hook(lambda _, args, read=read: read.append(args[0].shape))
        removed(torch.zeros(1, 3, 8, 8, dtype=torch.float64))
        assert (attention.num_heads, read) == (2, [(1, 16, 2 * EACH)])
        assert removed.patches.weight.flatten(1).any(1).sum() == needed


@pytest.mark.parametrize("make", [Packed, WrittenOut, Separate])
def test_a_head_without_values_is_found_among_zeros(make):
    model = randomized(Tokens(make()), 1)
    layers = model.attention.qkv if make is Separate else [model.attention.qkv]
    layers[-1].weight.data[-EACH:], layers[-1].bias.data[-EACH:] = 0, 0
    small = remove_zero_filters(model, IMAGE).model
    assert small.attention.num_heads == HEADS - 1
    assert small.attention.proj.in_features == (HEADS - 1) * EACH
    images = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(small.eval()(images), model.eval()(images))


@pytest.mark.parametrize("make", [JoinedBias, *TIED])
def test_layers_that_code_calls_itself_are_counted(make):
    torch.manual_seed(0)
    model = Tokens(make())
    cost = physical_cost(model, IMAGE)
    linears = [p for name, p in model.attention.named_parameters() if p.dim() == 2]
    layers = [layer for layer in cost.layers if layer.name.startswith("attention")]
    assert sum(layer.macs for layer in layers) == 16 * sum(weight.numel() for weight in linears)
    small = prune(model, IMAGE, criterion="l1", target_macs=0.6, group=True)
    assert 0.3 * cost.macs < physical_cost(small.model, IMAGE).macs < 0.7 * cost.macs


def test_what_was_pruned_shrinks_again():
    _, _, once = pruned(Packed, 0.4, across_sums=True)
    graph = trace_channels(once, IMAGE)
    (heads,) = [g for g in channel_groups(graph, across_sums=True) if "qkv" in g.layers[0]]
    assert len(heads.channels) == 2
    gone = torch.zeros(len(once.attention.qkv.weight), dtype=torch.bool)
    gone[[index for _, index in heads.channels[0]]] = True
    twice = remove_filters(once, graph, {"attention.qkv": ~gone})
    assert (twice.attention.num_heads, twice.attention.attn_dim) == (1, EACH)
