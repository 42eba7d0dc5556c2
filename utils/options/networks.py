"""What a command reads: the device, the images and the network that its options name."""

from pathlib import Path

import torch

from models.registry import architecture, build_model
from utils.options.data_options import NetworkOptions
from utils.removal.network_file import Network, load_network
from utils.runs.job_folder import JobFolder
from utils.runs.notes import note

RESULTS = Path("result")


def baseline_folder(arch: str) -> JobFolder:
    """Return the folder that `train` writes an architecture's baseline into."""
    return JobFolder(RESULTS / arch / "baseline")


def checkpoint_of(options: NetworkOptions) -> Path | None:
    """Return the checkpoint to load: the one given, else the baseline that `train` wrote.

    None stands for fresh weights, which only `--untrained` allows.

    Raises:
        ValueError: there is neither; the message names both ways out.
    """
    if options.arch is not None:
        architecture(options.arch)
    if options.resume is not None:
        return options.resume
    if options.arch is None:
        raise ValueError("no network named: expected --arch ARCH, or --resume CKPT")
    best = baseline_folder(options.arch).best
    if best.exists():
        note(f"network: {best}")
        return best
    if options.untrained:
        note("network: fresh random weights (--untrained)")
        return None
    raise ValueError(
        f"no trained {options.arch}: give a checkpoint with --resume CKPT, or train one with "
        f"`python main.py train --arch {options.arch}`"
    )


def open_network(arch: str | None, checkpoint: Path | None, seed: int) -> Network:
    """Load the network that `checkpoint_of` found, on the CPU; for None, draw one by the seed.

    Raises:
        ValueError: see `load_network`.
    """
    return draw_network(arch, seed) if checkpoint is None else load_network(checkpoint, arch)


def draw_network(arch: str, seed: int, num_classes: int | None = None) -> Network:
    """Build a network, on the CPU, with fresh weights drawn by the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = build_model(arch, num_classes)
    return Network(model, arch, num_classes or architecture(arch).num_classes)


def open_dense_network(arch: str, checkpoint: Path | None, seed: int) -> Network:
    """Load a network as `open_network` does, but only one that is not pruned yet.

    Raises:
        ValueError: see `load_network`; or it is pruned already.
    """
    network = open_network(arch, checkpoint, seed)
    if network.form != "dense":
        raise ValueError(f"{checkpoint} is pruned already: expected a dense checkpoint")
    return network


def check_normalization(network: Network, path: Path | None, normalization: str) -> None:
    """Refuse images that are normalized otherwise than those that a pruned file was tuned on.

    Raises:
        ValueError: they are; a file that does not say how, such as a dense one, takes any.
    """
    tuned_on = network.provenance.get("normalization", normalization)
    if tuned_on != normalization:
        raise ValueError(
            f"{path} was fine-tuned on images normalized as {tuned_on!r}, and --normalization is "
            f"{normalization!r}: expected --normalization {tuned_on}"
        )
