# Two commands do all the set-up: `make demo` and `make test`. Each makes ./.venv if it isn't there.
# `make demo DATA=KIND:PATH` does the demo's work on your own pictures.
PYTHON ?= python3
BIN := .venv/bin
EXTRAS := train,data,hub,serve,curate,dev

.PHONY: demo embedded test check clean

demo: .venv/ready
	$(BIN)/python examples/demo.py '$(DATA)'

# FI=fi:PATH PEOPLE='KIND:PATH ...' STARTS=FOLDER TEST_PEOPLE=FOLDER, see examples/embedded.py: rebuilds the embedded model.
embedded: .venv/ready
	$(BIN)/python examples/embedded.py --fi '$(FI)' --people $(foreach one,$(PEOPLE),'$(one)') --starts '$(STARTS)' --test-people '$(TEST_PEOPLE)'

test: .venv/ready check
	$(BIN)/python -m pytest

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "uniemox needs Python 3.11 or newer; try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "Making .venv: about 7 GB on Linux, a minute or two; later calls skip this."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
