# make run    set up and start the agent on the embedded model, in a copy of examples/demo_repo (or WORKSPACE=path)
# make test   set up and run the tests
# make demo   the deny-learn-retry story with real numbers, no typing
# make check  format, lint, types, tests          make bench  the benchmarks that fit a CPU, and docs/benchmarks.md
# make peers  TRL and llama.cpp in .venv-peers, for benchmarks/engine.py to measure beside ours (compiles: 10 minutes)
# make original  continualcode 0.6.0 in .venv-original (1.6 GB), for benchmarks/round_trips.py to measure beside ours
#
# TORCH_INDEX=https://download.pytorch.org/whl/cpu takes torch's small CPU build on Linux; ARGS are passed on.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP_ARGS := -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
WORKSPACE ?= .demo

.PHONY: run demo test check format lint types bench peers original clean

run: $(VENV)/.installed $(if $(filter .demo,$(WORKSPACE)),.demo/calc.py)
	@$(BIN)/continualcode workspace=$(WORKSPACE) $(ARGS)

demo: $(VENV)/.installed
	@$(BIN)/python examples/demo.py $(ARGS)

test: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest $(ARGS)

check: format lint types test

format: $(VENV)/.installed-dev
	@$(BIN)/ruff format --check .

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check .

types: $(VENV)/.installed-dev
	@$(BIN)/mypy

bench: $(VENV)/.installed-bench
	@$(BIN)/python benchmarks/bench.py $(ARGS)

peers:
	@$(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) trl==1.16.0 peft
	@.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check llama-cpp-python==0.3.36

original:
	@$(PYTHON) -m venv .venv-original
	@.venv-original/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) continualcode==0.6.0 tinker==0.38.0 tinker-cookbook==0.5.8

.demo/calc.py:
	@cp -R examples/demo_repo .demo && git -C .demo init -q

$(BIN)/python:
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -e '.[local]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -e '.[local,ripgrep,dev]'
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -e '.[local,ripgrep,dev,bench]'
	@touch $@

clean:
	rm -rf $(VENV) .venv-peers .venv-original .demo
