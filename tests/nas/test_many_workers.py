"""Workers that share a study in a real PostgreSQL: killed, frozen, and cut off from it."""

from __future__ import annotations

import json
import multiprocessing
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest
import torch
from postgres_server import ESCAPED, free_port, running_postgres
from search_commands import words

from mfagan.about import About
from mfagan.checkpoint import save_network
from mfagan.config_layers import resolve, to_values
from mfagan.generator import Generator
from mfagan.space import SearchSpace
from nas.cli import main
from nas.result import read_search
from nas.sampling import parameters_of
from nas.storage import open_storage
from nas.workers import DUPLICATE, RETRY_OF, WORKER, given_parameters

pytestmark = pytest.mark.debian

SPACE = SearchSpace(widths=(8, 12), modules=(1, 2, 3), convolutions=(2, 3), branches=(0, 1, 2))
COMMAND = [sys.executable, "-c", "import sys; from nas.cli import main; sys.exit(main())"]
DEADLINE = 240.0


@pytest.fixture(scope="module")
def postgres():
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def supernet(tmp_path_factory, photos) -> Path:
    """A randomly initialised supernet of 516 members."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("run") / "pixel.safetensors"
    config = resolve({"data": {"data": str(photos), "patch": 16, "batch": 2}})
    about = About(
        kind="supernet", architecture=str(SPACE.largest), space=SPACE, stage="pixel",
        configuration=to_values(config),
    )  # fmt: skip
    save_network(path, Generator.supernet(SPACE), about)
    return path


def listed(folder: Path, number: int) -> tuple[Path, list]:
    """Return a file of distinct architectures, the cheapest among them, and these."""
    rng = random.Random(number)
    members = {SPACE.smallest: None}
    while len(members) < number:
        members[SPACE.sample(rng)] = None
    file = folder / "architectures.txt"
    file.write_text("# to be tried\n" + "".join(f"{member}\n" for member in members))
    return file, list(members)


class Workers:
    """Processes of the command on one study."""

    def __init__(self, storage, study, supernet, photos, folder, number, *more, **changed):
        self.folder = folder
        self.processes = [
            subprocess.Popen(
                [*COMMAND, *words(supernet, photos, folder / f"worker{k}", **changed),
                 "--storage", storage, "--study", study, *map(str, more)],
                stdout=subprocess.DEVNULL, stderr=(folder / f"{k}.err").open("w"),
            )
            for k in range(number)
        ]  # fmt: skip

    def ended(self) -> list[int]:
        return [process.wait(timeout=DEADLINE) for process in self.processes]

    def errors(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.err")))

    def kill(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def wait_for(condition, workers):
    """Return what a condition yields as soon as it is true."""
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until:
        if found := condition():
            return found
        assert None in [process.poll() for process in workers.processes], workers.errors()
        time.sleep(0.02)
    raise AssertionError(f"not within {DEADLINE} s: {workers.errors()}")


def trials_of(url, study):
    opened = optuna.load_study(study_name=study, storage=open_storage(url))
    return opened.get_trials(deepcopy=False)


def complete(postgres, study) -> int:
    """Return how many trials of a study are complete, without Optuna's many questions."""
    (found,) = postgres.ask(
        "SELECT count(*) FROM trials JOIN studies USING (study_id) "
        "WHERE study_name = %s AND state = 'COMPLETE'",
        study,
    )
    return found[0]


def kill_in_a_trial(postgres, study, process):
    """Kill a process while it runs a trial, and return that."""

    def frozen_at():
        process.send_signal(signal.SIGSTOP)
        running = postgres.ask(
            "SELECT number FROM trials JOIN studies USING (study_id) "
            "JOIN trial_user_attributes USING (trial_id) WHERE study_name = %s "
            "AND state = 'RUNNING' AND key = %s AND value_json LIKE %s",
            study, WORKER, f"%:{process.pid}\"%",
        )  # fmt: skip
        if not running:
            process.send_signal(signal.SIGCONT)
        return running

    until = time.monotonic() + DEADLINE
    while not (found := frozen_at()):
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    return trials_of(postgres.url, study)[found[0][0]]


def key(parameters) -> str:
    return json.dumps(parameters, sort_keys=True)


def front_of(folder) -> list[tuple]:
    return [(t.architecture, t.quality, t.latency_ms) for t in read_search(folder).front]


def check_each_was_run_once(url, study, members, killed):
    """Check the rows of a study: every architecture complete once, every dead trial retried."""
    trials = trials_of(url, study)
    states = Counter(trial.state.name for trial in trials)
    assert states["COMPLETE"] == len(members)
    assert not states["RUNNING"]
    done = [trial for trial in trials if trial.state.name == "COMPLETE"]
    assert sorted(key(given_parameters(t)) for t in done) == sorted(
        key(parameters_of(member)) for member in members
    )
    dead = [t for t in trials if t.state.name == "FAIL" and DUPLICATE not in t.user_attrs]
    assert killed.number in {trial.number for trial in dead}
    retried = Counter(trial.user_attrs.get(RETRY_OF) for trial in trials)
    assert {trial.number: retried[trial.number] for trial in dead} == {t.number: 1 for t in dead}
    (again,) = [trial for trial in trials if trial.user_attrs.get(RETRY_OF) == killed.number]
    assert given_parameters(again) == given_parameters(killed)


