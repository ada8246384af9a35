# Every target makes the environment it needs: .venv, which is renewed when pyproject.toml changes.
PYTHON ?= python3
BIN := .venv/bin
# Python may write compiled modules, which all later processes of the tests then find: those of .venv-lowest come
# without, and each process that compiled them anew took three times the processor time to start.
unexport PYTHONDONTWRITEBYTECODE
# The scripts of `make bench`; with SHORT=1 only small matrices, to check that all packages run.
BENCHMARKS = $(if $(SHORT),"run_peers.py --short --output short",run_peers.py run_reads.py run_speed.py run_one_pass.py run_held_out.py run_many_models.py run_planted_ranks.py run_merged_starts.py run_rank_question.py run_out_of_core.py run_cache.py run_prefetch.py run_scaling.py run_losses.py run_convergence.py run_task_memory.py run_convert.py run_update.py run_ratings.py)

# The tests that run with the lowest versions that pyproject.toml allows.
LOWEST = behaviour/test_api unit/sources/test_inputs unit/sources/test_masks unit/sources/test_duplicate_entries unit/sources/test_packing unit/cli/test_pipes project/test_slurm_files unit/runs/test_run unit/runs/test_contents
# Files with marked tests: to collect all others too took half of the time of collecting.
MARKED = $(shell grep -rl --include='test_*.py' 'mark\.$1' tests)
REAL = tests/real $(filter-out tests/real/%,$(call MARKED,real))

# The seed of random test examples: make test SEED=7. Without one, examples are always the same.
DRAWN = $(if $(SEED),--hypothesis-profile seeded --hypothesis-seed $(SEED))

# Tests write their files to memory if it has 4 GB free, because syncing a disk took half of the time of those
# with runs. Real tests write to the disk.
IN_MEMORY = $(if $(filter-out 0 1 2 3,$(shell df -B 1073741824 --output=avail /dev/shm 2>/dev/null | tail -n 1)),PYTEST_DEBUG_TEMPROOT=/dev/shm)

.PHONY: demo test test-real test-data test-lowest soak lint docs bench kernels clean

demo: .venv/installed
	$(BIN)/python examples/topics.py demo

test: .venv/installed-dev # two processes; an idle one takes tests from the other
	$(IN_MEMORY) $(BIN)/python -m pytest --numprocesses 2 --dist worksteal $(DRAWN)

test-real: .venv/installed-dev # six processes: these tests wait for servers almost half of the time
	$(BIN)/python -m pytest -m real --numprocesses 6 --dist worksteal $(DRAWN) $(REAL)

test-data: .venv/installed-dev # needs data sets in ../shared/data, which the project does not carry
	$(BIN)/python -m pytest -m data --numprocesses 2 --dist worksteal $(call MARKED,data)

# It has a numba cache of its own, which two versions would overwrite in turn. Two processes would compile the same.
test-lowest: .venv-lowest/installed
	$(IN_MEMORY) NUMBA_CACHE_DIR=$(CURDIR)/.venv-lowest/numba .venv-lowest/bin/python -m pytest $(LOWEST:%=tests/%.py)

soak: .venv/installed-dev # and, unless MINUTES is set, many more random test examples, and takeovers at each write
	PYTHONPATH=tests $(BIN)/python -m tools.soak $(or $(MINUTES),10) $(SEED)
	$(if $(MINUTES),,$(BIN)/python -m pytest -m hypothesis --numprocesses 2 --dist worksteal \
		--hypothesis-profile many $(if $(SEED),--hypothesis-seed $(SEED)))
	$(if $(MINUTES),,$(BIN)/python -m pytest -m real tests/real/object_stores/test_lost_leases.py \
		--hypothesis-profile many)

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

docs: .venv/installed-dev # the site; open docs/_build/index.html
	$(BIN)/python -m sphinx -c docs -W --keep-going -q . docs/_build

bench: .venv/installed-bench
	for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python benchmarks/$$script || exit 1; done

kernels: .venv/installed-bench
	$(BIN)/python -m pytest benchmarks/micro/bench_kernels.py

clean:
	rm -rf .venv .venv-lowest docs/_build docs/api demo short dist .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "needs Python >= 3.11, give PYTHON=...")'
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/installed-dev: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev,examples]"
	touch $@ .venv/installed

.venv/installed-bench: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[bench,examples]"
	touch $@ .venv/installed .venv/installed-dev

.venv-lowest/installed: pyproject.toml tests/tools/floors.py | .venv/bin/python
	$(PYTHON) -m venv --clear .venv-lowest
	PYTHONPATH=tests $(PYTHON) -m tools.floors dashboard test > .venv-lowest/floors.txt
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
		--constraint .venv-lowest/floors.txt --editable ".[dashboard,test]"
	touch $@
