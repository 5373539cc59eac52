# What can be done here: `make help`. Needs Python 3.11+ and make; Node.js 20+ for the tests against BullMQ.
#
#   VENV=path      another environment than .venv
#   PYTHON=path    the Python that makes it
#   BENCH=options  for `make bench`, e.g. BENCH="--contestants toril,bullmq-node --workloads drain --rounds 3"
#   SCALE=1        `make bench` runs the tests at scale instead
#   TESTS=paths    `make test` runs only these, e.g. TESTS="tests/test_worker.py -k stalled"
#   CELLS=1,3,14   `make chaos` plays only these rows; SIZE=0.3 makes them smaller, SOAK=30 soaks for so many minutes

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
NODE := $(shell command -v node)

# Versions and hashes come from the lock files. This project itself is installed last, from the work tree.
RUN_LOCK := requirements/run.txt
DEV_LOCK := requirements/dev.txt
# The libraries that `make bench` compares with do not agree on a redis-py, so they live in three environments.
BENCHED := $(addsuffix /.installed,$(addprefix benchmarks/,.venv .venv-arq .venv-saq))
# Likewise the Python port of BullMQ, to whom `make chaos` does the same.
HARMED := chaos/.venv/.installed
# What draws its inputs by chance.
FUZZED := tests/fuzz tests/cli/test_any_words.py tests/test_cron.py tests/test_codec.py tests/test_keys.py tests/test_options.py \
	tests/test_signature.py tests/test_backoff.py tests/test_clock.py tests/interop/test_cron.py
PROJECTS := . $(dir $(wildcard pharmacy_coverage/pyproject.toml))

.PHONY: help run test check format docs fuzz chaos bench bench-quick differential lock clean

help:  ## Show this list.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/:/' | awk -F: '{printf "  make %-13s %s\n", $$1, $$2}'

run: $(VENV)/.run-installed  ## Start the platform, its workers and every server they need.
	@exec $(BIN)/python -m dev

test: $(VENV)/.dev-installed $(if $(NODE),interop/node_modules/.package-lock.json)  ## Run all tests, on real servers.
	@$(if $(NODE),,echo 'Node.js is missing: the tests against BullMQ for Node are skipped.')
	@$(BIN)/python -m tests.sections $(TESTS)

check: $(VENV)/.dev-installed  ## Lint, formatting and types.
	@status=0; \
	$(BIN)/ruff check . || status=1; \
	$(BIN)/ruff format --check --quiet . || { status=1; echo 'Formatting: make format'; }; \
	$(BIN)/mypy || status=1; \
	(cd pharmacy_coverage && $(abspath $(BIN))/mypy) || status=1; \
	$(BIN)/pyright || status=1; \
	exit $$status

format: $(VENV)/.dev-installed  ## Format the code, and mend what the linter can mend.
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

docs: $(VENV)/.dev-installed  ## Run the code in README and docs, and follow their links.
	@$(BIN)/python -m pytest tests/test_docs.py

fuzz: $(VENV)/.dev-installed $(if $(NODE),interop/node_modules/.package-lock.json)  ## Search longer, and elsewhere, for inputs that break something (TIMES=20).
	@TORIL_FUZZ=$(or $(TIMES),20) $(BIN)/python -m pytest -q --timeout=7200 $(FUZZED)

chaos: $(VENV)/.dev-installed $(HARMED) $(if $(NODE),interop/node_modules/.package-lock.json)  ## Play the fault matrix, and write its tables in docs/.
	@status=0; \
	$(if $(SOAK),$(BIN)/python -m chaos.soak --minutes $(SOAK) || status=1; $(BIN)/python -m chaos.report,\
		$(BIN)/python -m chaos $(if $(CELLS),--cells $(CELLS)) $(if $(SIZE),--size $(SIZE)) --write || status=1; \
		$(if $(CELLS),:,$(BIN)/python -m chaos.persistence --write)); \
	exit $$status

