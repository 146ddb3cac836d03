# A fresh machine needs python3 (3.10 or newer, with venv), make and a package registry; nothing else.

VENV ?= .venv
PYTHON ?= python3
UV_VERSION := 0.13.9

BIN := $(VENV)/bin
WEB := tests/web
NPM := cd $(WEB) && PATH="$(abspath $(BIN)):$$PATH" npm
UV := $(BIN)/uv
STAMP := $(VENV)/.hilum-setup
WEB_STAMP := $(WEB)/node_modules/.hilum-setup
SPELLED := src tests docs benchmarks scripts examples configs Makefile $(wildcard *.md)
PINNED := --constraint constraints.txt --editable '.[train,serve,dicomweb,parquet,docs,dev]'

.DEFAULT_GOAL := help
.PHONY: help setup system docs test lint demo audit-demo model gate lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

setup: $(STAMP) ## Create VENV (.venv) and install hilum with all its extras, pinned

system: ## Install optional test tools on Debian, as root: Chromium, Orthanc, dicom3tools, dcmtk (tests without them skip)
	@if ! { command -v chromium && command -v Orthanc && command -v dciodvfy && command -v dcmcjpeg && \
		test -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so; } >/dev/null; \
	then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
		chromium orthanc orthanc-dicomweb dicom3tools dcmtk; fi

docs: setup ## Set up, then build the documentation into build/docs; a warning is an error
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --doctree-dir build/doctrees docs build/docs
	@echo 'Wrote build/docs/index.html.'

test: lint ## Set up, lint and run all tests
	$(NPM) test --silent
	$(BIN)/python -m pytest

# mypy checks for Python 3.10 from any newer version; on 3.10 itself, NumPy is limited to 2.2, whose stubs are incomplete.
lint: setup $(WEB_STAMP) ## Set up, then ruff, codespell and mypy; for the web app tsc, eslint and prettier
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell $(SPELLED)
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))'; \
	then echo $(BIN)/mypy; $(BIN)/mypy; \
	else echo 'mypy: left to Python 3.11 and newer'; fi
	$(NPM) run --silent lint

demo: setup ## Set up, then generate phantoms, train, evaluate, export and predict
	$(BIN)/python scripts/demo.py

audit-demo: setup ## Set up, then generate phantoms with a shortcut, train, and audit dataset and model
	$(BIN)/python scripts/audit_demo.py

model: setup ## Set up, then train the packaged model: make model DATA=metadata.csv (hours on 2 cores; resumes)
	@test -n '$(DATA)' || { echo 'No dataset to train on: make model DATA=metadata.csv' >&2; exit 2; }
	if test -e runs/default-model/last.ckpt; then $(BIN)/hilum train --resume runs/default-model; \
	else $(BIN)/hilum train '$(DATA)' --config configs/default-model.toml --output runs/default-model; fi
	$(BIN)/hilum export runs/default-model --half-weights --output src/hilum/default_model --name 'hilum default'

gate: setup ## Set up, then train the packaged input check: make gate DATA=metadata.csv OTHERS=DIR (under an hour on 2 cores; resumes)
	@test -n '$(DATA)' -a -n '$(OTHERS)' || { echo 'No radiographs or negative examples: make gate DATA=metadata.csv OTHERS=DIR' >&2; exit 2; }
	$(BIN)/hilum train-gate '$(DATA)' --others benchmarks/gate_samples.csv --others-root '$(OTHERS)' --steps 5000 --output runs/gate

lock: | $(UV) ## Update constraints.txt to the newest versions allowed by pyproject.toml
	$(UV) pip compile pyproject.toml --all-extras --universal --python-version 3.10 --upgrade --no-python-downloads \
		--annotation-style line --custom-compile-command 'make lock' --quiet --output-file constraints.txt

clean: ## Delete caches and build output; VENV, runs/, demo/ and audit-demo/ are kept
	rm -rf build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache $(WEB)/node_modules
	find src tests scripts benchmarks -name __pycache__ -prune -exec rm -rf {} +

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo 'Python 3.10 or newer is required. Name one: make $(MAKECMDGOALS) PYTHON=python3.12' >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || \
		{ echo 'Python needs venv and ensurepip. On Debian: apt-get install python3-venv' >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

# uv is fast, but ignores pip's mirrors and certificates; if it fails, pip is used.
$(STAMP): pyproject.toml constraints.txt | $(UV)
	$(UV) pip install --python $(BIN)/python --build-constraint constraints.txt $(PINNED) || \
		$(BIN)/python -m pip install --disable-pip-version-check $(PINNED)
	@touch $@

$(WEB_STAMP): $(WEB)/package-lock.json $(STAMP)
	$(NPM) ci --no-audit --no-fund --loglevel error
	@touch $@
