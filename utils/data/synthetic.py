"""`shapes`: ten classes of textured shapes, 32x32 pixels, rendered from a seed."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from utils.data.images import Dataset, ImageSet

IMAGE_SIZE = 32
SHAPES = ("disc", "ring", "square", "triangle", "cross")
TEXTURES = ("striped", "checkered")
CLASSES = tuple(f"{texture} {shape}" for shape in SHAPES for texture in TEXTURES)

# Two machines must render the same bits. So images are built of elementwise +, -, *, /, sqrt,
# floor, abs and comparisons alone, which IEEE 754 rounds in one way (sin, exp, sums do differ),
# and every random number is a uniform double of PCG64.
_CHUNK = 250  # images drawn together, so that they fit the cache: part of what a seed means
_RADIUS = (9.5, 13.0)  # of the shape, in pixels
_SHIFT = 4.0  # most that the shape's centre is off the image's, in pixels
_PERIOD = (5.0, 7.0)  # of the texture, in pixels
_PAPER = 0.2  # brightness of the background
_INK = (0.55, 0.85)  # of the texture's two colours
_HUE = 0.4  # width of the random part of a colour
_NOISE = 0.2  # width of the noise on each value

Draw = Callable[[float, float], np.ndarray]  # (low, high) -> float32 [N, 1, 1], one per image


def make_shapes(num_train: int = 5000, num_test: int = 1000, seed: int = 0) -> Dataset:
    """Return the dataset `shapes`: a striped or checkered shape on a shaded, noisy background.

    Shape and texture make the class; position, size, rotation and colours are random. Classes
    are as even as the numbers allow, in random order. Equal numbers and seed give equal bytes.

    Raises:
        ValueError: a number of images is below 1, or the seed is negative.
    """
    for split, number in (("train", num_train), ("test", num_test)):
        if number < 1:
            raise ValueError(f"number of {split} shapes: expected at least 1, got {number}")
    if seed < 0:
        raise ValueError(f"seed of shapes: expected 0 or more, got {seed}")
    return Dataset(
        _render_split(num_train, [seed, 0], "shapes train"),
        _render_split(num_test, [seed, 1], "shapes test"),
        "shapes",
    )


def _render_split(num_images: int, seed: list[int], name: str) -> ImageSet:
    rng = np.random.Generator(np.random.PCG64(seed))
    order = np.argsort(rng.random(num_images), kind="stable")
    labels = (np.arange(num_images) % len(CLASSES))[order]
    chunks = [labels[start : start + _CHUNK] for start in range(0, num_images, _CHUNK)]
    images = np.concatenate([_render(chunk, rng) for chunk in chunks])
    return ImageSet(torch.from_numpy(images), torch.from_numpy(labels), CLASSES, name)


def _render(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return one image per label, uint8 [N, 3, 32, 32]."""
    draw = partial(_uniform, rng, len(labels))
    x, y = _pixel_grid(draw)
    radius = draw(*_RADIUS)
    distance = _distance(labels // len(TEXTURES), x / radius, y / radius) * radius
    inside = np.clip(0.5 - distance, 0, 1)[:, None]  # [N, 1, 32, 32], soft over one pixel
    light = _texture(labels % len(TEXTURES), draw)[:, None]
    background, first, second = _colours(draw)  # each [N, 3, 1, 1]
    shade = 1 + 0.02 * draw(-1, 1)[:, None] * x[:, None]
    image = background * shade
    image = image + inside * (first + light * (second - first) - image)
    noise = rng.random(image.shape).astype(np.float32) - np.float32(0.5)
    return (np.clip(image + _NOISE * noise, 0, 1) * 255 + 0.5).astype(np.uint8)


def _uniform(rng: np.random.Generator, num_images: int, low: float, high: float) -> np.ndarray:
    values = low + (high - low) * rng.random(num_images)
    return values.astype(np.float32)[:, None, None]


def _pixel_grid(draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    """Return each pixel's place in a frame at a random point and angle, in pixels [N, 32, 32]."""
    middle = (IMAGE_SIZE - 1) / 2
    pixels = np.arange(IMAGE_SIZE, dtype=np.float32) - np.float32(middle)
    column = pixels[None, None, :] - draw(-_SHIFT, _SHIFT)
    row = pixels[None, :, None] - draw(-_SHIFT, _SHIFT)
    cosine, sine = _direction(draw)
    return cosine * column + sine * row, cosine * row - sine * column


def _direction(draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    """Return the cosine and sine of a random angle in [-90, 90] degrees, without calling them."""
    tangent = draw(-1, 1)  # of half the angle
    scale = 1 + tangent * tangent
    return (1 - tangent * tangent) / scale, 2 * tangent / scale


def _distance(shapes: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return how far each pixel is outside its image's shape, in radii (negative: inside)."""
    formulas = (_disc, _ring, _square, _triangle, _cross)
    distance = np.empty_like(x)
    for index, formula in enumerate(formulas):
        chosen = shapes == index
        distance[chosen] = formula(x[chosen], y[chosen])
    return distance


def _disc(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sqrt(x * x + y * y) - 0.95


def _ring(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.abs(np.sqrt(x * x + y * y) - 0.75) - 0.25


def _square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(x), np.abs(y)) - 0.83


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(0.8660254 * np.abs(x) + 0.5 * y, -y) - 0.58


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    longer, shorter = np.maximum(np.abs(x), np.abs(y)), np.minimum(np.abs(x), np.abs(y))
    return np.maximum(longer - 1, shorter - 0.36)


def _texture(textures: np.ndarray, draw: Draw) -> np.ndarray:
    """Return the share of the second colour, [N, 32, 32] in [0, 1]: stripes or a checkerboard."""
    u, v = _pixel_grid(draw)
    period = draw(*_PERIOD)
    stripes = _wave(u / period)
    board = np.where(textures[:, None, None] == 1, stripes * _wave(v / period), stripes)
    return 0.5 + 0.5 * board


def _wave(phase: np.ndarray) -> np.ndarray:
    """Return a square wave of period 1 with sloping sides, in [-1, 1]."""
    triangle = np.abs(phase - np.floor(phase) - 0.5) * 4 - 1
    return np.clip(2 * triangle, -1, 1)


def _colours(draw: Draw) -> list[np.ndarray]:
    """Return the background and the texture's two colours, each [N, 3, 1, 1].

    The background is darker than both or lighter than both; which of the two is the darker is
    random as well.
    """
    inverted, swapped = draw(0, 1) < 0.5, draw(0, 1) < 0.5
    first, second = (np.where(swapped, *pair) for pair in (_INK, _INK[::-1]))
    levels = (np.where(inverted, 1 - level, level) for level in (_PAPER, first, second))
    hues = [np.stack([draw(-0.5, 0.5) for _ in range(3)], axis=1) for _ in range(3)]
    return [
        level.astype(np.float32)[:, None] + _HUE * hue
        for level, hue in zip(levels, hues, strict=True)
    ]
