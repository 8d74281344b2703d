import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfagan.config import (
    DataConfig,
    TrainConfig,
    components,
    differences,
    read_toml,
    resolve,
    to_toml,
)
from mfagan.recipes import RECIPES


@given(st.text(), st.integers(1, 4096), st.floats(0, 1), st.lists(st.integers(1, 64), min_size=1))
def test_toml_round_trips(tmp_path_factory, text, batch, decay, widths):
    config = resolve(
        {"data": {"data": text, "batch": batch}},
        {"schedule": {"ema": decay}, "network": {"widths": widths}},
    )
    file = tmp_path_factory.mktemp("toml") / "config.toml"
    file.write_bytes(to_toml(config).encode("utf-8", "surrogatepass"))
    assert resolve(read_toml(file)) == config


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
        ({"data": {"batch": "2"}}, "batch must be of type int"),
        ({"data": {"batch": True}}, "batch must be of type int"),
        ({"data": {"batch": 0}}, "batch must be from 1 to 4096"),
        ({"data": {"scale": 5}}, "scale must be one of 2, 3, 4"),
        ({"data": 3}, r"\[data\] must be a table"),
        ({"network": {"widths": []}}, "widths must be a list"),
        ({"network": {"widths": ["a"]}}, "widths must be of type int"),
        ({"optimizer": {"generator_optimizer": "wsan"}}, "did you mean 'wsam'"),
        ({"optimizer": {"gamma": 1.0}}, "gamma must be from"),
        ({"schedule": {"pixel_steps": 10**400}}, "pixel_steps must be from 1 to"),
        ({"schedule": {"ema": float("nan")}}, "ema must be a finite number"),
        ({"schedule": {"pixel_lr": float("inf")}}, "pixel_lr must be a finite number"),
    ],
)
def test_mistakes_are_named(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        resolve(values)


def test_files_that_are_not_toml(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_toml(tmp_path / "missing.toml")
    for name, data in (("a.toml", b"= 3"), ("b.toml", b"\xff\xfe")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match="is not TOML"):
            read_toml(tmp_path / name)


def test_differences_name_both_values():
    ours = dataclasses.replace(TrainConfig(), data=DataConfig(batch=4))
    assert differences(ours, TrainConfig()) == ["data.batch: 16 -> 4"]
    assert differences(ours, ours) == []


def test_flags_would_not_collide():
    names = [f.name for c in components().values() for f in dataclasses.fields(c)]
    assert len(names) == len(set(names))
