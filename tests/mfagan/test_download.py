import errno
import hashlib
import json
import os
import re
import threading

import pytest
from failing_disk import contents, largest_file

import mfagan.connection
import mfagan.download
from latency.commandline import FailureError
from latency.files import only_process
from mfagan.download import download

DATA = os.urandom(700_001)
SHA256, MD5 = hashlib.sha256(DATA).hexdigest(), hashlib.md5(DATA).hexdigest()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "new" / "file.zip"


def refused(url, target, kind=FailureError, **options):
    """Return the sentence that a download fails with."""
    with pytest.raises(kind) as caught:
        download(url, target, silent=True, **options)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert not target.exists()
    return text


def leave_part(target, url, data, **notes):
    target.parent.mkdir(exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    partial.write_bytes(data)
    if notes:
        partial.with_name(partial.name + ".json").write_text(json.dumps({"url": url, **notes}))


def test_a_file_comes_whole_and_alone(server, target):
    url = server.put("/a.zip", DATA)
    assert download(url, target, sha256=SHA256.upper(), md5=MD5, size=len(DATA)) == target
    assert contents(target.parent) == {"file.zip": DATA}
    assert server.requests[0][1]["accept-encoding"] == "identity"


def test_what_is_there_is_not_downloaded_again(server, target):
    url = server.put("/a.zip", DATA)
    for _ in range(2):
        download(url, target, sha256=SHA256[:8], silent=True)
    assert len(server.requests) == 1
    target.write_bytes(DATA[:-1])
    for options in ({"sha256": SHA256}, {"size": len(DATA)}, {"md5": MD5}):
        with pytest.raises(ValueError, match=r"is there, but its? .* not .*; move it away"):
            download(url, target, **options)
    assert target.read_bytes() == DATA[:-1]
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "wrong", [{"sha256": "0" * 64}, {"sha256": "0" * 8}, {"md5": "0" * 32}, {"size": 5}]
)
def test_the_wrong_file_gets_no_name(server, target, wrong):
    url = server.put("/a.zip", DATA)
    text = refused(url, target, **wrong)
    (value,) = wrong.values()
    got = {"sha256": SHA256, "md5": MD5, "size": str(len(DATA))}[next(iter(wrong))]
    assert got in text
    assert f"not {value}" in text or f"not of {value}" in text
    assert contents(target.parent) == {}


def test_a_file_longer_than_its_length_said_is_given_up(server, target):
    url = server.put("/a.zip", DATA, announced=0)  # ends with the connection
    assert "more than the 1000 bytes" in refused(url, target, size=1000)
    assert contents(target.parent) == {}


def test_a_file_of_unknown_length(server, target, capsys):
    url = server.put("/a.zip", DATA, announced=0)
    assert download(url, target).read_bytes() == DATA
    assert "0/0" in capsys.readouterr().err


def test_a_cut_connection_is_made_again_and_goes_on(server, target):
    url = server.put("/a.zip", DATA, cut=[300_000, 200_000])
    assert download(url, target, silent=True).read_bytes() == DATA
    assert server.ranges == [None, "bytes=300000-", "bytes=500000-"]
    assert server.requests[1][1]["if-range"] == '"one"'


def test_it_gives_up_in_the_end_and_the_next_call_goes_on(server, target):
    url = server.put("/a.zip", DATA, cut=[100_000, 0])
    text = refused(url, target)
    assert "ended after 100000 of 700001 bytes; 100000 bytes are kept in " in text
    assert download(url, target, silent=True).read_bytes() == DATA
    assert server.ranges[-1] == "bytes=100000-"
    assert contents(target.parent) == {"file.zip": DATA}


def test_a_server_without_ranges_sends_all_again(server, target):
    url = server.put("/a.zip", DATA, ranges=False)
    leave_part(target, url, DATA[:1000], ETag='"one"')
    assert download(url, target, silent=True).read_bytes() == DATA
    assert server.ranges == ["bytes=1000-"]


@pytest.mark.parametrize(
    ("notes", "served"),
    [
        ({"ETag": '"old"'}, {}),
        ({"Last-Modified": "Thu"}, {"etag": "", "modified": "Fri"}),
        ({"ETag": 'W/"one"'}, {"etag": 'W/"one"'}),  # says nothing of single bytes
        ({}, {}),
    ],
)
def test_the_part_of_another_version_is_dropped(server, target, notes, served):
    url = server.put("/a.zip", DATA, **served)
    leave_part(target, url, b"x" * 1000, **notes)
    assert download(url, target, silent=True).read_bytes() == DATA


