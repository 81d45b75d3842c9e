# Every target works in a fresh clone: the environment is made when it is missing or older than pyproject.toml.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check

demo: $(READY)
	$(BIN)/zoo demo --out zoo-demo

test: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist loadscope --no-loadscope-reorder

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy zoo
	$(BIN)/python tools/catalogue.py --check

$(READY): pyproject.toml setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,dev]'
	touch $@
