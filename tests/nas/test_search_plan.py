from mfagan.needs import Needs
from nas.dry_run import SearchPlan


def test_a_plan_shows_its_needs_and_warns_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr("mfagan.needs.device_left_bytes", lambda: 2 << 30)
    monkeypatch.setattr("mfagan.needs.free_bytes", lambda _: 1 << 40)
    needs = Needs(
        work="the search", out=tmp_path, memory_bytes=1 << 60, device_bytes=3 << 30, disk_bytes=5
    )
    plan = SearchPlan(
        settings={"trials": "3"},
        out=tmp_path,
        trials=2,
        shortest=1.0,
        longest=3.0,
        over_budget=0.5,
        finetune=None,
        needs=needs,
        note="rough",
    )
    assert plan.seconds == (1, 3)
    assert "GPU memory: 3 GiB at the peak; 2 GiB are available now\ndisk: 5 bytes" in str(plan)
    memory, device = plan.warnings()
    assert memory.startswith("the search needs about 1.074e+09 GiB of memory and ")
    assert device == "the search needs about 3 GiB of GPU memory and 2 GiB are there"
    estimate = plan.to_json()["estimate"]
    assert (estimate["memory_bytes"], estimate["device_bytes"]) == (1 << 60, 3 << 30)
    assert (estimate["disk_bytes"], estimate["disk_free_bytes"]) == (5, 1 << 40)