def test_a_server_that_ignores_if_range_is_noticed(server, target):
    url = server.put("/a.zip", DATA, etag='"new"', modified="Fri")
    server.files["/a.zip"].modified = "Thu"  # takes If-Range: Thu
    leave_part(target, url, b"x" * 1000, **{"Last-Modified": "Thu", "ETag": 'W/"old"'})
    assert download(url, target, silent=True).read_bytes() == DATA
    assert server.ranges == ["bytes=1000-", None]


def test_the_part_of_another_address_is_dropped_unless_a_checksum_tells(server, target):
    url = server.put("/mirror.zip", DATA)
    leave_part(target, "http://other/a.zip", DATA[:1000], ETag='"one"')
    assert download(url, target, silent=True).read_bytes() == DATA
    assert server.ranges == [None]
    target.unlink()
    leave_part(target, "http://other/a.zip", DATA[:1000], ETag='"one"')
    assert download(url, target, sha256=SHA256, silent=True).read_bytes() == DATA
    assert server.ranges[1:] == ["bytes=1000-"]
    assert "if-range" not in server.requests[1][1]


def test_a_part_that_does_not_fit_the_checksum_is_dropped(server, target):
    url = server.put("/a.zip", DATA)
    leave_part(target, url, b"x" * 1000, ETag='"one"')
    assert download(url, target, sha256=SHA256, silent=True).read_bytes() == DATA
    assert server.ranges == ["bytes=1000-", None]


def test_a_part_that_is_the_whole_needs_no_more(server, target):
    url = server.put("/a.zip", DATA)
    leave_part(target, url, DATA, ETag='"one"')
    assert download(url, target, sha256=SHA256, silent=True).read_bytes() == DATA  # by 416
    target.unlink()
    leave_part(target, url, DATA, ETag='"one"')
    assert download(url, target, sha256=SHA256, size=len(DATA), silent=True) == target
    assert len(server.requests) == 1


def test_a_part_longer_than_the_file_is_dropped(server, target):
    url = server.put("/a.zip", DATA)
    leave_part(target, url, DATA + b"x", ETag='"one"')
    assert download(url, target, silent=True).read_bytes() == DATA


def test_damaged_notes_are_no_notes(server, target):
    url = server.put("/a.zip", DATA)
    leave_part(target, url, b"x" * 1000, ETag='"one"')
    target.with_name("file.zip.partial.json").write_text('{"url"')
    assert download(url, target, silent=True).read_bytes() == DATA


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (404, "has no such file"),
        (403, "refuses access"),
        (416, "answers 416"),
        (503, "busy or out of order .* try again later"),
        (418, "answers 418"),
    ],
)
def test_an_answer_without_a_file(server, target, status, sentence):
    url = server.put("/a.zip", status=status)
    with pytest.raises(FailureError, match=sentence):
        download(url, target)
    assert contents(target.parent) == {}


def test_a_part_stays_while_the_server_is_busy(server, target):
    url = server.put("/a.zip", status=503)
    leave_part(target, url, DATA[:1000], ETag='"one"')
    assert "1000 bytes are kept" in refused(url, target)
    server.put("/a.zip", DATA)
    assert download(url, target, silent=True).read_bytes() == DATA
    assert server.ranges[-1] == "bytes=1000-"


@pytest.mark.parametrize(
    ("kind", "page"),
    [("text/html; charset=utf-8", b"hello"), ("application/zip", b"\n <!DOCTYPE html><html>")],
)
def test_a_web_page_is_no_file(server, target, kind, page):
    url = server.put("/a.zip", page, kind=kind)
    assert "a web page came instead" in refused(url, target)
    assert contents(target.parent) == {}
    page_file = target.with_name("page.html")
    assert download(url, page_file, silent=True).read_bytes() == page


def test_redirections(server, target):
    server.put("/b.zip", DATA)
    url = server.put("/a.zip", location="/b.zip")
    assert download(url, target, silent=True).read_bytes() == DATA
    other = target.with_name("other.zip")
    for place in ("file:///etc/passwd", "ftp://127.0.0.1/a.zip", "data:,x"):
        url = server.put("/a.zip", location=place)
        assert re.search("not allowed|less safe", refused(url, other))
    handler = mfagan.connection._Redirections()
    asked = mfagan.connection.urllib.request.Request("https://example.org/a")
    with pytest.raises(mfagan.connection.urllib.error.URLError, match="https:// on to 'http://"):
        handler.redirect_request(asked, None, 302, "", {}, "http://example.org/a")
    url = server.put("/loop", location="/loop")
    assert "could not be downloaded" in refused(url, other)


@pytest.mark.usefixtures("server")
def test_no_server(target):
    text = refused("http://127.0.0.1:1/a.zip", target)
    assert "'127.0.0.1', or the proxy before it, refuses the connection" in text
    assert "'no.invalid' is not found" in refused("http://no.invalid/a.zip", target)
    assert contents(target.parent) == {}


