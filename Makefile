# dynalign: everything a person types. `make help` lists it.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv
export UV_HTTP_TIMEOUT ?= 180
# What `make venv` installs: cpu, or gpu on a machine with an NVIDIA GPU.
EXTRA ?= cpu
# Test files that run side by side; each may start engines and training processes.
WORKERS ?= 2
# Tests and checks start Python by the hundred: compiled files are kept, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE
# Of the first input of `make fuzz`.
SEED ?= 0

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-local test-fast test-zoo test-gpu test-gpu-cluster test-cluster test-kind cluster bench-transition bench-checkpoints bench-judge bench-learning bench-demo bench-injections bench-iteration bench-start bench-peer bench-sampling bench-trainer bench-scale gpu-check testbed fuzz check check-style check-types check-generated format generate docs coverage images chart version release lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

venv: .venv/.installed-$(EXTRA) ## Create .venv with the exact versions of requirements/cpu.txt (EXTRA=gpu: gpu.txt)

.venv/.installed-$(EXTRA): requirements/$(EXTRA).txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(UV) pip sync --python $(BIN)/python requirements/$(EXTRA).txt
	$(UV) pip install --python $(BIN)/python --quiet --no-deps uv==0.13.9 --editable .
	$(BIN)/python -m compileall -q -j 0 $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])') >/dev/null 2>&1 || true
	rm -f .venv/.installed-*
	touch $@

demo: venv ## Align a real small model on this machine: one iteration, no GPU, no cluster
	$(BIN)/dynalign run examples/demo.yaml

# One file after the other for each worker, in the order of tests/conftest.py.
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: venv ## Every test but those of GPUs and the zoo's loops: root on Debian 12, or a KUBECONFIG; builds Kubernetes and the images once
	tests/cluster/around.sh $(PYTEST) --durations=40 --durations-min=15 -m "not zoo and not gpu"

test-local: venv ## Every test that needs no Kubernetes, real engines included
	$(PYTEST) -m "not cluster and not zoo and not gpu"

# One worker more: a part of these tests waits for timeouts and servers of its own.
test-fast: venv ## The tests that take no seconds each: about a minute
	$(PYTEST) -n $$(($(WORKERS) + 1)) -q -m "not slow and not gpu and not cluster"

test-zoo: venv ## Each family of models of docs/models.md: what fetch decides, and the whole loop (an hour)
	$(PYTEST) -q tests/zoo

test-gpu: venv ## Every stage on this machine's NVIDIA GPU, by `dynalign run` with the bundled model; EXTRA=gpu
	@$(BIN)/python -m lab.gpus
	$(BIN)/python -m pytest -q -m gpu tests/gpu

# The images are named as tests/cluster/README.md says. Others of tests/e2e compare bit for bit, which GPUs do not promise, or need servers of
# this machine that pods can reach.
GPU_CLUSTER_TESTS := $(addprefix tests/e2e/test_cluster_,smollm2.py troubles.py)

test-gpu-cluster: venv ## Runs with a GPU for each engine on the cluster of KUBECONFIG; DYNALIGN_TEST_TRAINER_IMAGE=... for GPUs
	@test -n "$$KUBECONFIG" || { echo "make test-gpu-cluster needs a KUBECONFIG of a cluster whose nodes offer nvidia.com/gpu"; exit 1; }
	DYNALIGN_TEST_GPUS=yes tests/cluster/around.sh $(PYTEST) $(GPU_CLUSTER_TESTS)

test-cluster: venv ## The tests on a real API server and on a real cluster
	tests/cluster/around.sh $(PYTEST) -m cluster

# KIND_NODES=3: without the runs of real engines, whose image takes 14 GB on each node.
KIND_NODES ?= 1
KIND_TESTS := tests/cluster/test_node.py tests/e2e/test_cluster_troubles.py
ifeq ($(KIND_NODES),1)
KIND_TESTS += tests/e2e/test_cluster_gang.py tests/e2e/test_cluster_smollm2.py
endif

