# pvstub: `make boot` shows a kernel coming up, `make test` runs every check. Either may come first.

PYTHON ?= python3
JOBS ?= auto
IMAGE ?= debian-cloud
BIN := .venv/bin
C_SOURCES := $(shell find stub -name "*.[chS]" -o -name "*.ld")

.PHONY: help boot test check setup bench clean
help:
	@echo 'make boot    boot an image and show its console (IMAGE=$(IMAGE))'
	@echo 'make test    lint, types and all suites (JOBS=$(JOBS))'
	@echo 'make setup   prepare .venv with the pvstub command in it'
	@echo 'make check   lint and types only'
	@echo 'make bench   measure against QEMU, side by side'
	@echo 'make clean   remove what was built'

boot: setup
	@$(BIN)/pvstub boot $(IMAGE)

# Images first: a suite that cannot get its guest must fail here, not skip.
test: setup check
	@.ci/prepare test $(PYTHON)
	@$(BIN)/pvstub images fetch debian-cloud debian-amd64 grub-xen64 grub-xen32 gnumach64 gnumach32
	@CPATH=$(CURDIR)/.venv/include $(BIN)/python -m pytest suites -n $(JOBS) --dist worksteal -q -rfEsx

check: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: setup
	@.ci/prepare bench $(PYTHON)
	@$(BIN)/python -m benchmarks

# Two stamps: what pip installs follows pyproject.toml, the C extensions follow their sources.
setup: .venv/core
	@:

.venv/installed: pyproject.toml setup.py
	@.ci/prepare build $(PYTHON)
	@echo 'pvstub: preparing .venv, about half a minute'
	@$(BIN)/python -c '' 2>/dev/null || { rm -rf .venv/bin .venv/lib .venv/lib64; $(PYTHON) -m venv .venv; }
	@$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' > .venv/build-requires
	@$(BIN)/python -m pip --disable-pip-version-check install -q -r .venv/build-requires
	@rm -rf pvstub.egg-info
	@$(BIN)/python -m pip --disable-pip-version-check install -q --no-build-isolation -e '.[dev]'
	@touch $@

.venv/core: .venv/installed $(C_SOURCES)
	@$(BIN)/python setup.py -q build_ext --inplace
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find stub -name "*.so" -delete
	rm -f stub/engine/qemu/shim.bin
	find stub harness images suites benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
