"""Configurations, architectures and flags as chance writes them: right, or one sentence."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import math
import os
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import export.cli
import mfagan.train_cli
import nas.cli
from mfagan.architecture import MfaArchitecture, RrdbArchitecture, parse
from mfagan.config import LARGEST, components, field_type
from mfagan.config_file import read_toml, to_toml
from mfagan.config_layers import resolve, to_values

quick = settings(derandomize=True, deadline=None, database=None, max_examples=150)


def sentence(error: BaseException) -> str:
    text = str(error)
    assert len(text.splitlines()) == 1
    assert len(text) < 1000
    return text


# --- configurations


def values_of(component, field):
    """Return a strategy of a field's allowed values."""
    kind, many = field_type(component, field.name)
    limits = field.metadata
    if "choices" in limits:
        one = st.sampled_from(limits["choices"])
    elif kind is str:
        one = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
    else:
        least, most = limits.get("least", 0), limits.get("most", LARGEST)
        one = (
            st.integers(least, most)
            if kind is int
            else st.floats(least, most) | st.integers(math.ceil(least), int(most))
        )
    return st.lists(one, min_size=1, max_size=8) if many else one


configurations = st.fixed_dictionaries(
    {},
    optional={
        table: st.fixed_dictionaries(
            {}, optional={f.name: values_of(component, f) for f in dataclasses.fields(component)}
        )
        for table, component in components().items()
    },
)
keys = st.text(max_size=8) | st.sampled_from(
    [*components(), *(f.name for c in components().values() for f in dataclasses.fields(c))]
)
nonsense = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary()
    | st.dates(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("strings") / "config.toml"


@quick
@given(configurations)
def test_a_configuration_round_trips_through_toml(file, layer):
    config = resolve(layer)
    file.write_text(to_toml(config), encoding="utf-8")
    assert resolve(read_toml(file)) == config
    assert resolve(to_values(config)) == config


@quick
@given(st.dictionaries(keys, nonsense, max_size=3))
def test_nonsense_is_one_sentence(layer):
    try:
        config = resolve(layer)
    except ValueError as error:
        sentence(error)
    else:
        assert resolve(to_values(config)) == config


@quick
@given(st.data(), configurations)
def test_damaged_toml_is_one_sentence(file, data, layer):
    text = bytearray(to_toml(resolve(layer)).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 30))
        put = data.draw(st.binary(max_size=3) | st.sampled_from([b"[", b"=", b"{", b"\n", b'"""']))
        text[at : at + cut] = put
    file.write_bytes(bytes(text))
    try:
        config = resolve(read_toml(file))
    except ValueError as error:
        sentence(error)
    else:
        assert resolve(to_values(config)) == config


# --- architectures


def mfa():
    def build(scale, width, modules):
        convolutions, branches = zip(*modules, strict=True)
        return MfaArchitecture(
            scale=scale, width=width, convolutions=convolutions, branches=branches
        )

    module = st.tuples(st.integers(1, 7), st.integers(0, 2))
    modules = st.lists(module, min_size=1, max_size=8)
    return st.builds(build, st.sampled_from([2, 3, 4]), st.integers(1, 256), modules)


widths = st.integers(1, 256)
rrdb = st.builds(RrdbArchitecture, width=widths, blocks=st.integers(1, 64), growth=widths)


@quick
@given(mfa() | rrdb)
def test_an_architecture_round_trips(architecture):
    assert parse(str(architecture)) == architecture


def refused(text):
    """Parse, and return whether that was refused, in one sentence and without much memory."""
    message = ""
    tracemalloc.start()
    try:
        assert str(parse(text)) == text  # canonical, or refused
    except ValueError as error:
        message = sentence(error)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 1_000_000 + 100 * len(text)
    assert not message or "the grammar is" in message or "a file of weights" in message
    return bool(message)


@quick
@given(st.text() | st.from_regex(r"mfa_x\d_w\d+_c\d(-\d)*_s\d(-\d)*") | st.from_regex(
    r"rrdb_x\d_w\d{1,30}_b\d{1,30}_g\d{1,30}"
))  # fmt: skip
def test_any_text_is_canonical_or_refused(text):
    refused(text)


@quick
@given(st.data(), mfa() | rrdb)
def test_near_misses_are_canonical_or_refused(data, architecture):
    text = str(architecture)
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 2))
    put = data.draw(st.sampled_from(["", "٣", "²", "０", "-", "_", "9", "0", " ", "\n", "X", "\0"]))
    refused(text[:at] + put + text[at + cut :])


@pytest.mark.parametrize(
    "text",
    [
        "mfa_x4_w" + "9" * 100_000 + "_c2_s0",
        "mfa_x4_w8_c" + "2-" * 500_000 + "2_s0",
        "mfa_x4_w8_c2_s" + "0-" * 500_000,
        "rrdb_x4_w8_b" + "1" * 1_000_000 + "_g4",
        "mfa_x4_w8_c2-2_s0",
        "mfa_x4_w08_c2_s0",
        "mfa_x٤_w8_c2_s0",
        "MFA_x4_w8_c2_s0",
        "mfa_x4_w8_c2_s0\n",
        "",
    ],
    ids=lambda text: text[:16] + "..." if len(text) > 20 else repr(text),
)
def test_long_and_odd_ones_are_refused(text):
    assert refused(text)


# --- flags

PARSERS = {
    "train": mfagan.train_cli.build_parser(),
    "search": nas.cli.build_parser(),
    "export": export.cli.build_parser(),
}
FLAGS = [
    (name, flag, action)
    for name, parser in PARSERS.items()
    for action in parser._actions
    for flag in action.option_strings
    if flag.startswith("--") and not isinstance(action, argparse._HelpAction)
]
NEEDED = {
    "train": ["--out", "o"],
    "search": [
        "--supernet", os.devnull, "--data", os.devnull, "--target", "t", "--input", "8x8",
        "--budget-ms", "1", "--out", "o",
    ],
    "export": ["weights", "--out", "o"],
}  # fmt: skip


def mistyped(flag, kind, at, letter):
    """Return a flag with one letter left out, put in, changed, or two exchanged."""
    word = flag[2:]
    at %= len(word)
    changed = {
        "out": word[:at] + word[at + 1 :],
        "in": word[:at] + letter + word[at:],
        "other": word[:at] + letter + word[at + 1 :],
        "exchanged": word[:at] + word[at : at + 2][::-1] + word[at + 2 :],
    }[kind]
    return "--" + changed


@quick
@given(
    st.sampled_from(FLAGS),
    st.sampled_from(["out", "in", "other", "exchanged"]),
    st.integers(0, 30),
    st.sampled_from("abcdefghijklmnopqrstuvwxyz"),
)
def test_a_typo_names_the_flag(chosen, kind, at, letter):
    name, flag, _ = chosen
    parser = PARSERS[name]
    typo = mistyped(flag, kind, at, letter)
    if typo in parser._option_string_actions or typo in ("--", flag):
        return
    text = io.StringIO()
    with contextlib.redirect_stderr(text), pytest.raises(SystemExit) as caught:
        parser.parse_args([*NEEDED[name], typo])
    assert caught.value.code == 2
    error = text.getvalue()
    assert len(error.splitlines()) == 1
    assert f"unknown argument '{typo}'; did you mean '--" in error
    meant = error.split("did you mean '")[1].split("'")[0]
    assert distance(meant, typo) <= distance(flag, typo) + 1  # as near as makes no difference


def distance(a, b):
    """Return Levenshtein's distance."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row, before = [i], row
        for j, y in enumerate(b, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (x != y)))
    return row[-1]
