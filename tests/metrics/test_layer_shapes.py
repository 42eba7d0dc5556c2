"""Laws of layer shapes: what is read off a network is enough to make its layers again, alone."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from utils.metrics.layer_shapes import Copies, layer_shapes, uneven_depthwise

LAYERS = {
    "plain": (nn.Conv2d(4, 6, 3, padding=1), (4, 8, 8)),
    "strided": (nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False), (4, 9, 9)),
    "dilated": (nn.Conv2d(4, 6, (1, 3), padding="same", dilation=2), (4, 8, 8)),
    "depthwise": (nn.Conv2d(4, 8, 3, padding=1, groups=4), (4, 8, 8)),
    "grouped": (nn.Conv2d(8, 4, 1, groups=2), (8, 5, 5)),
    "transposed": (nn.ConvTranspose2d(4, 6, 2, stride=2), (4, 5, 5)),
    "one_dimension": (nn.Conv1d(4, 6, 3, padding=1), (4, 8)),
    "linear": (nn.Linear(4, 6), (4,)),
    "linear_of_tokens": (nn.Linear(4, 6), (7, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_alone_is_of_the_shape_that_was_seen(name):
    layer, size = LAYERS[name]
    model = nn.Sequential(layer)
    shape = layer_shapes(model, torch.zeros(1, *size))["0"]
    copies = Copies(shape, 3)
    written = copies(torch.zeros(shape.input_shape(3)))[0]
    assert written.numel() == model(torch.zeros(3, *size)).numel() == 3 * shape.written
    assert copies.layers[0].weight.shape == layer.weight.shape
    assert layer.weight.numel() == shape.weights


def test_what_a_layer_goes_through_next_is_seen_and_made_again():
    class Network(nn.Sequential):
        def forward(self, images):
            maps = F.relu6(self[1](self[0](images)), inplace=True)
            stream = self[2](maps)
            stream = (stream + F.silu(self[3](maps))).relu_()
            stream += self[4](stream)
            return stream, self[5](maps).flatten(1)

    convs = [nn.Conv2d(4, 4, 1) for _ in range(5)]
    model = Network(convs[0], nn.BatchNorm2d(4), *convs[1:])
    shapes = layer_shapes(model, torch.zeros(1, 4, 5, 5))
    then = {"0": ("batch_norm", "relu6_"), "2": (), "3": ("silu",), "4": ("add_",), "5": ()}
    assert {name: shape.then for name, shape in shapes.items()} == then
    copies = Copies(shapes["0"], 1)
    assert [type(module) for module in copies.layers[0]] == [nn.Conv2d, nn.BatchNorm2d]
    assert isinstance(copies.activation, nn.ReLU6) and copies.activation.inplace


@pytest.mark.parametrize("word", ["add", "add_"])
def test_copies_add_what_the_one_before_gave(word):
    shape = replace(layer_shapes(nn.Conv2d(4, 6, 1), torch.zeros(1, 4, 5, 5))[""], then=(word,))
    images, copies = torch.randn(2, 4, 5, 5), Copies(shape, 2)
    first, second, *_ = copies(images)
    torch.testing.assert_close(second, first + copies.layers[1](images))


def test_copies_are_few_where_they_take_long_and_each_has_weights_of_its_own():
    shape = layer_shapes(nn.Conv2d(4, 6, 1), torch.zeros(1, 4, 5, 5))[""]
    first, second, *others = Copies(shape, 2)(torch.ones(shape.input_shape(2)))
    assert first.shape == second.shape == (2, 6, 5, 5) and others
    assert not torch.equal(first, second)
    assert len(Copies(shape, 10**6).layers) == 1


def test_a_layer_that_is_called_twice_counts_so_often():
    conv = nn.Conv2d(4, 4, 1)
    shapes = layer_shapes(nn.Sequential(conv, nn.ReLU(), conv), torch.zeros(1, 4, 5, 5))
    assert [shape.calls for shape in shapes.values()] == [2]


def test_only_layers_of_one_kind_share_times():
    kinds = {
        layer_shapes(nn.Sequential(layer), torch.zeros(1, *size))["0"].kind()
        for layer, size in LAYERS.values()
    }
    assert len(kinds) == len(LAYERS)


def test_depthwise_widths_that_four_does_not_divide_are_named():
    convs = [nn.Conv2d(width, width, 3, groups=width) for width in (6, 8, 9)]
    assert uneven_depthwise(nn.Sequential(*convs, nn.Conv2d(6, 6, 3))) == ["0", "2"]
