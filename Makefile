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

.PHONY: bench
bench: ## Run the slow tests and every script of benchmarks/
	pytest -m slow -n 0 || [ $$? -eq 5 ]  # 5: there are none
	shopt -s nullglob; for script in benchmarks/*.py; do echo "== $$script"; python "$$script"; done

.PHONY: ci
ci: ## Do what CI does: a fresh environment, then lint, types and tests
	.ci/run
