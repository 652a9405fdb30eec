# SPDX-License-Identifier: Apache-2.0
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
CHAT := $(VENV)/bin/triton-chat
PIP := $(VENV)/bin/pip --disable-pip-version-check
AGENTS := .cache/agents-venv
AUDIT := .cache/audit-venv
CONTAINERS := .cache/containers-venv
DOCS := .cache/docs-venv
EVALUATORS := .cache/evaluators-venv
NODE := .cache/node
RTX := .cache/rtx-venv
TRITON := .cache/triton-venv

# cpu or gpu: the build of vLLM in .venv. Empty: the build that is there, else the one for this machine; the tests' is cpu.
DEVICE ?=
MODEL ?= smollm2
PORT ?= 9997
ARGS ?=
UI ?=
# Of the integration tests. Each starts a server, so two need about 16 GB of memory: with less than 14 GB of it free, one.
MEMINFO ?= /proc/meminfo
PROCESSES ?= $(shell awk '/^MemAvailable:/ && $$2 < 14000000 {few = 1} END {print 2 - few}' $(wildcard $(MEMINFO)) </dev/null)
# HASHES=1 installs only files whose hashes are in requirements/*.hashes. Not the default, because a private index may
# have other builds of the same versions (often torch only for CPUs), which pip would refuse.
HASHES ?=
# Numbers the steps that the command prints, which follow those here.
export MAKE_SERVE_STEPS := steps
# Found when it is first needed, and once.
device = $(eval device := $(or $(if $(filter-out cpu gpu,$(DEVICE)),$(error DEVICE=$(DEVICE) is unknown; it can be cpu or gpu)),\
	$(DEVICE),$(patsubst $(VENV)/.%,%,$(firstword $(wildcard $(VENV)/.cpu $(VENV)/.gpu))),\
	$(if $(filter check test,$(MAKECMDGOALS)),cpu),$(shell $(PYTHON) scripts/setup/device.py),$(error stopped for the reason above)))$(device)
pinned = $(if $(filter gpu,$(device)),serve-gpu,serve)
wanted = $(if $(HASHES),--require-hashes -r requirements/$(1).hashes,-r requirements/$(1).txt)

.PHONY: help setup setup-dev setup-browser setup-agents setup-evaluators setup-node setup-rtx setup-triton setup-containers setup-tests check lint types security report-audit audit docs hashes test cpu-build test-gpu serve clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
	@echo 'Variables: MODEL= (smollm2, a folder, a hub id)  PORT=  DEVICE= (cpu, gpu; default: what the machine has)  UI=1 (the chat page as well)  ARGS= (more options, see `triton-chat serve --help`)  PYTHON='

setup: $(VENV)/.serve ## virtual environment, packages, tritonserver
	@$(RUN) -m scripts.setup.fetch_tritonserver

setup-dev: setup $(VENV)/.dev
	@$(RUN) -m scripts.setup.fetch_tokenizers

# A system package, because browsers are not on the Python index.
setup-browser:
	@$(PYTHON) scripts/setup/install_chromium.py

# `make --jobs=2 check` works on two of them at a time.
check: lint types security docs report-audit ## lint, format, types, bandit and the documentation's links

lint: $(VENV)/.dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: $(VENV)/.dev
	$(RUN) -m mypy chat_page common engines examples families frontend models postprocessing preprocessing python_backend scripts triton_chat.py vision
	@# One call for each, because mypy takes files of the same name for one module.
	@for model in *_repository/*/1/model.py; do echo "mypy $$model"; $(RUN) -m mypy $$model || exit; done

security: $(VENV)/.dev
	@# bandit also warns of `nosec` comments on lines that partly need none.
	$(RUN) -m bandit --quiet --recursive chat_page common embedding_repository engines examples families frontend model_repository models postprocessing preprocessing python_backend \
		scripts triton_chat.py vision \
		2> >(grep -v 'nosec encountered' >&2)

# Its result does not fail the check: it comes from PyPI and changes while the tree does not.
report-audit:
	@$(MAKE) --no-print-directory --silent audit || echo 'check: no clean bill from pip-audit, for the reason above'

# --strict: a package that the index does not know is an error.
audit: $(AUDIT)/.installed ## known vulnerabilities of the pinned packages (needs PyPI)
	for list in serve serve-gpu dev agents evaluators docs rtx triton containers; do \
		$(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r requirements/$$list.txt || exit; \
	done

hashes: $(AUDIT)/.installed ## write requirements/*.hashes again after a pin has changed (needs PyPI)
	for list in serve serve-gpu dev agents evaluators docs rtx triton audit containers frontend images; do \
		{ head -n 2 requirements/$$list.hashes && $(AUDIT)/bin/uv pip compile --quiet --no-config --no-deps \
			--generate-hashes --no-annotate --no-header --python-version 3.11 requirements/$$list.txt; \
		} > $(AUDIT)/hashes && mv $(AUDIT)/hashes requirements/$$list.hashes || exit; \
	done

docs: $(DOCS)/.installed ## the documentation as a site in .cache/site; a link to nothing is an error
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

setup-agents: $(AGENTS)/.installed

setup-evaluators: $(EVALUATORS)/.installed

setup-node: $(NODE)/.installed

setup-rtx: $(RTX)/.installed

setup-triton: $(TRITON)/.installed

# HAProxy is a system package, like the browser; promtool is taken out of one.
setup-containers: $(CONTAINERS)/.installed
	@# Helm's library is in its wheel three times, once for each name of a chain of links: 85 MB each.
	@rm -f $(CONTAINERS)/lib/python3.*/site-packages/helm_python/lib/libhelm_c.so.*
	@$(PYTHON) -m scripts.setup.install_haproxy
	@$(PYTHON) -m scripts.setup.fetch_promtool $(CONTAINERS)/bin

