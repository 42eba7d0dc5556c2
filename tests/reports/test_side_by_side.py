"""Ratios of two measured networks, and when a network is called smaller but not faster."""

import pytest

from utils.reports.side_by_side import ratios, remarks


def measured(form, macs, *medians_ms, size_bytes=8):
    """What `evaluate` finds of a network that runs one image with 1, 2, ... threads."""
    return {
        "arch": "resnet_8",
        "form": form,
        "macs": macs,
        "parameters": 10,
        "size_bytes": size_bytes,
        "zero_filters": {"zeros": 0},
        "uneven_depthwise": [],
        "sizes": [],
        "memory": [{"batch_size": 1, "peak_bytes": macs}],
        "latency": [
            {"batch_size": 1, "threads": threads, "median_ms": median}
            for threads, median in enumerate(medians_ms, start=1)
        ],
    }


def test_a_ratio_is_the_first_by_the_second():
    found = ratios(measured("dense", 400, 3.0), measured("remove", 100, 2.0, size_bytes=4))
    assert found == {
        "macs": 4.0,
        "parameters": 1.0,
        "size_bytes": 2.0,
        "peak_bytes_1_images": 4.0,
        "latency_ms_1_images_1_threads": 1.5,
    }


@pytest.mark.parametrize(("size", "other"), [(None, 4), (4, None), (4, 0)])
def test_without_a_figure_there_is_no_ratio(size, other):
    networks = (measured("dense", 4, 3.0, size_bytes=x) for x in (size, other))
    assert ratios(*networks)["size_bytes"] is None


def test_a_network_that_saves_macs_and_no_time_is_told():
    dense, small = measured("dense", 400, 10.0, 8.0), measured("remove", 100, 9.9, 4.0)
    said = (
        "network, resnet_8 (remove), does 75.0% fewer MACs than the other, and takes 0.99 times as "
        "long for 1 image, 1 thread."
    )
    assert remarks(small, dense) == [f"Smaller but not faster: the first {said}"]
    assert remarks(dense, small) == [f"Smaller but not faster: the second {said}"]


def test_every_setting_without_a_gain_is_told_in_one_sentence():
    dense, small = measured("dense", 400, 10.0, 8.0), measured("remove", 100, 9.9, 12.0)
    (said,) = remarks(small, dense)
    endings = (
        "0.99 times as long for 1 image, 1 thread",
        "1.50 times as long for 1 image, 2 threads",
    )
    assert said.endswith("; ".join(endings) + ".")


@pytest.mark.parametrize(
    ("macs", "median_ms"),
    [(100, 5.0), (100, 9.4), (400, 10.0), (400, 20.0)],  # faster; as small as the other
)
def test_else_there_is_nothing_to_tell(macs, median_ms):
    assert remarks(measured("remove", macs, median_ms), measured("dense", 400, 10.0)) == []
    assert remarks(measured("dense", 400, 10.0)) == []


def test_depthwise_widths_that_four_does_not_divide_are_told():
    found = measured("remove", 100, 5.0) | {"uneven_depthwise": ["features.1", "features.4"]}
    (said,) = remarks(found)
    assert said.startswith("2 depthwise convs of resnet_8 (remove) have widths that 4 does not")
    assert "features.1 first" in said
