"""Several processes train as one does: the same weights, accuracy and errors, in float64."""

import copy
import math

import pytest
import torch
from torch import nn

from models.registry import build_model
from tests.several_processes import side_by_side, values_of
from utils.graph.aligned import is_aligned
from utils.graph.channel_graph import trace_channels
from utils.graph.emptied import is_emptied
from utils.removal.surgery import remove_filters
from utils.runs import processes
from utils.training.loop import train_epoch
from utils.training.schedules import Recipe
from utils.training.steps import TrainingStep, make_optimizer
from utils.training.synchronised_norms import synchronised_norms

SIZES = (8, 8, 7, 2)  # of batches; of three processes, one has no part of the last


def parts(broken: bool = False):
    """This process's part of each of some batches."""
    generator = torch.Generator().manual_seed(0)
    for number, size in enumerate(SIZES):
        images = torch.randn(size, 3, 32, 32, generator=generator, dtype=torch.float64)
        labels = torch.randint(10, (size,), generator=generator)
        if broken and number == 2:
            images[-1] = math.inf  # in the part of the last process
        (own,) = processes.part_of_each([slice(0, size)])
        yield images[own], labels[own]


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_model("resnet_8").double()


def removed() -> nn.Module:
    """A network with norms that write into wider streams, and a block that is left out."""
    model, masks = network(), {"layer1.0.conv2": torch.zeros(16, dtype=torch.bool)}
    graph = trace_channels(model, torch.zeros(1, 3, 32, 32, dtype=torch.float64))
    masks |= {f"layer{n}.0.conv2": torch.arange(16 * 2 ** (n - 1)) % 3 > 0 for n in (2, 3)}
    slim = remove_filters(model, graph, masks)
    assert is_emptied(slim.layer1[0].bn2) and is_aligned(slim.layer3[0].bn2)
    return slim


def train(settings: dict, broken: bool = False) -> tuple:
    settings = dict(settings)
    model = removed() if settings.pop("removed", False) else network()
    teacher = network().eval() if "distill_weight" in settings else None
    recipe = Recipe(epochs=1, lr=0.1, label_smoothing=0.1, **settings)
    optimizer = make_optimizer(model, recipe)
    with torch.no_grad():
        model.conv1.weight[:3] = 0  # a mask must hold in every process
    step = TrainingStep(
        model,
        optimizer,
        recipe,
        after_step=lambda: model.conv1.weight.data[:3].zero_(),
        teacher=teacher,
    )
    accuracy = train_epoch(step, parts(broken))
    assert not any("forward" in vars(module) for module in model.modules())
    return accuracy, {name: value.numpy() for name, value in step.evaluated.state_dict().items()}


@pytest.mark.parametrize(
    ("count", "settings"),
    [
        (2, {"clip_norm": 0.5, "ema": 0.9}),
        (3, {}),
        (2, {"removed": True}),
        (3, {"accumulate": 3, "distill_weight": 0.5}),
    ],
)
def test_several_processes_train_as_one_does(tmp_path, count, settings):
    (accuracy, weights), *others = values_of(count, tmp_path, train, settings)
    alone, expected = train(settings)
    assert (accuracy.correct, accuracy.images) == (alone.correct, alone.images)
    assert accuracy.loss == pytest.approx(alone.loss, rel=1e-12)
    assert list(weights) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(
            torch.as_tensor(weights[name]), torch.as_tensor(value), rtol=1e-9, atol=1e-11
        )
    for other, other_weights in others:
        assert other == accuracy
        for name, value in weights.items():
            assert (other_weights[name] == value).all(), name


def test_a_loss_that_is_not_finite_in_one_process_is_said_once_by_the_first(tmp_path):
    outcomes = side_by_side(2, tmp_path, train_joined)
    with pytest.raises(ValueError, match=r"step 3, .* in the output of conv1 \(Conv2d\)") as alone:
        train({}, broken=True)
    assert [outcome.code for outcome in outcomes] == [3, 1]
    assert outcomes[0].err == f"ValueError: {alone.value}\n"
    assert outcomes[1].err == ""


def train_joined() -> None:
    with processes.joined():
        train({}, broken=True)


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(3, momentum=None),
        nn.BatchNorm2d(3, affine=False),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.BatchNorm1d(3),
    ],
)
def test_a_norm_of_two_processes_is_that_of_one(tmp_path, norm):
    size = (5, 3) if isinstance(norm, nn.BatchNorm1d) else (5, 3, 4, 4)
    images = torch.randn(size, generator=torch.Generator().manual_seed(0))
    found = values_of(2, tmp_path, normalise_twice, norm, images)
    expected = normalise_twice(norm, images)
    torch.testing.assert_close(torch.cat([outputs for outputs, _ in found]), expected[0])
    for _, state in found:
        torch.testing.assert_close(state, expected[1])


def normalise_twice(norm: nn.Module, images: torch.Tensor) -> tuple:
    norm = copy.deepcopy(norm)  # arguments lie in memory that the processes share
    (own,) = processes.part_of_each([slice(0, len(images))])
    with synchronised_norms(norm):
        norm(images[own] * 2 + 1)
        return norm(images[own]).detach(), norm.state_dict()
