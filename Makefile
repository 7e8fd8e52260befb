# `make` lists what can be done. Commands use .venv where `make setup` made one, else the active environment.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: setup
setup: ## Make .venv with septa (editable), the tools and every tested version
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -c constraints.txt -e '.[dev]'

.PHONY: demo
demo: ## Train and predict on made-up images, from nothing to a report
	septa demo

.PHONY: test
test: ## Run the tests
	pytest

.PHONY: lint
lint: ## Check style and formatting, change nothing
	ruff check
	ruff format --check

.PHONY: format
format: ## Mend style and formatting
	ruff check --fix
	ruff format

.PHONY: types
types: ## Check the types
	mypy

# The 5 of pytest: there are none.
.PHONY: bench
bench: ## Run the slow tests, and all benchmarks into benchmarks/RESULTS.md; ONLY="NAME..." those alone
	$(if $(ONLY),,pytest -m slow -n 0 || [ $$? -eq 5 ])
	python benchmarks/run_all.py $(if $(ONLY),--only $(ONLY))

.PHONY: ci
ci: ## Do what CI does: a fresh environment, then lint, types and tests
	.ci/run
