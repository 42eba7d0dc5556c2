"""The whole way, by commands, for networks that the registry does not know.

`python -m utils.benchmarks.own_networks` trains each on `shapes` in a temporary folder, on the CPU,
ranks, prunes, scans, measures and exports it, stores what the commands found beside this file and
renews the blocks; `--render` only renews the blocks. timm is left out where it is not installed.
"""

import json
import re
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

from utils.benchmarks.examples import hardware, hardware_line, run_command
from utils.data.synthetic import make_shapes
from utils.paper.markdown import millions, table
from utils.paper.pages import write_block
from utils.runs.atomic_write import write_json

STORED = Path(__file__).with_suffix(".json")
BLOCK, LAYERS_BLOCK = "own_networks", "own_layers"
OWN = "my_net.py:MyNet"
SPECS = {  # spec: how it is built
    OWN: "--arch_args width=8 --image_size 32",
    "torchvision:resnet18": "--image_size 64",
    "torchvision:mobilenet_v3_small": "--image_size 64",
    "timm:mobilenetv4_conv_small": "--image_size 64",
}
SHOWN = ("blocks.1.conv1", "blocks.2.conv1")  # the layers that the first page shows
TRAIN, TEST, EPOCHS = 2000, 500, 10
_DATA = "--dataset folder --data_dir DATA"
COMMANDS = {  # what each is called, and its words; NETWORK stands for those of the spec
    "layers": "main.py layers NETWORK",
    "train": f"main.py train NETWORK {_DATA} --epochs {EPOCHS} --lr 0.05 --train_batch_size 64",
    "rank": f"rank_generation.py NETWORK {_DATA} --num_images 100",
    "prune": f"main.py prune NETWORK {_DATA} --target_macs 0.5 --epochs 1 --job_dir JOB",
    "scan": f"main.py scan NETWORK {_DATA} --rates 0.5 --num_images 100",
    "evaluate": f"main.py evaluate NETWORK {_DATA} --against JOB/pruned.pt --runtime eager",
    "export": f"main.py export NETWORK {_DATA} --resume JOB/pruned.pt --format pt2",
}


def run_spec(spec: str, folder: Path) -> dict[str, Any]:
    """Run all commands on a network in a folder that holds DATA; return what they found."""
    job = spec.replace(":", "_")
    network = f"--arch {spec} {SPECS[spec]}"
    found = {}
    for name, command in COMMANDS.items():
        words = command.replace("NETWORK", network).replace("JOB", job)
        found[name] = json.loads(run_command(f"{words} --json", folder))
    pruned, (file,) = found["prune"], found["export"]["files"]
    return {
        "built": SPECS[spec],
        "layers": found["layers"]["layers"],
        "kept": {layer["conv"]: len(layer["kept"]) for layer in pruned["layers"]},
        "physical": pruned["physical"],
        "correct": {row: cell["test"]["correct"] for row, cell in pruned["accuracy"].items()},
        "units": len(found["scan"]["units"]),
        "export_differs": file["largest_difference"] / file["logit_scale"],
    }


def write_shapes(folder: Path) -> None:
    """Write the images of `shapes` into folders of their classes, DATA/train/CLASS/N.png."""
    shapes = make_shapes(TRAIN, TEST)
    for split, images in (("train", shapes.train), ("test", shapes.test)):
        for number, (pixels, label) in enumerate(zip(images.images, images.labels, strict=True)):
            place = folder / "DATA" / split / images.classes[int(label)]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(place / f"{number}.png")


def run_all(folder: Path) -> dict[str, Any]:
    """Run all networks in a folder; return {"rows": {spec: what was found}, "environment"}."""
    write_shapes(folder)
    shutil.copy(Path(__file__).with_name("my_net.py"), folder)
    made = hardware()
    there = [spec for spec in SPECS if not spec.startswith("timm:") or find_spec("timm")]
    return {
        "commands": COMMANDS,
        "images": {"train": TRAIN, "test": TEST},
        "rows": {spec: run_spec(spec, folder) for spec in there},
        "environment": made,
    }


def block_text(stored: Mapping[str, Any]) -> str:
    """Return the block: the commands, a row for each network, and the hardware."""
    said = (
        re.sub(r"^main\.py | NETWORK| --data\S* \S+", "", x) for x in stored["commands"].values()
    )
    whole = ", ".join(f"`{command}`".replace(" ", "\0") for command in said)  # not broken inside
    lines = textwrap.fill(f"{whole}:", 118).replace("\0", " ")
    header = ("`--arch`", "built by", "MACs", "parameters", "right answers")
    header = (*header, "layers scanned", "`.pt2` differs by")
    rows = [_row(spec, row, stored["images"]["test"]) for spec, row in stored["rows"].items()]
    return f"{lines}\n\n{table(header, rows)}\n\n{hardware_line(stored['environment'])}"


def _row(spec: str, row: Mapping[str, Any], images: int) -> tuple[str, ...]:
    dense, small = row["physical"]["dense"], row["physical"]["pruned"]
    stages = ("dense", "pruned", "recalibrated", "finetuned_best")
    answers = " -> ".join(str(row["correct"][stage]) for stage in stages)
    return (
        f"`{spec}`",
        f"`{row['built']}`",
        *(f"{millions(dense[what])} -> {millions(small[what])}" for what in ("macs", "parameters")),
        f"{answers} of {images}",
        str(row["units"]),
        f"{row['export_differs']:.0e}",
    )


def layers_text(stored: Mapping[str, Any]) -> str:
    """Return the first page's block: what `layers` and `prune` say of two layers."""
    row = stored["rows"][OWN]
    header = ("rate", "layer", "filters", "share of MACs", "ranked at", "pruned by rank")
    cells = [
        (
            str(layer["rate"]),
            layer["layer"],
            str(layer["filters"]),
            f"{100 * layer['share_of_macs']:.1f}%",
            layer["site"],
            f"{layer['filters']} -> {row['kept'][layer['layer']]}",
        )
        for layer in row["layers"]
        if layer["layer"] in SHOWN
    ]
    return table(header, cells)


def main(argv: Sequence[str]) -> int:
    """Run the networks, or with `--render` take the stored ones; renew the blocks."""
    if list(argv) != ["--render"]:
        with tempfile.TemporaryDirectory() as folder:
            write_json(STORED, run_all(Path(folder)))
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    write_block(BLOCK, block_text(stored))
    write_block(LAYERS_BLOCK, layers_text(stored))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
