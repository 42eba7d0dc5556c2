"""A network is measured on images normalized as those it was tuned on."""

from models.registry import build_model
from utils.options.networks import check_normalization, network_of


def test_a_pruned_file_is_not_measured_on_images_normalized_otherwise(call, job):
    tuned = ("--criterion", "l1", "--ratio", "0.3", "--epochs", "0", "--normalization", "imagenet")
    path = call("main.py", "prune", *job.network, *tuned).json["pruned_file"]
    expected = f"{path} was fine-tuned on images normalized as 'imagenet', and --normalization is "
    for command in ("evaluate", "export"):
        outcome = call("main.py", command, *job.data, "--resume", path)
        assert outcome.code == 2
        assert expected + "'cifar10': expected --normalization imagenet\n" in outcome.err


def test_a_dense_network_is_measured_on_any():
    check_normalization(network_of(build_model("resnet_8"), "resnet_8"), "none")
