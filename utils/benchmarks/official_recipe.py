"""An epoch of training as HRank's code runs it, step by step: what the benchmark compares with."""

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
import torch.nn as nn
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms

from utils.data.augmentation import PADDING
from utils.data.images import ImageSet
from utils.data.normalization import NORMALIZATIONS
from utils.graph.channel_graph import ChannelGraph
from utils.metrics.accuracy import Accuracy
from utils.removal.masks import ChannelMasks
from utils.runs.borrowed_state import training

_WORKERS = 2  # the official code's


class PilImages(torch.utils.data.Dataset):
    """Images that are cropped, flipped, scaled and normalized one by one: float32 [3, S, S]."""

    def __init__(self, images: ImageSet, normalization: str):
        self._pixels = images.images.permute(0, 2, 3, 1).contiguous().cpu().numpy()  # [N, S, S, 3]
        self._labels = images.labels.tolist()
        self._transform = transforms.Compose(
            [
                transforms.RandomCrop(images.images.shape[-1], padding=PADDING),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(*NORMALIZATIONS[normalization]),
            ]
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._pixels[index])), self._labels[index]


def official_batches(
    images: PilImages, batch_size: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Start the two worker processes of an epoch; return its shuffled batches, on the CPU.

    The workers end when the iterator is given up.
    """
    loader = DataLoader(
        images,
        batch_size,
        shuffle=True,
        num_workers=_WORKERS,
        generator=torch.Generator().manual_seed(seed),
    )
    with warnings.catch_warnings():  # they make images, and wait for no thread of this process
        warnings.filterwarnings("ignore", r".*multi-threaded, use of fork", DeprecationWarning)
        return iter(loader)


def official_epoch(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    *,
    device: torch.device,
    after_step: Callable[[], None] | None = None,
) -> Accuracy:
    """Train on each batch once and return the accuracy met on the way, read at every step."""
    loss_sum, correct, images = 0.0, 0, 0
    with training(model):
        for inputs, targets in batches:
            inputs, targets = inputs.to(device), targets.to(device)
            optimizer.zero_grad()
            logits = model(inputs)  # [N, classes]
            loss = F.cross_entropy(logits, targets)
            loss.backward()
            optimizer.step()
            if after_step is not None:
                after_step()
            loss_sum += loss.item() * len(targets)
            correct += (logits.argmax(dim=1) == targets).sum().item()
            images += len(targets)
    return Accuracy(correct, images, loss_sum / images)


class OfficialMasks:
    """Masks that are multiplied onto one parameter after the other, in a loop.

    As in the official code they stand for every parameter up to the last that loses a filter,
    also for those that lose none, and each product takes new memory.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph, masks: Mapping[str, Tensor]):
        ones = copy.deepcopy(model)
        for parameter in ones.parameters():
            nn.init.ones_(parameter)
        ChannelMasks(ones, graph, masks).apply()
        factors = [_one_per_filter(parameter.detach()) for parameter in ones.parameters()]
        masked = [index for index, factor in enumerate(factors) if not factor.all()]
        self._pairs = list(zip(model.parameters(), factors[: max(masked) + 1], strict=False))

    def __len__(self) -> int:
        return len(self._pairs)

    def apply(self) -> None:
        """Zero the masked entries."""
        for parameter, factor in self._pairs:
            parameter.data = parameter.data * factor


def _one_per_filter(factor: Tensor) -> Tensor:
    """Return the factors [F, 1, ...] of a parameter's factors [F, ...]."""
    return factor.reshape(len(factor), -1)[:, 0].reshape(-1, *[1] * (factor.dim() - 1)).clone()
