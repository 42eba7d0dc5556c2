"""What pruned networks of the latency benchmark get right, recalibrated and after a few epochs."""

from pathlib import Path
from typing import Any

import torch.nn as nn

from utils.metrics.accuracy import measure_accuracy
from utils.options.images import Images
from utils.runs.job_folder import open_job
from utils.training.loop import fit
from utils.training.recalibration import recalibrate
from utils.training.schedules import Recipe

_IMAGES = 1000  # that recalibration reads


def right_answers(
    model: nn.Module,
    images: Images,
    *,
    recalibrates: bool,
    epochs: int,
    folder: Path,
    seed: int,
) -> dict[str, Any]:
    """Return how many test images a network gets right, perhaps recalibrated, then fine-tuned.

    `folder` is where a fine-tuning that is stopped goes on from.
    """
    if recalibrates:
        recalibrate(model, images.recalibration_batches(_IMAGES, seed))
    if epochs:
        recipe = Recipe(epochs=epochs, lr=0.02, batch_size=128, schedule="cosine", seed=seed)
        with open_job(folder, {"epochs": epochs, "seed": seed}) as job:
            fit(
                model,
                batches_of=images.training_batches(recipe.batch_size, seed, "benchmark"),
                steps=images.steps(recipe.batch_size),
                recipe=recipe,
                evaluate=images.accuracies,
                select_on="last",
                checkpoints=job,
            )
    accuracy = measure_accuracy(model, images.evaluation_batches(images.test))
    return {"correct": accuracy.correct, "images": accuracy.images}
