"""HRank's mask files: pickles of {parameter position: tensor of 0 and 1}, read without running."""

import io
import pickle
import warnings
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch._utils import _rebuild_tensor_v2  # what a pickled tensor asks for

from utils.graph.channel_graph import ChannelGraph
from utils.graph.relations import Filters, Norm
from utils.runs.checkpoint import check_plain
from utils.runs.regular_file import check_regular


def read_masks(path: Path, model: nn.Module, graph: ChannelGraph) -> dict[str, Tensor]:
    """Return the masks of the convs that an HRank mask file holds: {conv: bool [filters]}.

    The file's keys are positions in `model.parameters()`. Masks of biases and norms are not
    returned, but must zero exactly the channels that the convs' masks leave at zero (with
    DenseNet: of the whole concatenation that a norm reads).

    Raises:
        ValueError: the file cannot be read, asks for anything but tensors, or does not fit.
    """
    by_parameter = _masks_of(_unpickled(path), model, path)
    widths = graph.filters()
    owners = {name: name.rpartition(".")[0] for name in by_parameter}
    masks = {
        owner: by_parameter[name]
        for name, owner in owners.items()
        if owner in widths and name.endswith(".weight")
    }
    alive = graph.alive(masks)
    expected = {
        relation.module: alive[relation.outputs]
        for relation in graph.relations
        if isinstance(relation, Filters | Norm)
    }
    for name, owner in owners.items():
        if owner not in expected or not torch.equal(by_parameter[name], expected[owner]):
            raise ValueError(
                f"mask file {path}: the mask of {name!r} disagrees with those of the convs: "
                f"expected zeros exactly where their filters are gone"
            )
    return masks


class _TensorUnpickler(pickle.Unpickler):
    """Builds tensors and plain containers; whatever else a pickle names ends the reading."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            "torch._utils._rebuild_tensor_v2": _rebuild_tensor_v2,
            "torch.storage._load_from_bytes": _load_storage,
            "collections.OrderedDict": OrderedDict,
        }
        asked = f"{module}.{name}"
        if asked not in allowed:
            raise pickle.UnpicklingError(f"it asks for {asked}")
        return partial(allowed[asked])  # fresh: a pickle may set attributes of what it is given


def _load_storage(content: bytes) -> Any:
    """Stand in for torch's function of the like name, which trusts what it reads."""
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch's own words fill a page
        raise pickle.UnpicklingError("a tensor's content is not plain numbers") from error


def _unpickled(path: Path) -> Any:
    check_regular(path, "mask file", "HRank's `mask`")
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch remarks on old formats, which load all the same
            return _TensorUnpickler(file).load()
    except OSError as error:
        raise ValueError(
            f"mask file {path} cannot be read ({error.strerror}): expected HRank's `mask`"
        ) from error
    except Exception as error:  # a damaged file can fail anywhere inside the reader
        raise ValueError(
            f"mask file {path} refused ({error}): expected a pickle of tensors, as HRank writes it"
        ) from error


def _masks_of(content: Any, model: nn.Module, path: Path) -> dict[str, Tensor]:
    """Return {parameter: bool [F]} of {position: 0 and 1, [F] or [F, 1, 1, 1]}."""
    parameters = list(model.named_parameters())
    if not isinstance(content, dict) or not content:
        raise ValueError(
            f"mask file {path} holds a {type(content).__name__}: expected a dict of masks"
        )
    masks = {}
    for position, mask in content.items():
        if not isinstance(position, int) or not 0 <= position < len(parameters):
            raise ValueError(
                f"mask file {path}: {position!r} is no position of the network's "
                f"{len(parameters)} parameters"
            )
        name, parameter = parameters[position]
        if isinstance(mask, Tensor):
            check_plain(mask, f"mask file {path}: the mask of {name!r}")
        length = parameter.size(0)
        if not isinstance(mask, Tensor) or mask.shape not in ((length,), (length, 1, 1, 1)):
            found = list(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
            raise ValueError(
                f"mask file {path}: the mask of {name!r} is {found}, expected [{length}] "
                f"or [{length}, 1, 1, 1]"
            )
        if not bool(((mask == 0) | (mask == 1)).all()):
            raise ValueError(
                f"mask file {path}: the mask of {name!r} holds other values than 0 and 1"
            )
        masks[name] = mask.flatten().bool()
    return masks
