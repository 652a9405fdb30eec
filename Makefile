# SPDX-License-Identifier: Apache-2.0
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(VENV)/bin/pip --disable-pip-version-check
AGENTS := .cache/agents-venv

MODEL ?= smollm2
PORT ?= 9997
ARGS ?=

.PHONY: help setup setup-dev setup-agents check test serve clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
	@echo 'Variables: MODEL= (smollm2, a folder, a hub id)  PORT=  ARGS= (more options of scripts/serve.py)  PYTHON='

setup: $(VENV)/.serve ## virtual environment, packages, tritonserver
	@$(RUN) -m scripts.fetch_tritonserver

setup-dev: setup $(VENV)/.dev
	@$(RUN) -m scripts.fetch_tokenizers

check: $(VENV)/.dev ## lint, format and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy preprocessing frontend

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
	$(PIP) install --no-deps -r requirements/serve.txt
	@$(RUN) -m scripts.check_packages
	@touch $@

$(VENV)/.serve: pyproject.toml $(VENV)/.packages
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.serve
	$(PIP) install --no-deps -r requirements/dev.txt
	@touch $@

# The agents' packages contradict the server's, so they have an environment of their own.
$(AGENTS)/.installed: requirements/agents.txt
	$(PYTHON) -m venv --clear $(AGENTS)
	$(AGENTS)/bin/pip --disable-pip-version-check install --no-deps -r requirements/agents.txt
	@touch $@