def test_kills_and_a_restart_lose_and_double_nothing(postgres, supernet, photos, tmp_path):
    file, members = listed(tmp_path, 200)
    more = ("--enqueue", file, "--stale-after", 4)
    given = {"trials": len(members), "budget_ms": 4.5}
    workers = Workers(postgres.url, "four", supernet, photos, tmp_path, 4, *more, **given)
    try:
        alone = tmp_path / "alone"
        assert main([*words(supernet, photos, alone, **given), "--enqueue", str(file)]) == 0
        wait_for(lambda: complete(postgres, "four") >= 20, workers)
        killed = kill_in_a_trial(postgres, "four", workers.processes[1])
        wait_for(lambda: complete(postgres, "four") >= 60, workers)
        postgres.stop("immediate")
        wait_for(lambda: "does not answer" in workers.errors(), workers)
        postgres.start()
        assert workers.ended() == [0, -signal.SIGKILL, 0, 0], workers.errors()
    finally:
        workers.kill()
    check_each_was_run_once(postgres.url, "four", members, killed)
    assert not any(part in workers.errors() for part in (ESCAPED, "not:to", "shown"))
    expected = front_of(alone)
    assert len(expected) >= 3
    assert 0.2 < sum(not t.feasible for t in read_search(alone).trials) / len(members) < 0.8
    for k in (0, 2, 3):
        found = read_search(tmp_path / f"worker{k}")
        assert len(found.trials) == len(members)
        assert front_of(tmp_path / f"worker{k}") == expected


def serve(postgres, port):
    return subprocess.Popen(
        [*COMMAND, "serve", "--storage", postgres.url, "--port", str(port)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def test_a_proxy_that_is_killed_and_a_recovered_worker(postgres, supernet, photos, tmp_path):
    file, members = listed(tmp_path, 60)
    port = free_port()
    proxy = serve(postgres, port)
    more = ("--enqueue", file, "--stale-after", 4, "--recover")
    given = {"trials": len(members), "budget_ms": 4.5}
    address = f"grpc://127.0.0.1:{port}"
    workers = Workers(address, "proxied", supernet, photos, tmp_path, 3, *more, **given)
    try:
        wait_for(lambda: complete(postgres, "proxied") >= 10, workers)
        killed = kill_in_a_trial(postgres, "proxied", workers.processes[0])
        wait_for(lambda: complete(postgres, "proxied") >= 20, workers)
        first = proxy
        first.kill()
        wait_for(lambda: "does not answer" in workers.errors(), workers)
        proxy = serve(postgres, port)
        assert workers.ended() == [-signal.SIGKILL, 0, 0], workers.errors()
        proxy.send_signal(signal.SIGINT)
        assert proxy.wait(timeout=DEADLINE) == 130
        answered = first.stdout.read()
        assert f"answering at {address} for postgresql://postgres:***@127.0.0.1" in answered
    finally:
        workers.kill()
        proxy.kill()
        proxy.wait()
    check_each_was_run_once(postgres.url, "proxied", members, killed)
    assert front_of(tmp_path / "worker1") == front_of(tmp_path / "worker2")


def test_eight_processes_make_the_tables_of_an_empty_database(postgres):
    import psycopg

    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE empty")
    url = re.sub(r"/postgres$", "/empty", postgres.url)
    # Forks are there at once, where eight interpreters would start one after the other.
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(8)
    processes = [context.Process(target=_open, args=(ready, url)) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(DEADLINE)
    assert [process.exitcode for process in processes] == [0] * 8
    assert open_storage(url).get_all_studies() == []


def _open(ready, url):
    ready.wait()
    open_storage(url, stale_after=9)


def test_a_wrong_password_and_a_missing_database_are_one_sentence(postgres, supernet, photos,
                                                                  tmp_path, capsys):  # fmt: skip
    flags = words(supernet, photos, tmp_path / "out")
    for url in (postgres.url.replace(ESCAPED, "Wr0ng"), postgres.url + "2"):
        assert main([*flags, "--storage", url]) == 2
        error = capsys.readouterr().err
        assert "cannot be opened" in error
        assert error.count("\n") == 1
        assert not any(part in error for part in ("Wr0ng", ESCAPED, "not:to"))


def test_a_worker_with_another_supernet_is_refused(postgres, supernet, photos, tmp_path, capsys):
    storage = ("--storage", postgres.url, "--study", "guarded")
    assert main([*words(supernet, photos, tmp_path / "a", budget_ms=4.5), *storage]) == 0
    other = tmp_path / "other.safetensors"
    torch.manual_seed(1)
    about = About(kind="supernet", architecture=str(SPACE.largest), space=SPACE, stage="pixel")
    save_network(other, Generator.supernet(SPACE), about)
    capsys.readouterr()
    assert main([*words(other, photos, tmp_path / "b", budget_ms=4.5), *storage]) == 2
    error = capsys.readouterr().err
    assert "was made with something else (ranked_by: " in error
    assert "not:to" not in error
    assert ESCAPED not in error
