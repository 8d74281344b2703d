# `make demo` and `make test` need Python 3.11 or later, make and a package registry; nothing else.
PYTHON ?= python3
VENV ?= .venv
OUT ?= runs/demo
MARKERS ?= not slow and not debian
BIN := $(VENV)/bin
READY := $(VENV)/ready
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export ORT_DISABLE_TELEMETRY := 1

APK ?= runs/apk/mfagan.apk

.PHONY: demo test lint format apk clean

demo: $(READY)
	$(BIN)/python -m nas.demo --out $(OUT)

# A process per core, each with one thread: more threads than cores wait for each other.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile -m "$(MARKERS)"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The Android app from Debian's packages; AAR=onnxruntime-android.aar packs the real runtime.
apk: $(READY)
	mkdir -p $(dir $(APK))
	$(BIN)/python android_demo/build_apk.py --out $(APK) $(foreach aar,$(AAR),--aar $(aar)) \
	  $(foreach model,$(MODEL),--model $(model))

clean:
	rm -rf $(VENV) build dist *.egg-info

# torch first and by its exact version, so that nothing else chooses another build of it. OpenCV's
# ordinary wheel needs libGL and libxcb; where they are missing the headless one takes its place.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install -q -e '.[dev]'
	$(BIN)/python -c 'import cv2' 2>/dev/null || { \
	  $(BIN)/python -m pip uninstall -q -y opencv-python && \
	  $(BIN)/python -m pip install -q --force-reinstall --no-deps opencv-python-headless; }
	$(BIN)/python -c 'import cv2'
	touch $@
