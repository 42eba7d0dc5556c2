"""Bad input ends with exit code 2 and one sentence, and leaves the disk as it was."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.registry import build_model
from tests.command_lines import files_in
from utils.options.networks import network_of
from utils.removal.network_file import write_network

DOOR, RATES = "rank_generation.py", "[0.3]*7"


class Malicious:
    """Unpickled with the standard unpickler, creates a file."""

    def __reduce__(self):
        return open, ("was_run", "w")


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory) -> Path:
    """A folder of checkpoints, each of which something is wrong with."""
    folder = tmp_path_factory.mktemp("checkpoints")
    weights = {classes: build_model("resnet_8", classes).state_dict() for classes in (2, 3)}
    torch.save(weights[3], folder / "three_classes.pt")
    weights[2]["layer2.0.conv1.weight"][0, 0] = torch.nan
    torch.save(weights[2], folder / "nan.pt")
    torch.save(build_model("resnet_20", 2).state_dict(), folder / "resnet_20.pt")
    torch.save({"state_dict": {"conv1.weight": Malicious()}}, folder / "code.pt")
    (folder / "truncated.pt").write_bytes((folder / "three_classes.pt").read_bytes()[:20_000])
    pruned = replace(network_of(build_model("resnet_8", 2), "resnet_8", 2), form="mask")
    write_network(folder / "pruned.pt", pruned)
    return folder


@pytest.fixture
def refuses(call, tmp_path):
    """A function: the command of these words is refused with `expected` and writes nothing."""

    def check(expected: str, door: str, *words: str) -> None:
        before = files_in(tmp_path)
        outcome = call(door, *words)
        command = "prune" if words[0].startswith("-") else words[0]
        assert_refused(outcome, f"main.py {command}" if door == "main.py" else door, expected)
        assert files_in(tmp_path) == before

    return check


def assert_refused(outcome, prog: str, expected: str) -> None:
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    sentences = [line for line in outcome.err.splitlines() if "error:" in line]
    assert len(sentences) == 1, outcome.err
    assert outcome.err.endswith(f"{sentences[0]}\n")
    assert sentences[0].startswith(f"{prog}: error: ")
    assert re.search(expected, sentences[0]), sentences[0]


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ("", r"--compress_rate is missing: expected rates such as"),
        ("half", r"term 1 .*expected \[rate\] or \[rate\]\*count with 0 <= rate < 1.*got 'half'"),
        ("[0.3]x7", r"term 1 .*got '\[0\.3\]x7'"),
        ("[0.3]*3+[-0.3]*4", r"term 2 .*got '\[-0\.3\]\*4'"),
        ("[0.3]*6+[1]", r"term 2 .*0 <= rate < 1.*got '\[1\]'"),
        ("[nan]*7", r"got '\[nan\]\*7'"),
        ("[0.3]*6", r"6 rates for resnet_8, expected 7"),
        ("[0.3]*8", r"8 rates for resnet_8, expected 7"),
        ("[0.3]*99999999999999", r"got '\[0\.3\]\*99999999999999'"),
    ],
)
def test_rates_are_refused_before_anything_is_read(refuses, rates, expected):
    words = ("--arch", "resnet_8", "--resume", "absent.pt", "--compress_rate", rates)
    refuses(expected, "main.py", *words)


OPTIONS = [
    (["--arch", "vgg_17"], r"unknown arch 'vgg_17': expected one of vgg_16_bn, resnet_8"),
    (["--seed", "-1"], r"--seed is -1: expected at least 0"),
    (["--seed", str(2**64)], r"--seed is 18446744073709551616: expected .* less than 2\*\*63"),
    (["--gpu", "first"], r"--gpu is 'first': expected the number of one GPU"),
    (
        ["--gpu", "0,1"],
        r"--gpu is '0,1': expected the number of one GPU; several take a process each: .*"
        r"`CUDA_VISIBLE_DEVICES=0,1 torchrun --nproc_per_node=2`",
    ),
    (["--device", "tpu9"], r"--device is 'tpu9': expected auto, cpu, or a GPU of this machine"),
    (["--device", "meta"], r"--device is 'meta'"),
    (["--data_dir", "absent"], r"image folder 'absent' does not exist: expected train/ and test/"),
    (["--dataset", "mnist"], r"--dataset: invalid choice: 'mnist' \(choose from .*folder"),
    (["--eval_batch_size", "0"], r"--eval_batch_size is 0: expected at least 1"),
    (["--no_such_option"], r"unrecognized arguments: --no_such_option"),
]


@pytest.mark.parametrize(("words", "expected"), OPTIONS)
def test_options_that_commands_share(refuses, job, words, expected):
    prune = ("prune", *job.pruning, "--compress_rate", RATES)
    for command in (prune, ("train", *job.data), ("evaluate", *job.network)):
        refuses(expected, "main.py", *command, *words)
    refuses(expected, "rank_generation.py", *job.network, "--num_images", "20", *words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--epochs", "-1"], r"epochs is -1: expected"),
        (["--epochs", "many"], r"--epochs: invalid int value: 'many'"),
        (["--train_batch_size", "0"], r"batch_size is 0: expected at least 1"),
        (["--lr", "nan"], r"lr is nan: expected a number above 0"),
        (["--lr_decay_step", "5;10"], r"expected ints separated by commas.*got '5;10'"),
        (["--val_fraction", "0"], r"validation fraction: expected more than 0.*got 0\.0"),
        (
            ["--job_dir", "file/job"],
            r"cannot (use|write into) file/job .*expected a writable place",
        ),
        (["--job_dir", "file"], r"cannot (use|write into) file .*expected a writable place"),
    ],
)
def test_options_of_training(refuses, job, words, expected):
    Path("file").touch()
    for command in (("prune", *job.pruning, "--compress_rate", RATES), ("train", *job.data)):
        refuses(expected, "main.py", *command, *words)


@pytest.mark.parametrize("asked", [["--test_only"], ["--remove_zeros"], ["--dry_run", "--ratio=0"]])
def test_options_are_checked_whatever_else_is_asked(refuses, job, asked):
    words = ("main.py", "prune", *job.pruning, *asked)
    refuses(r"label_smoothing is 7\.0: expected 0 <=", *words, "--label_smoothing", "7")
    refuses(r"epochs is -3: expected", *words, "--epochs", "-3")
    refuses(r"--eval_batch_size is 0: expected at least 1", *words, "--eval_batch_size", "0")
    refuses(r"validation fraction: .* got 7\.0", *words, "--val_fraction", "7")


def test_options_for_weights_beside_others_are_refused(refuses, job):
    expected = (
        r"--sparsity is '0\.5' with --granularity filter: expected it with --granularity weig"
    )
    for words in (("--remove_zeros",), ("--ratio", "0.3")):
        refuses(expected, "main.py", "prune", *job.pruning, *words, "--sparsity", "0.5")


def test_a_folder_that_cannot_be_is_refused_before_a_scan_or_a_search(refuses, job):
    Path("file").touch()
    words = ("prune", *job.pruning, "--target_macs", "0.5", "--allocation", "sensitivity")
    refuses(r"cannot write into file ", "main.py", *words, "--job_dir", "file")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--num_images", "61"], r"61 images to rank on: expected at most the 60 of"),
        (["--limit", "1"], r"128 images to rank on: expected at most the 60 of"),
        (["--num_images", "0"], r"--num_images is 0: expected at least 1"),
        (["--batch_size", "-5"], r"--batch_size is -5: expected at least 1"),
        (["--output", "file/ranks"], r"cannot write into file/ranks .*/file is no"),
    ],
)
def test_options_of_ranking(refuses, job, words, expected):
    Path("file").touch()
    refuses(expected, "rank_generation.py", *job.network, *words)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("truncated.pt", r"truncated\.pt is damaged: expected a whole file"),
        ("code.pt", r"code\.pt refused: it holds .*open, not plain tensors"),
        ("resnet_20.pt", r"resnet_20\.pt does not fit the network: 'layer1\.1\.conv1\.weight' is"),
        ("absent.pt", r"absent\.pt does not exist: expected a file written by torch\.save"),
        ("", r"is a folder: expected a file written by torch\.save"),
        ("three_classes.pt", r"has 2 classes: expected the 3 of the network"),
    ],
)
def test_checkpoints(refuses, job, checkpoints, name, expected):
    words = ("--resume", str(checkpoints / name))
    refuses(expected, "main.py", "prune", *job.pruning, "--compress_rate", RATES, "--force", *words)
    refuses(expected, "main.py", "evaluate", *job.data, *words)
    refuses(expected, "rank_generation.py", *job.data, "--num_images", "20", *words)
    assert not Path("was_run").exists()


def test_a_pruned_network_has_ranks_of_its_own(refuses, job, checkpoints):
    words = ("--resume", str(checkpoints / "pruned.pt"))
    expected = r"were made from .*, a file with other bytes than the checkpoint to prune"
    refuses(expected, "main.py", *job.pruning, "--compress_rate", RATES, *words)


def test_without_a_checkpoint_both_ways_out_are_named(refuses, job):
    expected = r"no trained resnet_8: give .* --resume CKPT, or train .*main\.py train --arch resn"
    refuses(expected, "main.py", *job.data, "--compress_rate", RATES)
    refuses(expected, "main.py", "evaluate", *job.data)
    refuses(expected, "rank_generation.py", *job.data)


def test_weights_that_are_no_numbers(refuses, job, checkpoints):
    nan = ("--resume", str(checkpoints / "nan.pt"))
    prune = ("prune", *job.pruning, "--compress_rate", RATES, *nan)
    expected = r"NaN or Inf in 'layer2\.0\.conv1\.weight' \(9 of 4608 values\): expected finite"
    refuses(expected, "main.py", *prune)
    refuses(expected, "main.py", *prune, "--criterion", "l1", "--dry_run")
    refuses(expected, "main.py", "evaluate", *job.data, *nan)
    shutil.copytree(job.ranks, "ranks")  # `refuses` compares its files
    refuses(expected, "rank_generation.py", *job.data, *nan, "--output", "ranks")


def test_maps_that_are_no_numbers_leave_the_old_ranks_alone(refuses, job, tmp_path):
    state = torch.load(job.checkpoint, weights_only=True)["state_dict"]
    state["layer2.0.conv1.weight"][0] = 3e38  # finite, and what comes of it is not
    torch.save(state, tmp_path / "huge.pt")
    shutil.copytree(job.ranks, "ranks")
    words = ("--resume", "huge.pt", "--num_images", "20", "--output", "ranks", "--force")
    expected = r"layer 'layer2\.0\.relu1': feature maps: \d+ of 163840 values are NaN"
    refuses(expected, "rank_generation.py", *job.data, *words)


def other_arch(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"arch": "resnet_20"}))


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (other_arch, r"folder ranks was made for 'resnet_20': expected 'resnet_8'"),
        (lambda folder: np.save(folder / "rank_conv3.npy", np.ones(9)), r"\[9\]: expected \[16\]"),
        (
            lambda folder: np.save(folder / "rank_conv3.npy", np.full(16, np.nan)),
            r"ranks/rank_conv3\.npy holds a value that is no rank: expected floats >= 0",
        ),
        (lambda folder: os.truncate(folder / "rank_conv3.npy", 100), r"conv3\.npy cannot be read"),
        (lambda folder: (folder / "rank_conv3.npy").unlink(), r"rank_conv3\.npy is missing"),
        (shutil.rmtree, r"folder ranks does not exist: expected rank_conv<i>\.npy files, which"),
    ],
)
def test_rank_files(refuses, job, spoil, expected):
    shutil.copytree(job.ranks, "ranks")
    spoil(Path("ranks"))
    words = ("--compress_rate", RATES, "--rank_conv", "ranks", "--job_dir", "job")
    refuses(expected, "main.py", "prune", *job.pruning, *words)


def test_ranks_of_another_checkpoint_are_refused_unless_forced(call, refuses, job, tmp_path):
    state = torch.load(job.checkpoint, weights_only=True)["state_dict"]
    other = tmp_path / "other.pt"
    torch.save({key: value + 0 for key, value in state.items()}, other)
    words = ["--arch", "resnet_8", "--resume", str(other), "--rank_conv", str(job.ranks)]
    words += ["--compress_rate", RATES, "--dry_run", "--json"]
    refuses(r"made from .*best\.pt, a file with other bytes .*or --force", "main.py", *words)
    assert call("main.py", *words, "--force").json["layers"]


def test_ranks_of_images_normalized_otherwise_are_refused_unless_forced(call, refuses, job):
    words = ["prune", *job.pruning, "--compress_rate", RATES, "--dry_run"]
    words += ["--normalization", "none"]
    expected = (
        r"were made of images with --normalization cifar10: expected none, as here, or --forc"
    )
    refuses(expected, "main.py", *words)
    scan = ("scan", *job.network, "--rank_conv", str(job.ranks), "--normalization", "none")
    refuses(expected, "main.py", *scan)
    assert call("main.py", *words, "--force").json["layers"]
    assert call("main.py", *words, "--criterion", "l1").json["layers"]


def test_the_parent_of_a_rank_folder_is_answered_with_the_folder(refuses, job):
    shutil.copytree(job.ranks, "ranks/resnet_8")
    words = ("--compress_rate", RATES, "--rank_conv", "ranks")
    expected = r"ranks holds no rank files: expected them in it, did you mean ranks/resnet_8\?$"
    refuses(expected, "main.py", "prune", *job.pruning, *words)


def test_ranks_of_another_checkpoint_are_not_written_over_unless_forced(call, refuses, job):
    shutil.copytree(job.ranks, "ranks")
    state = torch.load(job.checkpoint, weights_only=True)["state_dict"]
    torch.save({key: value + 0 for key, value in state.items()}, "other.pt")
    words = [*job.data, "--resume", "other.pt", "--num_images", "20", "--output", "ranks"]
    refuses(
        r"ranks holds ranks of .*best\.pt, another checkpoint: .*--output, or --force", DOOR, *words
    )
    own = [*job.network, "--num_images", "20", "--output", "ranks"]
    assert call(DOOR, *own).code == 0
    assert call(DOOR, *words, "--force").code == 0
    manifest = json.loads(Path("ranks/manifest.json").read_text())
    assert manifest["checkpoint"] == "other.pt"


def test_files_that_git_tracks_are_not_written_over_unless_forced(call, refuses, job):
    git = shutil.which("git") or pytest.skip("no git")
    shutil.copytree(job.ranks, "ranks")
    words = [*job.network, "--num_images", "20", "--output", "ranks"]
    subprocess.run([git, "init", "-q"], check=True)
    assert call(DOOR, *words).code == 0  # nothing of them is tracked
    subprocess.run([git, "add", "ranks/rank_conv1.npy"], check=True)
    refuses(
        r"ranks holds files that git tracks: .* --output, or --force to write over", DOOR, *words
    )
    assert call(DOOR, *words, "--force").code == 0


def test_an_unknown_command_is_named_with_the_known_ones(call):
    outcome = call("main.py", "shrink")
    assert_refused(outcome, "main.py", r"'shrink': expected one of train, prune, .*evaluate, ")


def test_the_demo_refuses_before_it_trains(refuses):
    refuses(r"3 rates for resnet_8, expected 7", "main.py", "demo", "--compress_rate", "[0.3]*3")
    refuses(r"epochs is -1: expected", "main.py", "demo", "--epochs", "-1")
    refuses(r"num_images is 0: expected", "main.py", "demo", "--num_images", "0")


def test_cifar10_without_a_network(begin, tmp_path):
    """A process: the proxy is read when it starts, and no traceback may follow the sentence."""
    words = ["main.py", "train", "--arch", "resnet_8", "--data_dir", "absent", "--json"]
    process = begin(words, tmp_path)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (2, "")
    assert re.fullmatch(
        r"main\.py train: error: cifar10 is not in 'absent' and could not be downloaded \(.*\): "
        r"connect, or put cifar-10-batches-py there, or use --dataset folder .*\n",
        err,
    ), err
    assert files_in(tmp_path) == {}
