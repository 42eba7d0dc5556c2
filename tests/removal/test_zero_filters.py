"""Zero-filter removal: the smaller network computes what the one that held the zeros computes."""

import copy
import random

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils import prune

from models.registry import build_model, example_images
from tests.networks import STEPS, Chain, PaddedNorm, PixelShuffled, random_masks, randomized
from utils.graph.channel_graph import trace_channels
from utils.options.networks import load_network
from utils.removal.masks import ChannelMasks
from utils.removal.surgery import remove_filters
from utils.removal.zero_filters import remove_zero_filters, without_reparametrization

IMAGE = torch.zeros(1, 3, 8, 8)
NORMS = ("whole", "scale is zero", "scale and shift are zero")
RANDOM_CHAINS = 16
NOT_PADDED = [s for s in STEPS if s is not PaddedNorm]  # its padding is constant by itself


@torch.no_grad()
def zero_at_random(model, rate, seed, norms="whole", biases=False):
    """Zero filters of every layer but the head, in place; of the norms, other channels."""
    generator = torch.Generator().manual_seed(seed)
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear) and name != "head":
            filter_dim = int(getattr(module, "transposed", False))
            gone = torch.rand(module.weight.size(filter_dim), generator=generator) < rate
            module.weight.transpose(0, filter_dim)[gone] = 0
            if biases and module.bias is not None:
                module.bias[gone] = 0
        if isinstance(module, nn.BatchNorm2d) and module.affine and norms != "whole":
            gone = torch.rand(module.num_features, generator=generator) < rate
            module.weight[gone] = 0
            if norms == "scale and shift are zero":
                module.bias[gone] = 0
    return model


def images_like(example, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, *example.shape[1:], generator=generator, dtype=torch.float64)


def assert_same_outputs(model, slim, example, modes=("eval",)):
    for mode in modes:
        outputs = [m.train(mode == "train")(images_like(example)) for m in (model, slim)]
        torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-9, atol=1e-9)


def assert_law(model, example, rate, seed, norms, biases):
    model = zero_at_random(randomized(model, seed), rate, seed, norms, biases)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    removal = remove_zero_filters(model, example)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert_same_outputs(model, removal.model, example)
    return removal


def assert_same_tensors(state, expected):
    assert state.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in state.items())


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("norms", NORMS)
@pytest.mark.parametrize("arch", ["resnet_8", "resnet_20"])
def test_outputs_stay(arch, norms):
    model = build_model(arch)
    dense = size(model)
    removal = assert_law(model, example_images(arch), 0.4, 1, norms, biases=norms == NORMS[2])
    assert size(removal.model) < 0.7 * dense


@pytest.mark.parametrize("norms", NORMS)
@pytest.mark.parametrize("step", [*STEPS, PixelShuffled])
def test_outputs_stay_around_each_structure(step, norms):
    for rate, biases in ((0.5, True), (1.0, False)):
        assert_law(Chain([step, step], flat=biases), IMAGE, rate, 2, norms, biases)


@pytest.mark.parametrize("seed", range(RANDOM_CHAINS))
def test_outputs_stay_in_random_networks(seed):
    draw = random.Random(seed)
    steps = [draw.choice(STEPS) for _ in range(draw.randint(2, 6))]
    model = Chain(steps, flat=draw.random() < 0.5)
    rate, biases = draw.choice([0.2, 0.5, 0.8]), draw.random() < 0.5
    assert_law(model, IMAGE, rate, seed, draw.choice(NORMS), biases)


def masked_and_both_removed(model, example, seed):
    """Return (masked, removed by the masks, removed by its zeros)."""
    graph = trace_channels(model, example)
    protected = graph.protected()
    masks = random_masks(
        {k: n for k, n in graph.filters().items() if k not in protected}, 0.5, seed
    )
    masked = copy.deepcopy(model)
    ChannelMasks(masked, graph, masks).apply()
    return masked, remove_filters(model, graph, masks), remove_zero_filters(masked, example).model


def shapes(model):
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("arch", ["resnet_8", "resnet_20"])
def test_masks_that_were_applied_are_found_again(arch):
    example = example_images(arch)
    masked, by_masks, by_zeros = masked_and_both_removed(
        randomized(build_model(arch), 3), example, 3
    )
    assert shapes(by_zeros) == shapes(by_masks)
    assert_same_outputs(masked, by_zeros, example, ("eval", "train"))


