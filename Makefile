# Everything a developer runs. `make help` lists it.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
PYTEST := $(BIN)/python -m pytest
# Several processes, each with servers of its own and whole files, for most of the time is waiting. The slow tests measure
# more, and are disturbed by others more easily.
PARALLEL := -n 2 --dist loadfile
test: PARALLEL := -n 4 --dist loadfile
# Files in the order of their folders: those of tests/applications, which take minutes each, begin at once, and those of
# tests/unit, all quick, fill what the long ones leave.
IN_ORDER := --no-loadscope-reorder

# `$(call step,what is done,command)`: a dot every two seconds, for a slow network is silent, and the time at the end.
define step
@printf '%s ' '$(1)'; began=$$(date +%s); while sleep 2 >/dev/null && kill -0 $$$$ 2>/dev/null; do printf .; done & dots=$$!; \
{ $(2); }; code=$$?; kill $$dots 2>/dev/null; echo " $$(($$(date +%s) - began)) s"; exit $$code
endef
# True where $(VENV) is of the Python asked for; a Python that nobody named is not compared.
SAME_PYTHON = test '$(origin PYTHON)' = file || test "$$($(PYTHON) -V)" = "$$($(BIN)/python -V)"

.DEFAULT_GOAL := help
.PHONY: help install lock demo test test-unit test-slow test-evidence test-browser test-containers test-newest check coverage chaos bench bench-watching clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

install: $(VENV)/.installed ## Make the environment .venv (VENV=… another), and again when the lock changes: one to two minutes
	@$(SAME_PYTHON) || { echo "$(VENV) has $$($(BIN)/python -V), not that of $(PYTHON): give it another place with VENV=.venv-other, or make clean" >&2; exit 1; }

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Millpond needs Python 3.11 or later: make PYTHON=python3.12 install" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "$(PYTHON) has no venv module: on Debian, apt-get install python3-venv" >&2; exit 1; }
	$(call step,Making $(VENV):,test -x $(BIN)/python || $(PYTHON) -m venv $(VENV))
	$(call step,Getting uv:,test -x $(UV) || { command -v uv >/dev/null && ln -sf "$$(command -v uv)" $(UV); } || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv)
	$(call step,Getting and installing $(words $(shell grep -o '^[a-z0-9-]*==' requirements.lock)) packages of requirements.lock:,$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock)
	$(call step,Installing Millpond itself:,$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .)
	@touch $@

lock: ## Lock the newest versions that pyproject.toml allows
	$(UV) pip compile --quiet --universal --upgrade --all-extras --group dev --generate-hashes --no-emit-index-url \
		--no-header --no-annotate --python-version 3.11 pyproject.toml -o requirements.lock
	$(UV) pip compile --quiet --universal --all-extras --generate-hashes --no-emit-index-url --no-header --no-annotate \
		--python-version 3.11 --constraint requirements.lock pyproject.toml -o requirements-prod.lock

demo: install ## Run the main job on photographs, tables, PDFs and mail, one to two minutes; QUICK=1: a tenth, 20 s; PHOTOS=DIR: yours
	@echo 'The main job, on this machine alone; everything it makes stays in demo-out/ …'
	@$(BIN)/python -m examples.demo $(if $(QUICK),--quick) $(if $(PHOTOS),"$(PHOTOS)")

test: install ## Run units, real servers, real workers: four to eight minutes
	$(PYTEST) $(PARALLEL) $(IN_ORDER) $(AGAIN) -m "not slow and not browser and not containers"

test-unit: install ## Run the unit tests alone: one to two minutes
	$(PYTEST) $(PARALLEL) $(AGAIN) -m "not slow and not browser and not containers" tests/unit

test-slow: install ## Run the slow tests: long faults, large inputs; a quarter to half an hour
	$(PYTEST) $(PARALLEL) $(IN_ORDER) $(AGAIN) -m "slow and not evidence and not containers and not browser"

test-evidence: install ## Run the very long tests, for the record; CI does not
	$(PYTEST) -m "evidence and not containers"

test-browser: install ## Drive Flower in a real browser
	$(PYTEST) $(AGAIN) -m "browser and not slow"

test-containers: install ## Build the image and run it (starts a container engine where root may and none runs)
	MILLPOND_TEST_BASE=$${MILLPOND_TEST_BASE-$$(tests/scenarios/containers/engine)} $(PYTEST) $(AGAIN) -m containers

test-newest: install ## Hold what broker/celery assumes against the newest releases of Celery, kombu and billiard
	@test -x .venv-newest/bin/python || $(PYTHON) -m venv .venv-newest
	@printf '%s\n' celery kombu billiard > .venv-newest/newest.txt
	@$(UV) pip install --quiet --upgrade --python .venv-newest/bin/python --overrides .venv-newest/newest.txt --editable . pytest pytest-timeout pytest-xdist psutil hypothesis
	.venv-newest/bin/python -m pytest -q -p no:cacheprovider tests/unit/broker/test_celery_insides.py

check: install ## Lint, check types and the arrows between the folders
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

coverage: install ## Run `make test` and report branch coverage
	$(PYTEST) -m "not slow and not browser and not containers" --cov --cov-report=term-missing:skip-covered

chaos: install ## Kill everything at random under load and count what was lost
	$(BIN)/python -m tests.scenarios.chaos

bench: install ## Measure against stock Celery, interleaved, in one run
	$(BIN)/python -m tests.scenarios.bench

bench-watching: install ## Measure what Flower, metrics and tracing cost, interleaved, in one run
	$(BIN)/python -m tests.scenarios.bench.watching

clean: ## Remove the environment and what the tools left behind
	rm -rf $(VENV) .venv-newest .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage* htmlcov demo-out
