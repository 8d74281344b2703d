import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfagan.tiling import Window, fixed_tiles, tiles

sides = st.integers(1, 90)


def covered(plan, height, width):
    count = np.zeros((height, width), int)
    for part in plan:
        count[part.core.slices] += 1
        assert part.core.height > 0
        assert part.core.width > 0
    return count


def assert_far_from_inner_borders(plan, height, width, radius):
    """Every core pixel is `radius` away from any window border that is not the image's."""
    for part in plan:
        w, c = part.window, part.core
        for start, core, stop, core_stop, length in (
            (w.top, c.top, w.top + w.height, c.top + c.height, height),
            (w.left, c.left, w.left + w.width, c.left + c.width, width),
        ):
            assert start == 0 or core - start >= radius
            assert stop >= length or stop - core_stop >= radius


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.integers(1, 100), st.integers(0, 30), st.sampled_from([1, 2, 4]))
def test_tiles_cover_once_align_and_overlap(height, width, tile, radius, alignment):
    plan = tiles(height, width, tile, radius, alignment)
    assert (covered(plan, height, width) == 1).all()
    assert_far_from_inner_borders(plan, height, width, radius)
    for part in plan:
        w = part.window
        assert w.top % alignment == w.left % alignment == 0
        assert w.top >= 0
        assert w.left >= 0
        assert w.top + w.height <= height
        assert w.left + w.width <= width
        # A window that ends inside the image must not be padded by the network.
        assert w.top + w.height == height or w.height % alignment == 0
        assert w.left + w.width == width or w.width % alignment == 0


def test_a_tile_as_large_as_the_image_is_the_whole_frame():
    (only,) = tiles(37, 41, 64, 20, 4)
    assert only.window == only.core == Window(top=0, left=0, height=37, width=41)


def test_tile_memory_is_bounded():
    largest = max(p.window.height * p.window.width for p in tiles(1000, 2000, 64, 10, 4))
    assert largest == (64 + 2 * 12) ** 2


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.integers(0, 5), st.integers(0, 8), st.sampled_from([1, 4]))
def test_fixed_windows_have_the_size_and_reach_no_further_than_the_alignment(
    height, width, radius, spare, alignment
):
    margin = -(-radius // alignment) * alignment
    size = (2 * margin + alignment * (1 + spare), 2 * margin + alignment * (2 + spare))
    plan = fixed_tiles(height, width, size, radius, alignment)
    assert (covered(plan, height, width) == 1).all()
    padded = [-(-n // alignment) * alignment for n in (height, width)]
    assert_far_from_inner_borders(plan, height, width, radius)
    for part in plan:
        w = part.window
        assert (w.height, w.width) == size
        assert w.top % alignment == w.left % alignment == 0
        assert w.top + w.height <= max(padded[0], size[0])
        assert w.left + w.width <= max(padded[1], size[1])


def test_a_fixed_size_that_leaves_no_core_is_refused():
    with pytest.raises(ValueError, match=r"at least 28.*--input dynamic"):
        fixed_tiles(100, 100, (24, 64), 12, 4)
    with pytest.raises(ValueError, match="multiple of 4"):
        fixed_tiles(100, 20, (90, 90), 12, 4)
    assert len(fixed_tiles(24, 20, (24, 64), 12, 4)) == 1


@pytest.mark.parametrize("arguments", [(0, 5, 8, 3, 4), (5, 5, 0, 3, 4), (5, 5, 8, -1, 4)])
def test_senseless_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="must"):
        tiles(*arguments)


def test_windows_scale_and_nest():
    outer = Window(top=8, left=4, height=20, width=30)
    core = Window(top=12, left=4, height=5, width=6)
    assert core.inside(outer) == Window(top=4, left=0, height=5, width=6)
    assert core.scaled(4) == (slice(48, 68), slice(16, 40))
