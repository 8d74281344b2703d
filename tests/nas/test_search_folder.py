"""What lies in a search's folder when it starts: its own, a stranger's, a newer one's, a wreck."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from failing_disk import failing_disk
from search_commands import contents, words

from latency.signals import TerminatedError
from mfagan.checkpoint import load_network, save_network
from nas.cli import main
from nas.objective import Objective
from nas.result import read_search
from nas.storage import mend_journal, open_storage


@pytest.fixture(scope="module")
def made(supernet_file, photos, tmp_path_factory):
    """A folder with the finished search of six trials."""
    out = tmp_path_factory.mktemp("made") / "out"
    assert main(words(supernet_file, photos, out)) == 0
    return out


@pytest.fixture
def out(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "out"))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("search.json", b"", "is not a search's; give another --out"),
        ("search.json", b"\xff\xfe", "is not a search's"),
        ("search.json", b"[1, 2]", "is not a search's"),
        ("search.json", b"[" * 200_000, "is not a search's"),
        ("search.json", b'{"schema": 1}', "is not a search's"),
        ("search.json", b'{"schema": "1", "chosen": {"weights": "x"}}', "is not a search's"),
        ("search.json", b'{"schema": 2, "chosen": {"weights": "x"}}', "newer mfagan (schema 2; t"),
        ("search.json", b'{"schema": 1, "chosen": {"weights": "x"}}', "made with something else"),
        ("study.journal", b"garbage", "is damaged, or not a search's"),
        ("study.journal", b"garbage\n", "is damaged, or not a search's"),
        ("study.journal", b"\x00\xff\xfe\n" * 9, "is damaged, or not a search's"),
        ("study.journal", b"5\n", "is damaged, or not a search's"),
        ("study.journal", b'{"a": 1}\n', "is damaged, or not a search's"),
        ("study.journal", b'{"op_code":99,"worker_id":"x"}\n', "is damaged, or not a search's"),
        ("study.journal", b"[" * 100_000 + b"\n", "is damaged, or not a search's"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_file_that_is_not_a_searchs_is_one_sentence(
    supernet_file, photos, out, capsys, name, content, sentence
):
    (out / name).write_bytes(content)
    before = contents(out)
    for more in (["--dry-run"], []):
        capsys.readouterr()
        assert main([*words(supernet_file, photos, out), *more]) == 2
        error = capsys.readouterr().err.splitlines()
        assert sentence in error[-1]
        assert len(error) == 1
        assert contents(out) == before


def test_a_damaged_line_within_the_journal_is_named(supernet_file, photos, out, capsys):
    lines = (out / "study.journal").read_bytes().splitlines(keepends=True)
    for k in (0, 3, len(lines) // 2):
        broken = [*lines[:k], lines[k][:20] + b"\n", *lines[k + 1 :]]
        (out / "study.journal").write_bytes(b"".join(broken))
        assert main(words(supernet_file, photos, out)) == 2
        assert "is damaged, or not a search's" in capsys.readouterr().err


def test_another_search_in_the_folder_is_named_wherever_its_study_is(
    supernet_file, photos, out, tmp_path, capsys
):
    before = contents(out)
    other = words(supernet_file, photos, out, budget_ms=3.7)
    for more in ([], ["--dry-run"], ["--storage", f"journal:{tmp_path}/elsewhere.journal"]):
        assert main([*other, *more]) == 2
        error = capsys.readouterr().err
        assert "made with something else (budget_ms: 3.8 -> 3.7)" in error
        assert error.count("\n") == 1
        assert contents(out) == before
    assert main([*words(supernet_file, photos, out), "--study", "b"]) == 2
    assert "is named 'mfagan', not 'b'; give --study mfagan" in capsys.readouterr().err
    (out / "search.json").unlink()  # killed before it was written: the journal tells
    assert main([*other, "--dry-run"]) == 2
    assert "budget_ms: 3.8 -> 3.7" in capsys.readouterr().err


def test_half_a_line_is_cut_off_and_the_search_goes_on(supernet_file, photos, made, out):
    journal = out / "study.journal"
    whole = journal.read_bytes()
    for size in (len(whole) - 1, len(whole) // 2, 5):
        journal.write_bytes(whole[:size])
        (out / "search.json").unlink(missing_ok=True)
        before = contents(out)
        assert main([*words(supernet_file, photos, out), "--dry-run"]) == 0
        assert contents(out) == before
        assert main(words(supernet_file, photos, out)) == 0
        assert journal.read_bytes().endswith(b"}\n")
        assert read_search(out).trials[0] == read_search(made).trials[0]
        assert [t.architecture for t in read_search(out).trials] == [
            t.architecture for t in read_search(made).trials
        ]


def test_a_shared_journal_is_mended_too(supernet_file, photos, made, tmp_path):
    shared = tmp_path / "shared.journal"
    shared.write_bytes((made / "study.journal").read_bytes()[:-9])
    more = ["--storage", f"journal:{shared}", "--stale-after", "10"]
    assert main([*words(supernet_file, photos, tmp_path / "out"), *more]) == 0
    assert len(read_search(tmp_path / "out").trials) == 6
    size = shared.stat().st_size
    mend_journal(shared)
    assert shared.stat().st_size == size
    assert open_storage(f"journal:{shared}").get_all_studies()


def test_temporary_files_of_a_killed_process_are_nobodys(supernet_file, photos, tmp_path, made):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".part-abc.safetensors").write_bytes(b"half")
    assert main([*words(supernet_file, photos, out), "--dry-run"]) == 0
    assert main(words(supernet_file, photos, out)) == 0
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in made.iterdir())
    (out / ".part-abc.json").write_bytes(b"half")
    assert main(words(supernet_file, photos, out)) == 0
    assert not list(out.glob(".part-*"))


def test_fewer_trials_than_there_are_is_said(supernet_file, photos, out, capsys):
    before = read_search(out)
    assert main(words(supernet_file, photos, out, trials=5)) == 0
    error = capsys.readouterr().err
    assert "warning: --trials 5 has no effect: the study has 6 finished ones" in error
    assert read_search(out) == before


def test_more_trials_than_members_are_said(supernet_file, photos, tmp_path, capsys):
    many = words(supernet_file, photos, tmp_path / "out", trials=100)
    assert main([*many, "--dry-run"]) == 0
    assert "more than the 40 architectures" in capsys.readouterr().err


@pytest.fixture(scope="module")
def other_winner(supernet_file, photos, tmp_path_factory):
    """A supernet, its search of six trials, and the same after 24: a better one was among them."""
    folder = tmp_path_factory.mktemp("winners")
    network, about = load_network(supernet_file)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    supernet = folder / "supernet.safetensors"
    save_network(supernet, network, about)
    assert main(words(supernet, photos, folder / "short")) == 0
    shutil.copytree(folder / "short", folder / "long")
    assert main(words(supernet, photos, folder / "long", trials=24)) == 0
    assert told(folder / "short") != told(folder / "long")
    return supernet, folder / "short", folder / "long"


def told(out) -> str:
    """Return the weights that search.json names; they can be read, and are what it tells of."""
    chosen = json.loads((out / "search.json").read_text())["chosen"]
    assert load_network(out / chosen["weights"])[1].architecture == chosen["architecture"]
    return chosen["weights"]


def test_another_winner_on_a_full_disk_costs_no_good_weights(
    other_winner, photos, tmp_path, capsys
):
    """The study has every trial already: what is left is to write the new winner."""
    supernet, short, long = other_winner
    failed = 0
    for k in range(1, 100):
        out = Path(shutil.copytree(short, tmp_path / f"{k}"))
        shutil.copy(long / "study.journal", out)
        command = words(supernet, photos, out, trials=24)
        capsys.readouterr()
        with failing_disk(out, k, errno.ENOSPC) as disk:
            status = main(command)
        if disk.opened < k:
            assert status == 0
            break
        failed += 1
        assert status == 1
        assert os.strerror(errno.ENOSPC) in capsys.readouterr().err
        assert told(out) == told(short)  # search.json is written last
        if k % 3 == 1:  # going on takes twice as long as failing
            assert main(command) == 0
            assert told(out) == told(long)
            assert len(list(out.glob("*.safetensors"))) == 1
    assert failed >= 7  # the journal, the weights and five files more


def test_weights_that_nothing_tells_of_go_and_a_users_own_stay(supernet_file, photos, out):
    """A run that was killed between weights and search.json, then another winner."""
    (out / "snapdragon-865-gpu_3.21ms_23.45dB_mfa_x4_w8_c2_s0.safetensors").write_bytes(b"x")
    (out / "my copy.safetensors").write_bytes(b"mine")
    assert main(words(supernet_file, photos, out)) == 0
    assert {p.name for p in out.glob("*.safetensors")} == {told(out), "my copy.safetensors"}


def test_a_folder_that_cannot_be_written_is_found_before_the_search(
    supernet_file, photos, tmp_path, monkeypatch, capsys
):
    """Root may write everywhere, so the system's answer is made up."""
    monkeypatch.setattr("mfagan.resources.os.access", lambda *_: False)
    shared = tmp_path / "shared.journal"
    for out in (tmp_path / "out", tmp_path):
        for more in ([], ["--storage", f"journal:{shared}"], ["--dry-run"]):
            assert main([*words(supernet_file, photos, out), *more]) == 1
            error = capsys.readouterr().err
            assert "cannot be written into; give another --out" in error
            assert error.count("\n") == 1
            assert not list(tmp_path.iterdir())


