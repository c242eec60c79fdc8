# `make up` is all a newcomer needs. `make test` is all that CI runs.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
BIN := .venv/bin
TESTS ?=

.PHONY: help up down status demo install install-dev install-peers fuzz test lint types imports contracts pytest long format docs lock clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

up: install ## install what is needed and start a network on this machine
	@exec $(BIN)/clusterai up $(ARGS)

down: install ## stop the network
	@$(BIN)/clusterai down $(ARGS)

status: install ## what runs
	@$(BIN)/clusterai status $(ARGS)

demo: install ## watch a cheating provider lose its stake
	@$(BIN)/clusterai demo cheat $(ARGS)

install:
	@$(PYTHON) scripts/install.py local

install-dev:
	@$(PYTHON) scripts/install.py dev

install-peers: ## other people's programs that tests run against ours, each in an environment of its own
	@$(PYTHON) scripts/install.py peers

test: ## everything that CI runs
	@$(MAKE) --no-print-directory -j3 -O install-dev install-peers contracts types lint imports
	@$(MAKE) --no-print-directory pytest

lint: install-dev ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: install-dev ## basedpyright, strict
	$(BIN)/basedpyright

imports: install-dev ## rooms import down only; cores are pure
	$(BIN)/lint-imports

contracts: install-dev ## recompile the contracts and compare with the committed bytecode
	PATH="$(CURDIR)/$(BIN):$$PATH" sh contracts/check.sh

pytest: install-dev install-peers ## all tests, or TESTS=path
	$(if $(TESTS),$(BIN)/pytest $(TESTS),$(BIN)/python scripts/streams.py)

long: install-dev install-peers ## every kill at every step between real processes, and what else takes minutes more
	CLUSTERAI_EVERY=1 $(BIN)/pytest -m system tests/system

fuzz: install-dev ## fuzz every strict decoder, each for SECONDS=60
	@$(PYTHON) scripts/install.py peers atheris
	$(BIN)/python -m tests.fuzz.run --seconds $(or $(SECONDS),60)

format: install-dev ## let ruff rewrite
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: install-dev ## write docs/reference anew from commands, settings and endpoints
	$(BIN)/python scripts/reference.py

lock: install-dev ## write constraints.txt anew from what is installed
	$(BIN)/python scripts/lock.py > constraints.new && mv constraints.new constraints.txt

clean: ## remove what was built; the network's data under ~/.local/share stays
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
