"""The official command lines run here unchanged."""

import json
import pickle
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10

from models.registry import build_model
from tests.command_lines import ROOT
from tests.reference import needs_reference, reference
from utils.options.networks import outline
from utils.planning.finetune import stages_of
from utils.pruning.compress_rates import parse_rates
from utils.runs.log import read_log
from utils.training.published import RECIPES

pytestmark = pytest.mark.usefixtures("quick")

DENSENET = "[0.0]+[0.1]*6+[0.7]*6+[0.0]+[0.1]*6+[0.7]*6+[0.0]+[0.1]*6+[0.7]*5+[0.0]"
RESNET_56 = "[0.1]+[0.60]*35+[0.0]*2+[0.6]*6+[0.4]*3" + "+[0.1]+[0.4]" * 4
RATES = {
    "vgg_16_bn": "[0.95]+[0.5]*6+[0.9]*4+[0.8]*2",
    "resnet_56": RESNET_56,
    "resnet_110": "[0.1]+[0.40]*36+[0.40]*36+[0.4]*36",
    "densenet_40": DENSENET,
    "googlenet": "[0.10]+[0.8]*5+[0.85]+[0.8]*3",
    "resnet_50": "[0.2]+[0.8]*10+[0.8]*13+[0.55]*19+[0.45]*10",
}
MAIN = "--job_dir ./result/{arch}/mine --resume {arch}.pth --arch {arch} --compress_rate {rates}"
IMAGENET = (
    "--dataset imagenet --data_dir images --job_dir./result/resnet_50/mine --resume {arch}.pth "
    "--adjust_prune_ckpt --arch resnet_50 --compress_rate {rates} --gpu 0"
)
PLUS = (
    "--data_dir data --job_dir ./result/resnet_8/mine --arch resnet_8 "
    "--rank_conv_prefix ./rank_conv/resnet_8 --use_pretrain --pretrain_dir resnet_8.pth "
    "--compress_rate [0.]+[0.3]*6 --gpu 0"
)


