# Two commands on a fresh machine: `make demo` and `make test`; `make help` lists the rest. All work in .venv/.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo experiment test lint format docs clean

help:
	@echo "make demo    synthetic data set -> shards -> asymmetric training -> table and pictures, in demo/: 7 minutes"
	@echo "make experiment   the thesis's comparison on a synthetic set, two seeds, and its report, in demo/experiment/: an hour"
	@echo "make test    all that a change must pass: style, types, import rules, tests; what CI runs"
	@echo "make lint    of these, style, types and import rules: seconds"
	@echo "make format  mend the style where that can be done by itself"
	@echo "make docs    write each command's --help into docs/commands.md"
	@echo "make clean   remove demo/ and .venv/"
	@echo
	@echo "Each makes an environment in .venv/ first: two minutes and 5 GB. PYTHON=python3.12 chooses another Python."
	@echo "Activated (. .venv/bin/activate), it has a2d2-prep, amtl-train, amtl-eval, amtl-report, amtl-predict and"
	@echo "amtl-export, all with --help. First steps: docs/tutorial.md; for developers: CONTRIBUTING.md."

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

lint: .venv/installed
	@echo "== style (ruff)"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@echo "== types (mypy)"
	@$(BIN)/mypy
	@echo "== who may import whom (import-linter)"
	@$(BIN)/lint-imports

test: lint
	@echo "== tests (pytest)"
	@$(BIN)/python -m pytest -q

format: .venv/installed
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: .venv/installed
	@$(BIN)/python -m tests.help_pages

clean:
	rm -rf demo .venv
