"""Device profiles: those shipped, round trips, bad files."""

import json

import pytest

from latency.profile import Profile, load_profile, shipped_profiles
from latency.target import PROFILE_FOLDER, Target

GPU = PROFILE_FOLDER / "snapdragon-865-gpu.json"


@pytest.mark.parametrize("profile", shipped_profiles(), ids=lambda profile: str(profile.target))
def test_shipped_profiles_say_where_they_come_from(profile, tmp_path):
    assert profile.sources
    assert all(source.licence for source in profile.sources)
    assert profile.left_out_error_percent >= profile.fit_error_percent > 0
    assert profile.left_out_worst_percent >= profile.left_out_error_percent
    profile.save(tmp_path / "again.json")
    assert load_profile(tmp_path / "again.json") == profile
    assert load_profile(profile.target) == load_profile(str(profile.target)) == profile


def test_short_targets_take_the_profiles_runtime_and_precision():
    assert str(load_profile("snapdragon-865/gpu").target) == "snapdragon-865/gpu@tflite:fp16"
    assert str(load_profile("snapdragon-865/cpu").target) == "snapdragon-865/cpu@onnxruntime:int8"
    assert load_profile(Target(soc="snapdragon-865", unit="cpu")).runtime == "onnxruntime"


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "it is not JSON"),
        ("", "it is not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "missing key 'schema'"),
        (_with(schema=2), "schema 2, this version reads 1; update"),
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
        (_with(law="cubic"), "law must be one of roofline"),
        (_with(coefficients={"floor_ms": 1.0}), "has the coefficients floor_ms, gmac_per_s"),
        (
            _with(coefficients={"floor_ms": 1.0, "gmac_per_s": 0, "gb_per_s": 1.0}),
            "gmac_per_s must be positive",
        ),
        (
            _with(coefficients={"floor_ms": 1.0, "gmac_per_s": float("nan"), "gb_per_s": 1.0}),
            "gmac_per_s must be positive",
        ),
        (_with(ops=["conv", "warp"]), "unknown kinds: warp"),
        (_with(interval=0), "interval must be above 0"),
        (_with(unit="tpu"), "unit must be"),
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
    assert "\n" not in str(caught.value)


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
