# The doors: make demo | test | check | bench. The first one that runs installs everything into .venv; later ones cost nothing for that.
PY ?= python3
ARGS ?=
BIN := .venv/bin
INSTALLED := .venv/.installed
# A uv of the machine, else the one in .venv.
UV = $$(command -v uv || echo $(BIN)/uv)

.PHONY: help demo test check bench lock clean

help:
	@echo 'make demo    one incident from alert to review; ARGS="--fault blip" picks the fault'
	@echo 'make test    all tests; ARGS="tests/domain" picks some'
	@echo 'make check   lint, format, types, import directions, tests'
	@echo 'make bench   benchmarks'
	@echo 'make lock    resolve requirements.lock anew from pyproject.toml'
	@echo 'make clean   remove .venv and caches'

demo: $(INSTALLED)
	@$(BIN)/mlrunbook demo $(ARGS)

test: $(INSTALLED)
	@$(BIN)/python -m pytest $(or $(ARGS),-n 2)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2

bench: $(INSTALLED)
	@$(BIN)/python -m benchmarks $(ARGS)

lock: .venv/bin/python
	$(UV) pip compile pyproject.toml --extra dev --universal --generate-hashes --no-emit-index-url --quiet -o requirements.lock
	$(UV) pip compile pyproject.toml --constraint requirements.lock --universal --generate-hashes --no-emit-index-url --quiet \
		-o deployments/requirements.lock

clean:
	rm -rf .venv .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist

$(BIN)/python:
	@$(PY) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo 'mlrunbook needs Python 3.11 to 3.13: install one and pass it, e.g. make PY=python3.12' >&2; exit 1; }
	@command -v uv >/dev/null && uv venv --quiet --python $(PY) .venv || $(PY) -m venv .venv || \
		{ rm -rf .venv; echo 'no venv module: install it (Debian: apt-get install python3-venv), or install uv, then try again' >&2; exit 1; }
	@command -v uv >/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv

# hatchling and editables are in the lock, so that building our own package fetches nothing that has no hash. Bytecode is compiled here, once:
# where Python may not write it (PYTHONDONTWRITEBYTECODE, a read-only image), every process would: a drift report 18 s of CPU instead of 4.
$(INSTALLED): requirements.lock pyproject.toml | $(BIN)/python
	@echo 'installing into .venv: a minute or two, this once' >&2
	@$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q mlrunbook flows tasks
	@touch $@