test: cpu-build setup-dev ## unit tests, then integration tests on a real tritonserver
	@# Two at a time: each is mostly one process that unpacks and compiles.
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target setup-tests
	$(RUN) -m pytest tests/unit -n 2 --dist worksteal
	$(RUN) -m pytest tests/integration -n $(PROCESSES) --dist loadgroup --no-loadscope-reorder

setup-tests: setup-agents setup-evaluators setup-node setup-rtx setup-triton setup-containers setup-browser

cpu-build:
	@[ $(device) = cpu ] || { echo 'These tests need the CPU build: make test DEVICE=cpu. For the GPU build: make test-gpu.'; exit 1; }

test-gpu: setup-dev ## tests of the GPU build, on this machine's GPUs; ARGS="answers faults" chooses groups
	$(RUN) -m tests.gpu $(ARGS)

serve: setup ## serve MODEL at http://127.0.0.1:PORT/v1
	@$(if $(first),MAKE_SERVE_STEPS=first )$(CHAT) serve $(if $(filter --model --models --model=% --models=%,$(ARGS)),,--model $(MODEL)) --port $(PORT) $(if $(UI),--ui) $(ARGS)

bench: setup ## measure this stack beside `vllm serve`: ratios, plots (ARGS="--streams 1 8 16", "growth", "images")
	$(CHAT) bench $(ARGS)

clean: ## remove the virtual environment, downloads, prepared models and caches
	rm -rf $(VENV) .cache build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Stamps, so that pip runs again only if a requirements file or the package's own metadata has changed. Both builds have
# packages of the same names and versions, so a change of build starts with an empty environment.
ifneq ($(DEVICE),$(patsubst $(VENV)/.%,%,$(wildcard $(VENV)/.$(DEVICE))))
.PHONY: $(VENV)/.packages
endif
$(VENV)/.packages: requirements/serve.txt requirements/serve-gpu.txt
	@$(PYTHON) scripts/setup/interpreter.py
	@echo 'setup: the $(device) build (DEVICE=cpu or DEVICE=gpu chooses another)'
	@[ -f $(VENV)/.$(device) ] || { $(PYTHON) -m venv --clear $(VENV) && touch $(VENV)/.$(device); }
	@echo 'setup 1/4: Python packages, $(if $(filter gpu,$(device)),8.1,2.5) GB installed; takes a few minutes'
	@$(PIP) install --quiet --no-deps $(call wanted,$(pinned))
	@$(RUN) -m scripts.setup.check_packages
	@touch $@

$(VENV)/.serve: pyproject.toml $(VENV)/.packages
	@echo 'setup 2/4: the command triton-chat, in $(VENV)/bin'$(eval first := 1)
	@$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.serve
	@$(PIP) install --quiet --no-deps $(call wanted,dev)
	@touch $@

$(NODE)/.installed: tests/node/package.json tests/node/package-lock.json
	@mkdir -p $(NODE) && cp $^ $(NODE)
	npm ci --prefix $(NODE) --ignore-scripts --no-audit --no-fund --loglevel error
	@touch $@

# Separate environments: the agents' packages contradict the server's, and serving needs none of the others. RTX builds
# plans of the vision tower without a GPU. Triton compiles its kernel and is not part of PyTorch's build for CPUs.
.cache/%-venv/.installed: requirements/%.txt
	$(PYTHON) -m venv --clear .cache/$*-venv
	.cache/$*-venv/bin/pip --disable-pip-version-check install --quiet --no-deps $(call wanted,$*)
	@touch $@
