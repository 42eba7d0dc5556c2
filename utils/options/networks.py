"""Networks, opened: from a spec and a checkpoint to the value that everything else takes."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from models.registry import ARCHITECTURES, architecture, build_model
from models.specs import TRAINED, folder_name, is_own, open_spec, read_arguments
from utils.data.load import own_image_size
from utils.data.normalization import mean_and_deviation
from utils.graph.network import Network
from utils.options.data_options import ArchOptions, NetworkOptions, trusted
from utils.options.examples import example_for
from utils.paper.official import Official, official_facts
from utils.rank.rank_layers import rank_layers
from utils.removal.network_file import BuiltBy, built_by, is_pruned, pruned_network
from utils.removal.surgery import remove_filters
from utils.runs.checkpoint import fill_model, load_file, state_dict_of
from utils.runs.job_folder import JobFolder
from utils.runs.notes import note

RESULTS = Path("result")
Size = tuple[int, int]


def network_of(
    model: nn.Module,
    spec: str,
    num_classes: int | None = None,
    *,
    arguments: str = "",
    image_size: Size | None = None,
) -> Network:
    """Return the value of a dense model that was built by `spec`, with all that is known of it.

    `num_classes` is the registry's default where it is not told; any other network is asked itself,
    by running it. No other function looks a spec up.

    Raises:
        ValueError: `spec` is unknown, or the network does not run on images of that size.
    """
    found = open_spec(spec, read_arguments(arguments))
    known = spec in ARCHITECTURES
    if known and image_size in (None, found.input_size[1:]):
        example, classes = torch.zeros(1, *found.input_size), num_classes or found.num_classes
    else:
        example, classes = example_for(model, spec, found.input_size, image_size)
    layers = rank_layers(model, spec) if known else None
    return Network(model, spec, example, classes, layers, official_facts(spec), arguments)


@cache
def outline(spec: str, arguments: str = "", image_size: Size | None = None) -> Network:
    """Return a network whose numbers do not matter: for what is known before one is opened.

    Raises:
        ValueError: `spec` is unknown.
    """
    if spec not in ARCHITECTURES:
        return draw_network(spec, 0, arguments=arguments, image_size=image_size)
    with torch.device("meta"):
        model = build_model(spec)
    return network_of(model, spec, image_size=image_size)


def outline_of(options: ArchOptions) -> Network:
    """Return the outline of the network that the options name.

    Raises:
        ValueError: there is no such network.
    """
    return outline(options.arch, options.arch_args, image_size_of(options))


def draw_network(
    spec: str,
    seed: int,
    num_classes: int | None = None,
    *,
    arguments: str = "",
    image_size: Size | None = None,
) -> Network:
    """Build a network, on the CPU, with fresh weights drawn by the seed."""
    found = open_spec(spec, read_arguments(arguments))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = found.build(num_classes)
    return network_of(model, spec, num_classes, arguments=arguments, image_size=image_size)


def draw_like(network: Network, seed: int) -> Network:
    """Build the dense network of the same spec, with fresh weights drawn by the seed."""
    how = {"arguments": network.arguments, "image_size": network.image_size}
    return draw_network(network.spec, seed, network.num_classes, **how)


def load_network(
    path: str | Path,
    spec: str | None = None,
    *,
    arguments: str = "",
    image_size: Size | None = None,
) -> Network:
    """Load a dense checkpoint of `spec`, or a pruned file, which says what it is itself.

    Raises:
        ValueError: the file cannot be loaded, is of another network, or does not fit; it is a dense
            checkpoint and `spec` is None; or it is a pruned file of the user's own network, whose
            code a file cannot ask to run (an `OwnSpecError`).
    """
    content = load_file(path, _weight_bytes(spec))
    pruned = is_pruned(content)
    wanted = BuiltBy(spec or "", arguments, image_size)
    if pruned:
        wanted = _agreed(wanted, built_by(content, path), path)
    state = state_dict_of(content, path)
    if not wanted.spec:
        raise ValueError(f"checkpoint {path} does not name its network: expected --arch")
    if pruned:
        said = 0 if wanted.spec in ARCHITECTURES else content["num_classes"]
        dense = _built(wanted, said or _num_classes(state))
        network = pruned_network(content, dense, path)
    else:
        network = _filled(wanted, state, path)
    return replace(network, checkpoint=Path(path))


def _agreed(wanted: BuiltBy, said: BuiltBy, path: str | Path) -> BuiltBy:
    """Return what a pruned file's network is built by: what it says, or the user where it may not.

    Raises:
        ValueError: the file is of another network, or of the user's own and the user names none.
    """
    if not wanted.spec:
        return trusted(said, path)
    if said.spec and wanted.spec != said.spec and not (is_own(wanted.spec) and is_own(said.spec)):
        raise ValueError(f"{path} holds a pruned {said.spec}: expected {wanted.spec}")
    return BuiltBy(
        wanted.spec, wanted.arguments or said.arguments, said.image_size or wanted.image_size
    )


def _built(wanted: BuiltBy, num_classes: int | None) -> Network:
    """Build a network whose weights are yet to be filled in: none are fetched for it."""
    given = read_arguments(wanted.arguments)
    if not is_own(wanted.spec):
        given = {name: value for name, value in given.items() if name not in TRAINED}
    model = open_spec(wanted.spec, given).build(num_classes)
    how = {"arguments": wanted.arguments, "image_size": wanted.image_size}
    return network_of(model, wanted.spec, num_classes, **how)


def _filled(wanted: BuiltBy, state: Mapping[str, Tensor], path: str | Path) -> Network:
    """Return the dense network of a state dict, whose classifier says how many classes it has.

    A network that keeps another matrix last is built with its own number.
    """
    own_keys = _own_keys(wanted.spec, state)
    state = {own_keys.get(key, key): value for key, value in state.items()}
    network = _built(wanted, _num_classes(state))
    try:
        fill_model(network.model, state, path)
    except ValueError:
        if wanted.spec in ARCHITECTURES:
            raise
        network = _built(wanted, None)
        fill_model(network.model, state, path)
    return network


def _own_keys(spec: str, state: Mapping[str, Any]) -> Mapping[str, str]:
    return architecture(spec).own_keys(state) if spec in ARCHITECTURES else {}


def _weight_bytes(spec: str | None) -> int:
    """Return the bytes of weights and buffers of a network of the registry, 0 of any other."""
    if spec not in ARCHITECTURES:
        return 0
    return sum(tensor.nbytes for tensor in outline(spec).model.state_dict().values())


def _num_classes(state: Mapping[str, Tensor]) -> int | None:
    """Return the rows of the last matrix in the state dict, the classifier's classes."""
    matrices = [tensor for tensor in state.values() if tensor.dim() == 2]
    return matrices[-1].size(0) if matrices else None


