"""The averaged network is the weighted sum that its decay says."""

import torch

from tests.training.tiny_run import tiny_network
from utils.training.averaging import WeightAverage


def moved(model, number: int) -> None:
    generator = torch.Generator().manual_seed(number)
    with torch.no_grad():
        for value in (*model.parameters(), model[1].running_mean):
            value.copy_(torch.randn(value.shape, generator=generator))


def test_the_average_is_that_of_all_weights_so_far_and_soon_forgets_the_first():
    model = tiny_network()
    average = WeightAverage(model, decay=0.3)
    expected = [parameter.detach().clone() for parameter in model.parameters()]
    for number, decay in enumerate([1 / 10, 2 / 11, 3 / 12, 0.3, 0.3]):
        moved(model, number)
        average.update(model)
        pairs = zip(expected, model.parameters(), strict=True)
        expected = [decay * old + (1 - decay) * new.detach() for old, new in pairs]
        for value, other in zip(average.model.parameters(), expected, strict=True):
            torch.testing.assert_close(value, other)


def test_decay_0_takes_the_weights_bit_for_bit():
    model = tiny_network()
    average = WeightAverage(model, decay=0.0)
    for number in range(3):
        moved(model, number)
        average.update(model)
        for value, other in zip(average.model.parameters(), model.parameters(), strict=True):
            assert torch.equal(value, other)


def test_buffers_are_copied_when_asked_for():
    model = tiny_network()
    average = WeightAverage(model, decay=0.9)
    moved(model, 0)
    average.update(model)
    assert not torch.equal(average.model[1].running_mean, model[1].running_mean)
    average.copy_buffers(model)
    assert torch.equal(average.model[1].running_mean, model[1].running_mean)


def test_the_network_itself_is_left_alone():
    model, untouched = tiny_network(), tiny_network()
    average = WeightAverage(model, decay=0.9)
    average.update(model)
    for value, other in zip(model.parameters(), untouched.parameters(), strict=True):
        assert torch.equal(value, other) and value.requires_grad
    assert not any(value.requires_grad for value in average.model.parameters())
