"""The normalizations of images, by name or by numbers."""

from math import isfinite

# name -> (mean, standard deviation) of red, green, blue, for pixels in [0, 1]
NORMALIZATIONS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


def mean_and_deviation(normalization: str, channels: int = 3) -> tuple[tuple[float, ...], ...]:
    """Return the mean and the deviation of each channel, of pixels in [0, 1].

    `normalization` is a key of NORMALIZATIONS, of which one channel takes the mean over colors; or
    numbers with commas: a mean and a deviation for all channels, or all means, then all deviations.

    Raises:
        ValueError: it is neither, or a deviation is not above 0.
    """
    if normalization in NORMALIZATIONS:
        found = NORMALIZATIONS[normalization]
        return found if channels == 3 else tuple((sum(v) / len(v),) * channels for v in found)
    try:
        numbers = [float(word) for word in normalization.split(",")]
    except ValueError:
        numbers = []
    half = len(numbers) // 2
    means, deviations = numbers[:half], numbers[half:]
    if (
        len(numbers) not in (2, 2 * channels)
        or not all(isfinite(number) for number in numbers)
        or min(deviations) <= 0
    ):
        raise ValueError(
            f"normalization: expected one of {', '.join(NORMALIZATIONS)}, or MEAN,DEVIATION "
            f"(of {channels} channels: 2 or {2 * channels} numbers), got {normalization!r}"
        )
    spread = channels if half == 1 else 1
    return tuple(means) * spread, tuple(deviations) * spread


def default_normalization(dataset: str) -> str:
    """Return the normalization that networks for a dataset of that name are trained with."""
    return "imagenet" if dataset == "imagenet" else "cifar10"
