"""The before/after view: divider, panning, pinching, tapping twice, and what is drawn."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.debian
VIEW, PICTURE = [600, 400], [800, 1600]
"""Heights and widths; the whole picture is shown at a quarter of its size, 400x200."""


def play(jvm, *events, view=VIEW, picture=PICTURE):
    """Return (divider, zoom, left, top, right, bottom) at first and after each event."""
    (states,) = jvm.ask({"ask": "gestures", "view": view, "picture": picture,
                         "events": [list(event) for event in events]})  # fmt: skip
    return np.array(states)


def test_the_whole_picture_is_shown_first(jvm):
    ((divider, zoom, *corners),) = play(jvm)
    assert (divider, zoom) == (0.5, 0.25)
    assert corners == [0, -800, 1600, 1600]  # in the middle, 1200 pixels of it high


def test_the_divider_is_dragged_and_stays_in_the_view(jvm):
    states = play(jvm, ("fingers", 195, 300), ("fingers", 95, 310), ("fingers", -500, 310),
                  ("fingers", 900, 310), ("fingers",))  # fmt: skip
    assert states[:, 0] == pytest.approx([0.5, 0.5, 0.25, 0, 1, 1])
    assert (states[:, 1:] == states[0, 1:]).all()


def test_a_finger_elsewhere_does_not_move_the_divider(jvm):
    states = play(jvm, ("fingers", 50, 300), ("fingers", 150, 300), ("fingers",))
    assert (states == states[0]).all()  # the whole picture is shown: there is nowhere to go


def test_pinching_keeps_what_is_between_the_fingers(jvm):
    begin, end = ("fingers", 180, 300, 220, 300), ("fingers", 120, 300, 280, 300)
    states = play(jvm, begin, end)
    assert states[-1, 1] == pytest.approx(1.0)  # 40 pixels became 160
    left, right = states[-1, 2], states[-1, 4]
    assert (left + right) / 2 == pytest.approx(800)
    states = play(jvm, ("fingers", 80, 300, 120, 300), ("fingers", 20, 300, 180, 300))
    _, zoom, left, *_ = states[-1]
    assert left + 100 / zoom == pytest.approx(400)  # what was at 100 view pixels is there still


def test_zoom_has_an_end_on_both_sides(jvm):
    wide, narrow = ("fingers", 0, 300, 400, 300), ("fingers", 199, 300, 201, 300)
    states = play(jvm, narrow, wide, ("fingers",), narrow, wide, ("fingers",), wide, narrow,
                  ("fingers",), wide, narrow)  # fmt: skip
    assert states[:, 1].max() == 8
    assert states[-1, 1] == states[0, 1]
    assert (states[-1] == states[0]).all()


def test_panning_ends_at_the_edge(jvm):
    states = play(jvm, ("twice", 200, 300), ("fingers", 10, 10), ("fingers", 110, 10),
                  ("fingers", 5000, 10), ("fingers", -5000, 10))  # fmt: skip
    assert states[1, 1] == 1
    assert states[1, 2] == pytest.approx(600)
    assert states[3, 2] == pytest.approx(500)  # 100 pixels of the view at a zoom of 1
    assert states[4, 2] == pytest.approx(0)
    assert states[5, 4] == pytest.approx(1600)


def test_a_second_finger_does_not_jump_nor_take_the_divider(jvm):
    states = play(jvm, ("twice", 200, 300), ("fingers", 200, 300), ("fingers", 200, 300, 20, 40),
                  ("fingers", 20, 40), ("fingers", 30, 40))  # fmt: skip
    assert (states[:, 0] == 0.5).all()
    assert (states[1] == states[4]).all()
    assert states[5, 2] == pytest.approx(states[4, 2] - 10)


def test_tapping_twice_goes_there_and_back(jvm):
    states = play(jvm, ("twice", 100, 300), ("twice", 350, 20))
    assert states[1, 1] == 1
    assert states[1, 2] + 100 == pytest.approx(400)  # the tapped pixel of the picture stays
    assert (states[2] == states[0]).all()


def test_turning_the_phone_keeps_what_is_looked_at(jvm):
    states = play(jvm, ("twice", 300, 300), ("view", 400, 600))
    middles = (states[1:, 2] + states[1:, 4]) / 2
    assert middles[0] == pytest.approx(middles[1])
    assert states[2, 1] == 1
    states = play(jvm, ("view", 400, 600))
    assert states[1, 1] == pytest.approx(0.375)  # all of it was shown, and is
    states = play(jvm, ("twice", 300, 300), ("restore", 400, 600))
    assert (states[2, 2] + states[2, 4]) / 2 == pytest.approx(middles[0], abs=0.01)


def test_what_is_drawn(jvm):
    base = {"ask": "scene", "view": VIEW, "picture": PICTURE, "divider": 0.25, "share": -1}
    drawn, working = jvm.ask(base | {"finished": True}, base | {"share": 0.12})
    before, after, *texts = drawn
    assert before == [0, [0, 0, 400, 800], [0, 200, 100, 400]]
    assert after == [1, [400, 0, 1600, 800], [100, 200, 400, 400]]
    assert texts == ["< >", "before", "after"]
    assert working == [[0, [0, 0, 1600, 800], [0, 200, 400, 400]], "12 %"]


def test_progress_in_words(jvm):
    base = {"ask": "progress", "share": 0.25, "seconds": 3}
    said = jvm.ask(base, base | {"share": 0.01}, base | {"share": 1}, base | {"smaller": 64},
                   base | {"cancel": True}, base | {"seconds": 100})  # fmt: skip
    assert said == [
        "25 %, about 9.0 s left", "1 %", "100 %",
        "25 %, about 9.0 s left, in tiles of 64 for want of memory", "ending",
        "25 %, about 5 min 0 s left",
    ]  # fmt: skip
