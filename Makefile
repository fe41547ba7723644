# make demo    set up and run the main job: an encrypted prediction end to end
# make test    set up and run the tests          make slow     the tests at real parameters
# make check   format, lint, types, import rules make format   rewrite the formatting
# make operators  rewrite docs/operators.md from the operators and ONNX's own tests
# make bench   every benchmark, side by side with the peers that can be installed

VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE
ARGS ?=

.PHONY: demo test slow check format bench operators package clean

demo: $(VENV)/.with-demo
	$(BIN)/tacit demo $(ARGS)

test: $(VENV)/.with-dev
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

slow: $(VENV)/.with-dev
	$(BIN)/python -m pytest -m slow $(ARGS)

check: $(VENV)/.with-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.with-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.with-dev
	for question in logreg mlp lenet heart predicted memory engine bootstrap operations; do $(BIN)/python -m bench $$question $(ARGS) || exit 1; done

operators: $(VENV)/.with-dev
	$(BIN)/python -m tools.operators

package: $(VENV)/.with-dev
	$(BIN)/python -m build

$(VENV)/.with-demo: pyproject.toml
	tools/make-venv $(VENV)
	$(PIP) -e '.[demo]'
	touch $@

$(VENV)/.with-dev: pyproject.toml
	tools/make-venv $(VENV)
	$(PIP) -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
