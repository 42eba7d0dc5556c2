"""The channel graph: what it knows of small networks, and of what it cannot follow."""

import pytest
import torch
import torch.nn as nn

from models.registry import build_model, example_images
from tests.networks import Chain, Concat, Gate, Residual
from utils.graph.channel_graph import trace_channels
from utils.removal.surgery import remove_filters

IMAGE = torch.zeros(1, 3, 8, 8)


class Branching(nn.Module):
    """Reads a value in Python, and a size, and takes an argument that may be missing."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

    def forward(self, x, scale=None):
        x = self.conv(x)
        if scale is not None or x.shape[1] != 4:
            x = x * scale
        x = x if x.sum() > 0 else -x
        return {"logits": self.head(x.mean((2, 3)))}


class Correlation(nn.Module):
    """Multiplies maps with maps, which the graph does not follow."""

    def __init__(self):
        super().__init__()
        self.first, self.conv = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 4, 1)

    def forward(self, x):
        flat = self.conv(self.first(x)).flatten(2)
        return torch.bmm(flat, flat.transpose(1, 2)).flatten(1)


def only(count: int, *kept: int) -> torch.Tensor:
    """Return the mask of `count` filters that keeps the given ones."""
    mask = torch.zeros(count, dtype=torch.bool)
    mask[list(kept)] = True
    return mask


def outputs(graph, node: str) -> torch.Tensor:
    """Return the labels that the named node gives out."""
    return next(r.outputs for r in graph.relations if r.node == node)


def test_filters_are_listed_in_the_order_they_run():
    graph = trace_channels(Chain([Residual]), IMAGE)
    assert graph.filters() == {
        "stem": 8,
        "steps.0.conv1": 6,
        "steps.0.conv2": 8,
        "head": 5,
    }


@pytest.mark.parametrize(
    "arch, classifier", [("vgg_16_bn", "classifier.linear2"), ("resnet_8", "linear")]
)
def test_only_the_classifier_is_protected(arch, classifier):
    assert trace_channels(build_model(arch), example_images(arch)).protected() == {classifier}


def test_a_sum_is_zero_only_where_every_operand_is():
    graph = trace_channels(Chain([Residual]), IMAGE)
    masks = {"stem": only(8, 0, 1, 2), "steps.0.conv2": only(8, 2, 3)}
    alive = graph.alive(masks)[outputs(graph, "add in steps.0")]
    names = graph.alive(masks)[outputs(graph, "batchnorm in steps.0.norm2")]
    assert int(alive.sum()) == 4
    assert names.nonzero().flatten().tolist() == [2, 3]


def test_a_product_is_zero_where_either_factor_is():
    graph = trace_channels(Chain([Gate]), IMAGE)
    masks = {"stem": only(8, 0, 1, 2)}
    kept = graph.kept(masks)
    assert graph.alive(masks)[outputs(graph, "sigmoid in steps.0")].all()  # sigmoid(0) is one half
    assert kept[outputs(graph, "conv2d in steps.0.excite")].nonzero().flatten().tolist() == [
        0,
        1,
        2,
    ]


def test_concatenated_channels_keep_their_own_filters():
    graph = trace_channels(Chain([Concat]), IMAGE)
    positions = graph.kept_positions(graph.kept({"steps.0.conv": only(4, 3), "stem": only(8, 0)}))
    assert positions["head"][1].tolist() == [3, 4]  # of [conv, stem]


@pytest.mark.parametrize("training", [True, False])
def test_tracing_leaves_the_model_as_it_was(training):
    model = build_model("resnet_8").train(training)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trace_channels(model, example_images("resnet_8"))
    assert model.training is training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_control_flow_and_missing_arguments_run_as_ever():
    graph = trace_channels(Branching(), IMAGE)
    assert graph.filters() == {"conv": 4, "head": 2} and graph.protected() == {"head"}


def test_several_inputs_are_taken_as_a_tuple_or_by_name():
    images = (IMAGE, torch.ones(1, 4, 8, 8))
    named = {"x": images[0], "scale": images[1]}
    assert trace_channels(Branching(), images).filters() == {"conv": 4, "head": 2}
    assert trace_channels(Branching(), named).filters() == {"conv": 4, "head": 2}


def test_a_model_that_does_not_run_is_named_with_the_module():
    sentence = r"Chain does not run on the example in module 'stem' \(Conv2d\): .*channels"
    with pytest.raises(ValueError, match=sentence) as error:
        trace_channels(Chain([Residual]), torch.zeros(1, 4, 8, 8))
    assert "\n" not in str(error.value)


def test_what_an_unknown_operation_reads_stays_and_the_rest_may_go():
    graph = trace_channels(Correlation(), IMAGE)
    assert graph.protected() == {"conv"}
    kept = graph.kept_positions(graph.kept({"first": only(5, 1), "conv": only(4, 0, 2)}))
    assert kept["first"][0].tolist() == [1]
    model = Correlation().double()
    removed = remove_filters(model, graph, {"first": only(5, 1), "conv": only(4, 0, 2)})
    assert removed(IMAGE.double()).shape == (1, 16)


@pytest.mark.parametrize(
    "masks, message",
    [
        ({"nowhere": only(8, 0)}, "mask for 'nowhere': the network has no such conv or linear"),
        ({"stem": only(7, 0)}, r"mask for 'stem': expected bool \[8\], got torch.bool \[7\]"),
        ({"stem": torch.ones(8)}, r"mask for 'stem': expected bool \[8\], got torch.float32 \[8\]"),
    ],
)
def test_masks_that_do_not_fit_are_named(masks, message):
    graph = trace_channels(Chain([Residual]), IMAGE)
    with pytest.raises(ValueError, match=message):
        graph.alive(masks)
