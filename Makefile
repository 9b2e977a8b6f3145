# Two commands on a fresh machine: `make demo` and `make test`. Each makes its own environment in .venv/.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test clean

help:
	@echo "make demo    synthetic data set -> shards -> asymmetric training -> table and pictures, in demo/"
	@echo "make test    linters, types, import rules and the tests"
	@echo "make clean   remove demo/ and .venv/"

.venv/installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	@echo "== installing into .venv/ (PyTorch is large: about two minutes and 5 GB the first time)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

demo: .venv/installed
	@rm -rf demo/a2d2 demo/shards demo/run
	@echo "== 1 of 3: drawing a small A2D2, 3 scenes of 40 frames, into demo/a2d2"
	@$(BIN)/a2d2-prep synth demo/a2d2 --scenes 3 --frames 40
	@echo "== 2 of 3: converting it to shards in demo/shards, samples of 256 px"
	@$(BIN)/a2d2-prep shard --root demo/a2d2 --out demo/shards --rules examples/demo-rules.toml
	@$(BIN)/a2d2-prep show demo/shards --out demo/sample.png
	@echo "== 3 of 3: training asymmetrically and evaluating, into demo/run"
	@$(BIN)/amtl-train --mode asymmetric --shards demo/shards --config examples/demo-train.toml --out demo/run
	@echo "== done: the table is in demo/run/table.txt too; look at demo/sample.png and demo/run/pictures/"

test: .venv/installed
	@echo "== style (ruff)"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@echo "== types (mypy)"
	@$(BIN)/mypy
	@echo "== who may import whom (import-linter)"
	@$(BIN)/lint-imports
	@echo "== tests (pytest)"
	@$(BIN)/python -m pytest -q

clean:
	rm -rf demo .venv
