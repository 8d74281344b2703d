import hashlib
from collections import Counter

import numpy as np
import pytest

from mfagan.photo_pool import USES, PhotoPool


def rng(purpose, number):
    key = hashlib.sha256(f"{purpose}/{number}".encode()).digest()
    return np.random.default_rng(np.frombuffer(key, np.uint64))


def pool(photos, window):
    return PhotoPool([100] * photos, 100 * window, rng)


def turns(photographs, crops):
    return [photographs.turn("pixel", crop) for crop in range(crops)]


SHAPES = [(40, 20), (90, 32), (30, 3), (30, 1), (20, 17)]


@pytest.mark.parametrize(("photos", "window"), SHAPES)
def test_every_pass_takes_as_many_crops_of_each_photograph(photos, window):
    photographs = pool(photos, window)
    assert window / 2 < photographs.window <= window
    found = turns(photographs, 4 * photos * USES)
    counts = Counter(turn.number for turn in found)
    whole = [number for number, count in counts.items() if count == USES]
    assert set(range(3 * photos)) <= set(whole)  # the fourth pass has not come to its end
    assert max(counts.values()) == USES
    for epoch in range(3):
        passed = [t.photo for t in found if t.number // photos == epoch]
        assert Counter(passed) == dict.fromkeys(range(photos), USES)
    orders = [[t.photo for t in sorted({t for t in found if t.number // photos == e})]
              for e in range(2)]  # fmt: skip
    assert orders[0] != orders[1]


@pytest.mark.parametrize(("photos", "window"), SHAPES)
def test_the_window_holds_and_decoding_is_spread_evenly(photos, window):
    photographs = pool(photos, window)
    found = [turn.number for turn in turns(photographs, 3 * photos * USES)]
    first = {number: crop for crop, number in reversed(list(enumerate(found)))}
    last = {number: crop for crop, number in enumerate(found)}
    held = np.zeros(len(found) + 1, int)
    for number in first:
        held[first[number]] += 1
        held[last[number] + 1] -= 1
    assert held.cumsum().max() <= photographs.window
    # After the growing of the window, every stretch of USES crops begins one photograph.
    grown = photographs.window * USES
    starts = [crop for crop in first.values() if crop >= grown]
    offset = photographs._starts[-1] % USES
    assert set(Counter((crop - offset) // USES for crop in starts).values()) == {1}


def test_a_crop_is_found_without_those_before_it():
    found = turns(pool(90, 32), 4000)
    for crop in (0, 1, 31, 32, 600, 3999, 1777):
        assert pool(90, 32).turn("pixel", crop) == found[crop]
    assert turns(pool(90, 32), 100) != [pool(90, 32).turn("gan", crop) for crop in range(100)]


def test_a_photograph_is_needed_from_its_first_crop_to_its_last():
    photographs = pool(90, 32)
    found = turns(photographs, 6000)
    last = {turn.number: crop for crop, turn in enumerate(found)}
    for first in range(0, 4000, 16):
        needed = photographs.needed("pixel", first, 16)
        later = {t.photo for t in found[:first] if last[t.number] >= first}
        assert later | {t.photo for t in found[first : first + 16]} <= needed
        assert len(needed) <= photographs.window + photographs.group


def test_photographs_of_unequal_sizes_fit_nearly_always():
    sizes = np.random.default_rng(0).integers(50, 5000, 400).tolist()
    photographs = PhotoPool(sizes, sum(sizes) // 4, rng)
    assert photographs.window > 50
    held = [
        sum(sizes[k] for k in photographs.needed("pixel", crop, 1)) for crop in range(0, 20000, 100)
    ]
    assert np.mean(np.array(held) <= sum(sizes) // 4) > 0.95
