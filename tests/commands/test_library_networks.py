"""Every command works on a library's network by its spec, and its small file names it itself."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from utils.options.networks import load_network

NETWORKS = {
    "torchvision:mobilenet_v3_small": "num_classes=2,width_mult=0.25,reduced_tail=True",
    "timm:mobilenetv4_conv_small": "num_classes=2",
}


@pytest.mark.parametrize("spec", NETWORKS)
def test_a_network_of_a_library_goes_all_the_way(spec, images, call, quick):
    package, _, name = spec.partition(":")
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    data = ("--dataset", "folder", "--data_dir", str(images), "--device", "cpu", "--json")
    dense = (*data, "--arch", spec, "--arch_args", NETWORKS[spec], "--untrained")
    dense += ("--image_size", "64")
    ranked = call("rank_generation.py", *dense, "--num_images", "4").json
    assert ranked["folder"].startswith(f"rank_conv/{package}_{name}_")
    tuned = ("--epochs", "1", "--train_batch_size", "16")
    half = call(
        "main.py",
        *dense,
        *tuned,
        "--recalibrate",
        "16",
        "--target_macs",
        "0.5",
        "--job_dir",
        "half",
    ).json
    assert half["physical"]["pruned"]["macs"] < 0.55 * half["physical"]["dense"]["macs"]

    small = (*data, "--resume", "half/pruned.pt")  # from here on the file says what it is
    tested = call("main.py", "evaluate", *small, "--against", "half/pruned.pt").json
    assert tested["macs"] == half["physical"]["pruned"]["macs"]
    assert tested["correct"] == half["accuracy"]["finetuned_best"]["test"]["correct"]
    files = call("main.py", "export", *small, "--format", "pt2").json["files"]
    assert [(x["format"], x["same_class"]) for x in files] == [("pt2", 20)]
    few = ("--criterion", "l1", "--num_images", "2", "--recalibrate", "0")
    scanned = call("main.py", "scan", *small, *few, "--rates", "0.5").json
    assert len(scanned["units"]) > 5
    untuned = ("--epochs", "0", "--recalibrate", "0", "--criterion", "l1")
    again = call("main.py", *small, *untuned, "--ratio", "0.3").json
    assert again["physical"]["dense"] == half["physical"]["pruned"]
    assert again["physical"]["pruned"]["macs"] < again["physical"]["dense"]["macs"]
    once, twice = (
        load_network(path).model.eval() for path in ("half/pruned.pt", again["pruned_file"])
    )
    assert type(once) is type(twice)
    assert Path(again["job_dir"]).parent == Path(ranked["folder"].replace("rank_conv", "result"))
    image = torch.zeros(1, 3, 64, 64)
    assert once(image).shape == twice(image).shape