def test_a_file_is_read_as_often_as_it_must_be(supernet_file, photos, tmp_path, monkeypatch):
    """Once to rank, once to cut, and hashed once; a finished search decodes no photograph anew."""
    import latency.files
    import mfagan.checkpoint
    from mfagan.photos import PhotoCrops

    counts = dict.fromkeys(("load", "hash", "decode"), 0)

    def counting(owner, name, what):
        before = getattr(owner, name)

        def counted(*arguments, **more):
            counts[what] += 1
            return before(*arguments, **more)

        monkeypatch.setattr(owner, name, counted)

    counting(mfagan.checkpoint, "_fill", "load")
    counting(latency.files, "sha256", "hash")
    counting(PhotoCrops, "check", "decode")
    out = tmp_path / "out"
    assert main(words(supernet_file, photos, out)) == 0
    # The third is the file that was written, which is checked.
    assert counts == {"load": 3, "hash": 1, "decode": 0}
    tuned = words(supernet_file, photos, out, finetune_steps=1)
    assert main(tuned) == 0
    assert counts["decode"] == 1  # no trial was missing: the fine-tuning's own check
    assert main(tuned) == 0
    assert counts["decode"] == 1
    assert main([*tuned, "--trials", "7"]) == 0
    assert counts["decode"] == 2 + (len(list((out / "finetune").iterdir())) > 1)


