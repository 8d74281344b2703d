import base64
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from mfagan.images import opencv
from mfagan.page import Axis, chart, comparison, data_uri, heading, page, table


def svg_of(figure):
    return ElementTree.fromstring(re.search(r"<svg.*</svg>", figure, re.S)[0])


def test_text_is_escaped():
    whole = page("<b>", [heading("a & b", "c < d"), table(("<x>",), [("<y>",)], chosen=0)])
    for text in ("&lt;b&gt;", "a &amp; b", "c &lt; d", "&lt;x&gt;", "&lt;y&gt;", 'class="chosen"'):
        assert text in whole
    assert "src=" not in whole.replace("over.src=", "")


@pytest.mark.parametrize("values", [[0, 1], [3], [0], [-5, 7.3], [1e-9, 2e-9], [28.95, 28.98]])
def test_an_axis_covers_its_values_with_few_round_ticks(values):
    axis = Axis(values)
    assert all(0 <= axis.share(value) <= 1 for value in values)
    assert 2 <= len(axis.ticks()) <= 8
    assert axis.ticks()[0] == pytest.approx(axis.low)
    assert axis.ticks()[-1] == pytest.approx(axis.high)


def test_a_chart_says_a_name_once():
    assert chart("l1", {"l1": [(0, 0), (1, 1)]}, "step", "l1").count(">l1<") == 1
    both = chart("D", {"real": [(0, 0)], "fake": [(0, 1)]}, "step", "logit")
    assert all(both.count(f">{name}<") == 1 for name in ("D", "real", "fake", "logit"))


def test_a_chart_puts_points_where_they_belong():
    figure = chart("t", {"a": [(0, 0), (10, 10), (5, float("nan"))]}, "x", "y", lines=False)
    circles = [c for c in svg_of(figure).iter() if c.tag.endswith("circle")]
    (x0, y0), (x1, y1) = [(float(c.get("cx")), float(c.get("cy"))) for c in circles]
    assert x0 < x1
    assert y0 > y1  # up is more


@pytest.mark.parametrize("values", [(0, 1), (28.9512, 28.9514), (1.2345e-5, 1.2349e-5), (-4e6, 1)])
def test_the_label_stands_clear_of_the_longest_number(values):
    svg = svg_of(chart("t", {"a": list(enumerate(values))}, "x", "y"))
    texts = [element for element in svg.iter() if element.tag.endswith("text")]
    (label,) = [text for text in texts if "rotate" in (text.get("transform") or "")]
    numbers = [t for t in texts if t.get("text-anchor") == "end" and t.text != "a"]
    assert len(numbers) > 1
    for number in numbers:  # 12 px high; digits of the widest common fonts are 0.6 of that wide
        assert float(number.get("x")) - 12 * 0.6 * len(number.text) >= float(label.get("x")) + 6


def test_a_line_of_one_point_is_drawn_as_a_point():
    drawn = [e.tag.split("}")[-1] for e in svg_of(chart("t", {"a": [(1, 2)]}, "x", "y")).iter()]
    assert "circle" in drawn
    assert chart("t", {"a": []}, "x", "y") == ""


def test_pictures_are_inside_the_page():
    picture = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    data = np.frombuffer(base64.b64decode(data_uri(picture).split(",")[1]), np.uint8)
    np.testing.assert_array_equal(opencv().imdecode(data, 1)[..., ::-1], picture)
    box = comparison({"bicubic": picture, "ours": picture}, "bicubic", "ours")
    assert box.count("data:image/png;base64,") == 2
    assert box.count("<select>") == 2
    assert 'width="6" height="4"' in box
