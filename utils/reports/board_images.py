"""Pictures for TensorBoard, drawn without matplotlib: feature maps in order, bars over convs."""

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from utils.reports.figure_style import BLUE, GREY, ORANGE

KEPT, REMOVED, UNDECIDED = BLUE, ORANGE, GREY  # blue and orange: all kinds of eyes tell them apart
CELL, FRAME = 64, 4  # pixels of a map's side at most, and of its frame's width
MOST_MAPS = 64  # of a layer, in one picture
COLUMNS = 8
_GAP, _TEXT, _BAR, _HEIGHT = 6, 12, 12, 160  # between cells; of a line; of a bar


def map_grid(title: str, maps: Tensor, scores: Tensor, kept: Tensor | None = None) -> Tensor:
    """Return the feature maps of one image in descending order of score, uint8 [H, W, 3].

    Rows of COLUMNS; of more than MOST_MAPS maps, so many evenly along the order, the first and the
    last among them. Each map goes from its own lowest value, black, to its highest, white. Its
    frame says what becomes of the filter: KEPT, REMOVED, or where `kept` is None UNDECIDED; its
    score stands below it.

    Args:
        maps: [C, H, W]; a pixel becomes a square of pixels, a map larger than CELL is averaged.
        scores: [C]; of equal ones the higher index comes first, as the lower one goes first.
        kept: bool [C].
    """
    order = scores.sort(stable=True).indices.flip(0)
    places = torch.linspace(0, len(order) - 1, min(len(order), MOST_MAPS)).round().long()
    shown = order[places].tolist()
    cells = [_cell(maps[index]) for index in shown]
    side = (cells[0].size(1) + 2 * FRAME, cells[0].size(0) + 2 * FRAME)  # width, height
    step = (max(side[0], CELL) + _GAP, side[1] + _TEXT + _GAP)
    rows = -(-len(shown) // COLUMNS)
    canvas = _Canvas(title, COLUMNS * step[0] + _GAP, rows * step[1] + _GAP)
    for place, (index, cell) in enumerate(zip(shown, cells, strict=True)):
        left = _GAP + place % COLUMNS * step[0]
        top = canvas.top + place // COLUMNS * step[1]
        color = UNDECIDED if kept is None else KEPT if kept[index] else REMOVED
        box = (left, top, left + side[0] - 1, top + side[1] - 1)
        canvas.draw.rectangle(box, fill=color)
        canvas.image.paste(Image.fromarray(cell.numpy()), (left + FRAME, top + FRAME))
        canvas.write(left, top + side[1], f"{float(scores[index]):.4g}")
    return canvas.pixels()


def bars(title: str, whole: Sequence[int], left: Sequence[int]) -> Tensor:
    """Return a bar for each conv, in their order, uint8 [H, W, 3].

    Of `whole`, the bar's height, what is `left` is KEPT, at the bottom, and the rest REMOVED.
    """
    step = _BAR + 2
    canvas = _Canvas(f"{title}, at most {max(whole):,}", len(whole) * step + 2 * _GAP, _HEIGHT)
    bottom = canvas.top + _HEIGHT - _GAP - 1
    for number, (all_of_it, stays) in enumerate(zip(whole, left, strict=True)):
        start = _GAP + number * step
        for value, color in ((all_of_it, REMOVED), (stays, KEPT)):
            height = round(value / max(whole) * (_HEIGHT - _GAP))
            if height:
                box = (start, bottom - height + 1, start + _BAR - 1, bottom)
                canvas.draw.rectangle(box, fill=color)
    return canvas.pixels()


def picture(image: Tensor) -> Tensor:
    """Return an image [3, H, W], normalized however, as uint8 [H, W, 3], a small one enlarged."""
    times = max(1, 2 * CELL // max(image.shape))
    pixels = _gray(image.cpu()).permute(1, 2, 0)
    return pixels.repeat_interleave(times, 0).repeat_interleave(times, 1)


def _cell(fmap: Tensor) -> Tensor:
    """Return a map [H, W] as uint8 pixels, CELL wide and high at most."""
    longest = max(fmap.shape)
    if longest > CELL:
        size = [max(1, side * CELL // longest) for side in fmap.shape]
        fmap = F.adaptive_avg_pool2d(fmap[None], size)[0]
    times = max(1, CELL // longest)
    return _gray(fmap).repeat_interleave(times, 0).repeat_interleave(times, 1)


def _gray(values: Tensor) -> Tensor:
    """Return the values as uint8, from 0 for the lowest to 255 for the highest; all 0 if equal."""
    low, high = values.min(), values.max()
    return (255 * (values - low) / (high - low).clamp(min=1e-30)).round().to(torch.uint8)


class _Canvas:
    """A white picture under a title that is as wide as the title needs."""

    def __init__(self, title: str, width: int, height: int):
        self._font = ImageFont.load_default()
        self.top = _TEXT + 2 * _GAP
        wide = max(width, int(self._font.getlength(title)) + 2 * _GAP)
        self.image = Image.new("RGB", (wide, self.top + height), "white")
        self.draw = ImageDraw.Draw(self.image)
        self.write(_GAP, _GAP // 2, title)

    def write(self, left: int, top: int, words: str) -> None:
        self.draw.text((left, top), words, fill="black", font=self._font)

    def pixels(self) -> Tensor:
        """Return uint8 [H, W, 3]."""
        content = torch.frombuffer(bytearray(self.image.tobytes()), dtype=torch.uint8)
        return content.reshape(self.image.height, self.image.width, 3)
