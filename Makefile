# Every target works in a fresh clone: the environment is made when it is missing, older than pyproject.toml, or of
# another Python. `make test PYTHON=python3.11` takes that Python; without it, the newest supported one is found.

PYTHON ?= $(shell sh tools/python.sh)
VENV ?= .venv
# A file of pins for pip; `make test-oldest` takes the oldest versions that pyproject.toml admits.
CONSTRAINTS ?=
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadscope --no-loadscope-reorder

.PHONY: demo test test-all test-oldest check

demo: $(READY)
	$(BIN)/zoo demo --out zoo-demo

# What every change must pass, in about ten minutes on two cores.
test: $(READY)
	$(PYTEST)

# Everything: the values of every net, and what is left out above because a smaller case shows the same.
test-all: $(READY)
	$(PYTEST) -m '' --values

# A selection with the oldest Python and libraries, NNX's tree mode, strict dtypes and JAX's own checks.
test-oldest:
	$(MAKE) selection VENV=.venv-oldest PYTHON="$$(sh tools/python.sh oldest)" CONSTRAINTS=tests/oldest.txt

.PHONY: selection
selection: $(READY)
	NNX_GRAPH_MODE=false JAX_ENABLE_CHECKS=true $(PYTEST) --selection

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python tools/catalogue.py --check
	$(BIN)/python tools/installed_tree.py .tree
	cd .tree && $(abspath $(BIN))/mypy --config-file ../pyproject.toml -p zoo
	cd .tree && PYTHONPATH=. $(abspath $(BIN))/lint-imports ../pyproject.toml --no-cache

$(READY): pyproject.toml setup.py $(CONSTRAINTS)
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(addprefix -c ,$(CONSTRAINTS)) -e '.[test,dev]'
	touch $@
