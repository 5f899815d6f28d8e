# Two commands: `make train` and `make test`. Both make the environment in .venv first, once.
PYTHON = python3
# Folder of real data sets; tests that need one are skipped where it is not given.
DATA_ROOT =

VENV = .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed
RUN_DIR = runs/phantom
ABLATION_DIR = runs/ablation/phantom
PYTEST_ARGS = -n 2 --dist worksteal $(if $(DATA_ROOT),--data-root=$(DATA_ROOT))

.PHONY: help setup train ablation test lint format clean
.DEFAULT_GOAL = help

help:
	@echo 'make train    train on the embedded data set, evaluate, print scores and a picture'
	@echo 'make ablation run a small ablation on the embedded data set and write its report'
	@echo 'make test     lint, types and tests; DATA_ROOT=DIR adds the tests on real data'
	@echo 'make lint     lint and types alone'
	@echo 'make format   format the code'
	@echo 'make setup    make the environment in $(VENV) alone; PYTHON=... chooses the interpreter'
	@echo 'make clean    remove the run in $(RUN_DIR), so that the next make train begins anew'

setup: $(INSTALLED)

# The stamp is written last: an interrupted set-up is repeated, a finished one is not.
$(INSTALLED): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("seg needs Python 3.11 or newer, got " + sys.version.split()[0] + "; name one with PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@# Compiled once, as pip does for a package that is copied: else each process that may not write it compiles it anew.
	$(BIN)/python -m compileall -q seg
	@touch $@

# Both commands return at once where their work is done already.
train: $(INSTALLED)
	$(BIN)/seg fetch phantom --root data
	$(BIN)/seg train --config phantom --run_dir $(RUN_DIR) --resume

# Killed and started again, it goes on where it stopped.
ablation: $(INSTALLED)
	$(BIN)/seg fetch phantom --root data
	$(BIN)/seg ablate --config phantom --ablation_dir $(ABLATION_DIR)

test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports --no-logo
	$(BIN)/deptry .

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(RUN_DIR)