test-kind: venv ## Node, troubles, a gang and the example for CPUs on kind; needs Docker; KIND_NODES=3 for three nodes
	env -u KUBECONFIG DYNALIGN_TEST_CLUSTER=kind DYNALIGN_TEST_KIND_NODES=$(KIND_NODES) \
	  tests/cluster/around.sh $(PYTEST) $(KIND_TESTS)

cluster: ## Start a Kubernetes that can run pods; prints the line that selects it
	@tests/cluster/up.sh

bench-transition: venv ## Time from a Job's completion to the next Job's creation, on a real node (minutes)
	$(BIN)/python -m benchmarks.transition

bench-checkpoints: venv ## Checkpoints of full training at real sizes, and what kills cost (minutes; 30 GB of disk, 12 of memory)
	$(BIN)/python -m benchmarks.checkpoints

bench-judge: venv ## What shared prefixes save the judge, with the bundled model (minutes)
	$(BIN)/python -m benchmarks.judge

bench-learning: venv ## Self-alignment against a known rule, five seeds, healthy, hacked, rescued, advised, honest (100 minutes)
	$(BIN)/python -m benchmarks.learning

bench-demo: venv ## Whether `make demo` changes the model visibly, five seeds (45 minutes)
	$(BIN)/python -m benchmarks.demo

bench-injections: venv ## What the answers that give orders to the judge get beside plain ones (minutes)
	$(BIN)/python -m benchmarks.injections

bench-iteration: venv ## Wall time and goodput of whole iterations with the bundled model (half an hour)
	$(BIN)/python -m benchmarks.iteration

bench-start: venv ## What each stage does before its first useful work and after its last, with the bundled model (minutes)
	$(BIN)/python -m benchmarks.start

bench-peer: venv ## One iteration by dynalign, by TRL alone, and by plain scripts with vLLM and TRL (40 minutes)
	$(BIN)/python -m benchmarks.peer

bench-sampling: venv ## Generate beside vLLM alone, two shards beside one, and a stage with a slow shard (quarter of an hour)
	$(BIN)/python -m benchmarks.sampling

bench-trainer: venv ## Throughput and memory of the Packed backend against TRL's, on this machine (half an hour)
	$(BIN)/python -m benchmarks.trainer

gpu-check: venv ## What of the training code works and how fast, on this machine's NVIDIA GPU (nine minutes); EXTRA=gpu
	$(BIN)/python -m benchmarks.gpu_check

testbed: venv ## Train the tests' model anew (two minutes); SEED=1 FOLDER=/tmp/other for one of another seed
	$(BIN)/python -m lab.testbed $(FOLDER) --seed $(or $(SEED),0)

fuzz: venv ## Run files, cluster states and artifacts that nobody would write, by the thousand; SEED=random for new ones (minutes)
	$(BIN)/python -m benchmarks.fuzz --documents 20000 --states 20000 --artifacts 2000 --seed $(SEED)

bench-scale: venv ## 500 active runs and 2,000 finished ones: memory, restart, transitions, scrapes (half an hour)
	$(BIN)/python -m benchmarks.scale

CLI := operator/dynalign_operator/cli
# What `dynalign init` writes where there is no copy of the repository.
INIT_EXAMPLES := tutorial smollm2 kubernetes-cpu

check: check-style check-types check-generated ## Format, lint, types, architecture, generated files; -j2 side by side

check-style: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

check-types: venv
	$(BIN)/mypy

check-generated: venv
	$(BIN)/python -m dynalign_operator.generate.crd --check crds/dynalign.io_alignmentruns.yaml
	$(BIN)/python -m dynalign_operator.generate.spec_page --check docs/spec/alignmentrun.md
	$(BIN)/python -m dynalign_operator.generate.metrics_page --check docs/reference/metrics.md
	$(BIN)/python -m dynalign_operator.generate.cli_page --check docs/reference/cli.md
	$(BIN)/python -m dynalign_operator.generate.man_page --check operator/man/dynalign.1
	$(BIN)/python -m dynalign_operator.generate.reward_schema --check docs/reference/rewards.v1.schema.json
	PYTHONPATH=tests $(BIN)/python -m zoo.models_page --check docs/models.md
	$(BIN)/python -m release.check
	cmp crds/dynalign.io_alignmentruns.yaml charts/dynalign/files/dynalign.io_alignmentruns.yaml
	for example in $(INIT_EXAMPLES); do cmp examples/$$example.yaml $(CLI)/examples/$$example.yaml || exit 1; done

