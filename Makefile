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
LOCK := pip compile pyproject.toml --universal --python-version 3.10 --no-python-downloads \
	--custom-compile-command 'make lock' --quiet
USED := train serve dicomweb openvino quantize signing parquet remote ray
LOCKED := $(addprefix --extra ,$(USED) docs dev)

.DEFAULT_GOAL := help
.PHONY: help setup system docs test lint kill audit-deps sbom wheel demo audit-demo model gate fuzz lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

setup: $(STAMP) ## Create VENV (.venv) and install hilum with all its extras, pinned

system: ## Install optional test tools on Debian, as root: Chromium, Orthanc, dicom3tools, dcmtk, HAProxy (tests without them skip)
	@if ! { command -v chromium && command -v Orthanc && command -v dciodvfy && command -v dcmcjpeg && command -v haproxy && \
		test -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so; } >/dev/null; \
	then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
		chromium orthanc orthanc-dicomweb dicom3tools dcmtk haproxy; fi

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

kill: setup ## Set up, then kill commands and disturb their disk: make kill SECONDS=3600 SEED=0 (findings: build/kill; status 1 if any)
	mkdir -p build
	$(BIN)/python benchmarks/kill.py --seconds $(or $(SECONDS),3600) --seed $(or $(SEED),0) --keep build/kill --json build/kill.json

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

# atheris has no wheel for some platforms; without it, the mutations are not guided by coverage.
fuzz: setup ## Set up, then mutate all that hilum reads: make fuzz SECONDS=3600 SEED=0 (findings: build/fuzz; status 1 if any)
	-$(UV) pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[fuzz]'
	$(BIN)/python tests/fuzz/fuzz.py run --seconds $(or $(SECONDS),3600) --seed $(or $(SEED),0)

audit-deps: setup ## Set up, then check the pinned dependencies for known vulnerabilities (needs a network)
	$(BIN)/python scripts/audit_dependencies.py constraints.txt

sbom: setup ## Set up, then write build/sbom.cdx.json, the pinned dependencies of all extras but docs and dev as CycloneDX
	mkdir -p build
	$(UV) $(LOCK) $(addprefix --extra ,$(USED)) --constraint constraints.txt --no-annotate --output-file build/requirements.txt
	$(BIN)/cyclonedx-py requirements build/requirements.txt --pyproject pyproject.toml --mc-type library \
		--output-reproducible --of JSON -o build/sbom.cdx.json

wheel: sbom ## Set up, then build the wheel, with its SBOM, into build/wheel
	rm -rf build/wheel build/lib build/bdist.*
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)} $(UV) build --python $(BIN)/python --wheel --build-constraint requirements-hashed.txt \
		--quiet --out-dir build/wheel
	$(BIN)/python scripts/embed_sbom.py build/wheel/*.whl build/sbom.cdx.json

# Two files, since pip takes no constraints with hashes where the project itself is a folder.
lock: | $(UV) ## Update constraints.txt to the newest versions allowed by pyproject.toml, and requirements-hashed.txt to it
	$(UV) $(LOCK) $(LOCKED) --upgrade --annotation-style line --output-file constraints.txt
	$(UV) $(LOCK) $(LOCKED) --constraint constraints.txt --generate-hashes --no-annotate \
		--output-file requirements-hashed.txt

clean: ## Delete caches and build output; VENV, runs/, demo/ and audit-demo/ are kept
	rm -rf build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache $(WEB)/node_modules
	find src tests scripts benchmarks -name __pycache__ -prune -exec rm -rf {} +

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo 'Python 3.10 or newer is required. Name one: make $(MAKECMDGOALS) PYTHON=python3.12' >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || \
		{ echo 'Python needs venv and ensurepip. On Debian: apt-get install python3-venv' >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

# All extras, each file by its SHA-256; the project itself has none, and needs no more.
# uv is fast, but ignores pip's mirrors and certificates; if it fails, pip is used.
# Compiled once here: where PYTHONDONTWRITEBYTECODE is set, each process that a test starts would compile torch again.
$(STAMP): pyproject.toml requirements-hashed.txt | $(UV)
	$(UV) pip install --python $(BIN)/python --compile-bytecode --require-hashes --requirement requirements-hashed.txt || \
		$(BIN)/python -m pip install --disable-pip-version-check --require-hashes --requirement requirements-hashed.txt
	$(UV) pip install --python $(BIN)/python --build-constraint requirements-hashed.txt --no-deps --editable . || \
		$(BIN)/python -m pip install --disable-pip-version-check --no-deps --editable .
	@touch $@

$(WEB_STAMP): $(WEB)/package-lock.json $(STAMP)
	$(NPM) ci --no-audit --no-fund --loglevel error
	@touch $@
