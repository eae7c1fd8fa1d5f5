# Two commands for everybody: `make run` and `make test`. `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SAMPLE := build/sample-home
# Else each of the many processes that tests start would compile all anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run test test-faults test-codex bench lint fix clean

help:
	@echo "make run    install Rollbook into $(VENV), index your home and list its newest threads"
	@echo "make test   install what tests need; lint, types, import rules, tests"
	@echo "make test-faults  all the harm that make test does a share of: kills, damage, full disks"
	@echo "make test-codex  have real releases of Codex (from npm) read what Rollbook has recorded"
	@echo "make bench  measure speed, memory and size beside floors: one table, a quarter of an hour"
	@echo "make lint   only lint, types and import rules"
	@echo "make fix    format and mend what can be mended by machine"
	@echo "make clean  remove all that these commands made"

# A home that is named must exist; only for want of ~/.codex the sample home stands in.
run: $(VENV)/.installed
	@if [ -n "$$CODEX_HOME" ]; then home=$$CODEX_HOME; \
	elif [ -d "$$HOME/.codex" ]; then home=$$HOME/.codex; \
	else \
		home=$(SAMPLE); mkdir -p build; rm -rf $(SAMPLE); \
		cp -R tests/data/corpus/0.169.0/home $(SAMPLE); \
		echo "There is no ~/.codex: this is the sample home in $(SAMPLE)."; \
	fi; \
	$(BIN)/rollbook sync --home "$$home" || [ $$? -eq 1 ] || exit $$?; \
	$(BIN)/rollbook list --home "$$home" && \
	echo "In the browser: $(BIN)/rollbook serve --home $$home"

test: $(VENV)/.installed-test build/chromium build/pgbouncer lint
	$(BIN)/pytest -n 4 --dist loadfile

test-faults: $(VENV)/.installed-test
	$(BIN)/pytest -n 2 --dist loadfile --all-faults tests/faults

test-codex: $(VENV)/.installed-test
	$(BIN)/pytest -m codex tests/codex

bench: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/run.py

lint: $(VENV)/.installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(VENV)/.installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

build/chromium: $(VENV)/.installed-test tests/browser/chromium.py
	@$(BIN)/python tests/browser/chromium.py > /dev/null
	@[ ! -d $@ ] || touch $@

build/pgbouncer: $(VENV)/.installed-test tests/postgres/pgbouncer.py
	@$(BIN)/python -m tests.postgres.pgbouncer > /dev/null
	@touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[mcp,postgres,redact,web]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@ $(VENV)/.installed
