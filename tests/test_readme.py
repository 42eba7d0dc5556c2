"""The README's own lines: the Python runs, the commands are spelled right."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import main
from models.registry import build_model
from tests.networks import random_masks
from utils.options.rank_options import RankConfig
from utils.pruning import criteria
from utils.removal.network_file import Network, write_network
from utils.removal.surgery import remove_filters
from utils.runs.options import parse

README = (Path(__file__).parents[1] / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
LINES = re.findall(r"^ {4}.*python ((?:main|rank_generation)\.py\b.*)$", README, flags=re.MULTILINE)
COMMANDS = [line.split("#")[0] for line in LINES]


@pytest.fixture
def demo_result(tmp_path, monkeypatch):
    """Work in a folder that holds a pruned file where the demo writes one."""
    monkeypatch.chdir(tmp_path)
    dense = Network(build_model("resnet_8"), "resnet_8", 10)
    masks = random_masks({"layer1.0.conv1": 16}, 0.5, seed=0)
    removed = remove_filters(dense.model, dense.trace(), masks)
    path = Path("result/demo/pruned/pruned.pt")
    write_network(path, Network(removed, "resnet_8", 10, "remove", masks))


def export_demo_result():
    """Export the demo's network as the README says, and put a photo beside it."""
    words = "export --resume result/demo/pruned/pruned.pt --dataset shapes --with_normalization"
    assert main.main([*words.split(), "--format", "pt2", "--eval_batch_size", "1"]) == 0
    Image.new("RGB", (40, 30)).save("photo.png")


@pytest.mark.parametrize("code", PYTHON)
def test_python_lines_run(code, demo_result, monkeypatch):
    monkeypatch.setattr(criteria, "WEIGHT_CRITERIA", dict(criteria.WEIGHT_CRITERIA))
    if "torch.export.load" in code:
        export_demo_result()
    names: dict[str, object] = {}
    exec(code, names)
    if "again" in names:
        image = torch.randn(1, 3, 224, 224)
        small, again = names["smaller"].eval(), names["again"].eval()
        assert torch.equal(small(image), again(image))
    elif "largest" in names:
        weights = {"conv": torch.tensor([[1.0, -3.0], [2.0, 0.0]])}
        assert criteria.weight_scores("largest", weights)["conv"].tolist() == [3.0, 2.0]
    elif "logits" in names:
        assert names["logits"].shape == (1, 10)
    else:
        assert isinstance(names["model"], nn.Module)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_spelled_right(line):
    door, *words = shlex.split(line)
    if door == "rank_generation.py":
        config_class = RankConfig
    else:
        name = words.pop(0) if not words[0].startswith("-") else "prune"
        config_class = main.entry_of(name, words)[0]
    parse(config_class, words, prog=door, description="")


def test_there_are_lines_to_run():
    assert len(PYTHON) == 4
    assert len(COMMANDS) >= 6
