"""An exported network computes what the network does, at any batch size, and tells nothing else."""

import functools
import json
from collections import Counter
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from models.registry import build_model
from tests.networks import random_masks, randomized
from utils.graph.aligned import is_aligned
from utils.graph.channel_graph import trace_channels
from utils.options.networks import network_of
from utils.removal.surgery import remove_filters
from utils.runs.exported import FACTS, FORMATS, export_program

ROOT = Path(__file__).parents[2]
SITES = {"conv1": 16, "layer1.0.conv1": 16, "layer1.0.conv2": 16, "layer2.0.conv2": 32}
KNOWN = {"arch": "resnet_8", "classes": ["plane", "größer"]}


@pytest.fixture(scope="module")
def removed() -> nn.Module:
    """A network whose convs write into wider streams: it gathers and scatters channels."""
    network = network_of(randomized(build_model("resnet_8"), seed=0).float(), "resnet_8")
    removed = remove_filters(network.model, network.graph, random_masks(SITES, 0.5, seed=0))
    assert any(is_aligned(module) for module in removed.modules())
    return removed


@pytest.fixture(scope="module")
def program(removed):
    return export_program(removed, torch.zeros(1, 3, 32, 32))


@pytest.fixture(scope="module")
def written(program):
    """A function: the bytes of a file of that format, which is then made once."""

    @functools.cache
    def write(format: str) -> bytes:
        if missing := FORMATS[format].missing():
            pytest.skip(f"not installed: {', '.join(missing)}")
        return FORMATS[format].write(program, KNOWN)

    return write


@torch.no_grad()
def test_a_program_computes_nothing_of_dropped_branches_and_what_the_network_does():
    """Sums of torchvision's blocks are in place, and what follows may write into them."""
    for name, dropped, convs in (
        ("resnet18", ["layer1.0.conv2", "layer1.1.conv2", "layer3.1.conv2"], 20 - 6),
        ("mobilenet_v2", ["features.5.conv.2", "features.6.conv.2"], 52 - 6),
    ):
        model = randomized(getattr(torchvision.models, name)(weights=None), seed=0).float()
        graph = trace_channels(model, torch.zeros(1, 3, 32, 32))
        filters = graph.filters()
        masks = {x: torch.zeros(filters[x], dtype=torch.bool) for x in dropped}
        slim = remove_filters(model, graph, masks).eval()
        program = export_program(slim, torch.zeros(1, 3, 32, 32))
        targets = Counter(str(node.target) for node in program.graph.nodes)
        assert targets["aten.conv2d.default"] == convs and not targets["aten.new_zeros.default"]
        images = torch.randn(3, 3, 32, 32)
        assert torch.equal(program.module()(images), slim(images))


@torch.no_grad()
def test_only_sums_of_zeros_that_nothing_else_reads_are_left_out():
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first = x + x.new_zeros(x.shape)  # goes
            first.mul_(2)  # x stays as it is
            kept = x.new_zeros(x.shape)
            kept[:, 0] = 1.0
            second = x + kept
            wide = x[:, :1] + x.new_zeros(x.shape)
            zeros = x.new_zeros(x.shape)
            positive = x.relu() + x.new_zeros(x.shape)
            positive -= 1
            return torch.cat([x, first, second, wide, x + zeros, zeros, positive.relu()], 1)

    images, net = torch.randn(2, 3, 4, 4), Net()
    program = export_program(net, images[:1])
    assert torch.equal(program.module()(images), net(images))
    names = [str(node.target) for node in program.graph.nodes]
    assert sum("aten.add" in name for name in names) == 3


@pytest.mark.parametrize("format", FORMATS)
@torch.no_grad()
def test_a_file_computes_what_the_network_does_on_any_number_of_images(removed, written, format):
    opened = FORMATS[format].open(written(format))
    removed.eval()
    for batch_size in (1, 2, 5):
        images = torch.randn(batch_size, 3, 32, 32)
        found, expected = opened(images), removed(images)
        if format == "pt2":
            assert torch.equal(found, expected)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_names_no_folder_of_this_machine(written, format):
    assert str(ROOT).encode() not in written(format)
    assert str(Path(torch.__file__).parent).encode() not in written(format)


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_is_its_weights_and_a_graph_of_some_kilobytes(removed, written, format):
    weights = sum(4 * parameter.numel() for parameter in removed.parameters())
    assert weights < len(written(format)) < weights + 250_000


def test_the_modes_of_the_network_come_back():
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2).eval())
    export_program(model, torch.zeros(1, 3, 4, 4))
    assert [module.training for module in model.modules()] == [True, True, False]


def test_a_pt2_file_gives_its_facts(written, tmp_path):
    (tmp_path / "it.pt2").write_bytes(written("pt2"))
    facts = {FACTS: ""}
    torch.export.load(tmp_path / "it.pt2", extra_files=facts)
    assert json.loads(facts[FACTS]) == KNOWN


def test_an_onnx_file_gives_its_facts_and_names_its_input(written):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(written("onnx"))
    assert json.loads(session.get_modelmeta().custom_metadata_map[FACTS]) == KNOWN
    (images,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.shape) == ("images", ["batch", 3, 32, 32])
    assert (logits.name, logits.shape) == ("logits", ["batch", 10])


def test_a_module_that_has_a_word_of_python_for_its_name_is_named():
    model = nn.Sequential()
    model.add_module("class", nn.Conv2d(3, 4, 1))
    message = "module 'class': torch.export writes names into code, where Python keeps 'class'"
    with pytest.raises(ValueError, match=message):
        export_program(model, torch.zeros(1, 3, 8, 8))
