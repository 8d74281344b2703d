import dataclasses
import datetime
import os

import pytest

from mfagan.config import DataConfig, TrainConfig, components
from mfagan.config_file import FORMAT, LARGEST_FILE, read_toml
from mfagan.config_layers import differences, resolve
from mfagan.recipes import RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_resolve(name):
    assert isinstance(resolve(RECIPES[name]), TrainConfig)


def test_later_layers_win():
    config = resolve({"data": {"batch": 2, "patch": 16}}, {"data": {"batch": 3}})
    assert (config.data.batch, config.data.patch) == (3, 16)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"dat": {}}, r"unknown table \[dat\]; did you mean 'data'"),
        ({"data": {"bath": 1}}, r"unknown key 'bath' in \[data\]; did you mean 'batch'"),
        ({"datta": 3}, "unknown key 'datta' outside of every table; did you mean 'data' in"),
        ({"batch": 3}, r"unknown key 'batch' outside of every table; it belongs to \[data\]"),
        ({"loss": {"rho": 1}}, r"unknown key 'rho' in \[loss\]; it belongs to \[optimizer\]"),
        ({"loss": {"pixel_step": 1}}, r"did you mean 'pixel_steps' in \[schedule\]"),
        ({"data": {"pixel-steps": 1}}, r"did you mean 'pixel_steps' in \[schedule\]"),
        ({"data": {"x": {"y": 1}}}, r"unknown key 'x' in \[data\]"),
        ({"data": {"batch": "2"}}, "batch must be of type int"),
        ({"data": {"batch": 2.0}}, "batch must be of type int, got 2.0"),
        ({"data": {"batch": datetime.date(2026, 1, 2)}}, "batch must be of type int, got datetime"),
        ({"data": {"batch": {"a": 1}}}, "batch must be of type int, got {'a': 1}"),
        ({"data": {"data": 3}}, "data must be of type str, got 3"),
        ({"data": {"data": "a\0b"}}, "data must be UTF-8 text without NUL"),
        ({"data": {"data": "a\udcffb"}}, "data must be UTF-8 text without NUL"),
        ({"schedule": {"ema": True}}, "ema must be of type float, got True"),
        ({"network": {"widths": [True]}}, "widths must be of type int, got True"),
        ({"network": {"widths": 8}}, "widths must be a list of 1 to 32 int, got 8"),
        ({"network": {"widths": list(range(99))}}, "widths must be a list of 1 to 32 int"),
        ({"data": {"batch": 16**5000}}, "batch must be from 1 to 4096, got an int of thousands"),
        ({"data": {"batch": True}}, "batch must be of type int"),
        ({"data": {"batch": 0}}, "batch must be from 1 to 4096"),
        ({"data": {"scale": 5}}, "scale must be one of 2, 3, 4"),
        ({"data": 3}, r"\[data\] must be a table"),
        ({"network": {"widths": []}}, "widths must be a list"),
        ({"network": {"widths": ["a"]}}, "widths must be of type int"),
        ({"optimizer": {"generator_optimizer": "wsan"}}, "did you mean 'wsam'"),
        ({"optimizer": {"gamma": 1.0}}, "gamma must be from"),
        ({"schedule": {"pixel_steps": 10**400}}, "pixel_steps must be from 0 to"),
        ({"schedule": {"ema": float("nan")}}, "ema must be a finite number"),
        ({"schedule": {"pixel_lr": float("inf")}}, "pixel_lr must be a finite number"),
    ],
)
def test_mistakes_are_named(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        resolve(values)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"= 3", "is not TOML: Invalid statement"),
        (b"\xff\xfe", "is not TOML: it is not UTF-8 text"),
        ("[data]".encode("utf-16"), "is not TOML: it is not UTF-8 text"),
        (b"[data]\nbatch = 3\nbatch = 4", r"is not TOML: Cannot overwrite a value"),
        (b"[data]\n[data]", "is not TOML: Cannot declare"),
        (b"a = " + b"9" * 5000, "is not TOML: Exceeds the limit"),
        (b"a = " + b"[" * 100_000, "is nested too deeply"),
        (b"#" * (LARGEST_FILE + 1), "is larger than 1 MiB"),
        (b"format = 2", r"written by a newer mfagan \(format 2; this version reads up to 1"),
        (b"format = '1'", "its format is '1'"),
        (b"format = true", "its format is True"),
        (b"format = 0", "its format is 0"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_files_that_are_not_toml(tmp_path, data, sentence):
    (tmp_path / "a.toml").write_bytes(data)
    with pytest.raises(ValueError, match=sentence) as caught:
        read_toml(tmp_path / "a.toml")
    assert len(str(caught.value).splitlines()) == 1


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "run").mkdir()
    for name, sentence in (
        ("missing.toml", "does not exist"),
        ("pipe", "is not a regular file"),
        ("run", "is a folder, not a file$"),
    ):
        with pytest.raises(FileNotFoundError, match=sentence):
            read_toml(tmp_path / name)
    (tmp_path / "run" / "config.toml").touch()
    with pytest.raises(FileNotFoundError, match=r"a folder, not a file; give '.*run/config\.toml'"):
        read_toml(tmp_path / "run")


def test_a_byte_order_mark_and_a_known_format_are_read(tmp_path):
    file = tmp_path / "config.toml"
    text = f"format = {FORMAT}\r\n[data]\r\nbatch = 3\r\n"
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_toml(file) == {"data": {"batch": 3}}
    file.write_bytes(b"")
    assert resolve(read_toml(file)) == TrainConfig()


def test_differences_name_both_values():
    ours = dataclasses.replace(TrainConfig(), data=DataConfig(batch=4))
    assert differences(ours, TrainConfig()) == ["data.batch: 16 -> 4"]
    assert differences(ours, ours) == []


@pytest.mark.parametrize("kind", ["generator_optimizer", "pixel_optimizer"])
def test_asam_has_a_radius_of_its_own_in_every_stage(kind):
    optimizer = resolve({"optimizer": {kind: "asam", "rho": 0.3}}).optimizer
    assert (optimizer.rho, optimizer.asam_rho) == (0.3, 0.05)
    assert resolve({"optimizer": {kind: "asam"}}).optimizer.rho == TrainConfig().optimizer.rho


def test_flags_would_not_collide():
    names = [f.name for c in components().values() for f in dataclasses.fields(c)]
    assert len(names) == len(set(names))
