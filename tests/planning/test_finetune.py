"""What fine-tuning keeps to, whatever its schedule: the masks, the seed, one curve."""

from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from utils.options.networks import load_network
from utils.training.steps import TrainingStep

pytestmark = pytest.mark.usefixtures("quick")
EPOCHS = 2


@pytest.mark.parametrize(
    "schedule", [("oneshot",), ("layerwise",), ("iterative", "--steps", "2")], ids=lambda x: x[0]
)
def test_what_is_masked_stays_zero_and_the_curves_go_on_over_the_stages(call, job, schedule):
    words = [*job.pruning, "--compress_rate", "[0.3]+[0.]*5+[0.5]", "--epochs", str(EPOCHS)]
    words += ["--mode", "mask", "--lr", "0.1", "--schedule", *schedule, "--job_dir", "job"]
    found = call("main.py", *words).json
    model = load_network(Path("job/pruned.pt")).model
    for conv, norm in (("conv1", "bn1"), ("layer3.0.conv2", "layer3.0.bn2")):
        (layer,) = (layer for layer in found["layers"] if layer["conv"] == conv)
        gone = sorted(set(range(layer["filters"])) - set(layer["kept"]))
        assert len(gone) == int({"conv1": 0.3}.get(conv, 0.5) * layer["filters"])
        for tensor in (
            model.get_submodule(conv).weight,
            model.get_submodule(norm).weight,
            model.get_submodule(norm).bias,
        ):
            assert not tensor[gone].any() and tensor[layer["kept"]].any(), conv
    events = EventAccumulator("job").Reload()
    stages = 1 if schedule == ("oneshot",) else 2
    assert found["epochs_trained"] == stages * EPOCHS
    for tag in ("loss/train", "training/stage"):
        assert [event.step for event in events.Scalars(tag)] == list(range(stages * EPOCHS))
    drawn = [event.value for event in events.Scalars("training/stage")]
    assert drawn == [1 + epoch // EPOCHS for epoch in range(stages * EPOCHS)]


@pytest.mark.parametrize("command", [["train"], ["prune", "--ratio", "0.3"]], ids=lambda x: x[0])
def test_another_seed_gives_other_batches_and_the_same_seed_the_same(
    call, job, command, monkeypatch
):
    seen, step = [], TrainingStep.__call__

    def note(self, images: torch.Tensor, labels: torch.Tensor):
        seen.append(images)
        return step(self, images, labels)

    monkeypatch.setattr(TrainingStep, "__call__", note)
    words = [*(job.pruning if command[0] == "prune" else job.data), "--train_batch_size", "60"]
    words += ["--select_on", "last", "--epochs", "1"]  # nothing is held out
    for folder, seed in enumerate("110"):
        assert call("main.py", *command, *words, "--seed", seed, "--job_dir", str(folder)).code == 0
    first, again, other = seen
    assert torch.equal(first, again)
    pixels = [images.flatten(1).sum(1) for images in (first, other)]
    assert not torch.equal(*pixels), "the order"
    assert not torch.equal(*(found.sort().values for found in pixels)), "what is cut and flipped"
