# Two commands do everything, set-up included, on a machine with Python 3.11 or newer and make:
#   make run    students of a quarter of their teachers' size, distilled on five games
#   make test   the tests
# `make lint` checks style and types, `make dist` builds and tries the packages in dist/, and
# `make house` prints what imports what. `make speed BEFORE=DIR` compares with another checkout,
# `make busy` the default number of threads with one, beside a busy core.
# `make attack` opens 20,000 changed and hostile files: ten minutes on two cores.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# torch first and alone: it brings the build that the constraints pin, before anything asks for it.
PIP := $(BIN)/python -m pip --disable-pip-version-check install -q -c constraints.txt

.PHONY: run test lint dist house speed busy attack clean

run: $(VENV)/.installed
	$(BIN)/rltransfer experiment run quickstart

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest tests

lint: $(VENV)/.installed-lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

dist: $(VENV)/.installed
	$(BIN)/python tests/dist.py

house:
	@$(PYTHON) tests/house.py

speed: $(VENV)/.installed
	$(BIN)/python tests/speed.py $(BEFORE)

attack: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python tests/attack

busy: $(VENV)/.installed
	$(BIN)/python tests/busy.py

$(VENV)/.torch: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) setuptools
	$(PIP) torch
	touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	$(PIP) --no-build-isolation -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) --no-build-isolation -e '.[test]'
	touch $@

$(VENV)/.installed-lint: $(VENV)/.installed-test
	$(PIP) --no-build-isolation -e '.[test,lint]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
