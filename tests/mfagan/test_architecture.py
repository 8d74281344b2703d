import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfagan.architecture import (
    ESRGAN,
    MfaArchitecture,
    RrdbArchitecture,
    architecture_costs,
    architecture_reductions,
    meets_reductions,
    op_list,
    parse,
)
from mfagan.space import SearchSpace

SMALL = SearchSpace(widths=(16, 24), modules=(1, 2, 3), convolutions=(2, 4), branches=(0, 1, 2))
BRANCHED = SearchSpace(widths=(16, 24), modules=(1, 2), convolutions=(2, 4), branches=(1, 2))


@st.composite
def mfa_architectures(draw):
    modules = draw(st.integers(1, 8))
    return MfaArchitecture(
        scale=draw(st.sampled_from((2, 3, 4))),
        width=draw(st.integers(1, 256)),
        convolutions=tuple(draw(st.lists(st.integers(1, 7), min_size=modules, max_size=modules))),
        branches=tuple(draw(st.lists(st.integers(0, 2), min_size=modules, max_size=modules))),
    )


@given(mfa_architectures())
def test_mfa_strings_round_trip(architecture):
    assert parse(str(architecture)) == architecture
    assert architecture.receptive_radius <= 64


@given(st.integers(1, 256), st.integers(1, 64), st.integers(1, 256))
def test_rrdb_strings_round_trip(width, blocks, growth):
    architecture = RrdbArchitecture(width=width, blocks=blocks, growth=growth)
    assert parse(str(architecture)) == architecture


