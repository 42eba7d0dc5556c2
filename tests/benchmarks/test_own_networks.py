"""The page's table of networks that the registry does not know is what the commands found."""

import json

from PIL import Image

from utils.benchmarks import own_networks
from utils.benchmarks.own_networks import (
    BLOCK,
    COMMANDS,
    LAYERS_BLOCK,
    OWN,
    SPECS,
    STORED,
    block_text,
    layers_text,
    run_all,
)
from utils.paper.pages import read_block

LAYER = {
    "rate": 5,
    "layer": "blocks.1.conv1",
    "filters": 4,
    "share_of_macs": 0.25,
    "site": "relu",
}


def test_the_page_holds_what_is_stored():
    stored = json.loads(STORED.read_text())
    assert read_block(BLOCK) == block_text(stored)
    assert read_block(LAYERS_BLOCK) == layers_text(stored)
    assert stored["commands"] == COMMANDS and list(stored["rows"]) == list(SPECS)


def test_every_command_is_run_on_every_network(monkeypatch, tmp_path):
    ran = []

    def run(command, folder):
        ran.append(command)
        cost = {"macs": 2_000_000, "parameters": 40_000}
        return json.dumps(
            {
                "physical": {"dense": cost, "pruned": {"macs": 1_000_000, "parameters": 30_000}},
                "accuracy": {
                    row: {"test": {"correct": 7}}
                    for row in ("dense", "pruned", "recalibrated", "finetuned_best")
                },
                "units": [1, 2, 3],
                "layers": [LAYER | {"conv": LAYER["layer"], "kept": [0, 2]}],
                "files": [{"largest_difference": 2e-6, "logit_scale": 2.0}],
            }
        )

    monkeypatch.setattr(own_networks, "run_command", run)
    monkeypatch.setattr(own_networks, "SPECS", {OWN: "--image_size 32"})
    monkeypatch.setattr(own_networks, "TRAIN", 20)
    monkeypatch.setattr(own_networks, "TEST", 10)
    found = run_all(tmp_path)
    text = block_text(found)
    row = layers_text(found).splitlines()[-1]
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        "5",
        "blocks.1.conv1",
        "4",
        "25.0%",
        "relu",
        "4 -> 2",
    ]
    assert len(ran) == len(COMMANDS) and not any("NETWORK" in command for command in ran)
    assert "| 2.00M -> 1.00M | 40.0k -> 30.0k | 7 -> 7 -> 7 -> 7 of 10 | 3 " in text
    assert "| 1e-06 " in text
    images = list((tmp_path / "DATA").rglob("*.png"))
    with Image.open(images[0]) as image:
        assert (len(images), image.size) == (30, (32, 32))
    assert (tmp_path / "my_net.py").exists()
