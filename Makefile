# Every target sets up what it needs; `make setup` does it ahead. `sh .ci/bootstrap TARGET` also looks after system packages.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Asked for first and alone, by exact version: left to the resolver, the newest release is fetched, whose default build
# may carry gigabytes of GPU libraries. Any torch >= 2.6 works; install another into $(VENV) by hand for your GPU.
TORCH := torch==2.13.0

# Processes fill the cores (test workers, labels, walkers); threads inside each would fight over them.
export OMP_NUM_THREADS ?= 1

.PHONY: help setup fmt lint test test-all bench docs demo clean
.DELETE_ON_ERROR:

help:
	@echo "targets: setup fmt lint test test-all bench docs demo clean"

# What a campaign needs. GPAW is compiled (its C++ sources want g++ as linker) while the rest arrives; without MPI, which it
# would take wherever there is an mpic++, even one that lacks the headers. (GPAW_CONFIG says otherwise: docs/labels.md.)
$(VENV)/.stamp-demo: pyproject.toml
	@echo "setting up $(VENV) (one to three minutes)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade pip
	@rm -rf $(VENV)/wheels
	@printf 'mpi = False\nlibraries += ["blas"]\n' > $(VENV)/siteconfig.py
	@CC=g++ GPAW_CONFIG=$${GPAW_CONFIG:-$(CURDIR)/$(VENV)/siteconfig.py} $(PIP) wheel --no-deps --wheel-dir $(VENV)/wheels gpaw & compiler=$$!; \
	    $(PIP) install --no-compile $(TORCH) && $(PIP) install --no-compile -e '.[report]'; rest=$$?; \
	    wait $$compiler && exit $$rest
	@$(PIP) install --no-compile $(VENV)/wheels/gpaw-*.whl -e '.[gpaw,report]'
	@$(BIN)/python -c 'import _gpaw'
	@touch $@

# What developers and CI need besides.
$(VENV)/.stamp: $(VENV)/.stamp-demo
	@$(PIP) install --no-compile -e '.[gpaw,queue,report,dev]'
	@touch $@

setup: $(VENV)/.stamp

fmt: $(VENV)/.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lint: $(VENV)/.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(VENV)/.stamp
	@$(BIN)/pytest -n 2 --dist=worksteal

test-all: $(VENV)/.stamp
	@$(BIN)/pytest -n 2 --dist=worksteal -m "slow or not slow"

bench: $(VENV)/.stamp
	@for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

docs: $(VENV)/.stamp
	$(BIN)/python docs/write_config_reference.py

demo: $(VENV)/.stamp-demo
	@test -e demo/Si || $(BIN)/al-leignn init workflows/silicon/Si.cif --dir demo/Si
	@$(BIN)/al-leignn run demo/Si
	@$(BIN)/al-leignn report demo/Si --out demo/Si/report.html

clean:
	rm -rf $(VENV) .*_cache build dist
