"""Costs of small networks against hand counts, and of HRank's against its own counter."""

import json
import re
from pathlib import Path

import pytest
import torch
import torchvision
from torch import fx, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from models.registry import ARCHITECTURES, build_model, example_images
from utils.metrics.cost import paper_cost, physical_cost

IMAGE = torch.zeros(1, 3, 8, 8)
REFERENCE = Path(__file__).parents[2] / "../shared/reference/flops.json"


# name: layer, its input, MACs, parameters, filters, inputs; each product is written out.
LAYERS = {
    "dense": (nn.Conv2d(3, 4, 3, padding=1), [3, 8, 8], 4 * 64 * 3 * 9, 4 * 27 + 4, 4, 3),
    "no bias": (nn.Conv2d(3, 4, 1, bias=False), [3, 8, 8], 4 * 64 * 3, 12, 4, 3),
    "stride": (nn.Conv2d(3, 4, 3, stride=2), [3, 8, 8], 4 * 9 * 27, 112, 4, 3),
    "grouped": (nn.Conv2d(6, 4, 3, groups=2), [6, 8, 8], 4 * 36 * 3 * 9, 4 * 27 + 4, 4, 6),
    "depthwise": (nn.Conv2d(6, 6, 3, groups=6), [6, 8, 8], 6 * 36 * 9, 6 * 9 + 6, 6, 6),
    "circular": (
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), [3, 8, 8], 4 * 64 * 27, 112, 4, 3
    ),
    "transposed": (
        nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), [4, 5, 5], 4 * 25 * 3 * 9, 114, 6, 4
    ),
    "conv1d": (nn.Conv1d(3, 5, 4), [3, 10], 5 * 7 * 3 * 4, 65, 5, 3),
    "conv3d": (nn.Conv3d(2, 3, 2), [2, 4, 4, 4], 3 * 27 * 2 * 8, 51, 3, 2),
    "linear": (nn.Linear(7, 5), [7], 35, 40, 5, 7),
    "linear on tokens": (nn.Linear(7, 5), [6, 7], 6 * 35, 40, 5, 7),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_one_layer_costs_what_a_hand_counts(name):
    layer, shape, macs, parameters, filters, inputs = LAYERS[name]
    cost = physical_cost(nn.Sequential(layer), torch.zeros(1, *shape))
    assert (cost.macs, cost.parameters, cost.uncounted) == (macs, parameters, ())
    (found,) = cost.layers
    assert (found.name, found.kind) == ("0", type(layer).__name__)
    assert (found.macs, found.parameters) == (macs, parameters)
    assert (found.filters, found.inputs) == (filters, inputs)


def test_a_deformable_conv_costs_what_a_plain_one_does():
    layer, offset = torchvision.ops.DeformConv2d(3, 4, 3, padding=1), torch.zeros(1, 18, 8, 8)
    cost = physical_cost(layer, (IMAGE, offset))
    assert (cost.macs, cost.parameters, cost.uncounted) == (4 * 64 * 27, 112, ())


class Twice(nn.Module):
    """One conv called twice, and one that is never called."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Conv2d(4, 4, 1)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return self.conv(self.conv(x) + x)


def test_a_module_called_twice_costs_its_macs_twice_and_its_parameters_once():
    cost = physical_cost(Twice(), torch.zeros(1, 4, 8, 8))
    assert cost.macs == 2 * 4 * 64 * 4 * 9
    assert cost.parameters == (4 * 36 + 4) + (4 * 4 + 4)
    assert [(layer.name, layer.parameters) for layer in cost.layers] == [("conv", 148)]


def test_a_module_with_two_names_is_one_layer():
    conv = nn.Conv2d(4, 4, 1)
    cost = physical_cost(nn.Sequential(conv, nn.ReLU(), conv), torch.zeros(1, 4, 8, 8))
    assert (cost.macs, cost.parameters) == (2 * 64 * 16, 20)
    assert [layer.name for layer in cost.layers] == ["0"]


class Multiplies(nn.Module):
    """Multiplies outside of every conv and linear module, in the way it is told."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.conv = nn.Conv2d(3, 3, 1)
        self.gate = nn.Parameter(torch.ones(8, 8))
        self.kernel = nn.Parameter(torch.ones(4, 3, 1, 1))

    def forward(self, x):
        return self.how(self, self.conv(x))


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (lambda net, x: x @ net.gate, {"aten.mm", "aten.bmm"}),
        (lambda net, x: x * net.gate, {"aten.mul.Tensor"}),
        (lambda net, x: F.conv2d(x, net.kernel.detach()), {"aten.convolution"}),
        (lambda net, x: F.linear(x[0, 0], net.gate[:4]), {"aten.mm"}),
        (lambda net, x: F.avg_pool2d(x, 2), {"aten.avg_pool2d"}),
        (lambda net, x: F.elu(x), {"aten.elu"}),
    ],
)
def test_multiplications_that_are_not_counted_are_named(how, expected):
    cost = physical_cost(Multiplies(how), IMAGE)
    assert cost.macs == 3 * 64 * 3
    assert len(cost.uncounted) == 1 and set(cost.uncounted) <= expected


