"""A step follows the plain formulas, reads nothing back, and can be stopped anywhere."""

import copy
import functools
import io
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tests.training.tiny_run import tiny_batches, tiny_images, tiny_network
from utils.training import not_finite
from utils.training.loop import train_epoch
from utils.training.schedules import Recipe
from utils.training.steps import TrainingStep, distillation_loss, make_optimizer


def plain_network() -> nn.Module:
    """Without batch norm and dropout: an image's gradient is the same whatever comes beside it."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 16), nn.Linear(16, 4)
        )
        return network.double()


def batches_of(count: int, size: int, dtype=torch.float64):
    images, labels = tiny_images(count, seed=3)
    return list(zip(images.to(dtype).split(size), labels.split(size), strict=True))


def noisy_batches(epoch: int):
    """The tiny batches of an epoch, the same at each call."""
    with torch.random.fork_rng():
        torch.manual_seed(epoch)
        return list(tiny_batches(epoch))


def step_of(model, *, after_step=None, teacher=None, **settings) -> TrainingStep:
    recipe = Recipe(**{"epochs": 1, "lr": 0.1, **settings})
    optimizer = make_optimizer(model, recipe)
    return TrainingStep(model, optimizer, recipe, after_step=after_step, teacher=teacher)


def trained(model, batches, *, epochs=2, **settings) -> nn.Module:
    step = step_of(model, **settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(epochs):
            train_epoch(step, batches)
    return step.evaluated


def assert_same(model, expected, **tolerance):
    for (name, value), other in zip(
        model.state_dict().items(), expected.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(value, other, **(tolerance or {"rtol": 0, "atol": 0}), msg=name)


@pytest.mark.parametrize("count", [48, 40, 44, 52])  # whole; a rest; rests with a short batch
def test_accumulated_batches_are_one_large_batch(count):
    few = trained(plain_network(), batches_of(count, 8), accumulate=3, clip_norm=0.5)
    large = trained(plain_network(), batches_of(count, 24), clip_norm=0.5)
    assert_same(few, large, rtol=1e-9, atol=1e-12)


def test_after_step_is_called_once_for_each_step_of_the_optimizer():
    calls = []
    step = step_of(tiny_network(), accumulate=3, after_step=lambda: calls.append(1))
    train_epoch(step, tiny_batches(0))  # 4 batches
    assert len(calls) == 2


def gradient_step(model, before, lr):
    """The direction of a plain step, all weights in one vector."""
    pairs = zip(before.parameters(), model.parameters(), strict=True)
    return torch.cat([(old - new).flatten() / lr for old, new in pairs]).detach()


@pytest.mark.parametrize("norm", [0.1, 1e6])
def test_a_clipped_gradient_keeps_its_direction_and_has_at_most_that_norm(norm):
    settings, batches = {"momentum": 0.0, "weight_decay": 0.0, "epochs": 1}, batches_of(8, 8)
    free, clipped = (
        gradient_step(trained(plain_network(), batches, **settings, **more), plain_network(), 0.1)
        for more in ({}, {"clip_norm": norm})
    )
    expected = free * min(1.0, norm / float(free.norm()))
    torch.testing.assert_close(clipped, expected, rtol=1e-4, atol=1e-9)


def test_averaging_with_decay_0_is_no_averaging():
    batches = noisy_batches(0)
    assert_same(trained(tiny_network(), batches, ema=0.0), trained(tiny_network(), batches))


def test_the_teacher_answers_in_eval_mode_and_stays_as_it_is():
    teacher = tiny_network()
    teacher[1].eval()
    before, modes = copy.deepcopy(teacher), [module.training for module in teacher.modules()]
    seen = []
    teacher.register_forward_hook(lambda module, *_: seen.append(module.training))
    train_epoch(step_of(tiny_network(), teacher=teacher), tiny_batches(0))
    assert seen == [False] * 4
    assert [module.training for module in teacher.modules()] == modes
    assert_same(teacher, before)


def test_a_teacher_of_no_weight_teaches_nothing():
    teacher, batches = plain_network(), batches_of(24, 8)
    assert_same(
        trained(tiny_network().double(), batches, teacher=teacher, distill_weight=0.0),
        trained(tiny_network().double(), batches),
    )


def test_who_answers_like_the_teacher_has_nothing_to_learn():
    model, settings = plain_network(), {"distill_weight": 1.0, "weight_decay": 0.0}
    found = trained(model, batches_of(24, 8), teacher=plain_network(), **settings)
    assert_same(found, plain_network(), rtol=0, atol=1e-12)


def test_distillation_is_hintons():
    student, teacher = torch.randn(2, 5, 4, dtype=torch.float64, generator=seeded()).unbind()
    p, q = (F.softmax(logits / 3, dim=1) for logits in (teacher, student))
    divergence = sum(p[n, k] * (p[n, k] / q[n, k]).log() for n in range(5) for k in range(4)) / 5
    found = distillation_loss(student, teacher, 3.0)
    torch.testing.assert_close(found, 9 * divergence)
    # His limit of high temperatures: the mean squared difference of the centred logits, halved.
    centred = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    limit = distillation_loss(student, teacher, 1e4)
    torch.testing.assert_close(limit, centred.square().mean() / 2, rtol=1e-3, atol=0)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(4)


def test_a_teachers_loss_is_mixed_by_its_weight():
    (batch,) = batches_of(8, 8)
    teacher = tiny_network().double().eval()
    settings = {"teacher": teacher, "distill_weight": 0.3, "distill_temperature": 2.0}
    loss, *_ = step_of(plain_network(), **settings)(*batch)
    logits, images, labels = plain_network()(batch[0]), *batch
    taught = distillation_loss(logits, teacher(images), 2.0)
    torch.testing.assert_close(loss, 0.7 * F.cross_entropy(logits, labels) + 0.3 * taught)


class Reads(TorchDispatchMode):
    """Counts what waits for the device: numbers that Python reads off a tensor."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_nothing_is_read_back_where_reading_waits(monkeypatch):
    monkeypatch.setattr(not_finite, "_STEPS_BETWEEN_READS", 3)
    settings = {"clip_norm": 0.5, "ema": 0.9, "teacher": tiny_network()}
    step = step_of(tiny_network(), **settings)
    on_cpu = Reads()
    with on_cpu, step.modes():
        for batch in tiny_batches(0):
            step(*batch)
    step._watch._steps_between_reads = not_finite._STEPS_BETWEEN_READS  # as on any other device
    counts = []
    for batch in tiny_batches(0):
        with step.modes(), Reads() as reads:
            step(*batch)
        counts.append(reads.count)
    assert on_cpu.count >= 4
    assert counts[:2] == [0, 0] and counts[2] > 0 and counts[3] == 0