def test_a_silent_server_is_given_up(server, target, monkeypatch):
    monkeypatch.setattr(mfagan.connection, "TIMEOUT", 0.05)
    url = server.put("/a.zip", DATA, wait=threading.Event())
    assert "does not answer for 0.05 s" in refused(url, target)


def test_a_server_that_speaks_no_http(server, target):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def talk():
            connection, _ = listening.accept()
            connection.recv(1000)
            connection.sendall(b"220 ftp.example.org\r\n")
            connection.close()

        thread = threading.Thread(target=talk)
        thread.start()
        port = listening.getsockname()[1]
        assert "220 ftp.example.org" in refused(f"http://127.0.0.1:{port}/a", target)
        refusal = refused(f"https://127.0.0.1:{server.address.rpartition(':')[2]}/a", target)
        assert "the connection to '127.0.0.1' failed: " in refusal
        thread.join()


def test_the_environments_proxy_is_used(server, target, monkeypatch):
    server.put("http://example.org/a.zip", DATA)
    monkeypatch.setenv("http_proxy", server.address)
    assert download("http://example.org/a.zip", target, silent=True).read_bytes() == DATA
    assert server.requests[0][1]["host"] == "example.org"
    monkeypatch.setenv("no_proxy", "no.invalid")
    assert "not found" in refused("http://no.invalid/a.zip", target.with_name("b"))


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("file:///etc/passwd", "starts with https:// or http://"),
        ("ftp://example.org/a", "starts with https:// or http://"),
        ("example.org/a.zip", "starts with https:// or http://"),
        ("https:///a.zip", "starts with https:// or http://"),
        ("http://[::1/a.zip", "is not an address"),
        ("http://a:99999/a.zip", "is not an address"),
        ("http://a/b c.zip", "spaces"),
        ("http://a/ä.zip", "letters"),
        ("http://me:secret@a/b.zip", "name or password"),
        ("", "starts with"),
    ],
)
def test_addresses_that_are_none(target, url, sentence):
    text = refused(url, target, ValueError)
    assert sentence in text
    assert "secret" not in text
    assert not target.parent.exists()


@pytest.mark.parametrize(
    "options", [{"sha256": "1234567"}, {"sha256": "x" * 64}, {"md5": "0" * 31}, {"size": 0}]
)
def test_expectations_that_are_none(target, options):
    assert "got" in refused("http://a/b", target, ValueError, **options)


def test_a_folder_has_the_name(server, tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder; name the file"):
        download(server.put("/a", DATA), tmp_path)


def test_too_little_room_is_said_before_it_begins(server, target, monkeypatch):
    import shutil

    usage = shutil.disk_usage("/")._replace(free=300_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    text = refused(server.put("/a.zip", DATA), target)
    assert "0.7 MiB are missing, but the disk of" in text
    assert contents(target.parent) == {}


def test_a_disk_that_fills_up_keeps_what_it_holds(server, target):
    url = server.put("/a.zip", DATA)
    with largest_file(300_000), pytest.raises(OSError, match=r"cannot be written: .*") as caught:
        download(url, target, silent=True)
    assert "bytes are kept" in str(caught.value)
    assert caught.value.errno in (None, errno.EFBIG)
    assert not isinstance(caught.value, FileNotFoundError)
    kept = target.with_name("file.zip.partial").stat().st_size
    assert 0 < kept <= 300_000
    assert download(url, target, silent=True).read_bytes() == DATA
    assert server.ranges[-1] is not None


def test_an_interruption_says_how_to_go_on(server, target, monkeypatch):
    url = server.put("/a.zip", DATA)
    update = mfagan.download.Progress.update
    calls = []

    def interrupt(progress, *words, **options):
        calls.append(update(progress, *words, **options))
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(mfagan.download.Progress, "update", interrupt)
    with pytest.raises(KeyboardInterrupt, match=r"interrupted; \d+ bytes are kept in "):
        download(url, target, silent=True)
    monkeypatch.undo()
    assert not target.exists()
    assert download(url, target, silent=True).read_bytes() == DATA
    assert server.ranges[-1].startswith("bytes=")


def test_two_downloads_of_one_file_at_once(server, target):
    url = server.put("/a.zip", DATA)
    target.parent.mkdir()
    with only_process(target.with_name("file.zip.partial"), "held"):
        assert "another process downloads" in refused(url, target)
    assert download(url, target, silent=True) == target


def test_something_above_it_is_a_file(server, tmp_path):
    (tmp_path / "a").write_text("x")
    with pytest.raises(NotADirectoryError, match="is a file, not a folder"):
        download(server.put("/a.zip", DATA), tmp_path / "a" / "b")
