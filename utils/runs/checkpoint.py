"""Checkpoints: a model's weights as plain tensors, out of it and back into one that they fit."""

import hashlib
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.runs.regular_file import check_regular
from utils.runs.schema import in_words

STATE_DICTS = ("state_dict", "model_state_dict", "model", "net")
_WRAPPERS = ("module.", "_orig_mod.")  # before every name, in any order
_PROFILER_COUNTERS = ("total_ops", "total_params")  # buffers that thop leaves in a state dict
_CLASSIFIERS = ("fc.", "linear.")  # the last layer is spelled either way in published files
_A_FILE = "a file written by torch.save"
_INFLATED = 8  # a file may grow so often, as one of zeros does, and so much beyond what is needed
_SMALL_BYTES = 256 * 2**20


def load_file(path: str | os.PathLike, needed_bytes: int = 0) -> Any:
    """Return what torch.save wrote to `path`, on the CPU, without running any code from it.

    torch.load does not look at the checksums in the file, so they are checked here: one flipped bit
    would otherwise be a weight of another value.

    Args:
        needed_bytes: what the weights need that the file is read for, where that is known: a file
            of deflated records may grow to several times that, or to a few hundred MiB.

    Raises:
        ValueError: no such file, no regular one, a damaged file, one that would grow beyond all
            measure, or one that holds pickled code.
    """
    path = Path(path)
    size = check_regular(path, "checkpoint", _A_FILE)
    try:
        most = _INFLATED * max(size, needed_bytes) + _SMALL_BYTES
        _check_records(path, most)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch remarks on old formats, which load all the same
            return torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise ValueError(f"checkpoint {path} cannot be read: expected a readable file") from error
    except _TooLargeError as error:
        raise ValueError(f"checkpoint {path} {error}") from None
    except Exception as error:  # a damaged file can fail anywhere inside the reader
        raise ValueError(_refusal(path, error)) from error


def state_dict_of(content: Any, source: str | os.PathLike) -> dict[str, Tensor]:
    """Return the state dict in `content`, under the names that the bare network has.

    The prefixes of DataParallel and of torch.compile and the keys of profilers are gone.

    What torch.nn.utils.prune spells as weight_orig and weight_mask becomes their product, weight.

    Args:
        content: a bare state dict, or a dict that holds one under one of STATE_DICTS.
        source: where `content` came from, for the error message.

    Raises:
        ValueError: there is no state dict in `content`, or a tensor that is no plain one.
    """
    holds = f"checkpoint {source} holds {in_words(content)}"
    expected = f"expected a state dict, or a dict with one under {' or '.join(STATE_DICTS)}"
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{holds}: {expected}")
    under = next((name for name in STATE_DICTS if isinstance(content.get(name), Mapping)), None)
    state, within = (content, "") if under is None else (content[under], f" in {under!r}")
    if not state:
        raise ValueError(f"{holds}, and {under!r} is empty: {expected}")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ValueError(f"{holds}, and {key!r}{within} is {in_words(value)}: {expected}")
        check_plain(value, f"checkpoint {source}: {key!r}")
    while prefix := next((p for p in _WRAPPERS if all(k.startswith(p) for k in state)), ""):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    state = {key: value for key, value in state.items() if not key.endswith(_PROFILER_COUNTERS)}
    return _without_masks(state)


