# make search   sets up .venv and runs a whole search      (ARGS="experiments/mlp.toml --trials 8")
# make docs     builds the site of docs/ into build/docs
# make test     sets up .venv and runs every check         (PYTHON=python3.12 chooses the interpreter)
# make check    runs the fastest tests  (at every save; no lint, no types)
# make unit, simulated, ray, e2e    run one tier of the tests (tests/README.md)
# make chaos    tries far more faults than the tests do: their long forms, then benchmarks/chaos.py
# make breaks   breaks the code in many ways, one after the other, and sees that the tests find each

PYTHON ?= python3
# Where it is set, every process of the tests would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE
ARGS ?= experiments/cnn.toml
# Many tests wait: for processes, terminals, Ray. Two at a time take little more than half as long, on two cores too.
WORKERS ?= 2
BIN := .venv/bin
PYTEST = $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal
# Written when everything is installed: a half-finished installation leaves it out, and so is taken up again.
STAMP := .venv/.installed
PLUGINS := $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml))

.DELETE_ON_ERROR:
.PHONY: search test docs lint format types imports tests check unit simulated ray e2e chaos breaks clean

search: $(STAMP)
	@$(BIN)/mnistlab search $(ARGS)

# What only reads the code runs beside the tests: they wait for others more than they work.
test: $(STAMP)
	@$(MAKE) --no-print-directory --jobs=5 lint format types imports tests

lint: $(STAMP)
	$(BIN)/ruff check .

format: $(STAMP)
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/pyright

imports: $(STAMP)
	$(BIN)/lint-imports --no-logo

docs: $(STAMP)
	$(BIN)/sphinx-build -W --keep-going -q -b html docs build/docs

tests: $(STAMP)
	$(PYTEST)

check: unit

# The packages in plugins/ have none: their contracts train models.
unit: $(STAMP)
	$(PYTEST) -m $@ tests

simulated ray e2e: $(STAMP)
	$(PYTEST) -m $@

breaks: $(STAMP)
	$(BIN)/python -m tests.breaks --all

chaos: $(STAMP)
	$(PYTEST) -m chaos
	$(BIN)/python benchmarks/chaos.py

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip itself comes first: only from 25.1 on does it know dependency groups. Wheels are built with the same pins.
$(STAMP): pyproject.toml constraints.txt $(PLUGINS:%=%/pyproject.toml)
	@$(call check_python)
	@$(call make_venv)
	@echo "Installing into .venv; the first time this takes some minutes and about 6.5 GB"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pip
	@$(BIN)/python -m pip install --disable-pip-version-check \
		-c constraints.txt --build-constraint constraints.txt -e . $(PLUGINS:%=-e ./%) --group dev
	@$(BIN)/mnistlab --version
	@touch $@

define check_python
command -v $(PYTHON) >/dev/null || \
	{ echo "mnistlab needs Python 3.11, 3.12 or 3.13, but there is no '$(PYTHON)'; name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }; \
$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	{ echo "mnistlab needs Python 3.11, 3.12 or 3.13, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1); name another: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
endef

# Debian ships venv without its ensurepip unless python3-venv is installed; the system's own pip does as well.
define make_venv
$(BIN)/python -m pip --version >/dev/null 2>&1 || \
$(PYTHON) -m venv --clear .venv >/dev/null 2>&1 || \
{ $(PYTHON) -m venv --clear --without-pip .venv && \
  $(PYTHON) -m pip --python $(BIN)/python install --quiet -c constraints.txt pip; } >/dev/null 2>&1 || \
{ echo "$(PYTHON) can't make a virtual environment: install python3-venv (Debian: apt install python3-venv)" >&2; exit 1; }
endef
