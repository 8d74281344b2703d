"""Once-for-all's evolutionary search: its numbers, the budget, and that it finds the best."""

import random
from pathlib import Path

import pytest

from mfagan.space import SearchSpace

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SPACE = SearchSpace()


@pytest.fixture
def evolution(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import evolution

    return evolution


def convolutions(architecture):
    return sum(architecture.convolutions)


def worth(architecture):
    """Best with two modules of four convolutions at the largest width, and no branches."""
    missing = abs(len(architecture.convolutions) - 2) + sum(architecture.branches)
    return architecture.width / 8 + convolutions(architecture) - 5.0 * missing


@pytest.mark.parametrize("name", ["evolve", "by_chance"])
def test_so_many_different_members_within_the_budget_are_scored(evolution, name):
    scored = []

    def score(architecture):
        scored.append(architecture)
        return worth(architecture)

    method = getattr(evolution, name)
    method(SPACE, lambda one: convolutions(one) <= 12, score, 130, 1)
    assert len(scored) == len(set(scored)) == 130
    assert all(SPACE.contains(one) and convolutions(one) <= 12 for one in scored)
    again = scored.copy()
    scored.clear()
    method(SPACE, lambda one: convolutions(one) <= 12, score, 130, 1)
    assert scored == again
    scored.clear()
    method(SPACE, lambda one: convolutions(one) <= 12, score, 130, 2)
    assert scored != again


def best_of(search, seed):
    values = []

    def score(architecture):
        values.append(worth(architecture))
        return values[-1]

    search(SPACE, lambda _: True, score, 400, seed)
    return max(values)


def test_evolution_beats_chance_on_a_smooth_problem(evolution):
    evolved = [best_of(evolution.evolve, seed) for seed in range(3)]
    drawn = [best_of(evolution.by_chance, seed) for seed in range(3)]
    assert sorted(evolved)[1] == 48 / 8 + 8  # the best there is
    assert sorted(evolved)[1] > sorted(drawn)[1]


def test_a_tenth_of_the_genes_is_drawn_anew(evolution):
    rng = random.Random(0)
    space = SearchSpace(convolutions=(1, 2, 3, 4, 5), modules=(1, 2, 3, 4))
    changed = total = 0
    for _ in range(2000):
        genes = evolution.Genes.drawn(space, rng)
        mutated = evolution._mutated(genes, space, rng)
        pairs = zip(genes.convolutions, mutated.convolutions, strict=True)
        changed += sum(a != b for a, b in pairs)
        total += len(genes.convolutions)
    assert changed / total == pytest.approx(0.1 * 4 / 5, abs=0.01)


@pytest.mark.parametrize("name", ["evolve", "by_chance"])
def test_a_small_space_is_exhausted_and_not_waited_for(evolution, name):
    space = SearchSpace(widths=(16, 24), modules=(2,), convolutions=(2, 3), branches=(0,))
    scored = []

    def score(architecture):
        scored.append(architecture)
        return worth(architecture)

    getattr(evolution, name)(space, lambda _: True, score, 100, 0)
    assert len(scored) == len(set(scored)) == space.size == 8