@pytest.mark.parametrize("step", [*NOT_PADDED, PixelShuffled])
def test_masks_are_found_again_around_each_structure(step):
    for seed in range(2):
        model = randomized(Chain([step, step]), seed)
        masked, by_masks, by_zeros = masked_and_both_removed(model, IMAGE, seed)
        assert size(by_zeros) <= size(by_masks)
        assert_same_outputs(masked, by_zeros, IMAGE, ("eval", "train"))


def test_nothing_zero_means_nothing_removed():
    model = randomized(Chain(list(NOT_PADDED)), seed=4)
    removal = remove_zero_filters(model, IMAGE)
    assert removal.masks == {} and removal.stays == () and removal.added_biases == ()
    assert shapes(removal.model) == shapes(model)


# --- torch.nn.utils.prune ---


def pruned_by_torch(arch="resnet_8"):
    model = randomized(build_model(arch), seed=5)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            prune.ln_structured(module, "weight", 0.5, n=1, dim=0)
    prune.random_unstructured(model.linear, "bias", 0.3)
    return model


def test_a_network_that_torch_pruned_is_taken_as_it_is():
    model, example = pruned_by_torch(), example_images("resnet_8")
    before = list(model.state_dict())
    removal = remove_zero_filters(model, example)
    assert list(model.state_dict()) == before  # weight_orig and weight_mask are still there
    assert list(removal.model.state_dict()) == list(build_model("resnet_8").state_dict())
    assert removal.model.layer1.get_submodule("0.conv1").out_channels == 8
    assert_same_outputs(model, removal.model, example)


def test_without_reparametrization_is_torch_s_own_remove():
    model = pruned_by_torch()
    plain = without_reparametrization(model).state_dict()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            prune.remove(module, "weight")
    prune.remove(model.linear, "bias")
    assert_same_tensors(plain, model.state_dict())


def test_a_state_dict_that_torch_pruned_loads_as_the_product(tmp_path):
    model = pruned_by_torch().float()
    torch.save({"state_dict": model.state_dict()}, tmp_path / "pruned_by_torch.pt")
    loaded = load_network(tmp_path / "pruned_by_torch.pt", "resnet_8").model.state_dict()
    assert_same_tensors(loaded, without_reparametrization(model).state_dict())


# --- constants, one by one ---


class Two(nn.Module):
    """A conv, something in between, a second conv, an average."""

    def __init__(self, between=None, **second):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.between = between or nn.Identity()
        self.second = nn.Conv2d(4, 5, **{"kernel_size": 3, "bias": False, **second})
        nn.init.zeros_(self.first.weight[1].detach())
        nn.init.constant_(self.first.bias[1].detach(), 0.7)

    def forward(self, x):
        return self.second(self.between(self.first(x))).mean((2, 3))


def removed_from(model):
    model = model.double()
    removal = remove_zero_filters(model, IMAGE)
    assert_same_outputs(model, removal.model, IMAGE)
    return removal


@pytest.mark.parametrize(
    "second",
    [
        {},
        {"bias": True},
        {"padding": "valid", "dilation": 2},
        {"kernel_size": 1, "padding": "same"},
        {"padding": 1, "padding_mode": "reflect"},
        {"groups": 1, "stride": 2},
    ],
)
def test_a_constant_folds_into_a_bias(second):
    removal = removed_from(Two(**second))
    assert removal.kept["first"] == [0, 2, 3] and removal.stays == ()
    assert removal.added_biases == (() if second.get("bias") else ("second",))
    assert removal.model.second.in_channels == 3


def test_a_grouped_conv_folds_too():
    model = Two()
    model.second = nn.Conv2d(4, 6, 3, groups=2, bias=False)
    removal = removed_from(model)
    assert removal.stays == () and removal.added_biases == ("second",)


