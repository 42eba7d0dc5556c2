"""One sweep over the images gives what one sweep per layer gives, and borrows the network."""

import pytest
import torch
from torch import nn

from models.registry import build_model
from utils.graph.prunable import Site
from utils.options.networks import outline
from utils.rank.estimation import estimate_ranks


def random_images(count, size=32, seed=0):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def network(name):
    torch.manual_seed(0)
    return build_model(name)


def sites_of(name):
    return list(outline(name).layers.sites())


def at(*modules):
    return [Site(module) for module in modules]


@torch.no_grad()
def one_sweep_per_layer(model, site, batches):
    """Average ranks as the official code finds them: one layer, one image, one map at a time."""
    average, total = torch.zeros(0), 0

    def hook(module, inputs, output):
        nonlocal average, total
        output = output[:, site.start : site.stop]
        ranks = torch.tensor([[int(torch.linalg.matrix_rank(m)) for m in maps] for maps in output])
        average = (average * total if total else 0) + ranks.double().sum(0)
        total += len(output)
        average = average / total

    handle = model.get_submodule(site.module).register_forward_hook(hook)
    model.eval()
    for batch in batches:
        model(batch)
    handle.remove()
    return average


@pytest.mark.parametrize("name", ["resnet_8", "vgg_16_bn"])
def test_one_sweep_finds_what_one_sweep_per_layer_finds(name):
    model, batches = network(name), random_images(2).split(1)
    found = estimate_ranks(model, sites_of(name), batches)
    assert list(found) == sites_of(name)
    for site, statistics in found.items():
        slow = one_sweep_per_layer(model, site, batches)
        assert torch.equal(statistics.total, (slow * 2).round().long()), site
        torch.testing.assert_close(statistics.mean, slow, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sizes", [[1] * 6, [2, 4], [5, 0, 1]])
def test_batching_changes_nothing(sizes):
    model, images = network("resnet_8"), random_images(6)
    whole = estimate_ranks(model, sites_of("resnet_8"), [images])
    parts = estimate_ranks(model, sites_of("resnet_8"), images.split(sizes))
    for site, statistics in whole.items():
        assert torch.equal(statistics.total, parts[site].total)
        assert torch.equal(statistics.total_of_squares, parts[site].total_of_squares)
        assert (statistics.images, statistics.map_size) == (6, parts[site].map_size)


def test_mean_and_variance_are_those_of_the_ranks():
    ranks = torch.tensor([[0, 1], [4, 1], [3, 1]])  # [N, C]
    diagonals = torch.stack([(torch.arange(4) < rank).float() for rank in ranks.flatten()])
    maps = torch.diag_embed(diagonals).reshape(3, 2, 4, 4)
    found = estimate_ranks(nn.Sequential(nn.Identity()), at("0"), [maps])[Site("0")]
    torch.testing.assert_close(found.mean, ranks.double().mean(0))
    torch.testing.assert_close(found.variance, ranks.double().var(0, correction=0))
    assert (found.mean.dtype, found.map_size) == (torch.float64, (4, 4))


def test_a_site_is_ranked_before_an_inplace_module_overwrites_it():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.ReLU(inplace=True))
    batches = [random_images(2, size=8) - 1]
    found = estimate_ranks(model, at("0"), batches)[Site("0")]
    with torch.no_grad():
        ranks = torch.linalg.matrix_rank(model[0](batches[0]))
    assert torch.equal(found.total, ranks.sum(0))


def test_slices_of_one_output_are_ranked_apart():
    model, batches = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU()), [random_images(3, size=8)]
    whole = estimate_ranks(model, at("1"), batches)[Site("1")]
    parts = estimate_ranks(model, [Site("1", 0, 2), Site("1", 2, 5)], batches)
    assert torch.equal(torch.cat([part.total for part in parts.values()]), whole.total)


def test_each_layer_of_each_batch_is_reported():
    seen = []
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    found = estimate_ranks(
        model,
        at("0", "1"),
        random_images(3, 8).split(2),
        after_layer=lambda site, ranks: seen.append((site, ranks)),
    )
    assert [site for site, _ in seen] == at("0", "1") * 2
    for site, statistics in found.items():
        ranks = torch.cat([ranks for where, ranks in seen if where == site])  # [3, 4]
        assert torch.equal(ranks.sum(0), statistics.total)


def frozen_network():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    model[1].eval()
    return model


def assert_as_before(model, state):
    assert [module.training for module in model] == [True, False, True] and model.training
    assert not any(module._forward_hooks for module in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


def broken_batches():
    yield random_images(1, 8)
    raise KeyError("the disk is gone")


@pytest.mark.parametrize(
    ("sites", "batches", "error"),
    [
        (["0", "2"], [random_images(2, 8)], None),
        (["0", "absent"], [random_images(2, 8)], ValueError),
        (["0"], [random_images(2, 8) * torch.nan], ValueError),
        (["0"], [random_images(2, 8)[:, :2]], RuntimeError),
        (["0"], broken_batches(), KeyError),
        (["0"], [], ValueError),
    ],
)
def test_flags_hooks_and_weights_come_back(sites, batches, error):
    model = frozen_network()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    if error:
        with pytest.raises(error):
            estimate_ranks(model, at(*sites), batches)
    else:
        estimate_ranks(model, at(*sites), batches)
    assert_as_before(model, state)


def test_hooks_of_others_stay():
    model, calls = frozen_network(), []
    model[0].register_forward_hook(lambda module, inputs, output: calls.append(1))
    estimate_ranks(model, at("0"), [random_images(2, 8)])
    assert len(calls) == 1 and len(model[0]._forward_hooks) == 1


class Reuses(nn.Module):
    """One ReLU called twice, and one that is never called."""

    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU()
        self.unused = nn.ReLU()

    def forward(self, maps):
        return self.relu(1 - self.relu(maps))


@pytest.mark.parametrize(
    ("site", "message"),
    [
        ("absent", "layer 'absent': the network has no module of that name"),
        ("unused", "layer 'unused' did not run: expected a module that forward calls"),
        ("relu", "layer 'relu' gave 4 sets of feature maps for 2 images: .* calls once"),
    ],
)
def test_a_site_that_does_not_run_once_is_named(site, message):
    with pytest.raises(ValueError, match=message):
        estimate_ranks(Reuses(), at(site), [random_images(2, 8)])


def test_nan_maps_name_their_layer_and_their_number():
    model = frozen_network()
    with torch.no_grad():
        model[0].bias[1] = torch.nan
    with pytest.raises(ValueError, match="layer '0': feature maps: 72 of 288 values are NaN or"):
        estimate_ranks(model, at("0"), [random_images(2, 8)])


def test_vectors_have_no_rank():
    model = nn.Sequential(nn.Flatten())
    with pytest.raises(ValueError, match=r"layer '0': .*expected \[N, C, H, W\], got \[2, 192\]"):
        estimate_ranks(model, at("0"), [random_images(2, 8)])


@pytest.mark.parametrize("batches", [[], [torch.zeros(0, 3, 8, 8)]])
def test_no_images_have_no_average(batches):
    with pytest.raises(ValueError, match="cannot average ranks over no images"):
        estimate_ranks(frozen_network(), at("0"), batches)
