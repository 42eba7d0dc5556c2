"""The grammar of --sparsity: the longest name wins, and nothing is taken for something else."""

import pytest

from utils.pruning.layer_sparsity import parse_sparsity

LAYERS = ("conv1", "layer1.0.conv1", "layer1.0.conv2", "layer10.0.conv1", "linear")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.8", (0.8,) * 5),
        ("0", (0.0,) * 5),
        ("conv1=0.3", (0.3, 0, 0, 0, 0)),
        ("conv1=0.3,0.9", (0.3, 0.9, 0.9, 0.9, 0.9)),
        ("0.9, layer1 = 0.5", (0.9, 0.5, 0.5, 0.9, 0.9)),
        ("layer1=0.5,layer1.0.conv2=0.1,linear=0", (0, 0.5, 0.1, 0, 0)),
        ("layer1.0=0.2,layer1=0.5", (0, 0.2, 0.2, 0, 0)),
    ],
)
def test_each_layer_gets_the_sparsity_of_its_longest_name(text, expected):
    assert tuple(parse_sparsity(text).of_layers(LAYERS).values()) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", r"term 1: .* got ''"),
        ("1", r"term 1: .*in \[0, 1\), got '1'"),
        ("-0.1", r"got '-0\.1'"),
        ("nan", r"got 'nan'"),
        ("half", r"got 'half'"),
        ("0.5,0.6", r"term 2: .* got '0\.6' a second time"),
        ("conv1=0.5,conv1=0.6", r"term 2: .* got 'conv1=0\.6' a second time"),
        ("=0.5", r"got '=0\.5'"),
        ("conv1=", r"got 'conv1='"),
        ("conv1=0.5,", r"term 2: .* got ''"),
        ("conv1:0.5", r"got 'conv1:0\.5'"),
    ],
)
def test_everything_else_is_refused(text, expected):
    with pytest.raises(ValueError, match=expected):
        parse_sparsity(text)


@pytest.mark.parametrize("name", ["conv2", "layer", "layer1.0.conv", "layer1.0.conv1.weight"])
def test_a_name_that_no_layer_has_is_refused(name):
    with pytest.raises(ValueError, match=f"--sparsity names '{name}': expected a layer, or the"):
        parse_sparsity(f"{name}=0.5").of_layers(LAYERS)
