"""Pictures for TensorBoard: maps in the order of their scores, frames, bars, all by hand."""

import torch

from utils.reports.board_images import bars, map_grid, picture

BLUE, ORANGE, GREY, WHITE = (0, 114, 178), (230, 159, 0), (118, 118, 118), (255, 255, 255)
LEFT, TOP, STEP, FRAME = 6, 24, 78, 4  # of the first frame; from one to the next; its width


def color(pixels, row, column):
    return tuple(pixels[row, column].tolist())


def corner(pixels, place):
    """The top left corner of the frame of the map at a place in the first row."""
    return color(pixels, TOP, LEFT + place * STEP)


def brightness(pixels, place, row, column):
    """The red of a pixel of the map at a place in the first row, which is gray."""
    top, left = TOP + FRAME + row, LEFT + place * STEP + FRAME + column
    found = color(pixels, top, left)
    assert len(set(found)) == 1
    return found[0]


def test_maps_are_sorted_by_score_and_framed_by_what_becomes_of_them():
    dark_left = torch.tensor([[-1.0, 0.0], [1.0, 3.0]])
    maps = torch.stack([dark_left, dark_left.flip(1), torch.full((2, 2), 7.0)])
    pixels = map_grid(
        "title", maps, torch.tensor([1.0, 3.0, 2.0]), torch.tensor([False, True, True])
    )
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (TOP + 72 + 12 + 6 + 6, 8 * STEP + 6, 3)
    assert [corner(pixels, place) for place in range(4)] == [BLUE, BLUE, ORANGE, WHITE]
    assert color(pixels, TOP + 71, LEFT + 71) == BLUE != color(pixels, TOP + 71, LEFT + 72)
    corners = [(0, 0), (0, 63), (63, 0), (63, 63)]
    shown = [[brightness(pixels, place, *where) for where in corners] for place in range(3)]
    assert shown == [[64, 0, 255, 128], [0, 0, 0, 0], [0, 64, 128, 255]]
    assert brightness(pixels, 0, 31, 31) == 64, "each of the four pixels is 32 wide"
    assert brightness(pixels, 0, 32, 32) == 128


def test_of_equal_scores_the_lower_index_stands_last_as_it_goes_first():
    maps, kept = torch.zeros(4, 8, 8), torch.tensor([False, True, True, True])
    pixels = map_grid("title", maps, torch.zeros(4), kept)
    assert [corner(pixels, place) for place in range(4)] == [BLUE, BLUE, BLUE, ORANGE]
    assert corner(map_grid("title", maps, torch.zeros(4)), 0) == GREY


def test_of_many_maps_the_first_and_the_last_are_shown():
    kept = torch.ones(100, dtype=torch.bool)
    kept[[17, 42]] = False
    scores = torch.arange(100.0)
    scores[17], scores[42] = 200, -1
    pixels = map_grid("title", torch.zeros(100, 4, 4), scores, kept)
    assert pixels.size(0) == TOP + 8 * (72 + 12 + 6) + 6, "64 of them, 8 rows"
    last = color(pixels, TOP + 7 * 90, LEFT + 7 * STEP)
    assert (corner(pixels, 0), corner(pixels, 1), last) == (ORANGE, BLUE, ORANGE)


def test_large_maps_are_averaged_and_no_map_is_stretched():
    large = torch.zeros(1, 128, 112)
    large[..., 56:] = 1
    large[0, ::2, ::2] += 0.5
    pixels = map_grid("title", large, torch.zeros(1))
    values = [brightness(pixels, 0, 63, column) for column in (0, 27, 28, 55)]
    assert values == [0, 0, 255, 255]
    assert color(pixels, TOP, LEFT + 56 + 2 * FRAME - 1) == GREY
    assert color(pixels, TOP, LEFT + 56 + 2 * FRAME) == WHITE


def test_a_bar_is_as_high_as_what_it_stands_for():
    pixels = bars("filters", [4, 8, 8], [1, 8, 0])
    found = [
        [
            int((pixels[:, start : start + 12] == torch.tensor(name)).all(2).sum()) / 12
            for name in pair
        ]
        for start, pair in ((6, (BLUE, ORANGE)), (20, (BLUE, ORANGE)), (34, (BLUE, ORANGE)))
    ]
    assert found == [[19, 58], [154, 0], [0, 154]]
    assert color(pixels, len(pixels) - 7, 6) == BLUE, "what stays is at the bottom"


def test_a_picture_has_its_own_black_and_white():
    image = torch.tensor([-2.0, 0.0, 2.0]).reshape(3, 1, 1).expand(3, 32, 32)
    assert picture(image).shape == (128, 128, 3)
    assert color(picture(image), 127, 127) == (0, 128, 255)
    assert picture(torch.zeros(3, 224, 224)).shape == (224, 224, 3)
