"""Training: one epoch, and a stage of many that goes on, bit for bit, where it was stopped."""

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from utils.metrics.accuracy import Accuracy
from utils.runs.borrowed_state import training
from utils.runs.job_folder import JobFolder
from utils.runs.log import RunLog
from utils.training.records import accuracies_in, epoch_record
from utils.training.schedules import Recipe, learning_rate
from utils.training.stage import Stage

Batches = Iterable[tuple[Tensor, Tensor]]  # images [N, 3, H, W], labels [N] int64


@dataclass(frozen=True)
class FitResult:
    """What a stage ended with; `best` is of epoch `best_epoch`, the first with so many right.

    `epochs` holds the stage's lines of log.jsonl; `seconds` is of this call alone, so that a
    stage that went on after a stop counts only its second part.
    """

    last: Mapping[str, Accuracy]
    best: Mapping[str, Accuracy]
    best_epoch: int
    epochs: list[dict[str, Any]]
    seconds: float


def fit(
    model: nn.Module,
    *,
    batches_of: Callable[[int], Batches],
    steps: int,
    recipe: Recipe,
    evaluate: Callable[[nn.Module], Mapping[str, Accuracy]],
    select_on: str,
    checkpoints: JobFolder,
    stage: str = "",
    log: RunLog | None = None,
    after_step: Callable[[], None] | None = None,
    step_offset: int = 0,
) -> FitResult:
    """Train `model` by the recipe, in place, and return the accuracies it ended with.

    Called again after a stop, at whatever moment, it ends on the CPU where an unbroken call ends:
    weights, best.pt, log.jsonl and records, bit for bit. `model` ends with the last weights, the
    best lie in best.pt. A stage that is already complete returns at once. The lines of log.jsonl
    are this function's: those that no checkpoint stands for are cut away.

    Args:
        batches_of: the training batches of an epoch (from 0), the same at each call.
        steps: how many batches that is, for the progress bar and the warm-up.
        evaluate: the accuracies after an epoch, such as {"val": ..., "test": ...}.
        select_on: which of them decides what is best, or "last".
        checkpoints: the run's folder.
        stage: names this call among the several of one run, in their order.
        after_step: called after each optimizer step.
        step_offset: the epochs of earlier stages, where TensorBoard's curves go on.

    Raises:
        ValueError: a loss that is not finite, a `select_on` that `evaluate` does not give, a
            stage that the run has left behind, or a last.pt that does not fit.
    """
    started = time.perf_counter()
    optimizer = torch.optim.SGD(
        model.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay
    )
    run = Stage(model, optimizer, checkpoints, stage, log, select_on, step_offset)
    run.resume()
    with tqdm(total=recipe.epochs, desc=stage or "training", unit="epoch", mininterval=1) as bar:
        bar.update(len(run.records))
        for epoch in range(len(run.records), recipe.epochs):
            with _seeded(model, epoch_seed(recipe.seed, stage, epoch)), run.naming(epoch):
                batches = _with_bar(batches_of(epoch), steps, epoch)
                batches = _with_learning_rates(batches, optimizer, recipe, epoch=epoch, steps=steps)
                trained, speed = _timed_epoch(model, batches, optimizer, recipe, after_step)
                place = {"stage": stage, "epoch": epoch, "lr": optimizer.param_groups[0]["lr"]}
                record = place | epoch_record(trained, evaluate(model))
            run.complete(record, images_per_second=speed)
            bar.set_postfix(_postfix(record), refresh=False)
            bar.update()
    last, best = (accuracies_in(run.records[epoch]) for epoch in (-1, run.best_epoch))
    return FitResult(last, best, run.best_epoch, run.records, time.perf_counter() - started)


def train_epoch(
    model: nn.Module,
    batches: Batches,
    optimizer: torch.optim.Optimizer,
    *,
    label_smoothing: float = 0.0,
    after_step: Callable[[], None] | None = None,
) -> Accuracy:
    """Train on each batch once, in train mode, and return the accuracy met on the way.

    Nothing is read back from the device until the end. Training flags are put back.

    Raises:
        ValueError: there are no images, or a step's loss is not finite.
    """
    losses, correct, sizes = [], [], []
    with training(model):
        for images, labels in batches:
            logits = model(images)  # [N, classes]
            loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if after_step is not None:
                after_step()
            losses.append(loss.detach())
            correct.append((logits.detach().argmax(dim=1) == labels).sum())
            sizes.append(len(labels))
    if not sizes:
        raise ValueError("cannot train on no images: expected at least one batch")
    return _summed(torch.stack(losses).cpu(), torch.stack(correct).cpu(), torch.tensor(sizes))


def epoch_seed(seed: int, stage: str, epoch: int) -> int:
    """Return the seed of an epoch's randomness, 0 <= value < 2**63, the same on every machine."""
    digest = hashlib.sha256(f"{seed}, {stage!r}, {epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _timed_epoch(
    model: nn.Module,
    batches: Batches,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    after_step: Callable[[], None] | None,
) -> tuple[Accuracy, float]:
    """Return train_epoch's outcome and the images per second."""
    started = time.perf_counter()
    trained = train_epoch(
        model, batches, optimizer, label_smoothing=recipe.label_smoothing, after_step=after_step
    )
    return trained, trained.images / (time.perf_counter() - started)


def _summed(losses: Tensor, correct: Tensor, sizes: Tensor) -> Accuracy:
    """Return the outcome of an epoch from its steps: mean losses, right answers, images: [S]."""
    broken = (~losses.isfinite()).nonzero().flatten()
    if len(broken):
        step = int(broken[0])
        raise ValueError(
            f"the loss became {losses[step].item()} at step {step + 1} of {len(losses)}: "
            "expected a finite number, try a lower learning rate"
        )
    images = int(sizes.sum())
    loss = (losses.double() * sizes).sum().item() / images
    return Accuracy(correct=int(correct.sum()), images=images, loss=loss)


def _with_learning_rates(
    batches: Batches, optimizer: torch.optim.Optimizer, recipe: Recipe, *, epoch: int, steps: int
) -> Batches:
    """Yield the batches, and set before each the learning rate of its step."""
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, epoch, step, steps)
        yield batch


def _with_bar(batches: Batches, steps: int, epoch: int) -> Batches:
    name = f"epoch {epoch + 1}"
    return tqdm(batches, name, steps, leave=False, unit="batch", mininterval=0.5, disable=None)


@contextlib.contextmanager
def _seeded(model: nn.Module, seed: int) -> Iterator[None]:
    """Seed torch's own random numbers where the model computes; the caller's come back after."""
    cuda = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed reaches every other device
        for index in cuda:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield


def _postfix(record: Mapping[str, Any]) -> dict[str, str]:
    percents = {name: f"{acc.top1_percent:.2f}%" for name, acc in accuracies_in(record).items()}
    return {"loss": f"{record['train_loss']:.4f}", **percents}
