# `make help` lists the targets. Each of them creates the environment that it needs, in $(VENV).

VENV := .venv
PYTHON ?=
ARGS :=

PYTHONS := python3 python3.11 python3.12 python3.13 python3.14 python3.15
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# QTRAN's matrix games: the rest of the paper takes an hour.
FIGURES := table1 table2 fig2 fig5 fig8_11 table6
CODE := envs jaxmarl_fac baselines experiments tests docs/_hooks
DOCS_STAMP := $(VENV)/.docs-installed
SITE := build/docs
# Two processes, whole files in each: fixtures and compiled functions are shared within a file.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile
# Most of the quick tests' time goes into compiling programs that run for milliseconds, and optimising them makes
# up half of that: `make test` compiles without LLVM's optimisations and XLA's fusion emitters. It computes the same
# but for rounding. `make test-slow`, and `make test UNOPTIMISED=`, run what users run, optimised programs.
UNOPTIMISED := --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false \
	--xla_llvm_disable_expensive_passes=true --xla_cpu_parallel_codegen_split_count=1

# Prints "3.12" for Python 3.12, and fails for a Python that is too old or cannot make environments.
VERSION := import sys, ensurepip, venv; v = sys.version_info; v >= (3, 11) or sys.exit(1); print("%d.%d" % v[:2])

MAKEFLAGS += --no-print-directory
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help environment reproduce test test-slow test-all lint format clean docs docs-serve wheel

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo 'PYTHON=python3.12 chooses the interpreter; ARGS="-k qmix" goes to pytest.'

reproduce: environment ## Train, draw and judge QTRAN's matrix games (minutes)
	$(BIN)/python experiments/reproduce_qtran.py --figures $(FIGURES) --scale quick --out runs/qtran

test: lint ## Lint, format and type checks, then all tests except the slow ones
	XLA_FLAGS="$(UNOPTIMISED) $$XLA_FLAGS" $(PYTEST) $(ARGS)

test-slow: environment ## The tests that take minutes
	$(PYTEST) -m slow $(ARGS)

test-all: ## `make test` under every Python >= 3.11 on this machine
	@passed=; failed=; \
	for python in $(PYTHONS) "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/*/bin/python; do \
		version=$$("$$python" -c '$(VERSION)' 2>/dev/null) || continue; \
		case " $$passed $$failed " in *" $$version "*) continue;; esac; \
		echo "== Python $$version"; \
		if $(MAKE) test VENV=.venv-$$version PYTHON="$$python"; \
		then passed="$$passed $$version"; else failed="$$failed $$version"; fi; \
	done; \
	echo "== passed:$${passed:- none}; failed:$${failed:- none}"; \
	test -n "$$passed" && test -z "$$failed"

lint: environment ## Check style, format and types
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy

format: environment ## Format the code as `lint` expects
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

# XLA need not optimise programs that draw one picture. The notice of mkdocs-material is about its end of life in 2027.
docs docs-serve: export XLA_FLAGS := $(UNOPTIMISED) $(XLA_FLAGS)
docs docs-serve: export NO_MKDOCS_2_WARNING := 1

docs: $(DOCS_STAMP) ## Build the documentation into build/docs and check its links (minutes)
	$(BIN)/python -m mkdocs build --strict --quiet --site-dir $(SITE)
	$(BIN)/python docs/_hooks/check_site.py $(SITE)
	@echo "documentation: $(SITE)/index.html"

docs-serve: $(DOCS_STAMP) ## Show the documentation, and again after every change
	$(BIN)/python -m mkdocs serve

wheel: environment ## Build the wheel and the sdist into dist/, and try both in clean environments (minutes)
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	DIST=dist $(BIN)/python -m pytest tests/test_release.py -m slow

clean: ## Remove the environments and all caches, but keep results
	rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/jaxmarl_fac"
	rm -rf .venv .venv-* .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment: recreated for another Python, updated when pyproject.toml or constraints.txt change.
environment:
	@if test -n "$(PYTHON)" || ! test -x $(BIN)/python; then \
		for python in $(or $(PYTHON),$(PYTHONS)); do \
			version=$$("$$python" -c '$(VERSION)' 2>/dev/null) && break; \
		done; \
		if test -z "$$version"; then \
			echo "error: Python 3.11 or newer with venv is needed: install it, or give its path: make PYTHON=/path/to/python" >&2; \
			exit 1; \
		fi; \
		if test "$$version" != "$$($(BIN)/python -c '$(VERSION)' 2>/dev/null)"; then \
			echo "Creating $(VENV) with Python $$version (once; it takes minutes)"; \
			"$$python" -m venv --clear $(VENV); \
		fi; \
	fi
	@$(MAKE) $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@echo "Installing into $(VENV)"
	@$(BIN)/python -m pip install -qq -c constraints.txt -e '.[test]'
	@touch $@

$(DOCS_STAMP): pyproject.toml constraints.txt
	@$(MAKE) environment
	@echo "Installing the extra docs into $(VENV)"
	@$(BIN)/python -m pip install -qq -c constraints.txt -e '.[docs]'
	@touch $@
