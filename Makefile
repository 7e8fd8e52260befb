# `make` lists the targets. Commands use .venv if `make setup` created one, else the active environment.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: setup
setup: ## Create .venv with septa (editable), the tools and every tested version
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -c constraints.txt -e '.[dev]'

.PHONY: demo
demo: ## Train and predict on synthetic images, and write a report
	septa demo

.PHONY: test
test: ## Run the tests
	pytest

.PHONY: lint
lint: ## Check style and formatting without changing files
	ruff check
	ruff format --check

.PHONY: format
format: ## Fix style and formatting
	ruff check --fix
	ruff format

.PHONY: types
types: ## Check the types
	mypy
	MYPYPATH=src:models mypy models/*.py

# pytest exits with 5 if there are no slow tests.
.PHONY: bench
bench: ## Run slow tests and all benchmarks, write benchmarks/RESULTS.md; ONLY="NAME..." selects
	$(if $(ONLY),,pytest -m slow -n 0 || [ $$? -eq 5 ])
	python benchmarks/run_all.py $(if $(ONLY),--only $(ONLY))

.PHONY: notebooks
notebooks: ## Run the notebooks of examples/ that changed, into build/notebooks; ONLY="03 09" selects
	python tools/notebooks.py $(ONLY)

.PHONY: site
site: ## Build the site into build/site, run its notebooks, and check every link; needs '.[docs]'
	python tools/site.py --fresh

.PHONY: tour
tour: ## Take the pictures of docs/app.md in a headless Chromium
	python tools/tour.py

.PHONY: release-check
release-check: ## Build the distributions, check them, and print the check-list of a release; needs '.[release]'
	python tools/release.py --test $(if $(HOME_URL),--home $(HOME_URL))

.PHONY: ci
ci: ## Run what CI runs: a fresh environment, then lint, types and tests
	.ci/run
