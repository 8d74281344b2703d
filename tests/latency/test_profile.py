"""Device profiles: those shipped, round trips, bad files."""

import json
import math

import pytest

from latency.predict import predict
from latency.profile import Profile, load_profile, shipped_profiles
from latency.target import PROFILE_FOLDER, Target
from mfagan.architecture import op_list, parse

GPU = PROFILE_FOLDER / "snapdragon-865-gpu-tflite-fp16.json"


@pytest.mark.parametrize("profile", shipped_profiles(), ids=lambda profile: str(profile.target))
def test_shipped_profiles_say_where_they_come_from(profile, tmp_path):
    assert profile.sources
    assert all(source.licence for source in profile.sources)
    assert profile.fit_error_percent > 0
    if "Not judged" not in profile.notes:  # else the fit has networks that were not left out
        assert profile.left_out_error_percent >= profile.fit_error_percent
    assert profile.macs_error_percent >= profile.left_out_error_percent
    low, high = profile.left_out_range_percent
    assert low <= profile.left_out_error_percent <= high
    assert profile.left_out_worst_percent >= profile.left_out_error_percent
    profile.save(tmp_path / "again.json")
    assert load_profile(tmp_path / "again.json") == profile
    assert load_profile(profile.target) == load_profile(str(profile.target)) == profile


def test_short_targets_take_the_profiles_runtime_and_precision():
    assert str(load_profile("snapdragon-865/gpu").target) == "snapdragon-865/gpu@tflite:fp16"
    assert str(load_profile("snapdragon-865/cpu").target) == "snapdragon-865/cpu@onnxruntime:int8"
    assert load_profile(Target(soc="snapdragon-865", unit="cpu")).runtime == "onnxruntime"
    assert (
        str(load_profile("snapdragon-8-gen-2/npu").target) == "snapdragon-8-gen-2/npu@qnn-dlc:fp16"
    )
    int8 = load_profile("snapdragon-8-elite/npu:int8")
    assert str(int8.target) == "snapdragon-8-elite/npu@qnn-dlc:int8"


def test_unknown_targets_list_what_there_is():
    with pytest.raises(
        ValueError, match=r"did you mean 'snapdragon-865/gpu'\?; available are .*cpu"
    ):
        load_profile("snapdragon-866/gpu")
    with pytest.raises(ValueError, match="no profile is shipped for 'snapdragon-865/gpu:fp32'"):
        load_profile("snapdragon-865/gpu:fp32")


def _with(**changes: object) -> str:
    fields = json.loads(GPU.read_text())
    fields.update(changes)
    return json.dumps({key: value for key, value in fields.items() if value is not ...})


