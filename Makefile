.DEFAULT_GOAL := help
.PHONY: help install test test-all lint format demo bench docs release

help:  ## Say what there is
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | column -t -s '|'

install:  ## Install kvis2 from this folder, with all that the tests and the demo need
	python -m pip install -e ".[test,demo]"

test:  ## Run the fast tests
	pytest

test-all:  ## Run all tests: also the slow ones, the parity with tf-keras-vis, the browser
	pytest -m ""

lint:  ## Check style, formatting, the direction of imports, and types
	ruff check .
	ruff format --check .
	lint-imports
	mypy kvis2 callbacks tensorboard_plugin_kvis2

format:  ## Format the code
	ruff check --fix .
	ruff format .

demo:  ## Train the demo for about a minute, and show it in TensorBoard
	python examples/digits_in_the_wild.py --out logs/demo/$$(date +%Y%m%d_%H%M%S)
	tensorboard --logdir logs/demo

bench:  ## Measure kvis2 against its peers
	python -m benchmarks.environments
	python -m benchmarks --markdown docs/performance.md --json docs/performance.json

docs:  ## Build the site into site/, strictly (needs the extra docs)
	mkdocs build --strict

release:  ## Build sdist and wheel into dist/, check, install and try both; nothing is uploaded
	.ci/release.sh
