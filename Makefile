# Everything is installed into .venv here, at the versions of constraints.txt; nothing else on the machine changes.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
PYTEST_WORKERS ?= 2

RUN_EXTRAS := language,data,check,report
TEST_EXTRAS := test
CHECK_EXTRAS := test,dev

.DEFAULT_GOAL := help
.PHONY: help run test check lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.run ## set up and train the quickstart
	$(VENV)/bin/guerdon run quickstart

test: $(VENV)/.test ## set up and run every test and doctest
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $(PYTEST_WORKERS)

check: $(VENV)/.check ## lint, format and types, changing nothing
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .
	$(VENV)/bin/python -m mypy

lock: ## write constraints.txt anew from the newest versions that pyproject.toml allows; torch stays
	PYTHON=$(PYTHON) .ci/lock

clean: ## remove .venv and caches; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp says that the extras of one target are installed as the files it depends on now have them.
# $(1): the extras. Python's build backend is pinned like everything else, hence no isolated (unpinned) build.
define install
	$(PIP) install --quiet -c constraints.txt setuptools torch
	$(PIP) install --quiet -c constraints.txt --no-build-isolation -e '.[$(1)]'
	@touch $@
endef

$(VENV)/.run: $(VENV)/.made pyproject.toml constraints.txt Makefile
	$(call install,$(RUN_EXTRAS))

$(VENV)/.test: $(VENV)/.made pyproject.toml constraints.txt Makefile
	$(call install,$(TEST_EXTRAS))

$(VENV)/.check: $(VENV)/.made pyproject.toml constraints.txt Makefile
	$(call install,$(CHECK_EXTRAS))

$(VENV)/.made:
	@command -v $(PYTHON) >/dev/null || { echo "guerdon: expected Python 3.11 or newer as '$(PYTHON)', found none. Install it, or name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "guerdon: expected Python 3.11 or newer, got $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "guerdon: expected Python's venv module, $$($(PYTHON) --version 2>&1) has none. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@
