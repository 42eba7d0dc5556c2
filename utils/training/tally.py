"""What the steps of an epoch gave so far, from which its accuracy comes."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from utils.metrics.accuracy import Accuracy


@dataclass
class Tally:
    """Of each step: its mean loss and the number right, unread, and the number of images.

    `seconds` is how long the steps took, in all calls that they were spread over.
    """

    losses: list[Tensor] = field(default_factory=list)
    correct: list[Tensor] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    seconds: float = 0.0

    def __len__(self) -> int:
        return len(self.sizes)

    def add(self, loss: Tensor, correct: Tensor, size: int) -> None:
        """Note a step; `loss` and `correct` are scalars."""
        self.losses.append(loss)
        self.correct.append(correct)
        self.sizes.append(size)

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Count the seconds of the block, however it ends."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - started

    def accuracy(self) -> Accuracy:
        """Return the accuracy of all steps.

        Raises:
            ValueError: there are none.
        """
        if not self.sizes:
            raise ValueError("cannot train on no images: expected at least one batch")
        losses, correct = (torch.stack(values).cpu() for values in (self.losses, self.correct))
        sizes = torch.tensor(self.sizes)
        images = int(sizes.sum())
        loss = (losses.double() * sizes).sum().item() / images
        return Accuracy(correct=int(correct.sum()), images=images, loss=loss)

    def state_dict(self) -> dict[str, Any]:
        """Return what the constructor takes, all on the CPU."""
        found = {"losses": self.losses, "correct": self.correct}
        read = {name: [value.cpu() for value in values] for name, values in found.items()}
        return read | {"sizes": self.sizes, "seconds": self.seconds}