def check_plain(tensor: Tensor, name: str) -> None:
    """Check that a tensor of a file is a plain one: dense, on the CPU, with all its values stored.

    Raises:
        ValueError: it is not; the message begins with `name`.
    """
    kinds = {
        "a tensor without values (of device meta)": tensor.is_meta,
        "a nested tensor": tensor.is_nested,
        f"a sparse tensor ({str(tensor.layout).removeprefix('torch.')})": (
            tensor.layout != torch.strided
        ),
        f"a quantized tensor ({tensor.dtype})": tensor.is_quantized,
    }
    found = next((kind for kind, is_it in kinds.items() if is_it), None)
    if found is None and type(tensor) not in (Tensor, nn.Parameter):
        found = f"a {type(tensor).__name__}"
    if found is None and tensor.untyped_storage().nbytes() < tensor.nbytes:
        stored = tensor.untyped_storage().nbytes()
        found = f"an expanded tensor {list(tensor.shape)} of {stored} bytes"
    if found is not None:
        raise ValueError(f"{name} is {found}: expected a plain tensor, as state_dict() has it")


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the model's state dict on the CPU, ready to be written.

    A copy, since torch.save writes the whole storage behind a tensor that views a part of it.
    """
    return {key: value.detach().cpu().clone() for key, value in model.state_dict().items()}


def fill_model(model: nn.Module, state: Mapping[str, Tensor], source: str | os.PathLike) -> None:
    """Copy `state` into `model`, all of it or, where it does not fit, nothing.

    The classifier may be spelled `fc` or `linear`, whichever the model says; `num_batches_tracked`
    may be missing (then the model's own stays).

    Raises:
        ValueError: one sentence with the first key that does not fit, and how many do not; or
            with the first value that is NaN or Inf.
    """
    own = model.state_dict()
    state = _with_classifier_of(model, state)
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    known = [key for key in state if key in own]
    reshaped = [key for key in known if state[key].shape != own[key].shape]
    retyped = [key for key in known if not _converts(state[key], own[key])]
    if missing or unexpected or reshaped or retyped:
        if reshaped:
            key = reshaped[0]
            first = f"{key!r} is {list(state[key].shape)}, expected {list(own[key].shape)}"
        elif retyped:
            key = retyped[0]
            first = f"{key!r} is of {state[key].dtype}, expected {own[key].dtype}"
        elif missing:
            first = f"{missing[0]!r} is missing"
        else:
            first = f"{unexpected[0]!r} is not in the network"
        raise ValueError(
            f"checkpoint {source} does not fit the network: {first} (in all {len(missing)} missing,"
            f" {len(unexpected)} unexpected, {len(reshaped)} of another shape, {len(retyped)} of "
            f"another kind of number, of {len(own)})"
        )
    _check_finite({key: state[key] for key in known}, source)
    model.load_state_dict(state, strict=False)


def _converts(tensor: Tensor, own: Tensor) -> bool:
    """Return whether a tensor's numbers are of the kind that the model has: of another precision
    perhaps, but no part of them would be lost."""
    if own.dtype.is_floating_point:
        return tensor.dtype.is_floating_point and tensor.itemsize > 1  # of 8 bits, it needs a scale
    return tensor.dtype == own.dtype


def _check_finite(state: Mapping[str, Tensor], source: str | os.PathLike) -> None:
    for key, tensor in state.items():
        broken = int((~tensor.isfinite()).sum())
        if broken:
            raise ValueError(
                f"checkpoint {source} holds NaN or Inf in {key!r} "
                f"({broken} of {tensor.numel()} values): expected finite weights"
            )


def sha256_of(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        ValueError: the file cannot be read.
    """
    digest = hashlib.sha256()
    check_regular(path, "file", "a file to read")
    try:
        with Path(path).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise ValueError(f"file {path} cannot be read ({error.strerror})") from error
    return digest.hexdigest()


class _TooLargeError(Exception):
    """A file's records would grow beyond all measure."""


def _check_records(path: Path, most_bytes: int) -> None:
    """Read the file's records against their checksums; files of before torch 1.6 have none.

    Raises:
        BadZipFile: one does not agree.
        _TooLargeError: all together they would be more than `most_bytes`.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        grown = sum(record.file_size for record in archive.infolist())
        if grown > most_bytes:
            raise _TooLargeError(
                f"would grow to {grown} bytes: expected at most {most_bytes}, more than any "
                "network needs that it is read for"
            )
        broken = archive.testzip()
    if broken is not None:
        raise zipfile.BadZipFile(broken)


def _without_masks(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict with each pair x_orig, x_mask of one shape multiplied out to x."""
    names = [key.removesuffix("_orig") for key in state if key.endswith("_orig")]
    masks = {name: state.get(f"{name}_mask") for name in names}
    pruned = {
        name: state[f"{name}_orig"] * mask.to(state[f"{name}_orig"])
        for name, mask in masks.items()
        if mask is not None and mask.shape == state[f"{name}_orig"].shape
    }
    plain: dict[str, Tensor] = {}
    for key, value in state.items():
        name = key.removesuffix("_orig")
        if name in pruned:
            plain[name] = pruned[name]
        elif key.removesuffix("_mask") not in pruned:
            plain[key] = value
    return plain


def _with_classifier_of(model: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Respell a top-level `fc.` as `linear.`, or the reverse, where only the model's name fits."""
    own = model.state_dict()
    for theirs, ours in (_CLASSIFIERS, _CLASSIFIERS[::-1]):
        only_ours = _has(own, ours) and not _has(own, theirs)
        if only_ours and _has(state, theirs) and not _has(state, ours):
            return {
                ours + key.removeprefix(theirs) if key.startswith(theirs) else key: value
                for key, value in state.items()
            }
    return state


def _has(state: Mapping[str, Tensor], prefix: str) -> bool:
    return any(key.startswith(prefix) for key in state)


def _refusal(path: Path, error: Exception) -> str:
    name = re.search(r"GLOBAL ([\w.]+)", str(error))
    unpickling = isinstance(error, pickle.UnpicklingError)
    if unpickling and name:
        return f"checkpoint {path} refused: it holds {name[1]}, not plain tensors"
    return f"checkpoint {path} is damaged: expected a whole file written by torch.save"
