import hashlib
import io
import json
import re
import shutil
import tarfile
from pathlib import Path

import pytest
from failing_disk import contents, failing_disk

import mfagan.datasets
from mfagan.data_cli import main
from mfagan.datasets import Dataset, datasets


def tar_of(count, folder="Some_HR"):
    """Return a .tar.gz with pictures of one byte each."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for number in range(count):
            info = tarfile.TarInfo(f"{folder}/{number:03}.png")
            info.size = 1
            file.addfile(info, io.BytesIO(bytes([number])))
    return buffer.getvalue()


ARCHIVE = tar_of(3)
SHA256 = hashlib.sha256(ARCHIVE).hexdigest()


@pytest.fixture
def known(server, monkeypatch):
    """A list with a data set of three pictures, on the local server."""
    url = server.put("/some/Three_HR.tar.gz", ARCHIVE)

    def put(**fields):
        three = Dataset(
            name="three", title="Three", about="few", photographs=3, page="https://example.org",
            licence="for tests only", url=url, **fields,
        )  # fmt: skip
        monkeypatch.setattr(mfagan.datasets, "datasets", lambda: {"three": three})

    put(sha256=SHA256, bytes=len(ARCHIVE))
    return put


def run(capsys, *words):
    status = main([*map(str, words)])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def failure(capsys, *words, status=1):
    """Return the one line that a command fails with."""
    got, _, err = run(capsys, *words)
    (line,) = (line for line in err.splitlines() if line.startswith("mfagan-data: "))
    assert got == status, err
    return line


@pytest.mark.usefixtures("known")
def test_a_data_set_comes_whole(server, tmp_path, capsys):
    out = tmp_path / "data"
    status, printed, err = run(capsys, "download", "Three", "--out", out)
    assert (status, printed) == (0, f"{out / 'three'}\n")
    assert err.startswith("Three: for tests only (https://example.org)\n")
    assert "warning" not in err
    assert contents(out) == {
        "SHA256SUMS": f"{SHA256}  Three_HR.tar.gz\n".encode(),
        "three": None,
        **{f"three/{n:03}.png": bytes([n]) for n in range(3)},
    }
    before = contents(out)
    status, printed, err = run(capsys, "download", "three", "three", "--out", out)
    assert (status, printed, err) == (0, f"{out / 'three'}: nothing to do\n", "")
    assert contents(out) == before
    assert len(server.requests) == 1


@pytest.mark.usefixtures("known")
def test_the_archive_may_stay(tmp_path, capsys):
    words = ("download", "three", "--out", tmp_path, "--keep-archive", "--json")
    status, printed, err = run(capsys, *words)
    (result,) = json.loads(printed)
    assert status == 0
    assert err == "Three: for tests only (https://example.org)\n"
    assert result == {
        "name": "three",
        "folder": str(tmp_path / "three"),
        "photographs": 3,
        "licence": "for tests only",
        "new": True,
        "sha256": SHA256,
        "compared_with": "published",
        "archive": str(tmp_path / "Three_HR.tar.gz"),
    }
    assert (tmp_path / "Three_HR.tar.gz").read_bytes() == ARCHIVE
    (result,) = json.loads(run(capsys, *words)[1])
    assert (result["new"], result["sha256"]) == (False, None)


def test_md5_is_enough(known, tmp_path, capsys):
    known(md5=hashlib.md5(ARCHIVE).hexdigest())
    assert "warning" not in run(capsys, "download", "three", "--out", tmp_path)[2]
    known(md5="0" * 32)
    assert "its MD5 is" in failure(capsys, "download", "three", "--out", tmp_path / "other")


def test_a_mirrors_file_is_compared_too(server, known, tmp_path, capsys):
    other = server.put("/mirror", tar_of(4))
    words = ("download", "three", "--out", tmp_path, "--mirror")
    assert f"not of {len(ARCHIVE)}" in failure(capsys, *words, other)
    known(sha256=SHA256)
    assert f", not {SHA256}" in failure(capsys, *words, other)
    assert contents(tmp_path) == {}
    good = server.put("/mirror2", ARCHIVE)
    assert run(capsys, *words, good)[0] == 0
    assert [path for path, _ in server.requests] == ["/mirror", "/mirror", "/mirror2"]


def test_without_a_published_checksum_the_first_is_remembered(server, tmp_path, capsys):
    """Set14 has none, and the list's own entry is used."""
    data = tar_of(14)
    words = ("download", "set14", "--out", tmp_path, "--mirror", server.put("/a", data))
    status, _, err = run(capsys, *words)
    digest = hashlib.sha256(data).hexdigest()
    assert status == 0
    assert "nobody publishes a checksum of 'Set14_HR.tar.gz', so it could not be compared" in err
    assert digest in err
    assert (tmp_path / "SHA256SUMS").read_text() == f"{digest}  Set14_HR.tar.gz\n"
    shutil.rmtree(tmp_path / "set14")
    status, printed, err = run(capsys, *words, "--json")
    assert json.loads(printed)[0]["compared_with"] == "remembered"
    assert "nobody publishes" not in err
    shutil.rmtree(tmp_path / "set14")
    server.put("/a", tar_of(14, "Changed"))
    assert f"not {digest}" in failure(capsys, *words)
    assert contents(tmp_path) == {"SHA256SUMS": f"{digest}  Set14_HR.tar.gz\n".encode()}


