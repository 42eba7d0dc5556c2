"""What dropping each branch of a network changes in its outputs, on a few images."""

import copy
from collections.abc import Sequence

import torch

from utils.data.cifar10 import is_cifar10_there
from utils.data.images import draw_images
from utils.graph.branches import Branch
from utils.graph.network import Network
from utils.graph.values import tensors_in
from utils.options.images import Images, open_images
from utils.options.prune_options import PruneConfig
from utils.removal.masks import ChannelMasks
from utils.runs import processes
from utils.runs.bars import bar
from utils.runs.notes import note
from utils.training.recalibration import recalibrate

_IMAGES = 64


def changes_without(
    dense: Network, branches: Sequence[Branch], images: Images | None, seed: int
) -> dict[str, float]:
    """Return {last layer of a branch: mean squared change of the outputs without it}.

    Norms are recalibrated each time on the images, train images drawn by the seed; what that alone
    changes does not count. On a ResNet-56 this orders the branches as the cross-entropy of 2,000
    images does (correlation of ranks 0.9); without recalibration, or by the divergence of the
    predictions of as few images, it is 0.6. {} without images.
    """
    if images is None or not branches:
        return {}
    return processes.from_first(lambda: _changes(dense, branches, images, seed))


@torch.no_grad()
def _changes(
    dense: Network, branches: Sequence[Branch], images: Images, seed: int
) -> dict[str, float]:
    batch = images.first_batch(draw_images(images.train, min(_IMAGES, len(images.train)), seed))
    model = copy.deepcopy(dense.model).to(batch.device).eval()
    whole, sizes = list(tensors_in(model(batch))), dense.graph.filters()

    def change(dropped: Sequence[str]) -> float:
        without, found = copy.deepcopy(model), []
        masks = {name: torch.zeros(sizes[name], dtype=torch.bool) for name in dropped}
        ChannelMasks(without, dense.graph, masks).apply()
        # the pass that gives the statistics of its only batch normalizes by them already
        without.register_forward_hook(lambda _, inputs, out: found.extend(tensors_in(out)))
        recalibrate(without, [batch])
        return sum(float((a - b).square().mean()) for a, b in zip(found, whole, strict=True))

    alone, lasts = change([]), [branch.last for branch in branches]
    shown = bar(lasts, desc="what branches change", unit="branch", leave=False)
    return {last: max(0.0, change([last]) - alone) for last in shown}


def images_of_run(config: PruneConfig, dense: Network) -> Images | None:
    """Return the run's images; a dry run has those that are at hand, where they say what goes.

    Raises:
        ValueError: the images of a run that is no dry one cannot be loaded.
    """
    if config.dry_run and not (config.drops and config.by_time):
        return None
    try:
        if config.dry_run and config.dataset == "cifar10" and not is_cifar10_there(config.data_dir):
            raise ValueError(f"cifar10 is not in {str(config.data_dir)!r}")
        return open_images(config, dense, val_fraction=config.held_out)
    except ValueError as error:
        if not config.dry_run:
            raise
        note(f"{error}; without images, scores alone say which residual branches go")
        return None