def test_a_broken_loss_stops_before_the_weights_follow_it():
    batches, model = noisy_batches(0), tiny_network()
    broken = [*batches[:2], (batches[2][0] * math.inf, batches[2][1])]
    with pytest.raises(ValueError, match=r"at step 3, .* 0 \(Conv2d\)"):
        trained(model, broken)
    healthy = trained(tiny_network(), batches[:2], epochs=1)
    for parameter, expected in zip(model.parameters(), healthy.parameters(), strict=True):
        assert torch.equal(parameter, expected)


def late_step(model: nn.Module, steps_between_reads: int, **settings) -> TrainingStep:
    """Return a step as it is on a GPU: with a fused optimizer, and told late that a loss broke."""
    recipe = Recipe(**{"epochs": 1, "lr": 0.1, **settings})
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=5e-4, fused=True)
    step = TrainingStep(model, optimizer, recipe)
    step._watch._steps_between_reads = steps_between_reads
    return step


@pytest.mark.parametrize("steps_between_reads", [3, 50])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_where_a_broken_loss_is_noticed_late_the_weights_wait(steps_between_reads, accumulate):
    model, states = plain_network(), []

    def batches():
        for number, batch in enumerate(batches_of(64, 8)):
            if number == 4:
                with torch.no_grad():
                    model[3].bias[0] = math.inf
            states.append(copy.deepcopy(model))
            yield batch

    expected = r"at step 5, .* in the output of 3 \(Linear\): try"
    with pytest.raises(ValueError, match=expected):
        train_epoch(late_step(model, steps_between_reads, accumulate=accumulate), batches())
    assert len(states) == {3: 6, 50: 8}[steps_between_reads]
    assert_same(model, states[4])


