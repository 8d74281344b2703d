from __future__ import annotations

from itertools import product

import pytest

from mfagan.architecture import MfaArchitecture
from mfagan.space import SearchSpace
from nas.sampling import (
    WARM_STARTS,
    chosen_sampler,
    make_sampler,
    parameters_of,
    suggest,
    warm_starts,
)

TINY = SearchSpace(widths=(8, 12), modules=(1, 2), convolutions=(2, 3), branches=(0, 1))


def members(space: SearchSpace) -> list[MfaArchitecture]:
    return [
        MfaArchitecture(scale=space.scale, width=width, convolutions=c, branches=s)
        for width, modules in product(space.widths, space.modules)
        for c in product(space.convolutions, repeat=modules)
        for s in product(space.branches, repeat=modules)
    ]


def test_every_member_comes_back_from_its_parameters():
    from optuna.trial import FixedTrial

    for member in members(TINY):
        trial = FixedTrial(parameters_of(member))
        assert suggest(trial, TINY, "tpe") == member


@pytest.mark.parametrize(("sampler", "asked"), [("tpe", 1), ("random", 1), ("nsga2", 2), ("gp", 2)])
def test_parameters_are_asked_for_the_modules_there_are(sampler, asked):
    from optuna.trial import FixedTrial

    fixed = {"width": 8, "modules": 1, "convolutions_0": 2, "branch_0": 1}
    fixed |= {"convolutions_1": 3, "branch_1": 0}
    trial = FixedTrial(fixed)
    architecture = suggest(trial, TINY, sampler)
    assert str(architecture) == "mfa_x4_w8_c2_s1"
    assert sum(name.startswith("branch_") for name in trial.params) == asked


@pytest.mark.parametrize(
    "space", [TINY, SearchSpace(), SearchSpace(widths=(16, 24, 32), modules=(2, 3))], ids=str
)
def test_warm_starts_are_distinct_members_with_both_ends(space):
    starts = warm_starts(space)
    assert starts[:2] == [space.largest, space.smallest]
    assert len(set(starts)) == len(starts) <= WARM_STARTS
    assert all(space.contains(member) for member in starts)


def test_a_large_space_is_started_between_its_ends_too():
    widths = {member.width for member in warm_starts(SearchSpace())}
    assert len(widths) >= 3


def test_auto_leaves_tpe_when_it_grows_slow():
    assert chosen_sampler("auto", 1000) == "tpe"
    assert chosen_sampler("auto", 1001) == "nsga2"
    assert chosen_sampler("gp", 5000) == "gp"


@pytest.mark.parametrize("name", ["tpe", "nsga2", "gp", "random"])
def test_samplers_are_made_without_a_warning_and_by_seed_and_position(name, recwarn):
    import optuna

    def draw(seed: int, position: int) -> list[int]:
        study = optuna.create_study(sampler=make_sampler(name, seed, position))
        return [study.ask().suggest_int("x", 0, 10**6) for _ in range(3)]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    assert draw(1, 4) == draw(1, 4)
    assert draw(1, 4) != draw(1, 5)
    assert draw(1, 4) != draw(2, 4)
    assert not recwarn.list


def test_tpe_suggests_what_a_candidate_has_and_nothing_else():
    import optuna

    space = SearchSpace(widths=(8, 12), modules=(2, 3, 4), convolutions=(2, 3, 4), branches=(0, 1))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    late = []
    for position in range(80):
        study.sampler = make_sampler("tpe", 0, position)
        trial = study.ask()
        architecture = suggest(trial, space, "tpe")
        wanted = parameters_of(architecture)
        known = set().union(*(told.params for told in study.trials[:-1]))
        assert trial.params == wanted
        if trial.relative_params:
            assert trial.relative_params.keys() == wanted.keys() & known
            late += [wanted["convolutions_3"]] if "convolutions_3" in wanted else []
        # Four modules are best, and the fewest convolutions in the last of them.
        study.tell(trial, wanted.get("convolutions_3", 5))
    assert len(late) > 40
    assert sum(late[20:]) / len(late[20:]) < 2.4  # 3 by chance
