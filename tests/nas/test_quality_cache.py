from __future__ import annotations

import json

import pytest
from search_commands import words

from mfagan.architecture import parse
from nas.cli import main
from nas.quality import Quality
from nas.quality_cache import QualityCache

SMALLEST = parse("mfa_x4_w8_c2_s0")
CONTEXT = {"weights": "a", "data": "b"}


def test_what_one_puts_another_gets(tmp_path):
    path = tmp_path / "folder" / "cache.jsonl"
    one, other = (QualityCache(path, CONTEXT) for _ in range(2))
    assert not path.exists()
    one.put("x", {"psnr_y_crop4": 0.1 + 0.2})
    assert other.get("x") == {"psnr_y_crop4": 0.1 + 0.2}  # bit by bit
    other.put("x", {"ssim_y_crop4": 0.5})
    other.put("y", {"psnr_y_crop4": 3})
    again = QualityCache(path, CONTEXT)
    assert again.get("x") == {"psnr_y_crop4": 0.1 + 0.2, "ssim_y_crop4": 0.5}
    assert one.get("y") == {"psnr_y_crop4": 3}
    assert again.get("z") == {}


@pytest.mark.parametrize("changed", [{"weights": "c"}, {"data": "c"}])
def test_other_weights_or_data_are_another_candidate(tmp_path, changed):
    path = tmp_path / "cache.jsonl"
    QualityCache(path, CONTEXT).put("x", {"psnr_y_crop4": 1})
    assert QualityCache(path, CONTEXT | changed).get("x") == {}


def test_half_a_line_is_measured_again_and_costs_no_other(tmp_path):
    path = tmp_path / "cache.jsonl"
    cache = QualityCache(path, CONTEXT)
    for name in "xyz":
        cache.put(name, {"psnr_y_crop4": 1})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        cut = QualityCache(path, CONTEXT)
        lost = [name for name in "xyz" if not cut.get(name)]
        for name in lost:
            cut.put(name, {"psnr_y_crop4": 2})
        again = QualityCache(path, CONTEXT)
        values = [again.get(name)["psnr_y_crop4"] for name in "xyz"]
        assert values == [2 if name in lost else 1 for name in "xyz"]


def test_a_strange_file_is_refused(tmp_path):
    path = tmp_path / "cache.jsonl"
    path.write_text('{"device": "x"}\n')
    with pytest.raises(ValueError, match="is no cache of measured candidates; give another"):
        QualityCache(path, CONTEXT)
    with pytest.raises(ValueError, match="is not a file"):
        QualityCache(tmp_path, CONTEXT)


def test_a_candidate_is_measured_once_for_all_searches(make_objective, tmp_path):
    first, second, other = (make_objective(budget_ms=ms) for ms in (100.0, 50.0, 20.0))
    for objective in (first, second):
        objective.cache = QualityCache(tmp_path / "cache.jsonl", CONTEXT)
    assert first.score(SMALLEST).quality == second.score(SMALLEST).quality
    assert (first.evaluations, second.evaluations) == (1, 0)
    # A cache knows of other studies' candidates; this study has not had it yet.
    assert not make_objective().knows(SMALLEST)
    other.quality = Quality.parse("psnr_y=1,ssim_y=1")
    other.judge = None
    other.evaluate = lambda _: {"psnr_y_crop4": 1.0, "ssim_y_crop4": 2.0}
    other.cache = QualityCache(tmp_path / "cache.jsonl", CONTEXT)
    assert other.score(SMALLEST).quality == 3.0  # a measure was missing
    assert other.evaluations == 1


def test_two_searches_share_a_file_and_photographs_are_decoded_once(
    supernet_file, photos, tmp_path, monkeypatch
):
    import mfagan.photo_folders
    from nas.evaluating import SharedWeights

    measured: list[str] = []
    decoded: list[str] = []
    measure, read = SharedWeights.__call__, mfagan.photo_folders.read_picture
    monkeypatch.setattr(
        SharedWeights, "__call__", lambda self, a: measured.append(str(a)) or measure(self, a)
    )
    monkeypatch.setattr(
        mfagan.photo_folders, "read_picture", lambda path: decoded.append(path) or read(path)
    )
    cache = tmp_path / "cache.jsonl"
    assert main(words(supernet_file, photos, tmp_path / "a", cache=cache, trials=12)) == 0
    first = list(measured)
    assert len(first) == len(set(first)) > 2
    assert len(decoded) == 1  # one validation photograph, many candidates
    flags = words(supernet_file, photos, tmp_path / "b", cache=cache, trials=12)
    assert main([*flags, "--budget-memory-mib", "100"]) == 0
    assert len(set(measured)) == len(measured)
    trials = [
        {t["architecture"]: t["psnr_y_crop4"] for t in json.loads(file.read_text())["trials"]}
        for file in (tmp_path / "a" / "search.json", tmp_path / "b" / "search.json")
    ]
    assert trials[0] == trials[1]
    assert not (tmp_path / "b" / "qualities.jsonl").exists()
