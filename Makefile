# `make run`: the guided run in a virtual environment of its own; `make test`: all tests;
# `make sanitized`: those of the compiled parts under gcc's address and undefined-behaviour sanitizers;
# `make lint`: ruff, import-linter, the Chinese catalogue, and mypy on package, examples and the code
# of the documents; `make docs`: the documentation as a site in build/site, warnings are errors;
# `make pyright`: a second reader of the types, which needs Node.js and is no part of the others.
# PYTHON chooses the interpreter, ARGS goes to cgpt: make run ARGS="--lang en"
# WORKERS is the number of processes that tests run in, by default one a core.
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= auto
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py $(wildcard cgpt/*.pyx cgpt/*/*.pyx cgpt/*/*.pxi cgpt/*/*.h)

.PHONY: run test sanitized lint docs pyright clean

run: $(VENV)/.installed
	@$(BIN)/cgpt $(ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations 20

sanitized: $(VENV)/.installed-dev
	bash tests/run_sanitized.sh $(BIN)/python

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict cgpt examples
	$(BIN)/lint-imports
	$(BIN)/python tests/catalogue.py
	$(BIN)/python tests/doc_code.py

docs: $(VENV)/.installed-dev
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

pyright: $(VENV)/.installed-dev
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check pyright
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python tests/doc_code.py --pyright

$(BIN)/python:
	@$(PYTHON) -m venv $(VENV) || { echo "cgpt: $(PYTHON) could not make a virtual environment in $(VENV) (Debian/Ubuntu: apt install python3-venv)" >&2; rm -rf $(VENV); exit 1; }

INSTALLING := @echo "正在编译并安装到 $(VENV)，一两分钟 / compiling and installing into $(VENV), one to two minutes"

$(VENV)/.installed: $(BIN)/python $(SOURCES)
	$(INSTALLING)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-dev: $(BIN)/python $(SOURCES)
	$(INSTALLING)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) build dist *.egg-info cgpt/*.so cgpt/*.c cgpt/*/*.so cgpt/*/*.c