format: venv ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

generate: venv ## Regenerate what is generated from the models
	$(BIN)/python -m dynalign_operator.generate.crd --write crds/dynalign.io_alignmentruns.yaml
	$(BIN)/python -m dynalign_operator.generate.spec_page --write docs/spec/alignmentrun.md
	$(BIN)/python -m dynalign_operator.generate.metrics_page --write docs/reference/metrics.md
	$(BIN)/python -m dynalign_operator.generate.cli_page --write docs/reference/cli.md
	$(BIN)/python -m dynalign_operator.generate.man_page --write operator/man/dynalign.1
	$(BIN)/python -m dynalign_operator.generate.reward_schema --write docs/reference/rewards.v1.schema.json
	PYTHONPATH=tests $(BIN)/python -m zoo.models_page --write docs/models.md
	cp crds/dynalign.io_alignmentruns.yaml charts/dynalign/files/
	cp $(INIT_EXAMPLES:%=examples/%.yaml) $(CLI)/examples/

# The documentation has an environment of its own, which `make venv` does not need.
DOCS := .venv-docs

$(DOCS)/.installed: requirements/docs.txt
	test -x $(DOCS)/bin/python || $(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements/docs.txt
	touch $@

# Not --quiet, which keeps warnings from --strict.
docs: $(DOCS)/.installed ## Build the documentation as a site in build/site; checks links and anchors, reads no network
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict
	@! grep -rElm1 '<(script|link|img)[^>]*(src|href)="(https?:)?//' build/site --include='*.html' \
	  || { echo "these pages load something from elsewhere"; exit 1; }

coverage: venv ## The share of lines that `make test-fast` runs; the pages are in build/coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q -m "not slow and not gpu and not cluster"
	$(BIN)/coverage html --quiet
	$(BIN)/coverage report --skip-covered --sort=cover

VERSION_NOW = $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' pyproject.toml)

images: ## Build both images with docker; FLAVOUR=cpu BASE_IMAGE=python:3.12-slim: for CPUs
	docker build -f images/operator/Dockerfile -t dynalign-operator:$(VERSION_NOW) \
	  --build-arg REVISION=$$(git rev-parse HEAD) .
	docker build -f images/trainer/Dockerfile -t dynalign-trainer:$(VERSION_NOW)$(if $(filter cpu,$(FLAVOUR)),-cpu) \
	  --build-arg REVISION=$$(git rev-parse HEAD) \
	  $(foreach name,FLAVOUR BASE_IMAGE,$(if $($(name)),--build-arg $(name)=$($(name)))) .

chart: ## Check the chart and package it into dist/; needs helm
	helm lint --strict charts/dynalign
	helm package --destination dist charts/dynalign

version: venv ## VERSION=X.Y.Z: state a new version everywhere and close the changelog's open section
	$(BIN)/python -m release.prepare $(VERSION)

release: venv ## Dry run of a release: build and check what it publishes into dist/, print the tag; pushes nothing
	$(BIN)/python -m release.dry_run

lock: ## Resolve requirements/*.txt, and what `dynalign requirements` prints, anew: no hosts, no paths
	rm -f requirements/cpu.txt requirements/gpu.txt requirements/docs.txt $(CLI)/locks/*.txt
	requirements/compile.sh cpu requirements/cpu.txt
	requirements/compile.sh gpu requirements/gpu.txt
	requirements/compile.sh cpu $(CLI)/locks/cpu.txt requirements/cpu.txt
	$(UV) pip compile requirements/docs.in --universal --python-version 3.11 --no-header --no-annotate --quiet -o requirements/docs.txt

clean: ## Remove what the targets above made, runs included
	rm -rf .venv .venv-docs build runs .mypy_cache .ruff_cache .pytest_cache .hypothesis
