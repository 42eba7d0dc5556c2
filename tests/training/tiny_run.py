"""A run of two stages on a tiny network, with all that a stop could spoil; for the resume tests."""

import contextlib
from pathlib import Path

import torch
from torch import Tensor, nn

from utils.metrics.accuracy import Accuracy, measure_accuracy
from utils.runs.atomic_write import write_tensors
from utils.runs.checkpoint import fill_model, load_file, weights_of
from utils.runs.job_folder import JobFolder, open_job
from utils.runs.log import RunLog
from utils.training.loop import FitResult, fit
from utils.training.schedules import Recipe
from utils.training.stage import read_progress

RECIPE = Recipe(
    epochs=3,
    lr=0.05,
    batch_size=8,
    decay_epochs=(2,),
    warmup_epochs=2,
    label_smoothing=0.1,
    accumulate=3,
    ema=0.5,
    seed=7,
)
STAGES = ("conv 01", "conv 02")


@contextlib.contextmanager
def one_thread():
    """Tensors this small are ten times slower on two threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def tiny_network() -> nn.Module:
    """Batch norm, dropout and momentum: running statistics, random numbers, optimizer state."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(24, 4),
        )


def tiny_images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, 8, 8, generator=generator)
    return images, torch.randint(4, (count,), generator=generator)


def tiny_batches(epoch: int, start: int = 0):
    """32 images in an order of the epoch, with noise from torch's own random numbers."""
    images, labels = tiny_images(32, seed=1)
    order = torch.randperm(32, generator=torch.Generator().manual_seed(epoch))
    for part in order.split(RECIPE.batch_size)[start:]:
        yield images[part] + 0.1 * torch.randn(len(part), 3, 8, 8), labels[part]


def tiny_accuracy(model: nn.Module) -> dict[str, Accuracy]:
    names = ("val", "test")
    return {n: measure_accuracy(model, [tiny_images(64, seed)]) for seed, n in enumerate(names, 2)}


def tiny_run(path: Path) -> list[FitResult]:
    """Run, or go on with, both stages; the second masks a filter of the best of the first.

    The outcome lies in `outcome.pt`: the last weights, and what the last stage returned.
    """
    model, results = tiny_network(), []
    job = open_job(path, {"epochs": RECIPE.epochs})
    with torch.random.fork_rng(), one_thread(), job as folder, RunLog(folder) as log:
        torch.seed()  # no call finds the random numbers as another left them
        progress = read_progress(folder)
        finished = progress.finished if progress else ()
        for number, stage in enumerate(STAGES):
            if stage not in finished:
                results.append(_run_stage(model, folder, log, number))
        content = {"weights": weights_of(model), "records": results[-1].epochs}
        content |= {"best_epoch": results[-1].best_epoch}
        write_tensors(path / "outcome.pt", content)
    return results


def _run_stage(model: nn.Module, folder: JobFolder, log: RunLog, number: int) -> FitResult:
    progress = read_progress(folder)
    if number > 0 and progress.stage != STAGES[number]:
        fill_model(model, load_file(folder.best)["state_dict"], folder.best)

    def mask():
        with torch.no_grad():
            for parameter in (*model[0].parameters(), *model[1].parameters()):
                parameter[:number] = 0

    return fit(
        model,
        batches_of=tiny_batches,
        steps=4,
        recipe=RECIPE,
        evaluate=tiny_accuracy,
        select_on="val",
        checkpoints=folder,
        stage=STAGES[number],
        log=log,
        after_step=mask,
        step_offset=number * RECIPE.epochs,
    )
