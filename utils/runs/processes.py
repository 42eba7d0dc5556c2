"""The processes that torchrun started together: what each does of the work, and what they add up.

Without torchrun there is one process, and everything here is the identity. All processes run the
same program on the same options; the first one alone prints and writes. What they add up, tell
each other and write is a meeting of all, so each must come to the same meetings in the same order.
"""

import contextlib
import hashlib
import io
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:  # a typo is answered before torch is imported, which takes seconds
    import torch.distributed as dist
    from torch import Tensor, nn

T = TypeVar("T")

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_LONGEST_WAIT = timedelta(minutes=30)  # for a process that neither comes to a meeting nor ends
_LAST_WORDS_SECONDS = 3  # for the first process to fail at what another failed at
_FAILED = 1  # exit code of a process that leaves it to another to say why


def num_processes() -> int:
    """Return how many processes share the work, 1 without torchrun."""
    if not _joined():
        return 1
    import torch.distributed as dist

    return dist.get_world_size()


def process_index() -> int:
    """Return which of the processes this is, from 0."""
    if not _joined():
        return 0
    import torch.distributed as dist

    return dist.get_rank()


def is_first() -> bool:
    """Return whether this process is the one that prints and writes."""
    return process_index() == 0


def local_index() -> int:
    """Return which of the processes of this machine this is, from 0."""
    return int(os.environ["LOCAL_RANK"]) if _joined() else 0


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Join the processes that torchrun started, as its environment variables say, until the end.

    The others are mute. Where one fails, the rest follow: the first process says why, or the one
    that failed alone. Tensors meet by gloo on the CPU, and by NCCL on GPUs.
    """
    if any(name not in os.environ for name in _TORCHRUN) or int(os.environ["WORLD_SIZE"]) == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    # Its functions' defaults keep the group of the time they are imported at; the group's threads
    # would outlive `destroy_process_group` and be caught by the interpreter's end.
    import torch.distributed.nn  # noqa: F401

    gpus = torch.cuda.is_available() and dist.is_nccl_available()
    store, index, count = next(dist.rendezvous("env://", timeout=_LONGEST_WAIT))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if gpus else "gloo",
        store=dist.PrefixStore("meetings", store),
        rank=index,
        world_size=count,
        timeout=_LONGEST_WAIT,
    )
    _wait_for_all(store, count)  # one that failed and left would take the last to join along
    try:
        with contextlib.ExitStack() as muted:
            if index > 0:
                muted.enter_context(contextlib.redirect_stdout(io.StringIO()))
                muted.enter_context(contextlib.redirect_stderr(io.StringIO()))
            yield
            meet()
    except BaseException as error:
        asked_for = isinstance(error, SystemExit) and not error.code  # --help
        if asked_for or _is_to_say_why(store, index):
            raise
        raise SystemExit(_FAILED) from None
    finally:
        dist.destroy_process_group()


def meet() -> None:
    """Wait until all processes are here."""
    total(0)


def summed(tensor: "Tensor") -> "Tensor":
    """Return the sum over the processes of a tensor of the same shape and type in each."""
    if num_processes() == 1:
        return tensor
    import torch
    import torch.distributed as dist

    found = tensor.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(found)
    return found


def total(number: int) -> int:
    """Return the sum over the processes of a number."""
    return _reduced(number, "SUM")


def largest(number: int) -> int:
    """Return the largest of the processes' numbers."""
    return _reduced(number, "MAX")


def averaging_gradients(model: "nn.Module") -> "nn.Module":
    """Return the model as training calls it: each gradient becomes the mean over the processes.

    All begin with the first one's weights. The model itself, its names among it, stays as it is.
    """
    if num_processes() == 1:
        return model
    from torch.nn.parallel import DistributedDataParallel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # newer versions have another name for it
        return DistributedDataParallel(model, broadcast_buffers=False)


def gathered(value: T) -> list[T]:
    """Return the values of all processes, in their order; tensors in them should be on the CPU."""
    if num_processes() == 1:
        return [value]
    import torch.distributed as dist

    values: list[Any] = [None] * num_processes()
    dist.all_gather_object(values, value)
    return values


def from_first(action: Callable[[], T]) -> T:
    """Call `action` in the first process alone, while the others wait; return its value to all."""
    if num_processes() == 1:
        return action()
    return gathered(action() if is_first() else None)[0]


@contextlib.contextmanager
def first_ahead() -> Iterator[None]:
    """Let the first process through the block before the others, who find what it left there."""
    if not is_first():
        meet()
    yield
    if is_first():
        meet()


@contextlib.contextmanager
def writing() -> Iterator[bool]:
    """Yield whether this process is to write; whoever reads before finds the old, after the new.

    All processes must come to it, so that none reads what the first one is about to change.
    """
    meet()
    yield is_first()
    meet()


def check_same(what: str, value: Any) -> None:
    """Check that a value that JSON can hold is the same in all processes.

    Raises:
        ValueError: it is not.
    """
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    digests = gathered(digest)
    other = next((index for index, found in enumerate(digests) if found != digests[0]), None)
    if other is not None:
        raise ValueError(
            f"{what} of process {other} is not that of process 0: expected the same in all "
            f"{len(digests)} processes, from the same files"
        )


def in_turn(batches: Sequence[T]) -> list[T]:
    """Return the batches that this process takes where each takes whole ones, in turn."""
    return list(batches[process_index() :: num_processes()])


def part_of_each(batches: Sequence[slice]) -> list[slice]:
    """Return this process's part of every batch; the parts differ by one image at most.

    A batch of fewer images than there are processes leaves some an empty part.
    """
    index, count = process_index(), num_processes()
    return [
        slice(
            batch.start + (batch.stop - batch.start) * index // count,
            batch.start + (batch.stop - batch.start) * (index + 1) // count,
        )
        for batch in batches
    ]


def _reduced(number: int, operation: str) -> int:
    if num_processes() == 1:
        return number
    import torch
    import torch.distributed as dist

    found = torch.tensor(number)
    dist.all_reduce(found, getattr(dist.ReduceOp, operation))
    return int(found)


def _joined() -> bool:
    if "torch" not in sys.modules:  # `joined` imports it
        return False
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized()


def _wait_for_all(store: "dist.Store", count: int) -> None:
    """Wait until `count` processes have come here."""
    if store.add("here", 1) == count:
        store.set("all are here", "")
    store.wait(["all are here"], _LONGEST_WAIT)


def _is_to_say_why(store: "dist.Store", index: int) -> bool:
    """Return whether this process, which fails, is the one whose error is to be seen."""
    with contextlib.suppress(RuntimeError):  # the store may be gone with the process that held it
        if index == 0:
            store.set("the first fails", "too")
        patience = time.monotonic() + _LAST_WORDS_SECONDS
        while index > 0 and time.monotonic() < patience:
            if store.check(["the first fails"]):
                return False
            time.sleep(0.05)
        return store.add("failures", 1) == 1
    return False
