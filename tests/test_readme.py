"""The pages: their Python runs, their commands are spelled right, their links lead somewhere."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import main
from models.registry import build_model
from tests.networks import random_masks
from tests.pages import TEXTS, anchors, command_lines, links, prose, python_code, target
from utils.options.networks import network_of
from utils.options.rank_options import RankConfig
from utils.paper.pages import ROOT
from utils.pruning import criteria
from utils.removal.network_file import write_network
from utils.removal.surgery import remove_filters
from utils.runs.options import parse

ROOMS = ("models", "rank_conv", "tests")
ROOMS += tuple(f"utils/{room}" for room in ("graph", "pruning", "removal", "rank", "training"))
ROOMS += tuple(f"utils/{room}" for room in ("metrics", "data", "commands", "paper"))


@pytest.fixture
def demo_result(tmp_path, monkeypatch):
    """Work in a folder that holds the rank files and a pruned file where the demo writes one."""
    monkeypatch.chdir(tmp_path)
    for room in ("rank_conv", "models"):
        Path(room).symlink_to(ROOT / room)
    dense = network_of(build_model("resnet_8"), "resnet_8")
    masks = random_masks({"layer1.0.conv1": 16}, 0.5, seed=0)
    removed = remove_filters(dense.model, dense.graph, masks)
    path = Path("result/demo/pruned/pruned.pt")
    write_network(path, replace(dense, model=removed, form="remove", masks=masks))


def export_demo_result():
    """Export the demo's network as the page says, and put a photo beside it."""
    words = "export --resume result/demo/pruned/pruned.pt --dataset shapes --with_normalization"
    assert main.main([*words.split(), "--format", "pt2", "--eval_batch_size", "1"]) == 0
    Image.new("RGB", (40, 30)).save("photo.png")


@pytest.mark.parametrize("code", python_code())
def test_python_lines_run(code, demo_result, monkeypatch):
    monkeypatch.setattr(criteria, "WEIGHT_CRITERIA", dict(criteria.WEIGHT_CRITERIA))
    if "torch.export.load" in code:
        export_demo_result()
    names: dict[str, object] = {}
    exec(code, names)
    if "again" in names:
        image = torch.randn(1, 3, 64, 64)
        small, again = names["small"].model.eval(), names["again"].eval()
        assert torch.equal(small(image), again(image))
    elif "runpy" in names:
        assert names["prune"].__name__ == "prune"
    elif "largest" in names:
        weights = {"conv": torch.tensor([[1.0, -3.0], [2.0, 0.0]])}
        assert criteria.weight_scores("largest", weights)["conv"].tolist() == [3.0, 2.0]
    elif "logits" in names:
        assert names["logits"].shape == (1, 10)
    elif "ranks" in names:
        assert names["ranks"].shape == (16,)
    else:
        assert isinstance(names["model"], nn.Module)


@pytest.mark.parametrize("line", command_lines())
def test_commands_are_spelled_right(line):
    door, *words = shlex.split(line)
    if door == "rank_generation.py":
        config_class = RankConfig
    else:
        name = words.pop(0) if not words[0].startswith("-") else "prune"
        config_class = main.entry_of(name, words)[0]
    parse(config_class, words, prog=door, description="")


def test_there_are_lines_to_run():
    assert len(python_code()) >= 5
    assert len(command_lines()) >= 30


@pytest.mark.parametrize("page", TEXTS)
def test_every_link_leads_to_a_file_and_a_heading(page):
    for link in links(TEXTS[page]):
        path, anchor = target(page, link)
        assert path.exists(), link
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), link


def test_every_room_has_a_page_that_the_first_one_leads_to():
    reached = {target("README.md", link)[0] for link in links(TEXTS["README.md"])}
    expected = {ROOT / room / "README.md" for room in ROOMS}
    assert expected <= reached
    assert {ROOT / page for page in TEXTS} == expected | {ROOT / "README.md"}


def test_the_first_page_is_short():
    lines = TEXTS["README.md"].splitlines()
    assert len(lines) <= 250
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []


@pytest.mark.parametrize("page", TEXTS)
def test_lines_are_short(page):
    assert [line for line in prose(TEXTS[page]) if len(line) > 120] == []


def test_no_page_needs_a_folder_beside_the_repository():
    assert [page for page, text in TEXTS.items() if "../shared" in text] == []


def test_no_page_repeats_another():
    lines = [line for text in TEXTS.values() for line in prose(text) if len(line) > 60]
    assert [line for line in set(lines) if lines.count(line) > 1] == []
