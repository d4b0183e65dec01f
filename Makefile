# Every target sets up what it needs by itself, in .venv, and only once:
# a set of packages is installed again when pyproject.toml or constraints.txt change.
#
#   make demo             real FCS bytes through the whole path
#   make demo DATA=DIR    the same on the FCS files of a directory
#   make test             the tests of the package
#   make test-all         all tests, also of benchmarks, tutorials and scripts
#   make test-newest      the test suite with the newest versions of all packages
#   make help             everything else
#
# Variables
#   PYTHON          interpreter to build an environment with (default: the first of python3.11,
#                   python3.12, python3.13, python3, python that is 3.11 or newer)
#   DATA            directory of FCS files for the demo
#   ARGS            further arguments for the command behind the target
#   SCMOE_DATA_DIR  folder with public data sets; tests that need them are skipped without it

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
INSTALL = $(PIP) install -qq --constraint constraints.txt --editable
LOCKED := pyproject.toml constraints.txt

DATA ?=
ARGS ?=
PYTHON ?=

# Figures are drawn into files; no window is ever opened.
export MPLBACKEND ?= Agg

# The networks of the tests are small: more threads fight for the cores, and take minutes for seconds.
test test-all test-newest test-lowest: export OMP_NUM_THREADS ?= 1
test test-all test-newest test-lowest: export NUMBA_NUM_THREADS ?= 1

.PHONY: help demo test test-all test-newest test-lowest lint format docs bench clean

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | \
		while IFS="$$(printf '\t')" read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done

demo: $(STAMPS)/base ## cluster simulated FCS files, or those of DATA=DIR; writes demo/
	$(BIN)/python scripts/demo.py $(if $(DATA),--data "$(DATA)") $(ARGS)

test: $(STAMPS)/test ## run the tests of the package, in minutes (ARGS="-k metrics" for a part)
	$(BIN)/python -m pytest tests -m "not slow" -n auto --dist loadfile $(ARGS)

test-all: $(STAMPS)/test ## run all tests: also benchmarks, scripts, tutorials, several processes
	$(BIN)/python -m pytest tests -n auto --dist loadfile $(ARGS)

# Both create their own environment, such as .venv-newest-3.12, and do not change .venv.
test-newest: ## run the tests with the newest versions of all packages (PYTHON=python3.13)
	@$(FIND_PYTHON); $(call NEW_VENV,newest); \
	"$$venv/bin/python" -m pip install -qq --upgrade --upgrade-strategy eager --editable ".[test]"; \
	$(TEST_IN_VENV)

test-lowest: ## run the tests with the lowest versions that pyproject.toml allows
	@$(FIND_PYTHON); $(call NEW_VENV,lowest); \
	"$$venv/bin/python" -m pip install -qq uv; \
	"$$venv/bin/uv" pip install -q --python "$$venv" --resolution lowest-direct --editable ".[test]"; \
	$(TEST_IN_VENV) $(OLD_PACKAGES_WARN)

lint: $(STAMPS)/lint ## check style, formatting, types and imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(STAMPS)/lint ## repair what `make lint` can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMPS)/docs ## build the documentation into docs/_build/html, warnings are errors
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html $(ARGS)
	@echo "documentation: docs/_build/html/index.html"

bench: $(STAMPS)/bench ## run the benchmarks (needs SCMOE_DATA_DIR)
	$(BIN)/python -m benchmarks $(ARGS)

clean: ## remove .venv and everything that was built
	rm -rf $(VENV) .venv-newest-* .venv-lowest-* build dist demo docs/_build docs/api/generated docs/tutorials
	rm -rf .import_linter_cache .mypy_cache .pytest_cache .ruff_cache .coverage htmlcov
	find src tests docs scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# -- set-up --------------------------------------------------------------------------------

# Shell commands that set $python; make joins the lines.
define FIND_PYTHON
python=""; tried=""; \
for name in $(if $(PYTHON),"$(PYTHON)",python3.11 python3.12 python3.13 python3 python); do \
	if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
		python="$$name"; break; \
	fi; \
	tried="$$tried $$name ($$("$$name" --version 2>/dev/null || echo not found));"; \
done; \
if [ -z "$$python" ]; then \
	echo "scmoe needs Python 3.11 or newer. Tried:$$tried" >&2; \
	echo "Install it, or name one with: make PYTHON=/path/to/python3.11" >&2; \
	exit 1; \
fi
endef

# ... that create an empty environment and set $venv
define NEW_VENV
set -e; \
venv=.venv-$(1)-$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
echo "setting up $$venv with $$python ($$("$$python" --version))"; \
"$$python" -m venv --clear "$$venv"
endef

# ... that run the tests in $venv
define TEST_IN_VENV
"$$venv/bin/python" -m pip freeze --exclude-editable \
	| grep -E '^(anndata|numpy|pandas|scanpy|scipy|scvi-tools|torch|zarr)=='; \
"$$venv/bin/python" -m pytest tests -n auto --dist loadfile $(ARGS)
endef

# Old versions of packages use what newer versions of others have deprecated.
OLD_PACKAGES_WARN = $(foreach kind,DeprecationWarning PendingDeprecationWarning FutureWarning,-W default::$(kind))

# An interpreter is looked for only where .venv does not exist yet.
$(STAMPS)/venv:
	@$(FIND_PYTHON); \
	echo "setting up $(VENV) with $$python ($$("$$python" --version))"; \
	"$$python" -m venv $(VENV) || { \
		echo "Could not create $(VENV). On Debian and Ubuntu: apt install python3.11-venv" >&2; \
		exit 1; }
	@mkdir -p $(STAMPS)
	@touch $@

$(STAMPS)/base: $(STAMPS)/venv $(LOCKED)
	@echo "installing scmoe and the pinned versions of what it needs (once, some minutes)"
	$(INSTALL) .
	@touch $@

$(STAMPS)/test $(STAMPS)/lint $(STAMPS)/docs $(STAMPS)/bench: $(STAMPS)/%: $(STAMPS)/base
	@echo "installing what make $* needs"
	$(INSTALL) ".[$*]"
	@touch $@
