"""A pruned network comes back from its file bit for bit, and nothing else comes back at all."""

from dataclasses import replace

import pytest
import torch
import torchvision
from torch import nn

from models.registry import build_model
from tests.networks import randomized
from tests.reference import REFERENCE, needs_reference
from utils.benchmarks.networks_table import enliven
from utils.options.networks import load_network, network_of
from utils.removal.masks import ChannelMasks
from utils.removal.network_file import write_network
from utils.removal.surgery import remove_filters
from utils.removal.zero_filters import remove_zero_filters

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def dense_network(arch, num_classes):
    """A network whose batch norms have seen something."""
    torch.manual_seed(0)
    model = build_model(arch, num_classes)
    with torch.no_grad():
        model(IMAGES)
    return model.eval()


def pruned_network(form, arch="resnet_8", num_classes=5):
    """Half of the filters of every second layer gone, the last ones of the others."""
    model = dense_network(arch, num_classes)
    dense = network_of(model, arch, num_classes)
    graph = dense.graph
    protected, masks = graph.protected(), {}
    layers = [(name, filters) for name, filters in graph.filters().items() if name not in protected]
    for number, (name, filters) in enumerate(layers[1:]):
        masks[name] = torch.arange(filters) % 2 == 0
        if number % 2:
            masks[name] = torch.arange(filters) < filters - 3
    if form == "mask":
        ChannelMasks(model, graph, masks).apply()
    else:
        model = remove_filters(model, graph, masks)
    made_by = {"seed": 3, "rates": [0.5]}
    return replace(dense, model=model, form=form, masks=masks, provenance=made_by)


def assert_same(network, other):
    assert (network.spec, network.num_classes) == (other.spec, other.num_classes)
    assert (network.form, network.provenance) == (other.form, other.provenance)
    assert list(network.masks) == list(other.masks)
    assert all(torch.equal(mask, other.masks[conv]) for conv, mask in network.masks.items())
    state, other_state = network.model.state_dict(), other.model.state_dict()
    assert list(state) == list(other_state)
    assert all(torch.equal(value, other_state[key]) for key, value in state.items())
    with torch.no_grad():
        assert torch.equal(network.model.eval()(IMAGES), other.model.eval()(IMAGES))


@pytest.mark.parametrize(
    ("form", "arch"),
    [
        ("remove", "resnet_8"),
        ("mask", "resnet_8"),
        ("remove", "vgg_16_bn"),
        ("remove", "densenet_40"),
        ("remove", "mobilenet_v2"),
    ],
)
def test_a_pruned_network_comes_back_bit_for_bit(tmp_path, form, arch):
    network = pruned_network(form, arch)
    write_network(tmp_path / "pruned.pt", network)
    assert_same(load_network(tmp_path / "pruned.pt", arch), network)


def test_a_pruned_file_says_its_architecture_itself_and_can_be_written_again(tmp_path):
    write_network(tmp_path / "first.pt", pruned_network("remove"))
    first = load_network(tmp_path / "first.pt")
    write_network(tmp_path / "second.pt", first)
    assert_same(load_network(tmp_path / "second.pt"), first)


def test_a_network_that_lost_nothing_comes_back(tmp_path):
    network = replace(network_of(dense_network("resnet_8", 5), "resnet_8", 5), form="remove")
    write_network(tmp_path / "pruned.pt", network)
    assert_same(load_network(tmp_path / "pruned.pt"), network)


def test_a_removed_network_is_a_smaller_file(tmp_path):
    for form in ("mask", "remove"):
        write_network(tmp_path / form, pruned_network(form))
    assert (tmp_path / "remove").stat().st_size < 0.7 * (tmp_path / "mask").stat().st_size


def test_a_loaded_network_traces_as_it_is(tmp_path):
    write_network(tmp_path / "pruned.pt", pruned_network("mask"))
    assert load_network(tmp_path / "pruned.pt").graph.filters()["conv1"] == 16


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"state_dict": state}])
def test_a_dense_checkpoint_needs_its_architecture(tmp_path, wrap):
    model = dense_network("resnet_8", 7)
    torch.save(wrap(model.state_dict()), tmp_path / "dense.pt")
    assert_same(load_network(tmp_path / "dense.pt", "resnet_8"), network_of(model, "resnet_8", 7))
    with pytest.raises(ValueError, match=r"dense\.pt does not name its network: expected --arch"):
        load_network(tmp_path / "dense.pt")
    with pytest.raises(ValueError, match="unknown arch 'resnet_9'"):
        load_network(tmp_path / "dense.pt", "resnet_9")


@pytest.mark.parametrize("arch", ["resnet_20", "vgg_16_bn"])
def test_a_dense_checkpoint_of_another_network_is_refused(tmp_path, arch):
    torch.save(dense_network("resnet_8", 10).state_dict(), tmp_path / "dense.pt")
    with pytest.raises(ValueError, match=r"dense\.pt does not fit the network: "):
        load_network(tmp_path / "dense.pt", arch)


