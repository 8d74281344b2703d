import gzip
import io
import random
import shutil
import stat
import tarfile
import zipfile

import pytest
from failing_disk import contents, largest_file

from latency.commandline import FailureError
from mfagan import unpack
from mfagan.unpack import ArchiveError, unpack_images


def make_zip(path, entries, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in entries:
            file.writestr(name, data)
    return path


def make_tar(path, entries, mode="w"):
    with tarfile.open(path, mode) as file:
        for entry, data in entries:
            info = entry if isinstance(entry, tarfile.TarInfo) else tarfile.TarInfo(entry)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "to").mkdir()
    return tmp_path / "to"


ENTRIES = [
    ("set/", b""),
    ("set/HR/b.PNG", b"two"),
    ("set/HR/more/a.jpg", b"one"),
    ("set/HR/readme.txt", b"text"),
    ("set/HR/._b.png", b"mac"),
    ("__MACOSX/set/HR/b.png", b"mac"),
    ("set/HR/.hidden/c.png", b"hidden"),
]


@pytest.mark.parametrize("mode", ["zip", "w", "w:gz", "w:xz", "w:bz2"])
def test_images_and_nothing_else(tmp_path, folder, mode):
    archive = tmp_path / "archive"
    if mode == "zip":
        make_zip(archive, ENTRIES, zipfile.ZIP_DEFLATED)
    else:
        make_tar(archive, ENTRIES[1:], mode)
    assert unpack_images(archive, folder, silent=True) == [folder / "b.PNG", folder / "more/a.jpg"]
    assert contents(folder) == {"b.PNG": b"two", "more": None, "more/a.jpg": b"one"}


def test_only_what_lies_within(tmp_path, folder):
    entries = [("f/HR/a.png", b"a"), ("f/HR_LR/b.png", b"b"), ("f/LR/x2/c.png", b"c")]
    archive = make_tar(tmp_path / "a.tar", entries)
    unpack_images(archive, folder, within="f/HR", silent=True)
    assert contents(folder) == {"a.png": b"a"}
    with pytest.raises(ArchiveError, match="holds no image in 'f/SR'"):
        unpack_images(archive, folder, within="f/SR", silent=True)


@pytest.mark.parametrize(
    "name", ["../a.png", "x/../../a.png", "/tmp/a.png", "..\\a.png", "x\\..\\a.png", "../a.txt"]
)
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_paths_that_lead_out_are_refused(tmp_path, folder, make, name):
    archive = make(tmp_path / "archive", [("b.png", b"b"), (name, b"a")])
    with pytest.raises(ArchiveError, match="leads out of its folder"):
        unpack_images(archive, folder, silent=True)
    assert contents(folder) == {}
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_refused(tmp_path, folder, kind):
    info = tarfile.TarInfo("a.png")
    info.type, info.linkname = kind, "/etc/passwd"
    archive = make_tar(tmp_path / "a.tar", [("b.png", b"b"), (info, b"")])
    with pytest.raises(ArchiveError, match=r"'a.png' is a link or device"):
        unpack_images(archive, folder, silent=True)
    assert contents(folder) == {}


def test_a_zip_with_a_link_is_refused(tmp_path, folder):
    info = zipfile.ZipInfo("a.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive = make_zip(tmp_path / "a.zip", [(info, "/etc/passwd")])
    with pytest.raises(ArchiveError, match="link or device"):
        unpack_images(archive, folder, silent=True)


@pytest.mark.parametrize("second", ["x/a.png", "x/A.PNG"])
def test_one_name_twice_is_refused(tmp_path, folder, second):
    archive = make_tar(tmp_path / "a.tar", [("x/a.png", b"1"), (second, b"2")])
    with pytest.raises(ArchiveError, match=r"holds 'x/a.png' 2 times"):
        unpack_images(archive, folder, silent=True)


def test_no_images(tmp_path, folder):
    with pytest.raises(ArchiveError, match="holds no image"):
        unpack_images(make_zip(tmp_path / "a.zip", [("a.txt", b"a")]), folder)
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(ArchiveError, match=r"'.*text' cannot be unpacked: it is no zip or tar"):
        unpack_images(tmp_path / "text", folder)


def test_a_list_of_files_that_fills_the_memory_is_refused(tmp_path, folder, monkeypatch):
    long_name = tarfile.TarInfo("a.png")
    long_name.type, long_name.size = tarfile.XHDTYPE, 2**33  # so much memory for one name
    many = [tarfile.TarInfo(f"{k}.png").tobuf() for k in range(40)]
    for entries in (long_name.tobuf(tarfile.GNU_FORMAT), b"".join(many)):
        (tmp_path / "a.tar.gz").write_bytes(gzip.compress(entries + bytes(20_000)))
        monkeypatch.setattr(unpack, "MOST_LISTED", 1 << 14)
        with pytest.raises(ArchiveError, match=r"a.tar.gz' cannot be unpacked: its list of files"):
            unpack_images(tmp_path / "a.tar.gz", folder, silent=True)
        monkeypatch.undo()
    assert len(unpack_images(tmp_path / "a.tar.gz", folder, silent=True)) == 40


def test_more_than_the_disk_holds_is_refused_before_it_begins(tmp_path, folder, monkeypatch):
    data = bytes(10_000_000)
    archive = make_zip(tmp_path / "a.zip", [("a.png", data)], zipfile.ZIP_DEFLATED)
    assert archive.stat().st_size < 20_000
    usage = shutil.disk_usage("/")._replace(free=9_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(FailureError, match=r"take 9.5 MiB, but the disk of") as caught:
        unpack_images(archive, folder, silent=True)
    assert not isinstance(caught.value, ArchiveError)  # the archive is not to blame
    assert contents(folder) == {}


def test_a_full_disk_names_the_image(tmp_path, folder):
    archive = make_zip(tmp_path / "a.zip", [("a.png", bytes(3_000_000))])
    with largest_file(1_000_000), pytest.raises(OSError, match=r"a.png' cannot be written: "):
        unpack_images(archive, folder, silent=True)


def test_damaged_archives_are_one_sentence(tmp_path):
    """Every cut and change leaves the images as they were, or is refused."""
    rng = random.Random(0)
    noise = rng.randbytes(3000)
    entries = [("s/a.png", noise), ("s/b.png", noise[::-1])]
    originals = [
        make_zip(tmp_path / "a", entries, zipfile.ZIP_DEFLATED).read_bytes(),
        make_tar(tmp_path / "a", entries).read_bytes(),
        gzip.compress(make_tar(tmp_path / "a", entries).read_bytes()),
    ]
    refused = 0
    for number in range(300):
        data = bytearray(originals[number % 3])
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        else:
            for _ in range(rng.choice((1, 5))):
                data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / "a").write_bytes(data)
        folder = tmp_path / str(number)
        folder.mkdir()
        sentence = None
        try:
            unpack_images(tmp_path / "a", folder, silent=True)
        except (FailureError, OSError) as error:
            sentence = str(error)
        if sentence is not None:
            assert len(sentence.splitlines()) == 1
            refused += 1
    assert 100 < refused < 300
