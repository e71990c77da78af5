# Needs only make and Python 3.11 or newer; everything else is installed into .venv.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo serve test test-system grpcurl clients failpoints check generate format bench simulate chaos chaos-all chaos-smoke failover soak workers-run mutants mutate clean

# The first interpreter that is new enough and can make a virtual environment.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	"$$p" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)

# Where a machine forbids it, each of the hundreds of processes that tests start compiles every module again.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
GRPCURL := github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4
PIP := CLIENT_VERSION= $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
MANIFESTS := pyproject.toml clients/python/pyproject.toml constraints.txt
# Where Debian and the PostgreSQL project's own packages put it.
SYSTEM_POSTGRES := $(patsubst %/postgres,%,$(firstword $(wildcard \
	/usr/lib/postgresql/15/bin/postgres /usr/pgsql-15/bin/postgres)))
SEEDS ?= 1000
SEED ?= 1
KIND ?= K1
DURATION ?= 20
RUNS ?= 1
# Two more than cores: most tests wait for a process or a clock half of their time.
JOBS ?= $(shell echo $$(( $$(nproc 2>/dev/null || echo 2) + 2 )))

help:  ## Lists the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: .venv/.runtime  ## Runs a small workflow from start to end, with nothing to set up
	$(BIN)/flowkeep demo

serve: .venv/.runtime  ## Runs the server with the embedded Postgres
	$(BIN)/flowkeep serve

test: .venv/.dev grpcurl clients  ## Runs every test, on the embedded Postgres
	$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

test-system: .venv/.dev  ## Runs the tests of the store once more, on the Postgres 15 of this system where it has one
ifneq ($(SYSTEM_POSTGRES),)
	FLOWKEEP_TEST_POSTGRES_BIN=$(SYSTEM_POSTGRES) $(BIN)/python -m pytest -n $(JOBS) \
		tests/conformance tests/integration $(ARGS)
else
	@echo "Postgres 15 was not found on this system: the tests ran on the embedded Postgres 18 only."
endif

# The tests drive the server with grpcurl too, where Go can build it.
grpcurl:
	@if [ -x .tools/bin/grpcurl ]; then :; \
	elif command -v go >/dev/null; then \
		echo "Building grpcurl, once"; GOBIN="$(CURDIR)/.tools/bin" go install $(GRPCURL) \
			|| echo "grpcurl could not be built: the tests use buf curl alone."; \
	else echo "Go was not found: the tests use buf curl alone, without grpcurl."; fi

clients:  ## Builds the clients of TypeScript and Go with their tests, where Node and Go are
	@.ci/clients build

failpoints: .venv/.dev  ## Runs every failpoint with every action, of which make test runs a few, each day others
	FLOWKEEP_TEST_FAILPOINTS=all $(BIN)/python -m pytest -n $(JOBS) tests/e2e/test_failpoints.py $(ARGS)

check: .venv/.dev  ## Runs linters, the type checker, and the checks of protos and generated code
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	.ci/breaking
	.ci/generate --check

generate: .venv/.dev  ## Writes what is made of protos and statements: stubs, descriptors that reflection shows, SQL to look at
	.ci/generate

format: .venv/.dev  ## Formats Python and protos
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
	$(BIN)/buf format --write

bench: .venv/.bench  ## Measures throughput, latency and cost, beside DBOS
	$(BIN)/python -m tests.bench.run $(ARGS)

simulate: .venv/.dev  ## Simulates SEEDS=n worlds from SEED=k on; one seed is replayed with its trace
	$(BIN)/python -m tests.simulation --keep --seeds $(SEEDS) --seed $(SEED) $(ARGS)

chaos: .venv/.dev  ## Runs three replicas under one kind of fault, KIND=K1 SEED=1 DURATION=20, and judges it
	$(BIN)/python -m tests.faults.chaos --kind $(KIND) --seed $(SEED) --duration $(DURATION) $(ARGS)

chaos-all: .venv/.dev  ## Runs every kind of fault RUNS=n times, with seeds from SEED=k on
	$(BIN)/python -m tests.faults.chaos_all --runs $(RUNS) --seed $(SEED) --duration $(DURATION) $(ARGS)

chaos-smoke: .venv/.dev  ## Runs eight kinds of faults once, 12 s each
	$(BIN)/python -m tests.faults.chaos_all --kinds smoke --duration 12 $(ARGS)

failover: RUNS = 20
failover: .venv/.dev  ## Measures how long faults stop the service, RUNS=20 of each kind and fewer at production's TTL
	$(BIN)/python -m tests.faults.failover --runs $(RUNS) --seed $(SEED) $(ARGS)

soak: DURATION = 600
soak: .venv/.dev  ## Runs three replicas for DURATION=600 s under load and faults, and follows what they use
	$(BIN)/python -m tests.faults.soak --duration $(DURATION) --seed $(SEED) $(ARGS)

workers-run: .venv/.dev clients  ## Runs 5,000 attempts on workers in three languages while workers and servers are killed: ARGS=--quick for fewer
	$(BIN)/python -m tests.faults.workers_run --seed $(SEED) $(ARGS)

mutants: .venv/.dev  ## Plants bugs, MUTANT=M5 or all, and demands that each turns its oracle red
	$(BIN)/python -m tests.faults.mutants $(if $(MUTANT),--mutant $(MUTANT)) $(ARGS)

mutate: MUTANTS = 40
mutate: .venv/.dev  ## Changes the code at random, MUTANTS=40 SEED=1 WHERE="planning running watch commit", and demands that tests notice
	$(BIN)/python -m tests.mutation --mutants $(MUTANTS) --seed $(SEED) --jobs $(JOBS) $(if $(WHERE),--where $(WHERE)) $(ARGS)

clean:  ## Removes what make made
	rm -rf .venv build dist *.egg-info clients/python/build clients/python/*.egg-info
	rm -rf clients/typescript/dist clients/typescript/node_modules
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find service persistence clients tests -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/pip:
	@test -n "$(PYTHON)" || { echo "Flowkeep needs Python 3.11 or newer with the venv module; none was found." >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv

.venv/.runtime: .venv/bin/pip $(MANIFESTS)
	$(PIP) -e clients/python -e '.[embedded]'
	@touch $@

.venv/.dev: .venv/bin/pip $(MANIFESTS)
	$(PIP) -e clients/python -e '.[embedded,dev]'
	@touch .venv/.runtime $@

.venv/.bench: .venv/.dev
	$(PIP) -e clients/python -e '.[embedded,dev,bench]'
	@touch $@
