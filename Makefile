# Two commands on a fresh machine: `make demo` and `make test`. `make help` lists the rest. Packages go to .venv/.
PYTHON ?= python3
BIN := .venv/bin
# Without the variable, Material for MkDocs prints an advertisement at every build.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.PHONY: help demo experiment test lint format docs site clean

help:
	@echo "make demo        draw a synthetic data set, convert it, train a network on it; results in demo/ (7 minutes)"
	@echo "make experiment  repeat the thesis's comparison on a synthetic set; report in demo/experiment/ (an hour)"
	@echo "make test        run all checks that a change must pass, as CI does"
	@echo "make lint        run the fast ones of these checks: style, types, import rules, links of the documentation"
	@echo "make format      correct the style automatically where possible"
	@echo "make docs        write the --help of every command into docs/commands.md"
	@echo "make site        build the documentation as a site with search, in site/"
	@echo "make clean       remove demo/, site/ and .venv/"
	@echo
	@echo "The first command creates an environment in .venv/: two minutes and 6.4 GB. Another Python: make PYTHON=python3.12"
	@echo "After '. .venv/bin/activate' these commands are available, each with --help:"
	@echo "a2d2-prep, amtl-train, amtl-eval, amtl-report, amtl-predict, amtl-export."
	@echo "First steps: docs/tutorial.md. For developers: CONTRIBUTING.md."

.venv/installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python must be 3.11 or newer, got " + sys.version.split()[0] + " from $(PYTHON): name another one with make PYTHON=python3.12")'
	@echo "== installing into .venv/: two minutes and 6.4 GB the first time, most of it PyTorch"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

demo: .venv/installed
	@rm -rf demo/a2d2 demo/shards demo/run
	@echo "== 1 of 3: drawing a synthetic A2D2 of 3 scenes with 40 frames each into demo/a2d2"
	@$(BIN)/a2d2-prep synth demo/a2d2 --scenes 3 --frames 40
	@echo "== 2 of 3: converting it to shards in demo/shards, with samples of 256 px"
	@$(BIN)/a2d2-prep shard --root demo/a2d2 --out demo/shards --rules examples/demo-rules.toml
	@$(BIN)/a2d2-prep show demo/shards --out demo/sample.png
	@echo "== 3 of 3: training asymmetrically and evaluating, into demo/run"
	@$(BIN)/amtl-train --mode asymmetric --shards demo/shards --config examples/demo-train.toml --out demo/run
	@echo "== done: demo/run/table.txt holds the table above; demo/sample.png and demo/run/pictures/ hold pictures"

experiment: .venv/installed
	@test -d demo/experiment/a2d2 || $(BIN)/a2d2-prep synth demo/experiment/a2d2 --scenes 3 --frames 30
	@$(BIN)/a2d2-prep shard --root demo/experiment/a2d2 --out demo/experiment/shards --rules examples/demo-rules.toml
	@PATH="$(CURDIR)/$(BIN):$$PATH" SHARDS=demo/experiment/shards CONFIG=examples/experiment.toml OUT=demo/experiment SEEDS="0 1" sh examples/experiment.sh

lint: .venv/installed
	@echo "== style (ruff)"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@echo "== types (mypy)"
	@$(BIN)/mypy
	@echo "== import rules (import-linter)"
	@$(BIN)/lint-imports
	@echo "== links of the documentation (mkdocs)"
	@$(MKDOCS)

test: lint
	@echo "== tests (pytest)"
	@$(BIN)/python -m pytest -q

format: .venv/installed
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: .venv/installed
	@$(BIN)/python -m tests.help_pages

site: .venv/installed
	@$(MKDOCS)
	@echo "== site/index.html is the first page; with search: $(BIN)/python -m http.server --directory site"

clean:
	rm -rf demo site .venv
