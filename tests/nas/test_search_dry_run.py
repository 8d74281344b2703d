"""`mfagan-search --dry-run`: it writes nothing, and its estimates are those of a real search."""

import json

import pytest
from search_commands import contents, words

from nas.cli import main


@pytest.fixture
def _quick(monkeypatch):
    monkeypatch.setattr("mfagan.estimate.MEASURED_SECONDS", 0.05)


@pytest.mark.usefixtures("_quick")
def test_a_dry_run_writes_nothing_and_its_disk_is_a_real_ones(
    supernet_file, photos, tmp_path, capsys
):
    out = tmp_path / "out"
    flags = words(supernet_file, photos, out, trials=30)
    tuned = [*flags, "--finetune-steps", "2"]
    assert main([*tuned, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "\nvalidation = one photograph in ten of data\n" in printed
    assert '\nspace = {"' in printed
    for part in ("budget_ms = 3.8", "30 trials to run", "finetune: 2 steps", "nothing was written"):
        assert part in printed
    assert not out.exists()
    assert main([*flags, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    configuration = plan["configuration"]
    numbers = {name: configuration[name] for name in ("trials", "budget_ms", "seed")}
    assert numbers == {"trials": 30, "budget_ms": 3.8, "seed": 0}
    assert (configuration["finetune_steps"], configuration["validation"]) == (0, None)
    assert configuration["space"]["widths"] == [8, 12]
    assert configuration["sampler"] == "tpe"
    assert 0.2 < plan["estimate"]["over_budget"] < 0.8  # see BUDGET_MS
    assert plan["estimate"]["memory_bytes"] > 10**8
    assert main(flags) == 0
    whole = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    assert plan["estimate"]["disk_bytes"] == pytest.approx(whole, rel=0.3)
    before = contents(out)
    capsys.readouterr()
    more = words(supernet_file, photos, out, trials=45)
    assert main([*more, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["estimate"]["trials"] == 15
    assert contents(out) == before


def test_a_range_runs_upwards(supernet_file, photos, tmp_path, monkeypatch, capsys):
    """The smallest may be measured to take longer than the slowest sampled."""
    seconds = iter([0.0408, 0.0201])
    monkeypatch.setattr("nas.dry_run._seconds", lambda *_: next(seconds))
    flags = words(supernet_file, photos, tmp_path / "out")
    assert main([*flags, "--dry-run", "--json"]) == 0
    estimate = json.loads(capsys.readouterr().out)["estimate"]
    assert estimate["trial_seconds"] == [0.0201, 0.0408]
    assert estimate["seconds"] == sorted(estimate["seconds"])


@pytest.mark.usefixtures("_quick")
def test_a_dry_run_measures_the_adversarial_stage(photos, tmp_path, capsys):
    from mfagan.train_cli import main as train

    run = tmp_path / "run"
    recipe = ["--recipe", "smoke", "--data", str(photos), "--threads", "1", "--out", str(run)]
    assert train(recipe) == 0
    before = contents(tmp_path)
    flags = [*words(run, photos, tmp_path / "out", finetune_steps=7), "--dry-run", "--json"]
    capsys.readouterr()
    assert main(flags) == 0
    (stage,) = [json.loads(capsys.readouterr().out)["estimate"]["finetune"]]
    assert (stage["name"], stage["steps"], stage["validations"]) == ("finetune", 7, 1)
    discriminator = (run / "gan-discriminator.safetensors").stat().st_size
    assert stage["weights_bytes"] - stage["checkpoint_bytes"] == pytest.approx(
        discriminator, rel=0.05
    )
    assert contents(tmp_path) == before
