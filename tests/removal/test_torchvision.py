"""The law on torchvision's networks: half of the filters removed = half of them masked."""

import copy

import pytest
import torch
import torchvision

from utils.benchmarks.networks_table import NETWORKS, build, differences, enliven, planned_masks
from utils.graph.channel_graph import trace_channels
from utils.metrics.cost import physical_cost
from utils.removal.masks import ChannelMasks
from utils.removal.surgery import remove_filters

SIZE, INCEPTION_SIZE = 32, 80  # about the least that runs


def of(*networks, across_sums=(False,)):
    """Parametrize a test; all tests of a network run together, so that one is held at a time."""

    def parametrized(test):
        test = pytest.mark.parametrize("across_sums", across_sums, scope="module")(test)
        return pytest.mark.parametrize("network", networks, scope="module")(test)

    return parametrized


# the laws are held on this repository's VGG, DenseNet, ResNet-50 and MobileNets, too; EfficientNet
# has the structures of MobileNetV3
COVERED = {"densenet121", "resnet50", "mobilenet_v2", "mnasnet1_0", "vgg16_bn", "efficientnet_b0"}
of_each = of(*(name for name in NETWORKS if name not in COVERED), across_sums=(False, True))


@pytest.fixture(scope="module")
def dense(network):
    """Return (network in float64, its channel graph, images [3, 3, S, S])."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(network)
        size = INCEPTION_SIZE if network == "inception_v3" else SIZE
        images = torch.randn(3, 3, size, size, dtype=torch.float64)
    model = model.double().eval()
    enliven(model, images, seed=0)
    return model, trace_channels(model, images[:1]), images


@pytest.fixture(scope="module")
def masked_and_removed(dense, across_sums):
    model, graph, _ = dense
    masks = planned_masks(model, graph, across_sums=across_sums)
    masked = copy.deepcopy(model)
    ChannelMasks(masked, graph, masks).apply()
    return masked, remove_filters(model, graph, masks)


@of_each
def test_removed_is_masked_in_both_modes(dense, masked_and_removed):
    for mode, found in differences(*masked_and_removed, dense[2]).items():
        assert found["largest_difference"] <= 1e-9 * found["scale"], (mode, found)
        assert found["scale"] > 0.01, (mode, found)


@of_each
def test_parameters_and_macs_drop(dense, masked_and_removed):
    (model, _, images), (_, removed) = dense, masked_and_removed
    before, after = physical_cost(model, images[:1]), physical_cost(removed, images[:1])
    assert after.parameters < 0.75 * before.parameters
    assert after.macs < 0.6 * before.macs


@of_each
def test_the_removed_network_takes_an_optimizer_step(dense, masked_and_removed):
    network, images = copy.deepcopy(masked_and_removed[1]), dense[2]
    network.float().train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    before = copy.deepcopy(network.state_dict())
    network(images.float()).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    optimizer.step()
    after = network.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    assert any(not torch.equal(after[key], before[key]) for key, _ in network.named_parameters())


@of("resnet18", "mobilenet_v3_small", "shufflenet_v2_x1_0")
def test_the_removed_network_exports_with_a_dynamic_batch(dense, masked_and_removed):
    removed, images = masked_and_removed[1].eval(), dense[2]
    batch = torch.export.Dim("batch", min=2)
    exported = torch.export.export(removed, (images,), dynamic_shapes=({0: batch},))
    torch.testing.assert_close(exported.module()(images[:2]), removed(images[:2]))


@of("squeezenet1_1", "resnet18")
def test_the_removed_network_compiles(dense, masked_and_removed):
    removed, images = masked_and_removed[1].eval(), dense[2]
    compiled = torch.compile(removed, backend="eager")
    torch.testing.assert_close(compiled(images), removed(images))


def with_heads(network):
    options = {"weights": None, "aux_logits": True, "init_weights": False}
    return torchvision.models.get_model(network, num_classes=10, **options).eval()


@pytest.mark.parametrize("network, size", [("googlenet", SIZE)])
def test_auxiliary_heads_stay_and_train_on(network, size):
    model, images = with_heads(network).double(), torch.randn(2, 3, size, size).double()
    graph = trace_channels(model, images[:1])
    masks = planned_masks(model, graph, across_sums=False)
    removed = remove_filters(model, graph, masks)
    assert type(removed) is type(model) and set(removed.state_dict()) == set(model.state_dict())
    ChannelMasks(model, graph, masks).apply()
    torch.testing.assert_close(removed(images), model(images), rtol=1e-6, atol=1e-9)
    assert len(removed.train()(images)) == len(model.train()(images)) > 1


def test_a_network_that_loses_nothing_keeps_its_auxiliary_heads():
    model = with_heads("googlenet")
    graph = trace_channels(model, torch.zeros(1, 3, SIZE, SIZE))
    removed = remove_filters(model, graph, {})
    assert type(removed) is type(model) and set(removed.state_dict()) == set(model.state_dict())
