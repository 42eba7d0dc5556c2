"""The figure of a pruned network's layers: what stays and goes, and that `prune` writes it."""

import pytest
from PIL import Image

from utils.reports.layer_figures import layer_bars, write_layer_figure

SUMMARY = {
    "arch": "resnet_8",
    "criterion": "l1",
    "physical": {"dense": {"macs": 10_000_000}, "pruned": {"macs": 4_000_000}},
    "layers": [
        {"conv": "a", "filters": 16, "kept": [0, 3], "macs": {"dense": 4e6, "pruned": 5e5}},
        {"conv": "b", "filters": 8, "kept": [*range(8)], "macs": {"dense": 6e6, "pruned": 3.5e6}},
    ],
}


def test_bars_are_what_stays_beside_what_there_was():
    assert layer_bars(SUMMARY) == {"filters": [(2, 16), (8, 8)], "macs": [(0.5, 4.0), (3.5, 6.0)]}


@pytest.mark.parametrize("copies", [1, 50])
def test_the_figure_is_as_wide_for_many_layers(tmp_path, copies):
    pytest.importorskip("matplotlib")
    write_layer_figure(tmp_path / "layers.png", {**SUMMARY, "layers": SUMMARY["layers"] * copies})
    with Image.open(tmp_path / "layers.png") as image:
        assert image.size == (1350, 750)


def test_prune_writes_it_into_the_job_folder(call, job, tmp_path):
    pytest.importorskip("matplotlib")
    words = ["--compress_rate", "[0.5]*7", "--job_dir", "pruned", "--epochs", "0"]
    found = call("main.py", *job.pruning, *words).json
    with Image.open(tmp_path / "pruned" / "layers.png") as image:
        assert len(set(image.convert("L").tobytes())) > 20
    assert [kept for kept, _ in layer_bars(found)["filters"]] == [
        len(layer["kept"]) for layer in found["layers"]
    ]