@given(st.text(max_size=60))
def test_any_other_text_is_refused_with_the_grammar(text):
    with pytest.raises(ValueError, match="grammar is mfa_x"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("mfa_x5_w32_c3_s0", "grammar"),
        ("mfa_x4_w32_c3-3_s0", "same number of modules.*; the grammar is"),
        ("mfa_x4_w32_c3-3_s0-3", "grammar"),
        ("mfa_x4_w0_c3_s0", "grammar"),
        ("mfa_x4_w9999_c3_s0", "width must be 1 to 256"),
        ("mfa_x4_w32_c3-_s0-0", "grammar"),
        ("mfa_x4_w32_c" + "-".join("2" * 9) + "_s" + "-".join("0" * 9), "1 to 8 modules"),
        ("mfa_x4_w32_c" + "-".join("9" * 8) + "_s" + "-".join("0" * 8), "radius"),
        (" mfa_x4_w32_c3_s0", "grammar"),
        ("mfa_x4_w32_c3_s0\n", "grammar"),
        ("mfa_x4_w３2_c3_s0", "grammar"),
        ("rrdb_x2_w64_b23_g32", "grammar"),
        ("rrdb_x4_w64_b99_g32", "blocks must be"),
        ("x" * 10_000, r"\.\.\.' is not an architecture"),
    ],
)
def test_malformed_strings_say_why(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse(text)


def test_published_figures_of_esrgan():
    costs = architecture_costs(ESRGAN)
    assert costs.parameters == 16_697_987
    assert costs.macs / 1e9 == pytest.approx(1174.85, abs=0.01)
    assert costs.activations / 1e6 == pytest.approx(1030.8, abs=0.05)
    assert costs.peak_bytes == 512 * 2**20
    assert costs.access_bytes / 2**30 == pytest.approx(15.51, abs=0.005)


@pytest.mark.parametrize(
    ("text", "parameters", "gmac", "activations", "peak_mib", "access_gib"),
    [
        ("mfa_x4_w48_c4-4-4-4_s0-0-0-0", 413_088, 26.96, 110.1, 60.75, 0.81),
        ("mfa_x4_w32_c4-4-4-4_s0-0-0-0", 188_880, 12.30, 74.4, 40.75, 0.54),
        ("mfa_x4_w24_c4-3_s0-0", 56_952, 3.70, 28.3, 30.75, 0.20),
    ],
)
def test_figures_of_the_reference_architectures(
    text, parameters, gmac, activations, peak_mib, access_gib
):
    costs = architecture_costs(parse(text))
    assert costs.parameters == parameters
    assert costs.macs / 1e9 == pytest.approx(gmac, abs=0.005)
    assert costs.activations / 1e6 == pytest.approx(activations, abs=0.06)
    assert costs.peak_bytes / 2**20 == peak_mib
    assert costs.access_bytes / 2**30 == pytest.approx(access_gib, abs=0.006)
    assert meets_reductions(parse(text))


def test_too_wide_networks_miss_the_reductions():
    wide = parse("mfa_x4_w64_c4-4-4-4_s0-0-0-0")
    assert architecture_reductions(wide)["peak_bytes"] == pytest.approx(6.3, abs=0.05)
    assert not meets_reductions(wide)


@pytest.mark.parametrize("size", [(0, 4), (4, -1)])
def test_op_lists_need_positive_sizes(size):
    with pytest.raises(ValueError, match="positive"):
        op_list(ESRGAN, *size)


def brute_force(space):
    """Every member of a small space, by nested loops of its own."""
    from itertools import product

    for width, modules in product(space.widths, space.modules):
        for c in product(space.convolutions, repeat=modules):
            for s in product(space.branches, repeat=modules):
                a = MfaArchitecture(scale=space.scale, width=width, convolutions=c, branches=s)
                if meets_reductions(a):
                    yield a


@pytest.mark.parametrize("space", [SMALL, BRANCHED])
def test_space_agrees_with_brute_force(space):
    members = list(brute_force(space))
    assert space.size == len(members)
    assert all(map(space.contains, members))
    macs = [architecture_costs(a).macs for a in members]
    assert architecture_costs(space.largest).macs == max(macs)
    assert architecture_costs(space.smallest).macs == min(macs)
    rng = random.Random(0)
    drawn = {space.sample(rng) for _ in range(3000)}
    assert drawn <= set(members)
    assert len(drawn) > 0.9 * len(members)


def test_the_default_space_keeps_the_reductions():
    space = SearchSpace()
    rng = random.Random(1)
    for architecture in [space.largest, space.smallest, *(space.sample(rng) for _ in range(200))]:
        ratios = architecture_reductions(architecture)
        assert ratios.pop("macs") >= 42.9
        assert min(ratios.values()) >= 8.3
    assert not space.contains(parse("mfa_x4_w48_c4-4-4-4-4_s0-0-0-0-0"))
    # Nothing that still fits has more MACs than the largest: one branch more does not fit.
    assert str(space.largest) == "mfa_x4_w48_c4-4-4-4_s1-0-0-0"


def test_space_round_trips_and_refuses_nonsense():
    assert SearchSpace.from_json(SMALL.to_json()) == SMALL
    whole = SMALL.to_json()
    for text in (
        *("", "[]", "{}", '{"scale": 4, "widths": 3}', '{"scale": 4, "depth": [1]}'),
        *("[" * 10**5, whole.replace("4", "9" * 5000, 1), whole.replace("4", "4.0", 1)),
        *(whole.replace("[16, 24]", other) for other in ("[16.5]", '["16"]', "[true]", "{}")),
        whole.replace("}", ', "more": [1]}'),
    ):
        with pytest.raises(ValueError, match="not a search space"):
            SearchSpace.from_json(text)
    with pytest.raises(ValueError, match="ascending"):
        dataclasses.replace(SMALL, widths=(24, 16))
    with pytest.raises(ValueError, match="no architecture of the space"):
        dataclasses.replace(SMALL, widths=(128,))
    with pytest.raises(ValueError, match=r"has 293,888 outlines, at most 100,000 are allowed"):
        SearchSpace(widths=tuple(range(1, 257)))
    with pytest.raises(ValueError, match="width must be 1 to 256, got -1"):
        dataclasses.replace(SMALL, widths=(-1, 16))


@pytest.mark.parametrize("text", ["w.pth", "/runs/gan.PT", "model.ckpt", "x.pkl"])
def test_a_file_of_weights_is_no_architecture(text):
    with pytest.raises(ValueError, match="by its name, a file of weights and not an architecture"):
        parse(text)


def test_what_is_shown_of_a_string_is_short_and_printable():
    with pytest.raises(ValueError, match="is not an architecture") as caught:
        parse("mfa_\x1b[31m\n" + "x" * 10**6)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_a_long_text_is_refused_without_being_searched():
    with pytest.raises(ValueError, match="has 1000015 characters") as caught:
        parse("mfa_x4_w8_c1" + "-1" * 500_000 + "_s0")
    assert len(str(caught.value)) < 400