@pytest.mark.parametrize(
    ("how", "layer", "macs"),
    [
        (lambda net, x: F.conv2d(x, net.kernel), "kernel", 64 * 4 * 3),
        (lambda net, x: F.linear(x, net.gate, net.gate[0]), "gate", 3 * 8 * 64),
        (
            lambda net, x: F.conv_transpose2d(F.pad(x, (0, 0, 0, 0, 0, 1)), net.kernel),
            "kernel",
            768,
        ),
        (lambda net, x: F.conv2d(x, net.conv.weight), "conv", 64 * 9),
    ],
)
def test_layers_that_code_calls_by_functions_are_counted(how, layer, macs):
    cost = physical_cost(Multiplies(how), IMAGE)
    assert cost.uncounted == ()
    found = {each.name: each.macs for each in cost.layers}
    assert found == {"conv": 3 * 64 * 3, layer: macs + (layer == "conv") * 3 * 64 * 3}


def test_norms_are_named_and_their_parameters_counted():
    network = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    cost = physical_cost(network, IMAGE)
    assert cost.parameters == 12 + 8
    assert len(cost.uncounted) == 1 and "batch_norm" in cost.uncounted[0]


class Moves(nn.Module):
    """Moves, pads, compares and adds, and multiplies nothing."""

    def forward(self, x):
        x = F.pad(x[:, :, ::2], (0, 0, 1, 1, 0, 1)).relu().permute(0, 2, 3, 1)
        left, right = x.chunk(2, dim=1)
        x = torch.cat([left, right + left.roll(1, 2)], dim=3).flatten(1)
        return F.dropout(x[..., torch.arange(5) * 2].clone(), training=self.training)


def test_data_movement_and_additions_are_no_multiplications():
    assert physical_cost(Moves(), IMAGE).uncounted == ()


def test_a_traced_network_costs_what_its_original_costs():
    model = torchvision.models.resnet18(num_classes=10)
    image = torch.zeros(1, 3, 64, 64)
    assert physical_cost(fx.symbolic_trace(model), image) == physical_cost(model, image)


@pytest.mark.parametrize(
    ("name", "macs", "parameters"),
    [("resnet18", 1_814_073_344, 11_689_512), ("vgg16", 15_470_264_320, 138_357_544)],
)
def test_networks_of_torchvision_cost_what_is_known(name, macs, parameters):
    with torch.device("meta"):
        model, image = torchvision.models.get_model(name), torch.zeros(1, 3, 224, 224)
    cost = physical_cost(model, image)
    assert (cost.macs, cost.parameters) == (macs, parameters)
    assert sum(layer.macs for layer in cost.layers) == macs


TORCHVISION = ("mobilenet_v3_small", "efficientnet_b0", "shufflenet_v2_x1_0", "convnext_tiny")


@pytest.mark.parametrize("name", [*ARCHITECTURES, *TORCHVISION])
def test_torchs_own_counter_finds_two_operations_for_each_mac(name):
    with torch.device("meta"):
        if name in ARCHITECTURES:
            model, image = build_model(name), example_images(name)
        else:
            model, image = torchvision.models.get_model(name), torch.zeros(1, 3, 64, 64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(image)
    assert 2 * physical_cost(model, image).macs == counter.get_total_flops()


def test_counting_leaves_the_network_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout())
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    physical_cost(model, IMAGE)
    assert [module.training for module in model] == [True, False, True]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not model[0]._forward_hooks and not model[0]._forward_pre_hooks


def test_hooks_and_flags_come_back_after_an_error():
    model = nn.Sequential(nn.Conv2d(5, 4, 1))
    with pytest.raises(RuntimeError):
        physical_cost(model, IMAGE)
    assert model.training and not model[0]._forward_hooks and not model[0]._forward_pre_hooks


@pytest.mark.parametrize("shape", [[2, 3, 8, 8], [0, 3, 8, 8], [3]])
def test_an_example_is_one_image(shape):
    with pytest.raises(ValueError, match=re.escape(f"one image [1, C, H, W], got shape {shape}")):
        physical_cost(nn.Conv2d(3, 4, 1), torch.zeros(shape))


class Steps(nn.Module):
    """A network of an image and a number for each image, as denoisers are."""

    def __init__(self):
        super().__init__()
        self.conv, self.step = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(1, 4)

    def forward(self, images, steps, scale=None):
        x = self.conv(images) + self.step(steps[:, None])[:, :, None, None]
        return x if scale is None else x * scale


