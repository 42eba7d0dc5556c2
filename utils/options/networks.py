"""Networks, opened: from a spec and a checkpoint to the value that everything else takes."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor

from models.registry import architecture, build_model, example_images
from utils.graph.network import Network
from utils.options.data_options import NetworkOptions
from utils.paper.official import official_facts
from utils.rank.rank_layers import rank_layers
from utils.removal.network_file import is_pruned, pruned_network, spec_of
from utils.runs.checkpoint import fill_model, load_file, state_dict_of
from utils.runs.job_folder import JobFolder
from utils.runs.notes import note

RESULTS = Path("result")


def network_of(model: nn.Module, spec: str, num_classes: int | None = None) -> Network:
    """Return the value of a dense model that was built by `spec`, with all that is known of it.

    `num_classes` defaults to the spec's own. No other function looks a spec up.

    Raises:
        ValueError: `spec` is unknown.
    """
    return Network(
        model,
        spec,
        example_images(spec),
        num_classes or architecture(spec).num_classes,
        rank_layers(model, spec),
        official_facts(spec),
    )


@cache
def outline(spec: str) -> Network:
    """Return a network without any numbers in it: for what is known before one is opened.

    Raises:
        ValueError: `spec` is unknown.
    """
    with torch.device("meta"):
        return network_of(build_model(spec), spec)


def draw_network(spec: str, seed: int, num_classes: int | None = None) -> Network:
    """Build a network, on the CPU, with fresh weights drawn by the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = build_model(spec, num_classes)
    return network_of(model, spec, num_classes)


def load_network(path: str | Path, spec: str | None = None) -> Network:
    """Load a dense checkpoint of `spec`, or a pruned file, which says what it is itself.

    Raises:
        ValueError: the file cannot be loaded, is of another network, or does not fit; or it is a
            dense checkpoint and `spec` is None.
    """
    content = load_file(path, 0 if spec is None else _weight_bytes(spec))
    pruned = is_pruned(content)
    if pruned:
        said = spec_of(content, path)
        if spec not in (None, said):
            raise ValueError(f"{path} holds a pruned {said}: expected {spec}")
        spec = said
    state = state_dict_of(content, path)
    if spec is None:
        raise ValueError(f"checkpoint {path} does not name its network: expected --arch")
    num_classes = _num_classes(state) or architecture(spec).num_classes
    dense = network_of(build_model(spec, num_classes), spec, num_classes)
    if pruned:
        network = pruned_network(content, dense, path)
    else:
        own_keys = architecture(spec).own_keys(state)
        fill_model(dense.model, {own_keys[key]: value for key, value in state.items()}, path)
        network = dense
    return replace(network, checkpoint=Path(path))


def _weight_bytes(spec: str) -> int:
    """Return the bytes of a network's weights and buffers."""
    return sum(tensor.nbytes for tensor in outline(spec).model.state_dict().values())


def _num_classes(state: Mapping[str, Tensor]) -> int | None:
    """Return the rows of the last matrix in the state dict, the classifier's classes."""
    matrices = [tensor for tensor in state.values() if tensor.dim() == 2]
    return matrices[-1].size(0) if matrices else None


def baseline_folder(spec: str) -> JobFolder:
    """Return the folder that `train` writes a network's baseline into."""
    return JobFolder(RESULTS / spec / "baseline")


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


def open_network(spec: str | None, checkpoint: Path | None, seed: int) -> Network:
    """Load the network that `checkpoint_of` found, on the CPU; for None, draw one by the seed.

    Raises:
        ValueError: see `load_network`.
    """
    return draw_network(spec, seed) if checkpoint is None else load_network(checkpoint, spec)


def open_dense_network(options: NetworkOptions) -> Network:
    """Open the network that the options name, but only one that is not pruned yet.

    Raises:
        ValueError: see `checkpoint_of` and `load_network`; or it is pruned already.
    """
    network = open_network(options.arch, checkpoint_of(options), options.seed)
    if network.form != "dense":
        raise ValueError(f"{network.checkpoint} is pruned already: expected a dense checkpoint")
    return network


def check_normalization(network: Network, normalization: str) -> None:
    """Refuse images that are normalized otherwise than those that a pruned file was tuned on.

    Raises:
        ValueError: they are; a file that does not say how, such as a dense one, takes any.
    """
    tuned_on = network.provenance.get("normalization", normalization)
    if tuned_on != normalization:
        raise ValueError(
            f"{network.checkpoint} was fine-tuned on images normalized as {tuned_on!r}, and "
            f"--normalization is {normalization!r}: expected --normalization {tuned_on}"
        )
