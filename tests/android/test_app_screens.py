"""What no JVM can run of the app's screens, held to by their source and manifest."""

from __future__ import annotations

import re
import xml.etree.ElementTree as Xml

import pytest
from jvm import APP

NAMESPACE = "{http://schemas.android.com/apk/res/android}"


@pytest.fixture
def body():
    """Return a function that returns the text of a class's method or constructor."""

    def find(name, method, folder="main"):
        text = (APP / f"app/src/{folder}/java/io/github/mfagan/app/{name}.java").read_text()
        (found,) = re.findall(
            rf"^    (?!\s)[^\n;=]*\b{method}\([^;]*?\{{\n(.*?)^    \}}$", text, re.M | re.S
        )
        return found

    return find


def in_order(text, *parts):
    places = [text.index(part) for part in parts]
    return places == sorted(places)


def test_models_are_opened_by_a_button_alone(body):
    layout = Xml.parse(APP / "app/src/main/res/layout/main.xml")
    (button,) = [one for one in layout.iter("Button")
                 if one.get(f"{NAMESPACE}id") == "@+id/open_model"]  # fmt: skip
    assert button.get(f"{NAMESPACE}text") == "@string/open_model"
    assert "R.id.open_model" in body("MainActivity", "clicked")
    filled = body("MainActivity", "fillModels")
    assert "ask(" not in filled
    assert in_order(filled, "models.isEmpty()", "R.string.no_model", "setAdapter")
    text = (APP / "app/src/main/java/io/github/mfagan/app/MainActivity.java").read_text()
    assert len(re.findall(r"\bOPEN_MODEL\)", text)) == 2  # asked for, and answered


def test_a_shared_picture_is_taken_once(body):
    take = body("MainActivity", "take")
    assert in_order(take, "Intent.FLAG_ACTIVITY_LAUNCHED_FROM_HISTORY) != 0", "return;",
                    "setIntent(new Intent());", "work.open(")  # fmt: skip


def test_nothing_large_is_read_on_the_main_thread(body):
    assert "work.openModel(uri" in body("MainActivity", "onActivityResult")
    assert "start(" in body("Work", "openModel")
    assert "Models.open(" not in body("MainActivity", "onActivityResult")
    opened = body("StoredPicture", "StoredPicture")
    assert in_order(opened, "inJustDecodeBounds = true", "BitmapFactory.decodeFile(")
    assert opened.count("decodeFile(") == 1
    assert "BitmapRegionDecoder" not in opened
    assert in_order(body("StoredPicture", "read"), "begin();", "decodeRegion(")
    assert "catch (OutOfMemoryError error)" in body("CompareView", "read")


def test_a_measurement_is_not_begun_again_by_turning_the_phone(body):
    (activity,) = Xml.parse(APP / "app/src/debug/AndroidManifest.xml").iter("activity")
    assert set(activity.get(f"{NAMESPACE}configChanges").split("|")) == {
        "orientation", "screenSize", "screenLayout", "smallestScreenSize", "uiMode",
        "keyboardHidden"}  # fmt: skip
    created = body("BenchmarkActivity", "onCreate", "debug")
    assert in_order(created, "if (state == null)", "measure(getIntent())")


def test_work_is_there_before_other_apps_can_ask_for_the_result(body):
    assert "work = new Work(this)" in body("App", "attachBaseContext")


def test_every_copy_can_be_cancelled(body):
    assert "progress);" in body("Work", "save")
    for name, method in (("Work", "openNow"), ("Work", "openModel"), ("Work", "enlargeNow")):
        assert "progress)" in body(name, method)
    assert in_order(body("Work", "outcome"), "store.discard();", "task.run()", "finally")
