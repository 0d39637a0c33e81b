# make story   tell a 25-page illustrated story into ./story (PAGES=…, OUT=…, ARGS='--seed 3 …')
# make test    format and types, every notebook's tests, then tests/
# make repro   every notebook of nbs/repro with CPU-sized defaults, into out/repro; stopped, it goes on where it was
# make docs    the documentation site with search and API reference, into _docs; links are checked, no network is used
# All set up .venv by themselves, from the pinned requirements, and need only Python 3.11 or newer with pip.

SHELL  := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV   := .venv
RUN    := $(VENV)/bin
PAGES  ?= 25
OUT    ?= story
PIP    := $(RUN)/python -m pip --disable-pip-version-check

.PHONY: help story lint test repro docs readme pictures records lock clean
.DELETE_ON_ERROR:

help:
	@sed -n '1,5s/^# //p' Makefile

story: $(VENV)/story.stamp
	@$(RUN)/seed-story tell --pages $(PAGES) --out '$(OUT)' $(if $(wildcard $(OUT)/.state/settings.json),--resume) $(ARGS)
	@echo "The book: $(abspath $(OUT))/index.html"

# Format, likely mistakes, types.
lint: $(VENV)/test.stamp
	@$(RUN)/ruff format --check -q nbs tests docs setup.py
	@$(RUN)/ruff check -q nbs tests docs setup.py
	@$(RUN)/mypy

# What notebooks and tests write goes into a folder of its own, which is removed: it comes to several GB.
test: lint
	@export OMP_NUM_THREADS=1 TMPDIR=$$(mktemp -d); trap 'rm -rf "$$TMPDIR"' EXIT; \
	echo 'notebooks:'; time $(RUN)/nbdev_test --n_workers 2 --timing && $(RUN)/python -m pytest -q -n 2 --dist loadfile --durations=8 tests

repro: $(VENV)/test.stamp
	@$(RUN)/seed-story repro --all $(ARGS)

# Some three minutes on one core; the notebooks' outputs are those that are committed.
docs: $(VENV)/docs.stamp
	@$(RUN)/python docs/build.py _docs

# README.md and its pictures are the index notebook, converted; the cards in data/ come from configurations and records.
readme: $(VENV)/test.stamp
	@.ci/readme . $(RUN)/python

# The pictures in all notebooks with palettes of 128 colours, where that is smaller; then README.md's, which are theirs.
pictures: $(VENV)/test.stamp
	@$(RUN)/python -c 'from seed_story.records.executed import main; main()' nbs data/results
	@$(MAKE) --no-print-directory readme

# The records of more than 2 KB packed (NAME.json.xz); they are read packed or not.
records: $(VENV)/test.stamp
	@$(RUN)/python -c 'from seed_story.records.record import pack_records; pack_records("data/results")'

$(VENV)/story.stamp: requirements.txt settings.ini setup.py | $(VENV)/bin/python
	$(PIP) install -q -r requirements.txt
	$(PIP) install -q --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/test.stamp: requirements-dev.txt $(VENV)/story.stamp
	$(PIP) install -q -r requirements-dev.txt
	@touch $@

$(VENV)/docs.stamp: requirements-docs.txt $(VENV)/test.stamp
	$(PIP) install -q -r requirements-docs.txt
	@touch $@

# A Python without ensurepip (Debian's) makes the venv bare and fills it with its own pip.
$(VENV)/bin/python:
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, this is {sys.version}: make PYTHON=/path/to/python3.11")'
	'$(PYTHON)' -m venv $(VENV) || { rm -rf $(VENV); '$(PYTHON)' -m venv --without-pip $(VENV) && '$(PYTHON)' -m pip --python $(VENV)/bin/python install -q pip; }

# The newest versions that settings.ini allows, written down; torch is kept at the version that is tested.
lock:
	rm -rf build/lock && '$(PYTHON)' -m venv build/lock
	build/lock/bin/pip install -q torch==2.13.0 && build/lock/bin/pip install -q -e .
	{ head -1 requirements.txt; build/lock/bin/pip freeze --exclude-editable --all --exclude pip --exclude wheel | sed 's/+cpu$$//'; } > build/lock/run.txt
	build/lock/bin/pip install -q -e '.[dev]'
	{ head -1 requirements-dev.txt; echo '-r requirements.txt'; build/lock/bin/pip freeze --exclude-editable --all --exclude pip | sed 's/+cpu$$//' | grep -vxFf build/lock/run.txt; } > build/lock/dev.txt
	build/lock/bin/pip install -q -e '.[dev,docs]'
	{ head -1 requirements-docs.txt; echo '-r requirements-dev.txt'; build/lock/bin/pip freeze --exclude-editable --all --exclude pip | sed 's/+cpu$$//' | grep -vxFf build/lock/run.txt | grep -vxFf build/lock/dev.txt; } > build/lock/docs.txt
	mv build/lock/run.txt requirements.txt && mv build/lock/dev.txt requirements-dev.txt && mv build/lock/docs.txt requirements-docs.txt

clean:
	rm -rf $(VENV) build dist *.egg-info
