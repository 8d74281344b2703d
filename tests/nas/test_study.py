from __future__ import annotations

import fcntl
import re
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from latency.commandline import FailureError
from mfagan.architecture import MfaArchitecture
from mfagan.space import SearchSpace
from nas.result import SupernetFile, TrialRecord, pareto
from nas.study import search

RANKED_BY = SupernetFile(file="pixel.safetensors", stage="pixel", sha256="0" * 64)
CUT_FROM = SupernetFile(file="gan.safetensors", stage="gan", sha256="a" * 64)
TRIALS = 14


def run(objective, folder, **changed):
    options = {
        "trials": TRIALS,
        "sampler": "auto",
        "seed": 3,
        "storage": f"journal:{folder}/study.journal",
        "name": "test",
        "ranked_by": RANKED_BY,
        "cut_from": CUT_FROM,
        "silent": True,
    }
    return search(objective, **(options | changed))


def facts(result) -> list[tuple]:
    return [(t.architecture, t.quality, t.latency_ms, t.reason, t.sampler) for t in result.trials]


@pytest.fixture
def uninterrupted(make_objective, tmp_path):
    return run(make_objective(), tmp_path / "uninterrupted")


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "gp", "random"])
def test_every_sampler_is_repeatable_and_constraint_aware(make_objective, tmp_path, sampler):
    first, second = (
        run(make_objective(), tmp_path / name, sampler=sampler, trials=12) for name in "ab"
    )
    assert facts(first) == facts(second)
    assert len(first.trials) == 12
    assert first.feasible
    for trial in first.trials:
        assert trial.feasible == (trial.latency_ms <= 3.8)
        assert (trial.quality is None) == (trial.latency_ms > 3.8)


def test_another_seed_searches_elsewhere(make_objective, tmp_path, uninterrupted):
    other = run(make_objective(), tmp_path, seed=4)
    assert facts(other) != facts(uninterrupted)


def test_constraints_and_values_reach_optuna(make_objective, tmp_path):
    import optuna

    from nas.storage import open_storage

    objective = make_objective()
    result = run(objective, tmp_path)
    study = optuna.load_study(
        study_name="test", storage=open_storage(f"journal:{tmp_path}/study.journal")
    )
    told = study.get_trials()
    assert all(trial.state.name == "COMPLETE" for trial in told)
    for trial, record in zip(told, result.trials, strict=True):
        assert (max(trial.constraints.values()) > 0) == (not record.feasible)
        assert trial.value == (record.quality if record.feasible else objective.bicubic)
    assert study.best_trial.value == result.chosen.quality


def test_rejected_candidates_are_not_run_and_repeated_ones_not_again(make_objective, tmp_path):
    objective = make_objective()
    runs: list[str] = []
    objective.supernet.register_forward_pre_hook(lambda _, inputs: runs.append(str(inputs[1])))
    result = run(objective, tmp_path, trials=24)
    assert sorted(runs) == sorted(t.architecture for t in result.feasible)  # one photograph
    repeated = [t for t in result.trials if t.feasible and t.repeated]
    assert len(repeated) + len(result.feasible) == sum(t.feasible for t in result.trials)
    assert repeated
    rejected = sum(t.latency_ms > 3.8 for t in result.trials)
    assert result.rejected_share == rejected / 24 > 0


def test_an_interrupted_search_ends_as_an_uninterrupted_one(
    make_objective, tmp_path, uninterrupted
):
    first = run(make_objective(), tmp_path, trials=6)
    assert facts(first) == facts(uninterrupted)[:6]
    objective = make_objective()
    assert facts(run(objective, tmp_path)) == facts(uninterrupted)
    new = {t.architecture for t in uninterrupted.feasible} - {t.architecture for t in first.trials}
    assert objective.evaluations == len(new)
    again = make_objective()
    assert facts(run(again, tmp_path)) == facts(uninterrupted)
    assert again.evaluations == 0


