# reelflow: `make demo` and `make test` do all their own set-up.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A CPU-only torch where your index offers one: make CPU_INDEX=<its address> demo
CPU_INDEX ?=
DURATION ?=
ARGS ?=
STAMP := $(VENV)/.installed
BENCH_VENV := .venv-bench
BENCH_STAMP := $(BENCH_VENV)/.installed
QUALITY_STAMP := $(VENV)/.quality-installed
PRECISION_STAMP := $(VENV)/.precision-installed

.PHONY: help
help: ## show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  make demo DURATION=60   stops by itself after 60 s and prints a report"
	@echo "  make demo ARGS='...'    further options, see reelflow demo --help"
	@echo "  make CPU_INDEX=URL ...  install torch from an index with CPU-only builds"

$(BIN)/uv: requirements-uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "reelflow needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; set PYTHON=")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip --upgrade >/dev/null
	@$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements-uv.lock
	@touch $@

# Without bytecode every start compiles torch's sources again: three seconds.
$(STAMP): requirements.lock pyproject.toml $(BIN)/uv
	@echo "installing dependencies into $(VENV)"
ifeq ($(CPU_INDEX),)
	@$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock requirements-uv.lock
else
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --index $(CPU_INDEX) --index-strategy unsafe-best-match --requirements pyproject.toml --extra content --extra ocr --group dev
endif
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: install
install: $(STAMP) ## create .venv and install everything into it

.PHONY: demo
demo: $(STAMP) ## real events through a real broker, with a live page; Ctrl-C stops it
	@$(BIN)/reelflow demo $(if $(DURATION),--duration $(DURATION)) $(ARGS)

.PHONY: test
test: $(STAMP) ## all tests, on a real broker (and in a real browser, where there is one)
	@$(BIN)/python -m pytest $(ARGS)

.PHONY: unit
unit: $(STAMP) ## unit tests and doctests only
	@$(BIN)/python -m pytest tests/unit tests/contract tests/simulation schemas learners serving streams $(ARGS)

.PHONY: fuzz
fuzz: $(STAMP) ## a million random and mutated messages through the decoder
	@FUZZ_MESSAGES=1000000 $(BIN)/python -m pytest -m fuzz --timeout 3600 $(ARGS)

.PHONY: chaos
chaos: $(STAMP) ## faults on the real broker, the long form: 50 kills, a minute without a broker, ...
	@CHAOS=1 $(BIN)/python -m pytest tests/chaos -s $(ARGS)

.PHONY: lint
lint: $(STAMP) ## ruff, mypy --strict, import-linter, yamllint, compose check
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/yamllint --strict .
	@$(BIN)/python deploy/check_compose.py

.PHONY: format
format: $(STAMP) ## let ruff rewrite what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# quix-streams and bytewax want other versions of what we use, so they have an environment of their own.
$(BENCH_STAMP): requirements-bench.lock $(BIN)/uv
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(BENCH_VENV)
	@$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BENCH_VENV)/bin/python --require-hashes requirements-bench.lock
	@touch $@

.PHONY: bench-stream
bench-stream: $(STAMP) $(BENCH_STAMP) ## the worker beside plain Faust, quix-streams and bytewax; 8 minutes
	@$(BIN)/python -m benchmarks.stream --bench-python $(BENCH_VENV)/bin/python $(ARGS)

$(QUALITY_STAMP): $(STAMP) requirements-quality.lock
	@$(BIN)/uv pip install --quiet --no-deps --python $(BIN)/python --require-hashes --requirement requirements-quality.lock
	@touch $@

.PHONY: bench-quality
bench-quality: $(STAMP) $(QUALITY_STAMP) ## R@20 beside the baselines: make bench-quality DATA=folder; ARGS=--quick
	@$(BIN)/python -m benchmarks.quality $(if $(DATA),--data $(DATA)) $(ARGS)

.PHONY: bench-closed-loop
bench-closed-loop: $(STAMP) ## simulated viewers served by reelflow, by hourly refit, by popularity, at random
	@$(BIN)/python -m benchmarks.closed_loop $(ARGS)

.PHONY: bench-probability
bench-probability: $(STAMP) $(QUALITY_STAMP) ## click and long-view probabilities beside LightGBM and river: make bench-probability DATA=folder
	@$(BIN)/python -m benchmarks.probability $(if $(DATA),--data $(DATA)) $(ARGS)

.PHONY: bench-content
bench-content: $(STAMP) ## tags from picture, title and sound (fetches 161 MB by apt-get); new items: make bench-content DATA=folder
	@$(BIN)/python -m benchmarks.content $(if $(DATA),--data $(DATA)) $(ARGS)

$(PRECISION_STAMP): $(STAMP) requirements-precision.lock
	@$(BIN)/uv pip install --quiet --no-deps --python $(BIN)/python --require-hashes --requirement requirements-precision.lock
	@touch $@

.PHONY: bench-precision
bench-precision: $(STAMP) $(PRECISION_STAMP) ## encoders in half precision, int8, with fewer heads: time and accuracy (fetches 161 MB by apt-get)
	@$(BIN)/python -m benchmarks.precision $(ARGS)

.PHONY: bench-memory
bench-memory: $(STAMP) ## memory of the worker over 20 million events
	@$(BIN)/python -m benchmarks.memory $(ARGS)

.PHONY: bench
bench: bench-stream bench-memory ## all benchmarks

.PHONY: broker
broker: $(STAMP) ## start a local Kafka broker in the background (reelflow broker stop ends it)
	@$(BIN)/reelflow broker start $(ARGS)

.PHONY: wheel
wheel: $(STAMP) ## build sdist and wheel, check them, test the wheel in a fresh environment
	@rm -rf dist && $(BIN)/python -m build --no-isolation --outdir dist .
	@$(BIN)/check-wheel-contents dist/*.whl
	@$(BIN)/python tests/wheel_smoke.py dist/*.whl

.PHONY: lock
lock: $(BIN)/uv ## resolve the lock files again from pyproject.toml
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --extra content --extra ocr --group dev pyproject.toml --output-file requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --group bench --output-file requirements-bench.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --constraint requirements.lock --group bench-quality --output-file requirements-quality.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --constraint requirements.lock --group bench-precision --output-file requirements-precision.lock
	@echo uv | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url - --output-file requirements-uv.lock

.PHONY: clean
clean: ## stop the local broker, remove the environment and everything generated
	@test ! -x $(BIN)/reelflow || $(BIN)/reelflow broker clean || true
	@rm -rf $(VENV) $(BENCH_VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
