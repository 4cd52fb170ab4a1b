# make demo   set up .venv if needed and run the main job: the pump room on real processes
# make test   set up .venv if needed and run all tests
# make check  ruff, format, mypy --strict, import boundaries, generated protobuf up to date
# make bench  the three benchmarks, as tables
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help venv demo test simulate check lint types boundaries protos protos-check bench fuzz constraints clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# The stamp depends on what is installed, so that a changed pyproject is installed again and an unchanged one is not.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

venv: $(VENV)/.installed  ## the development environment in .venv

demo: venv  ## the pump room: find, bid, kill the winner, finish (under 60 s)
	$(BIN)/python -m examples.pump_room

test: venv  ## all tests (under five minutes on two cores)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

simulate: venv  ## as many seeds as wanted: make simulate SEEDS=0:100000
	$(BIN)/python -m meshagent.virtual.run --seeds $(or $(SEEDS),0:20000) --jobs $(WORKERS)

check: venv lint types boundaries protos-check  ## everything that needs no run

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types:
	$(BIN)/mypy

boundaries:
	$(BIN)/lint-imports

PROTOS := $(wildcard protos/meshagent/wire/v1/*.proto)
PROTOC  = $(BIN)/python -m grpc_tools.protoc -I protos

protos: venv  ## generate meshagent/wire/v1 from protos/
	$(PROTOC) --python_out=. --pyi_out=. --grpc_python_out=. $(PROTOS)

protos-check:
	@rm -rf .protos-check && mkdir .protos-check
	@$(PROTOC) --python_out=.protos-check --pyi_out=.protos-check --grpc_python_out=.protos-check $(PROTOS)
	@for f in $$(cd .protos-check && find . -type f); do cmp .protos-check/$$f $$f || { rm -rf .protos-check; \
		echo "generated code is out of date: make protos"; exit 1; }; done
	@rm -rf .protos-check

bench: venv  ## contract net, node, envelope: tables for people, --json for machines
	$(BIN)/python -m benchmarks.envelope
	$(BIN)/python -m benchmarks.node
	$(BIN)/python -m benchmarks.contract_net --participants 16 --in-flight 1
	$(BIN)/python -m benchmarks.contract_net --participants 16 --in-flight 32

fuzz: venv  ## mutate bytes against every parser for a while
	$(BIN)/python -m tests.fuzz --seconds 60

constraints: venv  ## pin what is installed now as what was tested
	( sed -n '/^#/p' constraints.txt; $(BIN)/python -m pip freeze --all --exclude-editable \
		| grep -viE '^(pip|setuptools|wheel)==| @ ' ) > constraints.new && mv constraints.new constraints.txt

clean:  ## forget environments and caches
	rm -rf $(VENV) .venvs build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .protos-check