@pytest.mark.parametrize("stopped_at", [0, 4])
def test_ctrl_c_loses_and_doubles_no_trial(make_objective, tmp_path, uninterrupted, stopped_at):
    objective = make_objective()
    score, calls = objective.score, []

    def interrupted(architecture):
        calls.append(architecture)
        if len(calls) > stopped_at:
            raise KeyboardInterrupt
        return score(architecture)

    objective.score = interrupted
    with pytest.raises(KeyboardInterrupt):
        run(objective, tmp_path)
    assert facts(run(make_objective(), tmp_path)) == facts(uninterrupted)


def test_a_killed_process_loses_and_doubles_no_trial(make_objective, tmp_path, uninterrupted):
    import optuna

    from nas.storage import open_storage

    run(make_objective(), tmp_path, trials=5)
    # What SIGKILL leaves: a trial that was asked for and never told, and Optuna's lock.
    study = optuna.load_study(
        study_name="test", storage=open_storage(f"journal:{tmp_path}/study.journal")
    )
    study.ask()
    lock = tmp_path / "study.journal.lock"
    lock.symlink_to(tmp_path / "study.journal")
    assert facts(run(make_objective(), tmp_path)) == facts(uninterrupted)
    assert not lock.is_symlink()


def enumerate_feasible(objective) -> dict[str, tuple[float, float]]:
    """Return (latency, quality) of every member within the budget, by its string."""
    space, known = objective.space, {}
    for width, modules in product(space.widths, space.modules):
        for c in product(space.convolutions, repeat=modules):
            for s in product(space.branches, repeat=modules):
                member = MfaArchitecture(scale=4, width=width, convolutions=c, branches=s)
                score = objective.score(member)
                if score.latency_ms <= objective.budgets.phones[0].budget_ms:
                    known[str(member)] = (score.latency_ms, score.quality)
    return known


def undominated(points: dict[str, tuple[float, float]]) -> set[tuple[float, float]]:
    return {
        point
        for point in points.values()
        if not any(
            other != point and other[0] <= point[0] and other[1] >= point[1]
            for other in points.values()
        )
    }


def test_front_and_choice_equal_brute_force(make_objective, tmp_path):
    objective = make_objective(budget_ms=3.9)
    # Eight members: forty random trials meet them all.
    objective.space = SearchSpace(widths=(8, 12), modules=(1,), convolutions=(2, 3))
    known = enumerate_feasible(objective)
    assert 4 <= len(known) < 8
    result = run(objective, tmp_path, trials=40, sampler="random")
    assert {t.architecture for t in result.feasible} == set(known)
    assert {(t.latency_ms, t.quality) for t in result.front} == undominated(known)
    assert result.chosen.quality == max(quality for _, quality in known.values())


@pytest.mark.parametrize("seed", range(20))
def test_pareto_equals_brute_force_with_ties(seed):
    rng = np.random.default_rng(seed)
    points = {f"a{k}": tuple(map(float, rng.integers(0, 6, 2))) for k in range(30)}
    trials = [
        TrialRecord(number=k, architecture=name, quality=quality, latency_ms=ms, reason="",
                    repeated=False, sampler="")
        for k, (name, (ms, quality)) in enumerate(points.items())
    ]  # fmt: skip
    front = pareto(trials)
    assert {(t.latency_ms, t.quality) for t in front} == undominated(points)
    assert [t.latency_ms for t in front] == sorted({t.latency_ms for t in front})
    best = max(quality for _, quality in points.values())
    fastest = min(ms for ms, quality in points.values() if quality == best)
    assert (front[-1].latency_ms, front[-1].quality) == (fastest, best)


