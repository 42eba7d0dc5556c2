"""The benchmark of training: both recipes train alike, and the README has what was measured."""

import copy
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from utils.benchmarks import training_benchmark
from utils.benchmarks.official_recipe import (
    OfficialMasks,
    PilImages,
    official_batches,
    official_epoch,
)
from utils.benchmarks.training_benchmark import (
    FORMS,
    MEASURED,
    NETWORKS,
    BenchmarkConfig,
    main,
    plan_network,
    stored_text,
)
from utils.benchmarks.training_contest import Contestant, speeds
from utils.data.augmentation import crop_and_flip
from utils.data.gpu_loader import normalize
from utils.data.load import DATASETS
from utils.data.synthetic import make_shapes
from utils.paper import pages
from utils.paper.pages import read_block
from utils.removal.masks import ChannelMasks
from utils.training.loop import train_epoch
from utils.training.steps import TrainingStep, make_optimizer

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
PARAMETERS_MASKED = {"resnet_56": 165, "vgg_16_bn": 48}  # what HRank's mask files hold at the end


def random_batch(size=4):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(size, 3, 32, 32, generator=generator)
    return images, torch.randint(10, (size,), generator=generator)


def sgd(model):
    return torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("network", ["resnet_20", "vgg_16_bn"])
def test_steps_of_both_recipes_give_the_same_loss_and_weights(network, masked):
    planned = plan_network(network, 10, seed=0)
    official, ours = planned.dense.model, copy.deepcopy(planned.dense.model)
    masks = planned.plan.masks()
    apply_official = apply_ours = None
    if masked:
        apply_official = OfficialMasks(official, planned.graph, masks).apply
        apply_ours = ChannelMasks(ours, planned.graph, masks).apply
    steps = [random_batch()] * 2
    theirs = official_epoch(official, steps, sgd(official), device=CPU, after_step=apply_official)
    recipe = BenchmarkConfig().recipe()
    step = TrainingStep(ours, make_optimizer(ours, recipe), recipe, after_step=apply_ours)
    found = train_epoch(step, steps)
    assert found == theirs
    weights = official.state_dict()
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    for conv, mask in masks.items():
        filters = weights[f"{conv}.weight"].flatten(1).any(1)
        assert torch.equal(filters, mask) if masked else filters.all()


@pytest.mark.parametrize("network", PARAMETERS_MASKED)
def test_official_masks_are_those_of_the_official_mask_file(network):
    planned = plan_network(network, 10, seed=0)
    masks = OfficialMasks(planned.dense.model, planned.graph, planned.plan.masks())
    assert len(masks) == PARAMETERS_MASKED[network]


def test_official_images_are_crops_that_the_pipeline_here_can_draw():
    images = make_shapes(num_train=6, num_test=1).train
    crops = torch.cartesian_prod(torch.arange(9), torch.arange(9), torch.arange(2))  # [162, 3]
    loaded = list(official_batches(PilImages(images, "cifar10"), 4, seed=0))
    assert [len(labels) for _, labels in loaded] == [4, 2]
    drawn = []
    for image, label in ((i, y) for batch in loaded for i, y in zip(*batch, strict=True)):
        for index in (images.labels == label).nonzero().flatten():
            copies = images.images[index].expand(len(crops), -1, -1, -1)
            ours = normalize(crop_and_flip(copies, crops[:, :2], crops[:, 2].bool()), "cifar10")
            close = (ours - image).abs().amax(dim=(1, 2, 3)) < 1e-5
            drawn += [(int(index), int(crop)) for crop in close.nonzero().flatten()]
    assert sorted(index for index, _ in drawn) == list(range(6))  # each image once, at one crop
    assert len({crop for _, crop in drawn}) > 1


def test_speeds_leave_the_first_batch_out_and_let_each_begin_in_turn():
    begun, taken = [], {"slow start": 0, "even": 0}

    def contestant(name, first_seconds):
        def start(seed):
            begun.append((name, seed))
            for number in range(10):
                time.sleep(0.01 if number else first_seconds)
                yield torch.zeros(4, 3, 2, 2), torch.zeros(4)

        def use(batches):
            taken[name] += sum(1 for _ in batches)

        return Contestant(start, use)

    contestants = {"slow start": contestant("slow start", 0.5), "even": contestant("even", 0.01)}
    found = speeds(contestants, steps=3, repeats=2, device=CPU)
    assert begun == [("slow start", 0), ("even", 0), ("even", 1), ("slow start", 1)]
    assert taken == {"slow start": 8, "even": 8}
    for rounds in found.values():
        assert len(rounds) == 2
        assert max(rounds) > 3 * 4 / 0.5  # the half second is not in the time
        assert max(rounds) <= 3 * 4 / 0.03  # three pauses of ten milliseconds are