@pytest.mark.parametrize(
    ("between", "second", "reason"),
    [
        (None, {"padding": 1}, "second pads it with zeros, which its border sees"),
        (None, {"padding": "same"}, "second pads it with zeros, which its border sees"),
        (nn.AvgPool2d(3, 1, padding=1), {}, "between makes it depend on the size of the images"),
        (nn.ZeroPad2d(1), {}, "between makes it differ from place to place"),
        (nn.Sigmoid(), {}, "makes another constant of it, which stays"),
        (nn.GroupNorm(2, 4), {}, "between normalizes several channels together"),
        (nn.Softmax2d(), {}, "reads all channels together"),
        (
            nn.ConvTranspose2d(4, 4, 3),
            {},
            "between is a transposed conv, which spreads it unevenly",
        ),
    ],
)
def test_a_constant_that_cannot_fold_stays_and_says_why(between, second, reason):
    removal = removed_from(Two(between, **second))
    (staying,) = [s for s in removal.stays if s.module == "first"]
    assert (staying.channel, staying.value) == (1, pytest.approx(0.7))
    assert reason in staying.reason
    assert removal.kept["first"] == [0, 1, 2, 3]


def test_a_constant_that_relu_makes_zero_goes_in_spite_of_padding():
    model = Two(nn.ReLU(), padding=1)
    nn.init.constant_(model.first.bias[1].detach(), -0.7)
    removal = removed_from(model)
    assert removal.kept["first"] == [0, 2, 3] and removal.added_biases == ()


def test_a_batch_norm_takes_a_constant_into_its_running_mean():
    model = randomized(Two(nn.BatchNorm2d(4), padding=1), seed=6)
    removal = removed_from(model)  # the norm's own constant stays, the filter goes
    assert removal.kept["first"] == [0, 2, 3]
    assert [(s.module, s.channel) for s in removal.stays] == [("between", 1)]
    assert removal.model.get_submodule("between").num_features == 4
    assert_same_outputs(model, removal.model, IMAGE, ("train",))


def test_a_norm_with_scale_zero_frees_its_filter():
    model = randomized(Two(nn.BatchNorm2d(4), padding=1), seed=6)
    nn.init.zeros_(model.between.weight[2].detach())
    assert removed_from(model).kept["first"] == [0, 3]


def test_a_filter_that_reads_only_zeros_is_zero():
    model = Two(nn.ReLU(), padding=1)
    nn.init.constant_(model.first.bias[1].detach(), 0.0)
    model.second.weight.detach()[2, [0, 2, 3]] = 0  # all that filter 2 reads is channel 1
    chain = nn.Sequential(model.first, model.between, model.second, nn.Conv2d(5, 2, 3))
    assert removed_from(chain).kept == {"0": [0, 2, 3], "2": [0, 1, 3, 4], "3": [0, 1]}


def test_a_channel_that_nobody_has_weights_for_goes():
    model = Two(padding=1)
    model.second.weight.detach()[:, 3] = 0
    assert removed_from(model).kept["first"] == [0, 1, 2]


def test_a_sum_over_places_depends_on_their_number():
    class Summed(Two):
        def forward(self, x):
            return self.second(self.first(x).sum((2, 3), keepdim=True)).mean((2, 3))

    (staying,) = removed_from(Summed(kernel_size=1)).stays
    assert staying.reason == "sum makes it depend on the size of the images"


def test_a_zero_class_stays():
    model = randomized(Chain([]), seed=7)
    model.head.weight.detach()[2] = 0
    model.head.bias.detach()[2] = 0
    removal = removed_from(model)
    assert removal.kept["head"] == [0, 1, 2, 3, 4]
    assert [(s.module, s.reason) for s in removal.stays] == [("head", "the network returns it")]


def test_a_conv_that_is_called_twice_has_one_bias():
    class Twice(Two):
        def forward(self, x):
            x = self.first(x)
            return self.second(x).mean((2, 3)) + self.second(F.max_pool2d(x, 2)).mean((2, 3))

    removal = removed_from(Twice())
    assert [s.reason for s in removal.stays] == ["second is called 2 times and has one bias"]


def test_a_branch_that_is_all_zero_shrinks_to_one_channel():
    model = randomized(build_model("resnet_8"), seed=8)
    block = model.layer2.get_submodule("0")
    nn.init.zeros_(block.bn2.weight)
    nn.init.zeros_(block.bn2.bias)
    removal = remove_zero_filters(model, example_images("resnet_8"))
    assert removal.kept["layer2.0.conv1"] == [0] and removal.kept["layer2.0.conv2"] == [0]
    assert_same_outputs(model, removal.model, example_images("resnet_8"), ("eval", "train"))