OPS = {
    "floor_ms": 0.0,
    "block": 4,
    "length": [1.0] * 7,
    "base": {"conv": [0.0] * 3, "other": [0.0] * 3},
    "points": {},
}
NESTED: list[object] = []
for _ in range(400):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "it is not JSON"),
        ("", "it is not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "missing key 'schema'"),
        (_with(schema=3), "schema 3, this version reads 2; update"),
        (_with(schema=1), "schema 1, this version reads 2"),
        (_with(schema=True), "schema True"),
        (_with(devise="x"), "unknown key 'devise'; did you mean 'device'"),
        (_with(date=...), "missing key 'date'"),
        (_with(date="yesterday"), "isoformat"),
        (_with(measurements="26"), "'measurements' must be int, got '26'"),
        (_with(measurements=True), "'measurements' must be int, got 'True'"),
        (_with(measurements=0), "must not be empty"),
        (_with(sizes=[[128]]), "key 'sizes'"),
        (_with(sizes=[[0, 128]]), "sizes must be pairs of positive"),
        (_with(gmacs=[3.0, 1.0]), "gmacs must be the least and the largest"),
        (_with(law="cubic"), "law must be one of macs"),
        (_with(coefficients={"floor_ms": 1.0}), "the law 'roofline' needs 'gb_per_s'"),
        (
            _with(coefficients={"floor_ms": 1.0, "gmac_per_s": 0, "gb_per_s": 1.0}),
            "gmac_per_s must be positive",
        ),
        (
            _with(coefficients={"floor_ms": 1.0, "gmac_per_s": float("nan"), "gb_per_s": 1.0}),
            "gmac_per_s must be positive",
        ),
        (_with(sizes=[[10**400, 128]]), "sizes must be pairs of positive numbers, at most 16384"),
        (_with(gmacs=[1e-320, 1]), "gmacs must be the least and the largest"),
        (
            _with(coefficients={"floor_ms": 1.0, "gmac_per_s": 1e-320, "gb_per_s": 1.0}),
            "gmac_per_s must be positive and finite, 1e-09 to 1e+12",
        ),
        (_with(schema=99), "it has schema 99, this version reads 2; update the toolkit"),
        (_with(device="\x1b[31m", unit="tpu\n"), "unit must be"),
        ('{"schema": 1, "soc": ' + "9" * 5000 + "}", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        (_with(ops=NESTED), "'ops' must be"),
        (" " * 2**22 + "{}", "more than 2097152 bytes"),
        ("\N{LATIN SMALL LETTER E WITH ACUTE}", "is not JSON"),
        (_with(ops=["conv", "warp"]), "unknown kinds: warp"),
        (_with(interval=0), "interval must be above 0"),
        (_with(unit="tpu"), "unit must be"),
        (_with(left_out="all"), "left_out must be network, family, nothing"),
        (_with(channels=[4, 2]), "channels must be the fewest and the most"),
        (_with(gb_per_s=0), "gb_per_s must be positive"),
        (_with(law="typed", coefficients={"gmacs": 1.0}), "has no coefficient 'gmacs'"),
        (_with(law="macs", coefficients={}), "needs coefficients"),
        (_with(law="ops", coefficients={"floor_ms": 1.0}), "the law 'ops' needs 'base'"),
        (_with(law="ops", coefficients=OPS | {"block": 0}), "block must be a whole number"),
        (_with(law="ops", coefficients=OPS | {"length": [1.0]}), "length must be 7 numbers"),
        (_with(law="ops", coefficients=OPS | {"base": {}}), "base with 'conv' and 'other'"),
        (_with(law="ops", coefficients=OPS | {"points": {"conv": {}}}), "'mean' and 'points'"),
        (_with(law="ops", coefficients=OPS | {"floor_ms": -1}), "floor_ms must be a number"),
        (_with(precision=None), "'precision' must be str"),
        (_with(sources=[{"name": "x"}]), "missing key 'licence'"),
    ],
)
def test_bad_files_get_one_sentence(tmp_path, text, message):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"bad\.json") as caught:
        load_profile(path)
    assert message in str(caught.value)
    assert str(caught.value).isprintable()


def test_the_widest_profile_still_predicts_a_finite_figure(tmp_path):
    """Whatever a profile may say, nothing overflows."""
    extremes = {"floor_ms": 0.0, "gmac_per_s": 1e-9, "gb_per_s": 1e-9}
    path = tmp_path / "p.json"
    path.write_text(
        _with(coefficients=extremes, gmacs=[1e-9, 1e-9], sizes=[[1, 1]], interval=6.9, ops=["conv"])
    )
    found = predict(op_list(parse("mfa_x4_w256_c9_s2"), 16384, 16384), load_profile(path))
    assert 0 < found.low_ms < found.ms < found.high_ms < math.inf


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no profile"):
        load_profile(tmp_path / "none.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="it is not JSON"):
        load_profile(tmp_path / "binary.json")


def test_nothing_half_written(tmp_path, monkeypatch):
    profile = load_profile(GPU)
    path = tmp_path / "p.json"
    profile.save(path)
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        profile.save(path)
    assert load_profile(path) == profile
    assert [one.name for one in tmp_path.iterdir()] == ["p.json"]


def test_a_profile_cannot_be_made_wrong():
    with pytest.raises(ValueError, match="measurements"):
        Profile(**{**vars(load_profile(GPU)), "networks": ()})