@pytest.mark.parametrize("stop_after", range(1, 8))
def test_a_step_that_is_saved_and_loaded_goes_on_as_if_never_stopped(stop_after):
    settings = {"accumulate": 3, "ema": 0.8, "clip_norm": 0.3}
    batches = noisy_batches(0) + noisy_batches(1)  # 8: gradients of 1 or 2 wait, or none
    whole, part, again = (tiny_network() for _ in range(3))
    expected = trained(whole, batches, epochs=1, **settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        before, after = step_of(part, **settings), step_of(again, **settings)
        with before.modes():
            for batch in batches[:stop_after]:
                before(*batch)
        again.load_state_dict(part.state_dict())
        after._optimizer.load_state_dict(through_a_file(before._optimizer.state_dict()))
        after.load_state_dict(through_a_file(before.state_dict()))
        train_epoch(after, batches[stop_after:])
    assert_same(again, whole)
    assert_same(after.evaluated, expected)


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_a_loss_that_broke_is_not_saved_as_good():
    model = plain_network()
    step = late_step(model, 50)
    with torch.no_grad():
        model[3].bias[0] = math.inf
    step(*batches_of(8, 8)[0])
    with pytest.raises(ValueError, match=r"the loss is not finite at step 1.* 3 \(Linear\)"):
        step.state_dict()


def without_dropout() -> nn.Module:
    model = tiny_network()
    model[3].p = 0.0
    return model


def test_half_precision_is_the_layers_alone_and_off_on_the_cpu():
    kinds, batches = [], noisy_batches(0)
    model = without_dropout()
    model[0].register_forward_hook(lambda module, inputs, output: kinds.append(output.dtype))
    exact, auto, half = (
        step_of(copy.deepcopy(model), amp=amp)(*batches[0])[0]
        for amp in ("off", "auto", "bfloat16")
    )
    assert kinds == [torch.float32, torch.float32, torch.bfloat16]
    assert torch.equal(auto, exact) and half.dtype == torch.float32
    assert 0 < abs(float(half - exact)) < 0.02
    network = trained(model, batches, amp="bfloat16")
    assert {value.dtype for value in network.parameters()} == {torch.float32}


def test_channels_last_changes_the_layout_alone():
    layouts, model, plain = [], without_dropout(), without_dropout()
    model[0].register_forward_hook(
        lambda module, inputs, output: layouts.append(
            inputs[0].is_contiguous(memory_format=torch.channels_last)
        )
    )
    batches = noisy_batches(0)
    found = trained(model, batches, channels_last="on")
    assert layouts == [True] * 8
    assert found[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert_same(found, trained(plain, batches), rtol=1e-4, atol=1e-6)


def test_a_compiled_network_is_the_same_network(monkeypatch):
    eager = functools.partial(torch.compile, backend="aot_eager")  # all but the C++
    monkeypatch.setattr(torch, "compile", eager)
    batches = batches_of(20, 8)  # the last one is shorter
    model = plain_network()
    found = trained(model, batches, compile=True)
    assert found is model and list(found.state_dict()) == list(plain_network().state_dict())
    assert_same(found, trained(plain_network(), batches), rtol=1e-9, atol=1e-12)


def test_compiling_without_a_compiler_is_refused(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match="--compile finds no C.. compiler 'no-such-compiler'"):
        step_of(plain_network(), compile=True)
