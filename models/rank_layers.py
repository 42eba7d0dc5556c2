"""Which conv each rank file and compress rate belongs to, and where its feature map is taken.

These are the official code's choices, quirks included, as data per architecture:

- VGG: convs 2, 4, 7 and 10 are ranked *after* the max-pooling that follows them, the others after
  their ReLU; the 13th conv has no rank file and is never pruned, so a 13th rate is ignored.
- CIFAR ResNets: the second conv of a block is ranked after the residual sum and ReLU, that is, on
  the block's output rather than on its own map.
"""

from dataclasses import dataclass

from models.registry import architecture
from models.vgg import CONFIGURATION


@dataclass(frozen=True)
class RankLayer:
    """One prunable conv: its 1-based number, and the module whose output is ranked."""

    number: int
    conv: str
    site: str

    @property
    def file(self) -> str:
        """File name inside `rank_conv/<arch>/`."""
        return f"rank_conv{self.number}.npy"


@dataclass(frozen=True)
class RankLayers:
    """The prunable convs in rate order, and how many trailing rates the official code ignores."""

    layers: tuple[RankLayer, ...]
    ignored_rates: int = 0


def rank_layers(arch: str) -> RankLayers:
    """Return the official rank layers of a registered architecture.

    Raises:
        ValueError: if `arch` is unknown.
    """
    architecture(arch)
    if arch == "vgg_16_bn":
        return _vgg_layers()
    return _resnet_layers(depth=int(arch.removeprefix("resnet_")))


def _vgg_layers() -> RankLayers:
    convs = [i for i, width in enumerate(CONFIGURATION) if width != "M"]
    before_pool = {i for i in convs if CONFIGURATION[i + 1 : i + 2] == ("M",)}
    sites = [f"pool{i + 1}" if i in before_pool else f"relu{i}" for i in convs]
    layers = [
        RankLayer(number, f"features.conv{i}", f"features.{site}")
        for number, (i, site) in enumerate(zip(convs, sites, strict=True), start=1)
    ]
    return RankLayers(tuple(layers[:-1]), ignored_rates=1)


def _resnet_layers(depth: int) -> RankLayers:
    blocks = (depth - 2) // 6
    layers = [RankLayer(1, "conv1", "relu")]
    for stage in (1, 2, 3):
        for block in range(blocks):
            for k in (1, 2):
                path = f"layer{stage}.{block}"
                layers.append(RankLayer(len(layers) + 1, f"{path}.conv{k}", f"{path}.relu{k}"))
    return RankLayers(tuple(layers))
