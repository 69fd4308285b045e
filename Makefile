# Everything a clean machine needs is Python 3.11 or newer, pip and make; `make help` lists the rest.
# PYTHON=/path/to/python names the interpreter that the environments are made with.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench faults fuzz up migrate lock clean

VENV := .venv
LABEL_STUDIO_VENV := .venv-label-studio
LABEL_STUDIO_VERSION := 1.23.2
ADAPTER_VENV := .venv-adapter
LABEL_STUDIO_ML_VERSION := 1.0.9
BIN := $(VENV)/bin
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && exit; done; echo python3)
# What must not be missing in the tests: it is installed here; .ci/run adds the servers that answer.
WARDROUND_REQUIRE_SERVICES ?= label-studio,label-studio-ml
export WARDROUND_REQUIRE_SERVICES

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.stamp $(LABEL_STUDIO_VENV)/.stamp  ## install what everything else needs

demo: setup  ## see the whole loop work: ONCE=1 ends after it, DATA=folder takes your own labelled images
	@exec $(BIN)/python -m demo $(if $(filter-out 0,$(ONCE)),--once) $(if $(DATA),--data "$(DATA)") $(ARGS)

test: setup $(ADAPTER_VENV)/.stamp  ## run every test: ARGS="-k name" for some
	@$(BIN)/python -m tools.ensure_browser
	$(BIN)/python -m pytest -q $(ARGS)

lint: $(VENV)/.stamp  ## style, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# These need labelled folders, or hours: run by hand.
BY_HAND := $(addprefix benchmarks/,empty_images.py faults.py grid.py label_errors.py)

bench: $(VENV)/.stamp  ## measure what the README claims
	@set -e; for script in $(filter-out $(BY_HAND),$(wildcard benchmarks/[a-z]*.py)); do \
		echo "== $$script"; PYTHONPATH=. $(BIN)/python "$$script"; done

faults: $(VENV)/.stamp  ## kill, restart and lose everything, 50 times over, and count what was lost
	PYTHONPATH=. $(BIN)/python benchmarks/faults.py

fuzz: $(VENV)/.stamp  ## send the API more than 10,000 requests of every kind
	WARDROUND_FUZZ_EXAMPLES=1500 $(BIN)/python -m pytest -q -s tests/fuzz

up:  ## run it for real with Docker Compose: settings in .env
	@docker compose version >/dev/null 2>&1 || { echo "make up needs Docker with the compose plugin" >&2; exit 1; }
	@test -f .env || { echo "make up needs .env: copy .env.example and fill it in" >&2; exit 1; }
	docker compose up --detach --build --wait

migrate: $(VENV)/.stamp  ## bring the database to the present schema
	$(BIN)/wardround migrate

lock: $(VENV)/.stamp  ## write the lock files anew
	$(BIN)/python -m uv pip compile -q --universal --python-version 3.11 --extra test --extra lint \
		--generate-hashes --no-annotate --no-header pyproject.toml -o requirements.lock
	echo 'label-studio==$(LABEL_STUDIO_VERSION)' | $(BIN)/python -m uv pip compile -q --universal --python-version 3.11 \
		--generate-hashes --no-annotate --no-header - -o label-studio.lock
	printf 'label-studio-ml==%s\nredis\nrq\n' '$(LABEL_STUDIO_ML_VERSION)' | $(BIN)/python -m uv pip compile -q \
		--universal --python-version 3.11 --generate-hashes --no-annotate --no-header - -o adapter.lock

clean:  ## take away the demo's state and what tools left behind; environments stay
	rm -rf .demo artifacts build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

$(VENV)/.stamp: requirements.lock pyproject.toml tools/environment.py
	@$(PYTHON) tools/environment.py $(VENV) requirements.lock --editable .
	@touch $@

$(LABEL_STUDIO_VENV)/.stamp: label-studio.lock tools/environment.py
	@$(PYTHON) tools/environment.py $(LABEL_STUDIO_VENV) label-studio.lock
	@touch $@

# label-studio-ml imports redis and rq without asking for them.
$(ADAPTER_VENV)/.stamp: adapter.lock tools/environment.py
	@$(PYTHON) tools/environment.py $(ADAPTER_VENV) adapter.lock
	@touch $@
