# handful: `make help` lists what there is to make.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PY := .venv/bin/python

# PYTHON=… chooses an interpreter by hand; otherwise the first of these that runs and is new enough.
PYTHON ?=
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3.13 python3.12 python3.11 python3)

# .venv/.folder says where the environment was made. A moved or copied folder, or an interpreter that is
# gone, makes it again: its installed package would otherwise still point at the old sources.
ifneq ($(shell $(PY) -c '' 2>/dev/null && cat .venv/.folder 2>/dev/null),$(CURDIR))
.PHONY: .venv/.folder
endif

INSTALL := $(PY) -m pip install --disable-pip-version-check -c constraints.txt

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/make \1	\2/p' Makefile | expand -t 14

.PHONY: demo
demo: .venv/.installed ## make .venv, install handful, run the main job on the built-in digits
	.venv/bin/handful demo

.PHONY: test
test: .venv/.installed-test lint ## make .venv, install with test extras, lint, run the whole test suite
	$(PY) -m pytest -n logical --maxprocesses 4 --dist worksteal

.PHONY: lint
lint: .venv/.installed-test ## ruff check, ruff format --check, mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

.PHONY: docs
docs: .venv/.installed-docs ## make .venv, install with docs extras, build/docs/index.html
	$(PY) -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "build/docs/index.html"

.PHONY: clean
clean: ## remove .venv, caches and build output (never runs/)
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist docs/generated
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

.venv/.folder:
	@if [ -e .venv ] && ! $(PY) -c '' 2>/dev/null; then rm -rf .venv; fi
	@for python in $(CANDIDATES); do \
	  if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "making .venv with $$python ($$("$$python" -V))"; \
	    "$$python" -m venv .venv || exit 1; \
	    printf '%s' "$(CURDIR)" > $@; \
	    exit 0; \
	  fi; \
	done; \
	echo "handful needs Python 3.11 or newer with venv; tried: $(CANDIDATES). Choose one with: make PYTHON=/path/to/python3" >&2; \
	exit 1

# The stamps make a second call quick; a changed pyproject.toml or constraints.txt installs again.
# What the tests install includes what the demo needs.
.venv/.installed: .venv/.folder pyproject.toml constraints.txt
	$(INSTALL) -e .
	@touch $@

.venv/.installed-test: .venv/.folder pyproject.toml constraints.txt
	$(INSTALL) -e '.[test,fast]'
	@touch .venv/.installed $@

.venv/.installed-docs: .venv/.folder pyproject.toml constraints.txt
	$(INSTALL) -e '.[docs]'
	@touch .venv/.installed $@