def test_another_number_of_images_is_refused(server, tmp_path, capsys):
    words = ("download", "set14", "--out", tmp_path, "--mirror", server.put("/a", tar_of(13)))
    assert "holds 13 images instead of the 14 of Set14; it was removed" in failure(capsys, *words)
    assert contents(tmp_path) == {}


def test_a_damaged_archive_is_removed(server, tmp_path, capsys):
    url = server.put("/a", tar_of(14)[:-50])
    words = ("download", "set14", "--out", tmp_path, "--mirror", url)
    assert "cannot be unpacked" in failure(capsys, *words)
    assert contents(tmp_path) == {}


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("held", [["letter.txt"], ["000.png", "001.png"], None])
def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys, held):
    if held is None:
        (tmp_path / "three").write_text("a file")
    for name in held or []:
        (tmp_path / "three").mkdir(exist_ok=True)
        (tmp_path / "three" / name).write_text("mine")
    before = contents(tmp_path)
    line = failure(capsys, "download", "three", "--out", tmp_path, status=2)
    assert re.search("holds [02] images instead of the 3 of Three", line)
    assert contents(tmp_path) == before


@pytest.mark.usefixtures("known")
def test_too_little_room_is_said_before_it_begins(server, tmp_path, capsys, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=2 * len(ARCHIVE) - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    line = failure(capsys, "download", "three", "--out", tmp_path / "new")
    assert "Three takes about 0.0 GiB, its archive and its photographs" in line
    assert not (tmp_path / "new").exists()
    assert not server.requests


@pytest.mark.usefixtures("known")
def test_a_failing_disk_leaves_nothing_half_done(tmp_path, capsys):
    """Whichever file cannot be opened, the same command does the rest afterwards."""
    words = ("download", "three", "--out")
    with failing_disk(tmp_path) as disk:
        assert run(capsys, *words, tmp_path / "0")[0] == 0
    assert disk.opened > 5
    for number in range(1, disk.opened + 1):
        out = tmp_path / str(number)
        with failing_disk(tmp_path, number, 28) as failing:
            line = failure(capsys, *words, out)
        assert failing.opened >= number
        assert "No space left" in line
        left = {name for name in contents(out) if not name.startswith("Three_HR.tar.gz")}
        assert left in (set(), {f"three/{n:03}.png" for n in range(3)} | {"three"}), number
        assert run(capsys, *words, out)[0] == 0
        assert set(contents(out)) >= {f"three/{n:03}.png" for n in range(3)}


def test_an_interrupted_unpacking_goes_on_without_the_network(server, known, tmp_path, capsys,
                                                              monkeypatch):  # fmt: skip
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(mfagan.datasets, "unpack_images", interrupt)
    assert run(capsys, "download", "three", "--out", tmp_path)[0] == 130
    assert set(contents(tmp_path)) == {"Three_HR.tar.gz"}
    monkeypatch.undo()
    known(sha256=SHA256)
    assert run(capsys, "download", "three", "--out", tmp_path)[0] == 0
    assert len(server.requests) == 1


def test_the_list(capsys):
    status, printed, _ = run(capsys, "download", "--list")
    assert status == 0
    assert "div2k: DIV2K, training, 800 photographs, 3367 MiB" in printed
    assert "checksum: none is published" in printed
    listed = json.loads(run(capsys, "download", "--list", "--json")[1])
    assert [entry["name"] for entry in listed] == list(datasets())
    assert {"div2k", "flickr2k", "set5", "set14", "bsd100", "urban100"} <= set(datasets())


@pytest.mark.parametrize("dataset", datasets().values(), ids=lambda dataset: dataset.name)
def test_an_entry_of_the_list(dataset):
    assert dataset.url.startswith("https://")
    assert dataset.archive.endswith((".zip", ".tar", ".tar.gz"))
    assert bool(dataset.checksum_source) == bool(dataset.sha256 or dataset.md5)
    assert re.fullmatch("[0-9a-f]{64}", dataset.sha256 or "0" * 64)
    assert re.fullmatch("[0-9a-f]{32}", dataset.md5 or "0" * 32)
    assert dataset.licence


def test_the_page_names_every_data_set():
    page = Path(__file__).resolve().parents[2] / "docs" / "data.md"
    text = page.read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in datasets())