@pytest.mark.parametrize(
    "example",
    [
        (IMAGE, torch.zeros(1)),
        (IMAGE, torch.zeros(1), torch.tensor(2.0)),
        {"images": IMAGE, "steps": torch.zeros(1)},
    ],
    ids=["tuple", "tuple with a number", "dict"],
)
def test_a_network_of_several_inputs_costs_the_sum_of_its_layers(example):
    cost = physical_cost(Steps(), example)
    assert cost.macs == 4 * 64 * 27 + 4
    assert paper_cost(Steps(), example, {"conv": 1}).macs == 64 * 27 + 8


@pytest.mark.parametrize("example", [(IMAGE, torch.zeros(2)), {"images": IMAGE[:0]}, ()])
def test_several_inputs_are_of_one_image(example):
    with pytest.raises(ValueError, match=re.escape("one image [1, C, H, W], got shape [")):
        physical_cost(Steps(), example)


def small_network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 10)
    )


def test_paper_rule_removes_filters_and_leaves_the_next_inputs():
    cost = paper_cost(small_network(), IMAGE, {"0": 5})
    linear = 64 * 10 + 10
    assert cost.macs == 5 * 36 * 27 + 4 * 16 * 72 + linear
    assert cost.parameters == 5 * (27 + 1) + 4 * (72 + 1) + linear


def test_paper_rule_keeping_all_is_physical_with_biases_as_macs_and_without_norms():
    model = small_network()
    paper, physical = paper_cost(model, IMAGE, {"0": 8, "2": 4}), physical_cost(model, IMAGE)
    assert paper == paper_cost(model, IMAGE, {})
    assert paper.macs == physical.macs + 10
    assert paper.parameters == physical.parameters - 2 * 8


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"7": 1}, "expected the name of a conv that runs, got '7'"),
        ({"4": 5}, "expected the name of a conv that runs, got '4'"),
        ({"0": 9}, "kept filters of 0: expected a whole number from 0 to 8, got 9"),
        ({"0": -1}, "from 0 to 8, got -1"),
        ({"0": 2.5}, "got 2.5"),
    ],
)
def test_impossible_kept_filters_are_an_error(kept, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        paper_cost(small_network(), IMAGE, kept)


def hrank_cases():
    """(network, rate string or None, MACs, parameters), as HRank's own code counted them."""
    if not REFERENCE.exists():
        return []
    reference = json.loads(REFERENCE.read_text())
    names = ("vgg_16_bn", "resnet_56", "resnet_110")
    rows = [(name, None, reference["baselines"][name]) for name in names]
    rows += [(row["arch"], row["compress_rate"], row) for row in reference["hrank_strings"]]
    counts = [(name, string, row["a_hrank_get_flops"]) for name, string, row in rows]
    return [(*case, int(c["flops"]), int(c["params"])) for *case, c in counts if case[0] in names]


def hranks_network(name):
    """The network and an image, as shapes without numbers: nothing to initialise or compute."""
    registry = pytest.importorskip("models.registry")
    with torch.device("meta"):
        return registry.build_model(name), torch.zeros(1, 3, 32, 32)


def expanded(string):
    terms = re.findall(r"\[([\d.]+)\](?:\*(\d+))?", string)
    return [float(rate) for rate, count in terms for _ in range(int(count or 1))]


def kept_filters(model, name, string):
    """HRank keeps f - int(rate * f) filters of a conv; it never masks the last one of VGG-16."""
    convs = {key: m for key, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    rates = expanded(string)
    if name == "vgg_16_bn":
        rates[12] = 0.0
    filters = [conv.out_channels for conv in convs.values()]
    return {key: f - int(rate * f) for key, f, rate in zip(convs, filters, rates, strict=True)}


@pytest.mark.skipif(not REFERENCE.exists(), reason="reference counts are not at hand")
@pytest.mark.parametrize(("name", "string", "macs", "parameters"), hrank_cases())
def test_paper_rule_gives_what_hranks_own_counter_gives(name, string, macs, parameters):
    model, image = hranks_network(name)
    kept = kept_filters(model, name, string) if string else {}
    cost = paper_cost(model, image, kept)
    assert (cost.macs, cost.parameters) == (macs, parameters)


def test_removed_inputs_count_where_they_are_said_to():
    model = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.Conv2d(8, 4, 1, bias=False))
    before, after = (
        paper_cost(model, IMAGE, {"0": 5, "1": 3}, counted) for counted in ({}, {"1": ("0",)})
    )
    assert before.macs == 64 * before.parameters == 64 * (5 * 3 + 3 * 8)
    assert after.macs == 64 * after.parameters == 64 * (5 * 3 + 3 * 5)


@pytest.mark.skipif(not REFERENCE.exists(), reason="reference counts are not at hand")
@pytest.mark.parametrize("name", ["vgg_16_bn", "resnet_56", "resnet_110"])
def test_physical_cost_of_a_dense_network_is_the_plain_count(name):
    expected = json.loads(REFERENCE.read_text())["baselines"][name]["c_plain"]
    cost = physical_cost(*hranks_network(name))
    assert (cost.macs, cost.parameters) == (expected["flops"], expected["params"])
