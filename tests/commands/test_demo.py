"""The demo does the whole job."""

import shlex

from PIL import Image

from tests.command_lines import files_in
from utils.data.load import DATASETS
from utils.data.synthetic import make_shapes


def test_the_demo_trains_ranks_prunes_and_summarizes(call, monkeypatch, tmp_path, quick):
    few = make_shapes(num_train=100, num_test=40)
    monkeypatch.setitem(DATASETS, "shapes", lambda *options: few)
    words = ["--baseline_epochs", "1", "--epochs", "1", "--num_images", "10", "--device", "cpu"]
    found = call("main.py", "demo", *words, "--json").json
    physical = found["physical"]
    assert 0.4 < physical["pruned"]["macs"] / physical["dense"]["macs"] < 0.6  # halves the MACs
    assert found["accuracy"]["finetuned_best"]["test"]["images"] == 40
    assert found["random"]["criterion"] == "random"
    widths = ([len(layer["kept"]) for layer in run["layers"]] for run in (found, found["random"]))
    assert next(widths) == next(widths)
    files = files_in(tmp_path / "result" / "demo")
    assert {"baseline/checkpoints/best.pt", "rank_conv/rank_conv7.npy", "pruned/pruned.pt"} <= set(
        files
    )
    again = call("main.py", "demo", *words)  # goes on where it was stopped: at the end
    assert again.code == 0
    assert files_in(tmp_path / "result" / "demo")["pruned/pruned.pt"] == files["pruned/pruned.pt"]
    first, second, third = (
        line.strip() for line in again.out.replace("\\\n", "").splitlines()[-3:]
    )
    assert first == "tensorboard --logdir result/demo"
    assert [line.split()[2] for line in (second, third)] == ["evaluate", "export"]
    for line in (second, third):
        assert call(*shlex.split(line)[1:]).code == 0
    with Image.open(tmp_path / "result" / "demo" / "feature_maps.png") as picture:
        assert len(set(picture.convert("L").tobytes())) > 20