def test_the_page_holds_the_tables_of_the_measurements():
    assert read_block("training_benchmark") == stored_text(json.loads(MEASURED.read_text()))


def test_every_network_is_measured_in_every_form():
    for measured in json.loads(MEASURED.read_text()).values():
        rows = measured["rows"]
        threads = dict.fromkeys(row["threads"] for row in rows)
        assert [(row["threads"], row["network"], row.get("filters")) for row in rows] == [
            (count, *which)
            for count in threads
            for which in [(None, None), *((n, form) for n in NETWORKS for form in FORMS)]
        ]
        for row in rows:
            for rounds in row["images_per_second"].values():
                assert len(rounds) == measured["repeats"]
                assert min(rounds) > 0


def test_the_command_measures_shapes():
    words = ["--dataset", "shapes", "--device", "cpu", "--networks", "resnet_20", "--threads", "1"]
    words += ["--repeats", "1", "--train_batch_size", "16", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "utils.benchmarks.training_benchmark", *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONWARNINGS": "error", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["environment"]["command"].endswith(
        "utils.benchmarks.training_benchmark " + " ".join(words)
    )
    assert (found["train_images"], found["train_batch_size"], found["steps"]) == (5000, 16, 1)
    alone, dense, masked, removed = found["rows"]
    assert dense["macs"] == masked["macs"] > removed["macs"]
    assert removed["images_per_second"]["official"] == masked["images_per_second"]["official"]
    speed = {row.get("filters"): row["images_per_second"]["here"][0] for row in found["rows"]}
    assert 0 < speed["dense"] < speed[None]  # training takes longer than its images alone
    assert len(alone["images_per_second"]["official"]) == 1


def test_writing_keeps_what_other_devices_had(monkeypatch, tmp_path, capsys):
    few = make_shapes(num_train=20, num_test=1)
    monkeypatch.setitem(DATASETS, "shapes", lambda *options: few)
    monkeypatch.setattr(training_benchmark, "NETWORKS", {"resnet_20": NETWORKS["resnet_20"]})
    monkeypatch.setattr(training_benchmark, "MEASURED", tmp_path / "measured.json")
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    marked = "<!-- training_benchmark: begin -->\n<!-- training_benchmark: end -->\n"
    (tmp_path / "README.md").write_text(marked)
    on_gpu = next(iter(json.loads(MEASURED.read_text()).values()))
    (tmp_path / "measured.json").write_text(json.dumps({"cuda": on_gpu}))
    words = ["--dataset", "shapes", "--device", "cpu", "--networks", "resnet_20"]
    words += ["--repeats", "1", "--train_batch_size", "4", "--write"]
    assert main(words) == 0
    stored = json.loads((tmp_path / "measured.json").read_text())
    assert list(stored) == ["cpu", "cuda"]
    assert stored["cuda"] == on_gpu and stored["cpu"]["train_images"] == 20
    assert read_block("training_benchmark") == stored_text(stored)
    assert capsys.readouterr().out.strip() in stored_text(stored)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--networks", "alexnet"], "--networks has 'alexnet': expected some of resnet_20,"),
        (["--networks", "resnet_20", "--write"], "--write stores all networks: expected no"),
        (["--threads", "1,0"], "--threads is (1, 0): expected 1 or more"),
        (["--threads", ""], "--threads is (): expected 1 or more"),
        (["--repeats", "0"], "--repeats is 0: expected at least 1"),
        (["--steps", "5"], "--steps is 5: expected at most 4 with 20 images in batches of 4"),
        (["--train_batch_size", "21"], "batch size: expected at most the 20 images"),
    ],
)
def test_bad_input_is_one_sentence(words, message, monkeypatch, capsys):
    few = make_shapes(num_train=20, num_test=1)
    monkeypatch.setitem(DATASETS, "shapes", lambda *options: few)
    known = ["--dataset", "shapes", "--device", "cpu", "--train_batch_size", "4"]
    assert main([*known, *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("training_benchmark: error: ") and error.count("\n") == 1
    assert message in error