def test_a_pruned_file_of_another_network_is_refused(tmp_path):
    write_network(tmp_path / "pruned.pt", pruned_network("remove"))
    with pytest.raises(ValueError, match=r"pruned\.pt holds a pruned resnet_8: expected vgg_16_bn"):
        load_network(tmp_path / "pruned.pt", "vgg_16_bn")


class Malicious:
    def __reduce__(self):
        return open, ("was_run", "w")


def test_pickled_code_is_refused_and_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = pruned_network("remove")
    network.provenance["author"] = Malicious()
    write_network(tmp_path / "pruned.pt", network)
    with pytest.raises(ValueError, match=r"pruned\.pt refused: it holds .*open, not plain tensors"):
        load_network(tmp_path / "pruned.pt")
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_called_damaged(tmp_path, share):
    path = tmp_path / "pruned.pt"
    write_network(path, pruned_network("remove"))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"pruned\.pt is damaged: expected a whole file"):
        load_network(path)


FIELD_CASES = [
    ({"format": "pruned network 2"}, "'format' is 'pruned network 2', expected one of pruned netw"),
    ({"format": None}, "'format' is null, expected one of pruned network 1"),
    ({"arch": "resnet_9"}, "unknown arch 'resnet_9': expected one of"),
    ({"arch": None}, "'arch' is null, expected text"),
    ({"num_classes": "5"}, "'num_classes' is '5', expected a whole number, at least 0"),
    ({"num_classes": 10}, "says 10 classes: expected its classifier's 5"),
    ({"num_classes": 10**15}, f"says {10**15} classes: expected its classifier's 5"),
    ({"num_classes": -1}, "'num_classes' is -1, expected a whole number, at least 0"),
    ({"form": "shrunk"}, "'form' is 'shrunk', expected one of dense, mask, remove"),
    ({"form": "mask"}, "does not fit the network: 'layer1.0.conv1.weight' is"),
    ({"kept": [0, 1]}, "'kept' is a list of 2, expected an object"),
    ({"kept": {}}, "does not fit the network: 'layer1.0.conv1.weight' is"),
    ({"state_dict": None}, "'state_dict' is null, expected an object"),
    ({"state_dict": {}}, "and 'state_dict' is empty: expected a state dict"),
    ({"state_dict": {"conv1.weight": 3}}, "'conv1.weight' in 'state_dict' is 3: expected"),
    ({"provenance": None}, "'provenance' is null, expected an object"),
    ({"added_biases": "conv1"}, "'added_biases' is 'conv1', expected a list"),
    ({"added_biases": ["bn1"]}, r"'added_biases' is \['bn1'\]: expected names of convs"),
    ({"before": None}, "'before' is null, expected a list"),
    ({"before": [torch.ones(2)]}, r"'before\[0\]' is Tensor, expected an object"),
    ({"image_size": [32]}, "'image_size' is a list of 1, expected two numbers"),
    ({"image_size": [32, 0]}, r"'image_size\[1\]' is 0, expected a whole number, at least 1"),
    ({"arch_args": 3}, "'arch_args' is 3, expected text"),
    ({"added_biases": ["conv1"]}, "does not fit the network: 'conv1.bias' is missing"),
]  # fmt: skip


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """What the file of a removed ResNet-8 holds."""
    path = tmp_path_factory.mktemp("files") / "pruned.pt"
    write_network(path, pruned_network("remove"))
    return torch.load(path, weights_only=True)


def load_changed(folder, content):
    torch.save(content, folder / "pruned.pt")
    return load_network(folder / "pruned.pt")


@pytest.mark.parametrize(("change", "message"), FIELD_CASES)
def test_a_field_that_is_not_what_was_written_is_refused(tmp_path, content, change, message):
    with pytest.raises(ValueError, match=message):
        load_changed(tmp_path, {**content, **change})


@pytest.mark.parametrize("field", ["arch", "num_classes", "form", "state_dict", "provenance"])
def test_a_missing_field_is_refused(tmp_path, content, field):
    with pytest.raises(ValueError, match=f"lacks '{field}': expected a pruned network"):
        load_changed(tmp_path, {key: value for key, value in content.items() if key != field})


@pytest.mark.parametrize(
    "indices",
    [
        torch.tensor([0, 16]),
        torch.tensor([-1, 3]),
        torch.tensor([3, 1]),
        torch.tensor([1, 1]),
        torch.tensor([[0, 1]]),
        torch.tensor(3),
        torch.tensor([0.0, 1.0]),
        torch.ones(16, dtype=torch.bool),
        [0, 1],
        None,
    ],
)
def test_kept_indices_that_do_not_fit_are_refused(tmp_path, content, indices):
    kept = {**content["kept"], "layer1.0.conv1": indices}
    message = r"indices of 'layer1\.0\.conv1' do not fit: expected ascending ones within \[0, 16\)"
    with pytest.raises(ValueError, match=message):
        load_changed(tmp_path, {**content, "kept": kept})


