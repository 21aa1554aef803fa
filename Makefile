# Two commands do all the set-up: `make demo` and `make test`. Each makes ./.venv if it isn't there.
# `make demo DATA=KIND:PATH` does the demo's work on your own pictures.
PYTHON ?= python3
BIN := .venv/bin
PARALLEL_TESTS = $(BIN)/python -m pytest --numprocesses auto --dist worksteal
EXTRAS := train,data,hub,serve,ask,curate,video,heic,raw,track,dev,docs

PACKAGES = -p uniemox -p uniemox_serve -p uniemox_ask -p uniemox_curate -p uniemox_paper

VERSION = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
OTHER = build/python$(VERSION)

# The tests start hundreds of commands; without stored bytecode each of them would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo docs embedded test pytest test-thorough test-python check lint types check-python clean

demo: .venv/ready
	$(BIN)/python examples/demo.py '$(DATA)'

# The documentation as a site, in an environment of its own without torch (350 MB).
# Its search needs a server: python3 -m http.server -d build/docs
docs: build/docs-venv/ready
	NO_MKDOCS_2_WARNING=1 build/docs-venv/bin/python -m mkdocs build
	@echo "wrote build/docs/index.html"

# FI=fi:PATH RATINGS=KIND:PATH UNLABELLED=KIND:PATH PEOPLE='KIND:PATH ...' FACES='KIND:PATH ...' FERPLUS=ferplus:PATH STARTS=FOLDER TEST_PEOPLE=FOLDER, see recipes/embedded.py: rebuilds the embedded model.
embedded: .venv/ready
	$(BIN)/python -m recipes.embedded --fi '$(FI)' --ratings '$(RATINGS)' --unlabelled '$(UNLABELLED)' --people $(foreach one,$(PEOPLE),'$(one)') --faces $(foreach one,$(FACES),'$(one)') --ferplus '$(FERPLUS)' --starts '$(STARTS)' --test-people '$(TEST_PEOPLE)'

# All checks, and the tests that are quick. PYTEST='--random-order-bucket=module --random-order-seed=1' shuffles.
# mypy and the tests run at the same time.
test: lint
	$(MAKE) --no-print-directory --jobs 2 types pytest

pytest: .venv/ready
	$(PARALLEL_TESTS) -m 'not types and not thorough and not browser' $(PYTEST)

# The tests that `make test` leaves out: those of web pages, and those marked `thorough` (pyproject.toml).
# PYTEST=--require-browser fails without Chromium.
test-thorough: .venv/ready
	$(PARALLEL_TESTS) -m 'thorough or browser or types' $(PYTEST)

# make test-python PYTHON=python3.13: a short selection on another Python, in an environment of its own (7 GB).
test-python: $(OTHER)/ready
	$(OTHER)/bin/python -m pytest -p no:cacheprovider -m portable

check: lint types

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Also as for Windows and macOS: which parts of the standard library and of the system are there.
types: .venv/ready
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 $(PACKAGES)
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin $(PACKAGES)

check-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "uniemox needs Python 3.11 or newer; try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }

.venv/ready: pyproject.toml constraints.txt | check-python
	@echo "Making .venv: about 7 GB on Linux, a minute or two; later calls skip this."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

build/docs-venv/ready: pyproject.toml constraints.txt | check-python
	$(PYTHON) -m venv --clear build/docs-venv
	build/docs-venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	@touch $@

$(OTHER)/ready: pyproject.toml constraints.txt | check-python
	$(PYTHON) -m venv --clear $(OTHER)
	$(OTHER)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