bench: $(VENV)/.dev-installed $(BENCHED) $(if $(NODE),interop/node_modules/.package-lock.json)  ## Measure against other queues, and write the page in docs/.
	@$(BIN)/python -m benchmarks $(if $(SCALE),scale --write,run) $(BENCH)

bench-quick: $(VENV)/.dev-installed  ## Measure toril alone, and compare with the last recorded run.
	@$(BIN)/python -m benchmarks quick $(BENCH)

differential: $(VENV)/.dev-installed interop/node_modules/.package-lock.json  ## Compare with BullMQ on random programs (MINUTES=, PROGRAMS=, SEED=).
	@$(BIN)/python -m tests.differential.search $(if $(MINUTES),--minutes $(MINUTES)) \
		$(if $(PROGRAMS),--programs $(PROGRAMS)) $(if $(SEED),--seed $(SEED))

clean:  ## Remove what was installed and cached here; data of `make run` stays.
	@rm -rf $(VENV) benchmarks/.venv* chaos/.venv interop/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis

lock: $(BIN)/uv  ## Resolve the dependencies anew and pin them with hashes.
	@$(BIN)/python requirements/lock.py

# --- environment ------------------------------------------------------------------------------

# Counts on a terminal, says nothing elsewhere; pip's own words if it fails.
define install
	@log=$$(mktemp); trap 'rm -f $$log' EXIT; \
	if ! $(PIP) $(2) install --progress-bar off $(1) 2>&1 | tee $$log \
		| awk -v tty="$$(test -t 2 && echo 1 || true)" \
			'/^(Collecting|Requirement already)/ { n++; if (tty) printf "\r  %d packages", n > "/dev/stderr" } \
			END { if (tty && n) printf "\r%40s\r", "" > "/dev/stderr" }'; \
	then cat $$log >&2; exit 1; fi
endef

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'Python 3.11 or newer is needed; name it: make PYTHON=/path/to/python3' >&2; exit 1; }
	@echo 'Making $(VENV) ...'
	@# Debian splits ensurepip off into python3-venv; a pip of the system's does as well.
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 \
		|| { $(PYTHON) -m venv --clear --without-pip $(VENV) \
			&& $(PYTHON) -m pip --python $(BIN)/python install --quiet pip 2>/dev/null; } \
		|| { rm -rf $(VENV); echo 'Python has neither venv nor pip: apt-get install python3-venv' >&2; exit 1; }

$(VENV)/.run-installed: $(RUN_LOCK) pyproject.toml $(wildcard pharmacy_coverage/pyproject.toml) | $(BIN)/python
	@echo 'Installing what `make run` needs (the first time takes a minute) ...'
	$(call install,--require-hashes -r $(RUN_LOCK))
	$(call install,--no-deps --no-build-isolation $(addprefix -e ,$(PROJECTS)))
	@touch $@

$(VENV)/.dev-installed: $(DEV_LOCK) $(VENV)/.run-installed
	@echo 'Installing what the tests need ...'
	$(call install,--require-hashes -r $(DEV_LOCK))
	@touch $@

benchmarks/.venv/.installed: requirements/bench.txt
benchmarks/.venv-arq/.installed: requirements/bench-arq.txt
benchmarks/.venv-saq/.installed: requirements/bench-saq.txt
chaos/.venv/.installed: requirements/chaos.txt
$(BENCHED) $(HARMED): | $(BIN)/python
	@echo 'Installing $(notdir $<) ...'
	@rm -rf $(dir $@) && $(BIN)/python -m venv --without-pip $(dir $@)
	$(call install,--require-hashes -r $<,--python $(dir $@)bin/python)
	@touch $@

interop/node_modules/.package-lock.json: interop/package-lock.json
	@echo 'Installing BullMQ, bull-board and axe-core for Node.js ...'
	@# Not `npm ci`: it wants the native parts for all platforms in the lock file, and not every registry has them.
	@npm install --no-save --prefix interop --no-audit --no-fund --loglevel=error
	@touch $@

$(BIN)/uv: | $(BIN)/python
	$(call install,uv)
