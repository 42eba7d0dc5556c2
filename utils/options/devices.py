"""The device that a command's options name."""

from typing import TYPE_CHECKING

from utils.runs import processes
from utils.runs.notes import note

if TYPE_CHECKING:  # the command line is parsed before torch is imported, which takes seconds
    import torch


def open_device(device: str, gpu: str | None) -> "torch.device":
    """Return the device to compute on; a missing GPU is said, not an error, for `--gpu`.

    Raises:
        ValueError: the device is unknown or not there.
    """
    import torch

    if processes.num_processes() > 1:
        return _own_device(device, gpu)
    if gpu is not None and device == "auto":
        if not torch.cuda.is_available():
            note(f"no GPU here: --gpu {gpu} runs on the CPU")
            return torch.device("cpu")
        device = f"cuda:{gpu}"
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).item()  # "meta" has no numbers to give back
    except (RuntimeError, AssertionError):
        none = ""
        if device.startswith("cuda") and not torch.cuda.is_available():
            none = ", but torch sees no GPU here: --device cpu runs without"
        raise ValueError(
            f"--device is {device!r}: expected auto, cpu, or a GPU of this machine{none}"
        ) from None
    return found


def check_spelling(device: str) -> None:
    """Refuse a device of a kind that torch does not know; whether it is there is not looked at.

    Raises:
        ValueError: so it is.
    """
    import torch

    try:
        torch.device(device)
    except RuntimeError:
        raise ValueError(
            f"--device is {device!r}: expected auto, cpu, or a GPU of this machine"
        ) from None


def _own_device(device: str, gpu: str | None) -> "torch.device":
    """Return the device of this process, one of several: a GPU of its own, or the CPU.

    Raises:
        ValueError: a GPU is named, or there are fewer than processes.
    """
    import torch

    index, gpus = processes.local_index(), torch.cuda.device_count()
    if gpu is not None or device not in ("auto", "cpu", "cuda"):
        name = f"--device is {device!r}" if gpu is None else f"--gpu is {gpu!r}"
        raise ValueError(
            f"{name}: expected none under torchrun, each process takes a GPU of its own "
            "(of those in CUDA_VISIBLE_DEVICES), or --device cpu"
        )
    if device == "cpu" or (device == "auto" and gpus == 0):
        return torch.device("cpu")
    if index >= gpus:
        raise ValueError(
            f"process {index} of this machine finds {gpus} GPUs: expected one for each process, "
            "start fewer with --nproc_per_node, or say --device cpu"
        )
    torch.cuda.set_device(index)  # NCCL and libraries take the current one
    return torch.device("cuda", index)
