"""Laws of layer shapes: what is read off a network is enough to make its layers again, alone."""

import pytest
import torch
from torch import nn

from utils.metrics.layer_shapes import layer_module, layer_onnx, layer_shapes, uneven_depthwise

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
    written = layer_module(shape)(torch.zeros(shape.input_shape(3)))
    assert written.numel() == model(torch.zeros(3, *size)).numel() == 3 * shape.written
    alone = next(m for m in layer_module(shape).modules() if isinstance(m, type(layer)))
    assert alone.weight.shape == layer.weight.shape


@pytest.mark.parametrize("name", LAYERS)
def test_the_graph_of_a_layer_alone_writes_as_much(name):
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    layer, size = LAYERS[name]
    shape = layer_shapes(nn.Sequential(layer), torch.zeros(1, *size))["0"]
    session = onnxruntime.InferenceSession(layer_onnx(shape, 2))
    images = torch.zeros(shape.input_shape(2)).numpy()
    (written,) = session.run(None, {"images": images})
    assert written.size == 2 * shape.written


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
