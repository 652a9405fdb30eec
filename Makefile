# SPDX-License-Identifier: Apache-2.0
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(VENV)/bin/pip --disable-pip-version-check
AGENTS := .cache/agents-venv
AUDIT := .cache/audit-venv

MODEL ?= smollm2
PORT ?= 9997
ARGS ?=
# HASHES=1 installs only files whose hashes are in requirements/*.hashes. Not the default: an index of one's own may
# hold other builds of the same versions (torch for CPUs alone is the common one), which it refuses.
HASHES ?=
wanted = $(if $(HASHES),--require-hashes -r requirements/$(1).hashes,-r requirements/$(1).txt)

.PHONY: help setup setup-dev setup-agents check audit hashes test serve clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
	@echo 'Variables: MODEL= (smollm2, a folder, a hub id)  PORT=  ARGS= (more options of scripts/serve.py)  PYTHON='

setup: $(VENV)/.serve ## virtual environment, packages, tritonserver
	@$(RUN) -m scripts.fetch_tritonserver

setup-dev: setup $(VENV)/.dev
	@$(RUN) -m scripts.fetch_tokenizers

check: $(VENV)/.dev ## lint, format, types and bandit
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy preprocessing frontend
	@# bandit also warns of each `nosec` whose line has parts that needed none.
	$(RUN) -m bandit --quiet --recursive frontend preprocessing model_repository scripts \
		2> >(grep -v 'nosec encountered' >&2)
	@# A report, no verdict: it asks PyPI, and what that says of an unchanged tree changes from day to day.
	@$(MAKE) --no-print-directory --silent audit || echo 'check: no clean bill from pip-audit, for the reason above'

# --strict, as an index that knows nothing of a package must not pass for a clean bill.
audit: $(AUDIT)/.installed ## known vulnerabilities of the pinned packages (needs PyPI)
	for list in serve dev agents; do \
		$(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r requirements/$$list.txt || exit; \
	done

hashes: $(AUDIT)/.installed ## write requirements/*.hashes anew after a pin has changed (needs PyPI)
	for list in serve dev agents audit; do \
		{ head -n 2 requirements/$$list.hashes && $(AUDIT)/bin/uv pip compile --quiet --no-config --no-deps \
			--generate-hashes --no-annotate --no-header --python-version 3.11 requirements/$$list.txt; \
		} > $(AUDIT)/hashes && mv $(AUDIT)/hashes requirements/$$list.hashes || exit; \
	done

setup-agents: $(AGENTS)/.installed

test: setup-dev setup-agents ## unit tests, then integration tests on a real tritonserver
	$(RUN) -m pytest tests/unit
	$(RUN) -m pytest tests/integration

serve: setup ## serve MODEL at http://127.0.0.1:PORT/v1
	@$(RUN) -m scripts.serve --model $(MODEL) --port $(PORT) $(ARGS)

bench: setup ## load this stack and `vllm serve` in alternating rounds, print ratios (ARGS="--streams 1 8 16")
	$(RUN) -m scripts.bench $(ARGS)

clean: ## remove the virtual environment, downloads, prepared models and caches
	rm -rf $(VENV) .cache build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(RUN):
	@$(PYTHON) scripts/interpreter.py
	$(PYTHON) -m venv $(VENV)

# Stamps: pip runs again only when a requirements file or the package's own metadata changed.
$(VENV)/.packages: requirements/serve.txt | $(RUN)
	$(PIP) install --no-deps $(call wanted,serve)
	@$(RUN) -m scripts.check_packages
	@touch $@

$(VENV)/.serve: pyproject.toml $(VENV)/.packages
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.serve
	$(PIP) install --no-deps $(call wanted,dev)
	@touch $@

# The agents' packages contradict the server's, so they have an environment of their own.
$(AGENTS)/.installed: requirements/agents.txt
	$(PYTHON) -m venv --clear $(AGENTS)
	$(AGENTS)/bin/pip --disable-pip-version-check install --no-deps $(call wanted,agents)
	@touch $@

$(AUDIT)/.installed: requirements/audit.txt
	$(PYTHON) -m venv --clear $(AUDIT)
	$(AUDIT)/bin/pip --disable-pip-version-check install --quiet --no-deps $(call wanted,audit)
	@touch $@