def line(arch: str) -> list[str]:
    """Return the words of the official line for an architecture."""
    text = IMAGENET if arch == "resnet_50" else f"{MAIN} --adjust_prune_ckpt --gpu 0"
    return shlex.split(text.format(arch=arch, rates=RATES.get(arch, "[0.3]*7")))


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A function: a checkpoint and rank files of an architecture, beside a tiny CIFAR-10."""
    folder = tmp_path / "data" / CIFAR10.base_folder
    folder.mkdir(parents=True)
    files = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    for seed, name in enumerate(files):
        data = np.random.default_rng(seed).integers(0, 256, (2, 3072), np.uint8)
        with (folder / name).open("wb") as file:
            pickle.dump({"data": data, "labels": [seed, seed]}, file)
    with (folder / "batches.meta").open("wb") as file:
        pickle.dump({"label_names": [f"class {number}" for number in range(10)]}, file)
    monkeypatch.setattr(CIFAR10, "train_list", [[name, None] for name in files[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", None]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": None})
    return prepared


def prepared(arch: str, num_classes: int = 10) -> dict[str, torch.Tensor]:
    """Write ARCH.pth, as DataParallel names weights, and random rank files; return the weights."""
    torch.manual_seed(0)
    weights = build_model(arch, num_classes).state_dict()
    state = {f"module.{name}": value for name, value in weights.items()}
    torch.save({"state_dict": state, "best_prec1": torch.tensor(10.0)}, f"{arch}.pth")
    ranks = Path("rank_conv") / arch
    ranks.mkdir(parents=True)
    for number, layer in enumerate(outline(arch).layers.layers):
        filters = len(weights[f"{layer.conv}.weight"])
        scores = np.random.default_rng(number).random(filters, np.float32)
        np.save(ranks / layer.file, scores)
    return weights


def kept_of(summary) -> dict[str, list[int]]:
    return {layer["conv"]: layer["kept"] for layer in summary["layers"]}


@pytest.mark.parametrize("arch", [arch for arch in RATES if arch != "resnet_50"])
def test_lines_for_cifar10(call, work, arch):
    prepared(arch)
    found = call("main.py", *line(arch), "--epochs", "1", "--json")
    assert "--adjust_prune_ckpt has nothing to do here: a checkpoint loads as it is" in found.err
    assert "no GPU here: --gpu 0 runs on the CPU" in found.err or torch.cuda.is_available()
    assert found.err.count("HRank's code prunes conv by conv and chooses on test images") == 1
    rates = parse_rates(RATES[arch])
    assert len(found.json["layers"]) == len(outline(arch).layers.layers)
    for layer, known in zip(found.json["layers"], outline(arch).layers.layers, strict=True):
        filters = layer["filters"]
        order = np.argsort(np.load(f"rank_conv/{arch}/{known.file}"), kind="stable")
        removed = int(rates[known.rate] * filters)
        assert layer["kept"] == sorted(order[removed:].tolist())
    job = Path("result") / arch / "mine"
    assert json.loads((job / "summary.json").read_text()) == found.json
    assert len((job / "log.jsonl").read_text().splitlines()) == 1


def test_the_line_for_imagenet_with_its_missing_blank(call, work):
    """Of two classes, on four photos: the shell line is whole, the fine-tuning left out."""
    prepared("resnet_50", num_classes=2)
    for number, split in enumerate(("ILSVRC2012_img_train", "val")):
        for name in ("n01", "n02"):
            folder = Path("images") / split / name
            folder.mkdir(parents=True)
            pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "1.JPEG")
    found = call(
        "main.py",
        *line("resnet_50"),
        "--epochs",
        "0",
        "--workers",
        "0",
        "--json",
        "--select_on",
        "test",
    ).json
    rates = parse_rates(RATES["resnet_50"])
    assert [len(layer["kept"]) for layer in found["layers"]] == [
        layer["filters"] - int(rate * layer["filters"])
        for layer, rate in zip(found["layers"], rates, strict=True)
    ]
    assert found["pruned_file"] == "result/resnet_50/mine/pruned.pt"


def test_ranks_then_pruning(call, work):
    prepared("resnet_8")
    words = shlex.split("--resume resnet_8.pth --arch resnet_8_convwise --limit 2 --gpu 0")
    words += ["--adjust_ckpt", "--start_idx", "0", "--train_batch_size", "5", "--job_dir", "x"]
    ranked = call("rank_generation.py", *words, "--json")
    assert (ranked.json["folder"], ranked.json["images"]) == ("rank_conv/resnet_8_limit2", 10)
    for flag in ("--adjust_ckpt", "--start_idx", "--job_dir"):
        assert f"{flag} has nothing to do here: " in ranked.err
    assert ranked.err.count("HRank's code crops and flips them, as --augment") == 1
    later = [word for word in line("resnet_8") if word != "--adjust_prune_ckpt"]
    later[later.index("resnet_8")] = "resnet_8_convwise"
    words = (*later, "--rank_conv", "rank_conv/resnet_8_limit2", "--dry_run", "--json")
    assert call("main.py", *words).json["arch"] == "resnet_8"


def test_a_line_typed_into_a_shell(images, tmp_path):
    prepared_words = f"--arch resnet_8 --dataset folder --data_dir {images} --untrained --dry_run"
    text = f"main.py --compress_rate [0.95]+[0.5]*6 {prepared_words} --criterion l1 --json"
    command = f"{sys.executable} {ROOT}/{text}"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [len(layer["kept"]) for layer in json.loads(done.stdout)["layers"]] == [
        *(1, 8, 8, 16, 16, 32, 32)
    ]


def test_lines_of_hrankplus(call, work):
    prepared("resnet_8")
    words = shlex.split(PLUS) + shlex.split(
        "--epochs 3 --learning_rate 0.02 --batch_size 5 --lr_type cos --label_smooth 0.1 "
        "--lr_decay_step 50,100 --momentum 0.8 --weight_decay 0.001 --use_dali --json"
    )
    first = call("main.py", *words)
    assert first.err.count("has nothing to do here") == 2
    options = first.json["options"]
    given = {"epochs": 3, "lr": 0.02, "train_batch_size": 5, "lr_schedule": "cosine"}
    given |= {"label_smoothing": 0.1, "lr_decay_step": [50, 100], "momentum": 0.8}
    given |= {"weight_decay": 0.001, "resume": "resnet_8.pth"}
    assert {name: options[name] for name in given} == given
    again = call("main.py", *words, "--resume")  # goes on in the folder: nothing is left to do
    assert "--resume alone has nothing to do here: a stopped run continues" in again.err
    assert again.json["accuracy"] == first.json["accuracy"]
    test = ["--test_only", "--test_model_dir", "result/resnet_8/mine", "--json"]
    tested = call("main.py", *shlex.split(PLUS), *test).json
    assert (tested["form"], tested["checkpoint"]) == ("remove", "result/resnet_8/mine/pruned.pt")
    best = first.json["accuracy"]["finetuned_best"]["test"]
    assert {name: tested[name] for name in best} == best
    own = ["evaluate", *test[1:], "--arch", "resnet_8", "--eval_batch_size", "100", "--gpu", "0"]
    assert call("main.py", *own).json["correct"] == tested["correct"]
    people = call("main.py", *shlex.split(PLUS), *test[:-1]).out
    assert people.startswith("# resnet_8 (remove)\n")


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_fills_in_what_the_line_does_not_say(call, work, recipe):
    prepared("resnet_8")
    words = (*line("resnet_8"), "--epochs", "1", "--lr", "0.5", "--warmup_epochs", "0")
    assert call("main.py", *words, "--recipe", recipe, "--json").code == 0
    written = json.loads(Path("result/resnet_8/mine/config.json").read_text())
    assert (written["epochs"], written["lr"]) == (1, 0.5)
    expected = RECIPES[recipe][None] | {"epochs": 1, "lr": 0.5, "warmup_epochs": 0}
    assert {name: written[name] for name in expected} == json.loads(json.dumps(expected))
    stages = [record["stage"] for record in read_log(Path("result/resnet_8/mine/log.jsonl"))]
    by_layer = [f"conv {number:03d}" for number in range(1, 8)]
    assert stages == (by_layer if recipe == "hrank" else ["finetune"])


def official_masks(weights: dict[str, torch.Tensor], kept: dict[str, list[int]], count: int):
    """Return HRank's mask dict of the first `count` convs of a resnet_8: conv, norm's two."""
    content = {}
    for number, conv in enumerate(list(kept)[:count]):
        mask = torch.zeros(len(weights[f"{conv}.weight"]))
        mask[kept[conv]] = 1
        content |= {3 * number: mask[:, None, None, None]}
        content |= {3 * number + 1: mask, 3 * number + 2: mask}
    return content


def test_a_run_of_the_official_code_goes_on_here(call, work):
    """At conv 4 of 7, once from its mask file and once from the zeros in its checkpoint."""
    weights = prepared("resnet_8")
    plain = kept_of(call("main.py", *line("resnet_8"), "--dry_run", "--json").json)
    done = {conv: sorted({0, 1, *kept[::2]}) for conv, kept in plain.items()}  # not by the ranks
    expected = {conv: (done if n < 3 else plain)[conv] for n, conv in enumerate(plain)}
    Path("mask").write_bytes(pickle.dumps(official_masks(weights, done, count=3)))
    words = (*line("resnet_8"), "--start_cov", "3", "--schedule", "layerwise", "--epochs", "1")
    found = call("main.py", *words, "--resume_mask", "mask", "--json").json
    assert kept_of(found) == expected
    assert "pruned already, as mask file mask has it" in found["layers"][0]["reason"]
    stages = [record["stage"] for record in read_log(Path("result/resnet_8/mine/log.jsonl"))]
    assert stages == ["conv 004", "conv 005", "conv 006", "conv 007"]

    for conv in list(done)[:3]:
        gone = [index for index in range(len(weights[f"{conv}.weight"])) if index not in done[conv]]
        weights[f"{conv}.weight"][gone] = 0
    network = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [5, 10])
    Path("theirs/pruned_checkpoint").mkdir(parents=True)
    path = "theirs/pruned_checkpoint/resnet_8_cov3.pt"
    content = {"state_dict": weights, "best_prec1": torch.tensor(10.0), "epoch": 14}
    content |= {"scheduler": scheduler.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(content, path)  # MultiStepLR's state holds a Counter
    found = call("main.py", *words, "--resume", path, "--dry_run", "--json").json
    assert kept_of(found) == expected
    theirs = ("--arch", "resnet_8", "--test_model_dir", "theirs", "--json")
    assert call("main.py", "evaluate", *theirs).json["checkpoint"] == path


@pytest.mark.parametrize("arch", ["vgg_16_bn", "resnet_56", "googlenet", "resnet_50"])
def test_stages_mask_every_conv_once_and_in_order(arch):
    layers = outline(arch).layers.layers
    stages = stages_of(outline(arch))
    assert [conv for _, part in stages for conv in layers[part]] == list(layers)
    for number, part in stages:
        assert {layer.rate + 1 for layer in layers[part]} <= set(range(number + 1))
        assert layers[part][-1].rate + 1 == number
    assert stages_of(outline(arch), start_cov=3) == [stage for stage in stages if stage[0] > 3]


@needs_reference
def test_resnet_50_has_the_official_stages():
    quirks = {quirk["id"]: quirk["text"] for quirk in reference("quirks.json")}
    official = re.search(r"at cov ([\d,]+) ", quirks["resnet50_stage_skipping"])[1]
    assert [number for number, _ in stages_of(outline("resnet_50"))] == [
        *map(int, official.split(","))
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--start_cov 7", "--start_cov is 7: expected at least 0, less than the 7 rates of"),
        ("--start_cov -1", "--start_cov is -1: expected at least 0"),
        ("--start_cov 2", "that 'conv1' is pruned already, but the checkpoint zeroes 0 of its 16"),
        ("--resume_mask m", "--resume_mask m is for convs that are pruned already: expected their"),
        ("--start_cov 2 --resume_mask m", "mask file m does not exist: expected HRank's `mask`"),
        ("--test_only --test_model_dir .", "--test_model_dir . holds no checkpoint: expected prun"),
        ("--pretrain_dir --gpu 0", "argument --resume/--pretrain_dir/--checkpoint: expected one"),
        ("--gpu 0,1", "--gpu is '0,1': expected the number of one GPU"),
        ("--lr_type linear", "invalid choice: 'linear'"),
        ("--recipe plus", "argument --recipe: invalid choice: 'plus'"),
        ("--warmup_epochs 15", "warmup_epochs is 15: expected 0 or more, less than the 15 epochs"),
    ],
)
def test_what_cannot_be_is_one_sentence(call, work, words, expected):
    prepared("resnet_8")
    outcome = call("main.py", *line("resnet_8"), *words.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert expected in outcome.err.splitlines()[-1]
