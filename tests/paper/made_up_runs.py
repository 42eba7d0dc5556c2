"""Job folders with summaries of runs that never were, whose figures can be checked by hand."""

import json
from pathlib import Path


def counted(correct, images=10_000):
    """A state's accuracy, as far as evidence reads it."""
    found = {"correct": correct, "images": images, "loss": 0.5}
    return found | {"top1_percent": 100 * correct / images}


def summary(
    name,
    *,
    correct,
    criterion="rank",
    seed=0,
    removed=True,
    last=None,
    epochs_trained=2,
    **options,
):
    """The summary of a fine-tuned run with `correct` of 10,000 right: what `prune` wrote of old."""
    dense = {"macs": 1_000_000, "parameters": 20_000}
    slim = {"macs": 400_000, "parameters": 5_000} if removed else dense
    right = {"dense": 9000, "pruned": 1000, "finetuned_best": correct}
    right["finetuned_last"] = correct if last is None else last
    timed = {"median_ms": 8.0, "batch_size": 1}
    return {
        "arch": "resnet_20",
        "criterion": criterion,
        "checkpoint": "dense.th",
        "compress_rate": "[0.5]*19" if removed else "[0.0]*19",
        "paper_rule": {"dense": dense, "pruned": slim},
        "physical": {"dense": dense, "pruned": slim},
        "paper": None,
        "dataset": "photos",
        "train_images": 50_000,
        "options": {
            "seed": seed,
            "rank_conv": None,
            "normalization": "imagenet",
            "epochs": 2,
            "lr": 0.02,
            "lr_schedule": "cosine",
            "train_batch_size": 128,
            "select_on": "last",
            **options,
        },
        "accuracy": {state: {"test": counted(right[state])} for state in right},
        "best_epoch": 2,
        "epochs_trained": epochs_trained,
        "seconds_of_finetuning": 600.0,
        "latency": {what: {"dense": timed, "pruned": timed} for what in ("one_image", "batch")},
        "pruned_file": f"result/resnet_20/{name}/pruned.pt",
        "environment": {
            "command": f"main.py --seed {seed}",
            "device": "a CPU",
            "threads": 1,
            "torch": "2.15.0",
            "commit": "0123",
        },
    }


def write_job(jobs, name, files):
    """Write a job folder: {file name: JSON value}, with weights beside them."""
    job = Path(jobs) / name
    job.mkdir(parents=True)
    for file, value in files.items():
        (job / file).write_text(json.dumps(value))
    (job / "pruned.pt").write_bytes(b"weights")
    return job


def write_run(folder, name, **about):
    """Write a kept run with nothing but its summary into `folder`, as `measured/` has it."""
    return write_job(Path(folder) / "resnet_20", name, {"summary.json": summary(name, **about)})
