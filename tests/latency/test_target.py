"""Targets: strings, round trips, and sentences for those that are not."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latency.target import PRECISIONS, UNITS, Target, known

WORDS = st.from_regex(r"[a-z0-9][a-z0-9+._-]{0,10}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("snapdragon-865/gpu", ("snapdragon-865", "gpu", None, None, None)),
        ("host/cpu", ("host", "cpu", None, None, None)),
        ("snapdragon-855/cpu:fp32#1large", ("snapdragon-855", "cpu", None, "fp32", "1large")),
        ("a/npu@qnn:int8-a16#4", ("a", "npu", "qnn", "int8-a16", "4")),
        ("a/npu@qnn", ("a", "npu", "qnn", None, None)),
    ],
)
def test_parse(text, fields):
    target = Target.parse(text)
    assert (target.soc, target.unit, target.runtime, target.precision, target.cores) == fields
    assert str(target) == text


@given(
    soc=WORDS,
    unit=st.sampled_from(UNITS),
    runtime=st.none() | WORDS,
    precision=st.none() | st.sampled_from(PRECISIONS),
    cores=st.none() | WORDS,
)
def test_round_trip(soc, unit, runtime, precision, cores):
    target = Target(soc=soc, unit=unit, runtime=runtime, precision=precision, cores=cores)
    assert Target.parse(str(target)) == target


@pytest.mark.parametrize(
    "text",
    [
        *("", "host", "host/", "/cpu", "Host/cpu", "host/cpu:", "host/cpu@", "host/cpu#"),
        # Unknown words, wrong order, a line break, a space, not ASCII, too long.
        *("a/cpu:fp8", "host/tpu", "host/cpu#1:fp32", "host/cpu\n", "a b/cpu", "hôst/cpu"),
        "x" * 100 + "/cpu",
    ],
)
def test_what_is_no_target_shows_the_grammar(text):
    with pytest.raises(ValueError, match=re.escape("soc/unit[@runtime][:precision][#cores]")):
        Target.parse(text)


def test_the_nearest_known_target_is_named():
    assert "snapdragon-865/gpu" in known()
    with pytest.raises(ValueError, match="did you mean 'snapdragon-865/gpu'"):
        Target.parse("Snapdragon-865/gpu")


def test_accepts():
    full = Target.parse("a/gpu@tflite:fp16")
    assert Target.parse("a/gpu").accepts(full)
    assert Target.parse("a/gpu:fp16").accepts(full)
    assert not Target.parse("a/gpu:fp32").accepts(full)
    assert not Target.parse("a/cpu").accepts(full)
    assert not Target.parse("a/gpu#4").accepts(full)
