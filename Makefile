# The commands of this repository. `make help` lists them; each is one line of what it does behind `##`.
# Variables: PYTHON (3.11 or newer, default python3), STACK / STACKS (stack names), WORKERS and ENGINE_WORKERS (pytest
# processes), CRASHES (of `make soak`).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
# Two for each core: the tests of the broker wait more than they work.
WORKERS ?= $(shell expr 2 \* $$(getconf _NPROCESSORS_ONLN))
# Each has an API server of its own.
ENGINE_WORKERS ?= $(shell getconf _NPROCESSORS_ONLN)
CRASHES ?= 200
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.locked
PACKAGES := $(wildcard config routing components certificates federation pki broker cli tools lab tests bench __main__.py)
# What needs the real engine, an API server, or root and network namespaces: `make lab-test` runs it.
NEEDS_CLUSTER := tests/engine tests/cli/engine tests/lab/packets
# Of these, what one lab serves: these tests share it, so they run in one process.
NEEDS_LAB := tests/lab/packets

# Names that our code does not use but others do by convention: pydantic, http.server, gRPC and pytest; attributes that
# are written for protobuf and the import system; and the classes of components/resources.py, found by their kind.
REFLECTED = model_config __init_subclass__ do_* log_message test_* null_value __path__ \
  pytest_* Test* teardown protocol_version request_queue_size daemon_threads new_resource RegisterResource* ReadResource Invoke SupportsFeature \
  total_tokens raw_headers settings_customise_sources revision down_revision upgrade downgrade impl cache_ok \
  process_result_value originating_identity should_exit close_connection debug \
  $(shell sed -n 's/^class \([A-Za-z]*\)(KubernetesObject.*).*/\1/p' components/resources.py)
comma := ,
space := $(subst x, ,x)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: venv
venv: $(STAMP) ## Make .venv with the locked dependencies (again only when the lock changes)

$(STAMP): requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: $(PYTHON) is $$($(PYTHON) --version 2>&1 || true); Meshbridge needs Python 3.11 or newer." >&2; \
	  echo "       Install it, then run: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON) cannot make virtual environments (ensurepip is missing)." >&2; \
	  echo "       On Debian or Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	@echo "Installing the locked dependencies into $(VENV) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

.PHONY: up
up: $(STAMP) ## Deploy the example stacks (or STACKS="a b") with the real engine and say what can reach what
	@$(BIN)/python -m cli up $(STACKS)

.PHONY: down
down: $(STAMP) ## Destroy what `make up` made, in reverse order
	@$(BIN)/python -m cli down $(STACKS)

.PHONY: preview
preview: $(STAMP) ## Show what `up` would change in STACK, as the pull request shows it
	@$(BIN)/python -m cli preview $(or $(STACK),$(error say which stack: make preview STACK=NAME (stacks/Pulumi.NAME.yaml)))

.PHONY: drift
drift: $(STAMP) ## Compare the stacks with what is really there; fails when something drifted
	@$(BIN)/python -m cli drift $(STACKS)

.PHONY: test
test: $(STAMP) ## Run all tests that need no cluster
	@$(BIN)/python -m pytest tests -n $(WORKERS) $(NEEDS_CLUSTER:%=--ignore=%)

.PHONY: check
check: $(STAMP) ## Lint, format, types, import contracts, dead code, schema freshness
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m tools.type_check --strict $(PACKAGES)
	$(BIN)/lint-imports
	$(BIN)/vulture $(PACKAGES) --min-confidence 60 --ignore-names '$(subst $(space),$(comma),$(REFLECTED))' \
	  --ignore-decorators '@pytest.*,@app.*,@invariant*,@rule*'
	$(BIN)/python -m config.schema --check

.PHONY: lab-test
lab-test: $(STAMP) ## Run the tests against a real engine, API server and lab (needs root; builds and installs what is missing)
	@$(BIN)/python -m lab packages
	@$(BIN)/python -m tools ensure all >/dev/null
	@$(MAKE) --jobs=2 test-engine test-packets

# Side by side, one works while the other waits. Of the packets rates and times are measured, so they come first.
.PHONY: test-engine
test-engine: $(STAMP) ## Of lab-test, what needs the engine and an API server
	@nice -n 5 $(BIN)/python -m pytest $(wildcard $(filter-out $(NEEDS_LAB),$(NEEDS_CLUSTER))) -v -n $(ENGINE_WORKERS) --dist worksteal --durations=20

.PHONY: test-packets
test-packets: $(STAMP) ## Of lab-test, what needs the lab
	@$(BIN)/python -m pytest $(NEEDS_LAB) -v --durations=20

.PHONY: lab
lab: $(STAMP) ## Start two clusters, apply stacks to them and send a query through (needs root, Linux)
	@$(BIN)/python -m lab up

.PHONY: lab-down
lab-down: $(STAMP) ## End what `make lab` started
	@$(BIN)/python -m lab down

.PHONY: lock
lock: $(STAMP) ## Write the lock files from requirements*.in (UPGRADE=1 takes newer versions)
	@for name in requirements requirements-dev; do \
	  $(BIN)/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 --no-emit-index-url --no-header \
	    $(if $(UPGRADE),--upgrade) $$name.in -o $$name.txt; done

.PHONY: schema
schema: $(STAMP) ## Write the JSON Schema of the stack files
	@$(BIN)/python -m config.schema

.PHONY: bench
bench: $(STAMP) ## Measure imports, registration and `up`, and write the table
	@$(BIN)/python -m bench

.PHONY: soak
soak: $(STAMP) ## Kill parts of the brokers' chain CRASHES times (200), compare everything, and write the result
	@$(BIN)/python -m bench.soak --crashes $(CRASHES)

.PHONY: clean
clean: ## Remove rendered objects and caches (.state, which knows what is deployed, and .venv stay)
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
