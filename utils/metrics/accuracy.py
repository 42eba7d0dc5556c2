"""Top-1 accuracy of a network on labelled images, with the interval that its sample size allows."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.runs import processes
from utils.runs.borrowed_state import evaluating
from utils.runs.schema import Kind, number, whole

ACCURACY = (  # the schema of what `Accuracy` and its like are read from
    {"correct": whole(0), "images": whole(1), "loss": number(0)},
    Kind("no more right answers than images", lambda row: row["correct"] <= row["images"]),
)
_Z_95 = 1.959963984540054  # 97.5% quantile of the standard normal distribution


@dataclass(frozen=True)
class Accuracy:
    """`correct` of `images` right at top-1; `loss` is the mean cross-entropy in nats per image."""

    correct: int
    images: int
    loss: float

    def __post_init__(self):
        if self.images < 1 or not 0 <= self.correct <= self.images:
            raise ValueError(
                "accuracy: expected 0 <= correct <= images with images >= 1, "
                f"got {self.correct} correct of {self.images}"
            )

    @property
    def top1_percent(self) -> float:
        """Percentage of the images whose highest logit is the label's."""
        return 100 * self.correct / self.images

    def interval_percent(self) -> tuple[float, float]:
        """Low and high end, in percent, of the 95% Wilson score interval of the accuracy.

        Covers the choice of test images only, not the seed of the training.
        """
        n, share, z2 = self.images, self.correct / self.images, _Z_95**2
        centre = (share + z2 / (2 * n)) / (1 + z2 / n)
        half = _Z_95 * (share * (1 - share) / n + z2 / (4 * n * n)) ** 0.5 / (1 + z2 / n)
        # Rounding must not leave 100% outside the interval of a perfect score, nor 0% of a zero.
        low = min(centre - half, share) if self.correct else 0.0
        high = max(centre + half, share) if self.correct < n else 1.0
        return 100 * low, 100 * high

    def as_dict(self) -> dict:
        """The counts, the loss, the percentage and its interval, as plain JSON values."""
        return {
            "correct": self.correct,
            "images": self.images,
            "top1_percent": self.top1_percent,
            "interval_percent": list(self.interval_percent()),
            "loss": self.loss,
        }


def as_dicts(accuracies: Mapping[str, Accuracy]) -> dict[str, dict]:
    """Return {name: accuracy}, each as plain JSON values."""
    return {name: accuracy.as_dict() for name, accuracy in accuracies.items()}


def measure_accuracy(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Accuracy:
    """Accuracy and mean cross-entropy of `model`, in eval mode, over all `batches`.

    Each batch is (images [N, 3, H, W], labels [N] int64) on the model's device. The sums stay on
    that device and are read once, at the end. Where the highest logit is tied, the class with the
    lowest index is the prediction. Training flags are put back. Of several processes, each has
    its own batches, perhaps none, and all get the accuracy on all.

    Raises:
        ValueError: there are no images, or a logit is NaN or infinite.
    """
    totals = torch.zeros(4, dtype=torch.float64)
    with evaluating(model), torch.inference_mode():
        for images, labels in batches:
            totals = totals.to(labels.device) + batch_sums(model(images), labels)
    return accuracy_of(totals)


def accuracy_of(totals: Tensor) -> Accuracy:
    """Return the accuracy that the added `batch_sums` of all images, [4], come to.

    Of several processes, all must come here, and get the accuracy on the images of all.

    Raises:
        ValueError: there are no images, or a logit was NaN or infinite.
    """
    num_images, correct, loss, broken = processes.summed(totals.cpu()).tolist()
    if num_images == 0:
        raise ValueError("cannot measure accuracy over no images")
    if broken:
        raise ValueError(
            f"logits must be finite, got NaN or infinity on {int(broken)} of {int(num_images)} "
            "images"
        )
    return Accuracy(correct=int(correct), images=int(num_images), loss=loss / num_images)


def batch_sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Images, correct predictions, summed loss, images with a non-finite logit: [4] float64."""
    logits = logits.float()  # [N, K]
    correct = (logits.argmax(dim=1) == labels).sum()
    loss = F.cross_entropy(logits, labels, reduction="sum")
    broken = (~logits.isfinite()).any(dim=1).sum()
    images = torch.full_like(correct, len(labels))
    return torch.stack([value.double() for value in (images, correct, loss, broken)])