@pytest.mark.parametrize("conv", ["layer9.0.conv1", "layer1", "", 1])
def test_kept_indices_of_no_conv_are_refused(tmp_path, content, conv):
    kept = {**content["kept"], conv: torch.tensor([0])}
    with pytest.raises(ValueError, match=f"keeps filters of {conv!r}: the network has no such"):
        load_changed(tmp_path, {**content, "kept": kept})


def test_other_kept_indices_of_the_same_number_load_and_fewer_do_not(tmp_path, content):
    conv = "layer1.0.conv1"
    shifted = {**content["kept"], conv: content["kept"][conv] + 1}
    load_changed(tmp_path, {**content, "kept": shifted})
    fewer = {**content["kept"], conv: content["kept"][conv][1:]}
    with pytest.raises(ValueError, match="does not fit the network"):
        load_changed(tmp_path, {**content, "kept": fewer})


def test_a_classifier_without_some_classes_is_refused(tmp_path, content):
    kept = {**content["kept"], "linear": torch.tensor([0, 1])}
    with pytest.raises(ValueError, match="does not fit the network"):
        load_changed(tmp_path, {**content, "kept": kept})


@needs_reference
def test_a_published_checkpoint_loads():
    path = REFERENCE / "resnet56-4bfd9763.th"
    network = load_network(path, "resnet_56")
    assert (network.form, network.num_classes) == ("dense", 10)
    published = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    assert torch.equal(network.model.fc.weight, published["module.linear.weight"])
    assert torch.equal(network.model.conv1.weight, published["module.conv1.weight"])


@torch.no_grad()
@pytest.mark.parametrize(
    ("arch", "theirs"), [("resnet_50", "resnet50"), ("mobilenet_v2", "mobilenet_v2")]
)
def test_weights_of_torchvision_give_the_same_logits(tmp_path, arch, theirs):
    torch.manual_seed(0)
    model = torchvision.models.get_model(theirs, weights=None, num_classes=7)
    enliven(model, IMAGES, seed=0)
    torch.save(model.state_dict(), tmp_path / "dense.pt")
    network = load_network(tmp_path / "dense.pt", arch)
    assert network.num_classes == 7
    logits = model.eval()(IMAGES)
    assert logits.std(0).max() > 0.1
    torch.testing.assert_close(network.model.eval()(IMAGES), logits)


def test_a_checkpoint_of_hrankplus_loads_without_the_counters_in_it(tmp_path):
    model = dense_network("resnet_8", 10)
    state = {}
    for key, value in model.state_dict().items():
        state[f"module.{key}"] = value
        if key.endswith(".weight"):
            for counter in ("total_ops", "total_params"):
                state[f"module.{key.removesuffix('weight')}{counter}"] = torch.zeros(1)
    torch.save({"epoch": 3, "state_dict": state, "best_top1_acc": 70.0}, tmp_path / "best.pt")
    assert_same(load_network(tmp_path / "best.pt", "resnet_8"), network_of(model, "resnet_8", 10))


def zero_branch():
    """A ResNet-8 whose one block adds nothing: its convs keep one channel."""
    model = randomized(build_model("resnet_8"), seed=8)
    block = model.layer2.get_submodule("0")
    nn.init.zeros_(block.bn2.weight)
    nn.init.zeros_(block.bn2.bias)
    return model, ()


def constants_in_a_sum():
    """A ResNet-8 whose constant channels go into a sum, where a conv takes a bias for them."""
    model = randomized(build_model("resnet_8"), seed=9)
    for conv, norm in (("conv1", "bn1"), ("layer1.0.conv1", "layer1.0.bn1")):
        model.get_submodule(conv).weight.detach()[:4] = 0
        model.get_submodule(norm).bias.detach()[:4] += 2
    model.layer1.get_submodule("0.conv2").padding_mode = "circular"
    return model, ("layer1.0.conv2",)


@pytest.mark.parametrize("made", [zero_branch, constants_in_a_sum])
def test_what_is_left_without_zeros_comes_back_with_its_added_biases(tmp_path, made):
    model, biases = made()
    dense = network_of(model, "resnet_8")
    removal = remove_zero_filters(model, dense.example)
    assert removal.added_biases == biases
    left = {"model": removal.model.float(), "masks": removal.masks, "added_biases": biases}
    write_network(tmp_path / "pruned.pt", replace(dense, form="remove", **left))
    again = load_network(tmp_path / "pruned.pt")
    assert again.added_biases == biases
    state, written = again.model.state_dict(), removal.model.state_dict()
    assert state.keys() == written.keys()
    assert all(torch.equal(value, written[key]) for key, value in state.items())
