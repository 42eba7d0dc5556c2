"""Pruning from Python: one call, whatever the network, the images and the criterion."""

import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from tests.own_networks import NET
from utils.library import load_removed, prune
from utils.planning.direct import Pruned

EXAMPLE = torch.zeros(1, 3, 16, 16)
BATCHES = [torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(k)) for k in (0, 1)]


@pytest.fixture
def model():
    torch.manual_seed(0)
    names: dict = {}
    exec(NET, names)
    return names["MyNet"](num_classes=3)


def test_one_call_prunes_by_rank_to_a_target(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    small = prune(model, EXAMPLE, images=BATCHES, target_macs=0.5, group=True, round_to=2)
    assert type(small.model) is type(model)
    assert small.costs["pruned"]["macs"] / small.costs["dense"]["macs"] == pytest.approx(0.5, 0.05)
    assert all(len(layer.kept) % 2 == 0 for layer in small.plan.layers if layer.removed)
    torch.testing.assert_close(model.state_dict(), before)


def test_tuples_tensors_and_loaders_give_the_same_scores(model):
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.cat(BATCHES), torch.zeros(4)), batch_size=3
    )
    many = [BATCHES, [(images, "labels") for images in BATCHES], torch.cat(BATCHES), loader]
    scores = [prune(model, EXAMPLE, images=images, ratio=0.5).scores for images in many]
    for other in scores[1:]:
        torch.testing.assert_close(other, scores[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("how", [{"criterion": "l1"}, {"images": BATCHES}], ids=["l1", "rank"])
def test_a_model_of_another_dtype_takes_the_same_images(model, dtype, how):
    small = prune(model.to(dtype), EXAMPLE, ratio=0.5, **how).model
    assert {parameter.dtype for parameter in small.parameters()} == {dtype}
    assert small(EXAMPLE.to(dtype)).shape == (1, 3)


def test_a_mask_holds_what_removal_takes(model):
    how = {"criterion": "l1", "rates": {"blocks.*": 0.5}}
    small, masked = (prune(model, EXAMPLE, mode=mode, **how) for mode in ("remove", "mask"))
    for parameter in masked.model.parameters():
        parameter.data += 1
    masked.keep_masked()
    for name, mask in masked.masks.items():
        assert not masked.model.get_submodule(name).weight[~mask].any()
    assert small.plan == masked.plan
    assert small.costs == masked.costs


def test_scores_and_criteria_of_ones_own(model):
    by_function = prune(model, EXAMPLE, criterion=lambda w: w.flatten(1).abs().amax(1), ratio=0.5)
    scores = {
        name: m.weight.detach().flatten(1).abs().amax(1)
        for name, m in model.named_modules()
        if isinstance(m, nn.Conv2d | nn.Linear)
    }
    assert prune(model, EXAMPLE, scores=scores, ratio=0.5).plan == by_function.plan


def test_a_saved_file_opens_from_python_and_in_the_commands(model, call, tmp_path, images):
    small: Pruned = prune(model, EXAMPLE, criterion="l1", ratio=0.5)
    small.save("small.pt")
    again = load_removed("small.pt", type(model)(num_classes=3), EXAMPLE)
    torch.testing.assert_close(again.eval()(EXAMPLE), small.model.eval()(EXAMPLE))
    Path("my_net.py").write_text(NET)
    words = ("--resume", "small.pt", "--arch", "my_net.py:MyNet", "--random_images", "--json")
    sizes = ("--image_size", "16", "--format", "pt2", "--arch_args", "num_classes=3")
    exported = call("main.py", "export", *words, *sizes).json
    assert exported["physical"]["exported"] == small.costs["pruned"]
    refused = call("main.py", "evaluate", "--resume", "small.pt")
    assert refused.code == 2
    assert "--arch FILE.py:CALLABLE" in refused.err


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"ratio": 0.5}, "criterion 'rank' needs images: expected a loader or batches"),
        ({"criterion": "l1"}, "expected one of ratio, rates, target_macs and target_params"),
        ({"criterion": "l1", "target_macs": 0.001}, "target_macs 0.001 is out of reach"),
        ({"criterion": "l1", "target_macs": 1.5}, "target_macs is 1.5: expected more than 0"),
        ({"criterion": "l1", "ratio": 0.5, "mode": "zero"}, "mode is 'zero': expected remove or"),
        ({"criterion": "l1", "rates": {"blocks.0.conv3": 0.5}}, "did you mean 'blocks.0.conv"),
    ],
)
def test_bad_input_is_a_sentence(model, how, message):
    with pytest.raises(ValueError, match=message):
        prune(model, EXAMPLE, **how)


def test_a_network_of_barriers_has_nothing_to_prune():
    names: dict = {}
    exec(NET, names)
    with pytest.raises(ValueError, match="nothing to prune"):
        prune(names["Barrier"](), EXAMPLE, criterion="l1", ratio=0.5)


class Steps(nn.Module):
    """A network of an image and a number for each image."""

    def __init__(self):
        super().__init__()
        self.conv, self.step = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(1, 8)
        self.head = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, images, steps):
        return self.head(torch.relu(self.conv(images) + self.step(steps)[:, :, None, None]))


@pytest.mark.parametrize("named", [False, True], ids=["tuple", "dict"])
@pytest.mark.parametrize("how", [{"ratio": 0.5}, {"target_macs": 0.6}], ids=str)
def test_a_network_of_several_inputs_is_pruned(named, how, tmp_path):
    inputs = {"images": torch.randn(1, 3, 8, 8), "steps": torch.ones(1, 1)}
    example = inputs if named else tuple(inputs.values())
    small = prune(Steps(), example, criterion="l1", group=True, **how)
    assert small.model(**inputs).shape == (1, 3, 8, 8)
    macs = [cost["macs"] for cost in small.costs.values()]
    assert 0.4 * macs[0] < macs[1] < 0.7 * macs[0]
    small.save(tmp_path / "small.pt")
    again = load_removed(tmp_path / "small.pt", Steps(), example)
    assert torch.equal(again(**inputs), small.model(**inputs))


def test_another_project_keeps_its_own_utils(monkeypatch, model):
    theirs = ModuleType("utils")
    mine = {name: module for name, module in sys.modules.items() if name.startswith("utils.")}
    for name in mine:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "utils", theirs)
    path = Path(__file__).parents[2] / "models" / "imports.py"
    prune_there = runpy.run_path(str(path))["library"]().prune
    small = prune_there(model, EXAMPLE, images=BATCHES, ratio=0.5)
    assert small.costs["pruned"]["macs"] < small.costs["dense"]["macs"]
    assert sys.modules["utils"] is theirs
    for name in set(sys.modules) - set(mine):
        if name.startswith("utils."):
            monkeypatch.delitem(sys.modules, name)
