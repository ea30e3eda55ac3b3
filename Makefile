PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test test-all test-gpu lint docs dist results clean

demo: $(STAMP)
	$(BIN)/pegbox demo --out pegbox-demo --overwrite

# One process per core, each on one thread; a file's tests stay together, since they share tuned models. The order is
# that of tests/conftest.py.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

test: lint
	$(PYTEST)

test-all: lint
	$(PYTEST) -m "not gpu"

test-gpu: $(STAMP)
	PEGBOX_TEST_GPU=1 $(BIN)/pytest -m gpu

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 PATH="$(abspath $(BIN)):$$PATH" $(BIN)/mkdocs build --strict

# Both packages, their contents checked, and the wheel at work in an empty environment outside the checkout.
dist: $(STAMP)
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist
	$(BIN)/pytest -m slow tests/test_package.py
	$(PYTHON) -m venv dist/empty
	dist/empty/bin/pip install -q --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	dist/empty/bin/pip install -q --disable-pip-version-check dist/*.whl
	dist/empty/bin/pip check
	cd dist && empty/bin/pegbox --help >/dev/null && empty/bin/pegbox demo --out demo

# Measures what is missing of all figures in README.md and docs, for hours, and writes them; goes on where it was stopped.
results: $(STAMP)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python bench/all.py

clean:
	rm -rf $(VENV) pegbox-demo site dist .mypy_cache .pytest_cache .ruff_cache

# torch comes first and alone, by an exact version, so that no other package's range chooses the build.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[test,lint]'
	touch $@