@pytest.mark.parametrize("ending", [KeyboardInterrupt(), TerminatedError(number=signal.SIGHUP)])
def test_a_stopped_search_says_what_is_saved_and_goes_on(
    supernet_file, photos, made, tmp_path, monkeypatch, capsys, ending
):
    out = tmp_path / "out"
    command = words(supernet_file, photos, out)
    status = 128 + getattr(ending, "number", signal.SIGINT)

    def stop(after):
        calls = iter(range(after))
        score = Objective.score

        def stopping(objective, architecture):
            if next(calls, None) is None:
                raise ending
            return score(objective, architecture)

        return stopping

    for after, sentence in (
        (0, "stopped after 0 of 6 trials; the same command goes on"),
        (4, f"stopped after 4 of 6 trials, which are saved in '{out}/study.journal'; the same "),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(Objective, "score", stop(after))
            assert main(command) == status
        error = capsys.readouterr().err
        assert sentence in error.splitlines()[-1]
        assert "Traceback" not in error
    with monkeypatch.context() as patched:
        patched.setattr("nas.report.search_page", lambda *_: (_ for _ in ()).throw(ending))
        assert main(command) == status
    sentence = "stopped after the search, whose 6 trials are saved; the same command goes on"
    assert sentence in capsys.readouterr().err.splitlines()[-1]
    assert main(command) == 0
    assert told(out) == told(made)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"storage": "sqlite:///x.db"}, "SQLite loses trials when several processes write"),
        ({"storage": "journal:{}/pipe"}, "names no file"),
        ({"validation": "{photos}"}, "is the folder of --data"),
        ({"out": "{}/pipe"}, "is a file, not a folder"),
        ({"supernet": "{}/pipe"}, "is not a file"),
        ({"out": "{photos}/search"}, "lies inside the photographs"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(
    supernet_file, photos, tmp_path, monkeypatch, capsys, changed, sentence
):
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    changed = {k: v.format(tmp_path, photos=photos) for k, v in changed.items()}
    for more in ([], ["--dry-run"]):
        flags = words(supernet_file, photos, tmp_path / "out", **changed)
        assert main([*flags, *more]) == 2
        error = capsys.readouterr().err
        assert sentence in error
        assert error.count("\n") == 1
        assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_photographs_too_small_to_fine_tune_on_are_found_before_the_search(
    supernet_file, photos, tmp_path, capsys
):
    import numpy as np

    from mfagan.images import write_image
    from mfagan.photo_folders import split_photos

    own = tmp_path / "photos"
    for k in range(3):
        rng = np.random.default_rng(k)
        write_image(own / f"{k}.png", rng.integers(0, 256, (50, 60, 3)).astype(np.uint8))
    assert len(split_photos(own).training) == 2
    flags = words(supernet_file, own, tmp_path / "out")
    assert main([*flags, "--finetune-steps", "2"]) == 2
    assert "smaller than a crop of 64 pixels" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
    assert main([*words(supernet_file, photos, tmp_path / "o"), "--dry-run"]) == 0
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_a_search_that_is_killed_at_random_goes_on(supernet_file, photos, tmp_path):
    """SIGKILL once the journal has grown to a random size, six times, then to the end."""
    script = Path(sys.executable).with_name("mfagan-search")
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert main(words(supernet_file, photos, whole, trials=20)) == 0
    size = (whole / "study.journal").stat().st_size
    command = [script, *words(supernet_file, photos, out, trials=20)]
    journal, rng = out / "study.journal", random.Random(0)
    for share in sorted(rng.random() for _ in range(6)):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            while process.poll() is None:
                if journal.is_file() and journal.stat().st_size >= share * size:
                    process.send_signal(signal.SIGKILL)
            output = process.stdout.read().decode()
        assert process.returncode in (-signal.SIGKILL, 0), output
    assert main(words(supernet_file, photos, out, trials=20)) == 0
    ours, theirs = (
        [(t.architecture, t.latency_ms, t.feasible) for t in read_search(folder).trials]
        for folder in (out, whole)
    )
    assert ours == theirs
    assert not list(out.glob(".part-*"))