def image_size_of(options: ArchOptions) -> Size | None:
    """Return the image size asked for, else the dataset's where the network has none of its own."""
    if options.image_size:
        return options.image_size[0], options.image_size[-1]
    if options.arch is None or open_spec(options.arch).input_size is not None:
        return None
    return own_image_size(options.dataset, options.data_dir)


def baseline_folder(spec: str, arguments: str = "") -> JobFolder:
    """Return the folder that `train` writes a network's baseline into."""
    return JobFolder(RESULTS / folder_name(spec, arguments) / "baseline")


def results_of(network: Network) -> Path:
    """Return the folder that holds a network's runs."""
    return RESULTS / folder_name(network.spec, network.arguments)


def checkpoint_of(options: NetworkOptions) -> Path | None:
    """Return the checkpoint to load: the one given, else the baseline that `train` wrote.

    None stands for the weights that the network is built with: of a library's that brings trained
    ones, else only where `--untrained` allows it.

    Raises:
        ValueError: there is neither; the message names both ways out.
    """
    if options.arch is not None:
        open_spec(options.arch)
    if options.resume is not None:
        return options.resume
    if options.arch is None:
        raise ValueError("no network named: expected --arch ARCH, or --resume CKPT")
    best = baseline_folder(options.arch, options.arch_args).best
    if any(read_arguments(options.arch_args).get(name) for name in TRAINED):
        note(f"network: {options.arch} with the weights of {options.arch_args}")
        return None
    if best.exists():
        note(f"network: {best}")
        return best
    if options.untrained:
        note("network: the weights that it is built with, fresh random ones (--untrained)")
        return None
    raise ValueError(
        f"no trained {options.arch}: give a checkpoint with --resume CKPT, or train one with "
        f"`python main.py train --arch {options.arch}`"
    )


def open_network(options: ArchOptions, checkpoint: Path | None) -> Network:
    """Load the network that `checkpoint_of` found, on the CPU; for None, build one by the seed.

    Raises:
        ValueError: see `load_network`.
    """
    how = {"arguments": options.arch_args, "image_size": image_size_of(options)}
    if checkpoint is None:
        return draw_network(options.arch, options.seed, **how)
    return load_network(checkpoint, options.arch, **how)


def open_prunable(options: NetworkOptions) -> Network:
    """Open the network that the options name as one whose filters may go; see `prunable`.

    Raises:
        ValueError: see `checkpoint_of` and `load_network`.
    """
    return prunable(open_network(options, checkpoint_of(options)))


def prunable(network: Network) -> Network:
    """Return the small network that a pruned file holds as one whose filters may go.

    A masked one is made small first, and a dense one stays as it is.
    """
    if network.form == "dense":
        return network
    small, before = network.model, network.before
    if network.masks:
        before = (*before, network.masks)
        if network.form == "mask":
            small = remove_filters(network.model, network.graph, network.masks)
    return replace(network, model=small, form="dense", masks={}, before=before, official=Official())


def check_normalization(network: Network, normalization: str) -> None:
    """Refuse images that are normalized otherwise than those that a pruned file was tuned on.

    Raises:
        ValueError: they are; a file that does not say how, such as a dense one, takes any.
    """
    mean_and_deviation(normalization, network.image_channels)
    tuned_on = network.provenance.get("normalization", normalization)
    if tuned_on != normalization:
        raise ValueError(
            f"{network.checkpoint} was fine-tuned on images normalized as {tuned_on!r}, and "
            f"--normalization is {normalization!r}: expected --normalization {tuned_on}"
        )
