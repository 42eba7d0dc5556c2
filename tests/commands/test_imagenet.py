"""The commands on photos that stay in their files: of any size, read by worker processes."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import main
from tests.command_lines import files_in, json_of
from tests.forked import fork, fork_frozen, signal_in_step

RATES = "[0.3]*7"


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """ImageNet's folders with two classes, photos of many sizes, grey and CMYK ones among them."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, count in {"ILSVRC2012_img_train": 20, "val": 6}.items():
        for channel, name in enumerate(("n01440764", "n01443537")):
            place = folder / split / name
            place.mkdir(parents=True)
            for number in range(count):
                width, height = random.integers(30, 90, 2)
                pixels = random.integers(0, 256, (height, width, 3))
                pixels[..., channel] = 100 + pixels[..., channel] // 2
                photo = Image.fromarray(pixels.astype(np.uint8))
                mode = {3: "L", 5: "CMYK"}.get(number, "RGB")
                photo.convert(mode).save(place / f"{name}_{number}.JPEG", format="JPEG")
    return folder


@pytest.fixture(scope="module")
def data(photos) -> list[str]:
    """The words that name the photos and a small network."""
    words = ["--arch", "resnet_8", "--dataset", "imagenet", "--data_dir", str(photos)]
    return [*words, "--device", "cpu", "--json"]


@pytest.fixture(scope="module")
def network(data, tmp_path_factory) -> list[str]:
    """The words that name photos and a network that was trained for an epoch, by one worker."""
    folder = tmp_path_factory.mktemp("baseline")
    recipe = ["--epochs", "1", "--train_batch_size", "8", "--workers", "1"]
    assert main.main(["train", *data, *recipe, "--job_dir", str(folder)]) == 0
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["dataset"], summary["train_images"]) == ("imagenet", 36)
    assert summary["options"]["normalization"] == "imagenet"
    return [*data, "--resume", summary["checkpoint"]]


def without_latency(found):
    return {name: found[name] for name in ("correct", "images", "loss", "dataset", "normalization")}


def test_evaluating_is_the_same_with_and_without_workers(call, network):
    by_worker, alone = (
        call("main.py", "evaluate", *network, "--eval_batch_size", "5", "--workers", workers).json
        for workers in "10"
    )
    assert without_latency(by_worker) == without_latency(alone)
    assert (alone["images"], alone["dataset"]) == (12, "imagenet val")
    assert alone["normalization"] == "imagenet"


def test_ranks_repeat_and_say_how_they_were_made(begin, call, network, tmp_path):
    words = ["rank_generation.py", *network, "--num_images", "10"]
    in_parts = ["--batch_size", "4", "--workers", "1", "--output", "by_worker"]
    found = json_of(begin([*words, *in_parts], tmp_path))
    assert (found["files"], found["images"]) == (7, 10)
    call(*words, "--workers", "0", "--output", "alone")
    by_worker, alone = (files_in(tmp_path / name) for name in ("by_worker", "alone"))
    assert len(alone) >= 8
    assert all(by_worker[name] == alone[name] for name in alone if name.endswith(".npy"))
    manifest = json.loads(alone["manifest.json"])
    assert (manifest["dataset"], manifest["normalization"]) == ("imagenet train", "imagenet")
    official = call(*words, "--workers", "0", "--augment", "--output", "cropped").json
    assert official["layers"] != found["layers"]


def test_killed_and_resumed_with_other_workers_is_never_stopped(
    call, network, tmp_path, monkeypatch
):
    words = ["prune", *network, "--criterion", "l1", "--compress_rate", RATES]
    words += ["--epochs", "2", "--train_batch_size", "8", "--job_dir", "job", "--workers"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    process = fork_frozen([*words, "1"], broken)
    process.kill()
    process.join()
    assert not (broken / "job" / "pruned.pt").exists(), "the run was over: this proves nothing"
    monkeypatch.chdir(whole)
    expected = call("main.py", *words, "0").json
    monkeypatch.chdir(broken)
    assert call("main.py", *words, "0").json["accuracy"] == expected["accuracy"]
    found, expected = files_in(broken / "job"), files_in(whole / "job")
    for name in ("log.jsonl", "plan.json", "pruned.pt", "checkpoints/best.pt"):
        assert found[name] == expected[name], name


def test_workers_end_with_the_command_that_a_signal_stops(network, tmp_path):
    words = ["prune", *network, "--criterion", "l1", "--compress_rate", RATES, "--job_dir", "job"]
    words += ["--epochs", "2", "--train_batch_size", "8", "--workers", "2"]
    process = fork(words, tmp_path, signal_in_step, signal.SIGTERM, 3)
    process.join()
    said = (tmp_path / "err").read_text()
    outcome = "finetune, epoch 1, step 3 is saved; the same command continues"
    assert said.splitlines()[-1] == f"main.py prune: stopped by SIGTERM: {outcome}"
    assert process.exitcode == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # nobody is left in its group


def test_a_broken_photo_is_one_sentence(call, data, photos, tmp_path):
    for split in photos.iterdir():
        (tmp_path / split.name).symlink_to(split)
    (tmp_path / "val").unlink()
    for name in ("n01440764", "n01443537"):
        (tmp_path / "val" / name).mkdir(parents=True)
        (tmp_path / "val" / name / "0.JPEG").write_bytes(b"\xff\xd8 no photo")
    words = [*data, "--data_dir", str(tmp_path), "--workers", "1"]
    outcome = call("main.py", "train", *words, "--epochs", "1", "--train_batch_size", "8")
    assert (outcome.code, outcome.out) == (2, "")
    assert "0.JPEG': expected a whole image" in outcome.err.splitlines()[-1]
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--untrained"], "dataset 'imagenet' has 2 classes: expected the 10 of the network"),
        (["--untrained", "--workers", "-1"], "--workers is -1: expected at least 0"),
        (["--untrained", "--data_dir", "absent"], "'absent' does not exist: expected train/ and"),
    ],
)
def test_bad_input_is_one_sentence(call, data, words, expected):
    for door in (["main.py", "evaluate"], ["rank_generation.py"]):
        outcome = call(*door, *data, *words)
        assert (outcome.code, outcome.out) == (2, "")
        assert expected in outcome.err.splitlines()[-1]