def test_tpe_comes_near_the_best_of_the_space(make_objective, tmp_path):
    objective = make_objective()
    qualities = sorted((q for _, q in enumerate_feasible(objective).values()), reverse=True)
    result = run(objective, tmp_path, trials=30)
    assert result.chosen.quality >= qualities[len(qualities) // 4]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"budget_ms": 3.9}, "budget_ms: 3.8 -> 3.9"),
        ({"size": (120, 128)}, "input: 128x128 -> 120x128"),
        ({"pairs": True}, "data: "),
        (
            {"ranked_by": replace(RANKED_BY, sha256="1" * 64)},
            "ranked_by: 000000000000 -> 111111111111",
        ),
        ({"cut_from": replace(CUT_FROM, sha256="1" * 64)}, "cut_from: aaaaaaaaaaaa -> 11111"),
        ({"seed": 4}, "seed: 3 -> 4"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_study_made_with_something_else_is_refused(make_objective, tmp_path, changed, named):
    run(make_objective(), tmp_path, trials=5)
    before = (tmp_path / "study.journal").read_bytes()
    objective = {k: v for k, v in changed.items() if k in ("budget_ms", "size", "pairs")}
    if "pairs" in objective:
        rng = np.random.default_rng(1)
        hr = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        objective["pairs"] = [(hr[::4, ::4].copy(), hr)]
    rest = {k: v for k, v in changed.items() if k not in objective}
    with pytest.raises(ValueError, match=re.escape(named)):
        run(make_objective(**objective), tmp_path, **rest)
    assert (tmp_path / "study.journal").read_bytes()[: len(before)] == before


def test_another_space_is_refused(make_objective, tmp_path):
    run(make_objective(), tmp_path, trials=5)
    objective = make_objective()
    objective.space = SearchSpace(widths=(8, 12), modules=(1,), convolutions=(2, 3))
    with pytest.raises(ValueError, match="space: "):
        run(objective, tmp_path)


def test_a_strange_study_is_refused(make_objective, tmp_path):
    import optuna

    from nas.storage import open_storage

    storage = open_storage(f"journal:{tmp_path}/study.journal")
    study = optuna.create_study(study_name="test", storage=storage, direction="maximize")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(ValueError, match="not made by mfagan-search"):
        run(make_objective(), tmp_path)


def test_no_candidate_names_a_budget_that_would_do(make_objective, tmp_path):
    objective = make_objective(budget_ms=3.0)
    with pytest.raises(FailureError, match="nearest is mfa_x4_w8_c2_s0") as caught:
        run(objective, tmp_path)
    assert objective.evaluations == 0
    assert not (tmp_path / "study.journal").exists()
    budget = float(re.search(r"--budget-ms ([\d.]+) would do", str(caught.value))[1])
    assert budget < 3.5
    result = run(make_objective(budget_ms=budget), tmp_path)
    assert result.chosen.architecture == "mfa_x4_w8_c2_s0"


def test_two_processes_do_not_use_one_folder(make_objective, tmp_path):
    with (tmp_path / "study.journal").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(FailureError, match="another process"):
            run(make_objective(), tmp_path)


def test_a_shared_study_leaves_running_trials_to_their_process(make_objective, tmp_path):
    import optuna

    from nas.storage import open_storage

    storage = f"sqlite:///{tmp_path}/study.db"
    run(make_objective(), tmp_path, trials=5, storage=storage, shared=True)
    theirs = optuna.load_study(study_name="test", storage=open_storage(storage)).ask()
    with pytest.warns(UserWarning, match="trial 5 .* another one is run in its place"):
        result = run(
            make_objective(), tmp_path, trials=8, storage=storage, shared=True, stale_after=0.1
        )
    assert len(result.trials) == 8
    states = optuna.load_study(study_name="test", storage=open_storage(storage)).get_trials()
    assert states[theirs.number].state.name == "RUNNING"


@pytest.mark.parametrize("storage", ["nonsense", "sqlite://///no/such/folder/x.db"])
def test_a_storage_that_cannot_be_opened_is_one_sentence(make_objective, tmp_path, storage):
    with pytest.raises(ValueError, match="cannot be opened"):
        run(make_objective(), tmp_path, storage=storage, shared=True)


def test_a_damaged_journal_is_one_sentence(make_objective, tmp_path):
    (tmp_path / "study.journal").write_text("nonsense\nmore of it\n")
    with pytest.raises(ValueError, match="damaged"):
        run(make_objective(), tmp_path)
