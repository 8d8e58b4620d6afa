# Plain `make` lists the actions. Every action sets up what it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= out
N ?= 500
SEED ?= 1

.DEFAULT_GOAL := help
.PHONY: adapt reference peers tracking help demo test check lint types imports proto proto-fresh licences bench faults fuzz soak image clean debian

help:  # list the actions
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Only what runs the box and the matcher.
$(VENV)/.run: $(BIN)/python pyproject.toml
	@echo "installing the box and the matcher into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --editable '.[matcher]'
	@touch $@

# Everything that trains, tests and checks. torch first and pinned: it decides what the rest takes.
$(VENV)/.dev: $(VENV)/.run
	@echo "installing what trains, tests and checks into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet 'torch==2.13.0'
	@$(BIN)/python -m pip install --quiet --editable '.[matcher,train,openvino,bench,dev]'
	@touch $@

debian:
	@tests/support/debian.sh

demo: $(VENV)/.run  ## see it work on a sample clip: who was seen, and bytes sent against bytes of video
	@rm -rf $(OUT)/demo
	@$(BIN)/edge-run --sample --embedded --site demo --data-dir $(OUT)/demo --metrics off --log text
	@$(BIN)/edge-match who --data-dir $(OUT)/demo/matcher
	@$(BIN)/edge-match report --data-dir $(OUT)/demo/matcher $(OUT)/demo/report.html >/dev/null
	@echo "the same as a page: $(OUT)/demo/report.html"

test: $(VENV)/.dev debian  ## run all tests
	@$(BIN)/python -m pytest

check: lint types imports proto-fresh licences  ## what CI checks besides the tests

# proto/v1.binpb is the wire of v1: after an additive change, buf build proto --exclude-source-info -o it.
lint: $(VENV)/.dev  ## style
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/buf lint proto
	@$(BIN)/buf breaking proto --against proto/v1.binpb

types: $(VENV)/.dev  ## types
	@$(BIN)/mypy

imports: $(VENV)/.dev  ## who may import whom
	@$(BIN)/lint-imports

PROTOC = $(BIN)/python -m grpc_tools.protoc -I proto --python_out=$(1) --pyi_out=$(1) --grpc_python_out=$(1) proto/reid/v1/*.proto

proto: $(VENV)/.dev  ## generate reid/v1 from proto/
	@$(call PROTOC,.)

proto-fresh: $(VENV)/.dev
	@rm -rf build/proto && mkdir -p build/proto && $(call PROTOC,build/proto)
	@for f in build/proto/reid/v1/*; do cmp -s $$f reid/v1/$$(basename $$f) || \
	  { echo "reid/v1/$$(basename $$f) is stale: run make proto"; exit 1; }; done

licences: $(VENV)/.dev  ## licences of what the box and the matcher depend on
	@$(BIN)/python tests/support/licences.py

bench: $(VENV)/.dev  ## the short benchmarks, one after the other
	@for name in box embed delivery; do echo "== $$name"; $(BIN)/python -m benchmarks.bench_$$name || exit 1; done

faults: $(VENV)/.dev debian  ## N faults at random against a real box and matcher (N=500 SEED=1); docs/reliability.md
	@$(BIN)/python -m tests.faults.run --n $(N) --seed $(SEED)

# atheris has wheels for few Pythons and is needed by nothing else: an environment of its own.
build/fuzz/bin/python: $(VENV)/.dev
	@$(PYTHON) -m venv build/fuzz
	@build/fuzz/bin/python -m pip install --quiet atheris==3.0.0
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	  >"$$(build/fuzz/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/box.pth"

fuzz: build/fuzz/bin/python  ## coverage-guided fuzzing of rows, files, batches, streams, settings, models, cards
	@for target in record pages marks batch stream settings matcher model session card; do \
	  PYTHONPATH=. build/fuzz/bin/python -m tests.fuzz.run $$target -max_total_time=60 \
	    >build/fuzz/$$target.log 2>&1 || { tail -40 build/fuzz/$$target.log; exit 1; }; \
	  echo "$$target: $$(grep ^Done build/fuzz/$$target.log)"; done

soak: $(VENV)/.dev debian  ## a day of delivery at an accelerated pace: does anything grow?
	@rm -rf $(OUT)/soak $(OUT)/soak-cameras
	@$(BIN)/python -m tests.faults.soak --out $(OUT)/soak
	@$(BIN)/python -m tests.faults.soak_cameras --out $(OUT)/soak-cameras

# Other trackers and their metrics want packages that the box must not have beside it.
build/peers/bin/python: benchmarks/requirements-peers.txt
	@$(PYTHON) -m venv build/peers
	@build/peers/bin/python -m pip install --quiet torch==2.13.0
	@build/peers/bin/python -m pip install --quiet -r $<

peers: build/peers/bin/python  ## an environment with the trackers that bench_tracking compares with

tracking: $(VENV)/.dev build/peers/bin/python  ## tracking on real footage beside two other trackers
	@$(BIN)/python -m benchmarks.bench_tracking --peers-python build/peers/bin/python

# torchreid is only read, not installed: it wants a compiler and other versions.
build/torchreid: $(VENV)/.dev tests/requirements-torchreid.txt
	@mkdir -p $@ && $(BIN)/python -m pip install --quiet setuptools wheel numpy cython
	@$(BIN)/python -m pip download --quiet --no-deps --no-binary :all: --no-build-isolation -d $@ torchreid==0.2.5
	@tar xzf $@/torchreid-0.2.5.tar.gz -C $@

# Ultralytics is under AGPL-3.0 and brings an OpenCV of its own: an environment of its own.
build/yolo/bin/python: pyproject.toml
	@$(PYTHON) -m venv build/yolo
	@build/yolo/bin/python -m pip install --quiet torch==2.13.0
	@build/yolo/bin/python -m pip install --quiet --editable '.[train,export]'

reference: build/torchreid build/yolo/bin/python  ## OSNet against torchreid, and the published figures on Market-1501, exports of Ultralytics (needs REID_SHARED; minutes)
	@REID_REQUIRE_ALL=1 REID_TORCHREID=build/torchreid REID_ULTRALYTICS=build/yolo/bin/python $(BIN)/python -m pytest -m reference tests/unit/models

PICTURES = $(BIN)/python -m benchmarks.adapt_pictures --height 128 --width 64 --epochs 3 --steps 150
adapt: $(VENV)/.dev  ## what adaptation without labels brings: the tables of docs/adaptation.md (needs REID_SHARED)
	@$(BIN)/python -m benchmarks.bench_adapt --all --pictures $(OUT)/adapt
	@$(BIN)/python -m benchmarks.bench_adapt --model models/weights/osnet_x0_25_cuhk03.onnx
	@$(BIN)/python -m benchmarks.bench_association
	@$(PICTURES) --loss baseline gds gds-h --curves $(OUT)/adapt/adaptation-pictures.png
	@$(PICTURES) --loss baseline gds-h --source models/weights/checkpoints/osnet_x0_25_market.pth --target cuhk03 --seeds 1
	@$(PICTURES) --loss baseline gds-h --source osnet_x0_25_msmt17.pth --seeds 1
	@$(BIN)/python -m benchmarks.adapt_pictures --loss baseline gds gds-h
	@$(BIN)/python -m benchmarks.adapt_pictures --loss gds-h --gds-weight 100
	@$(BIN)/python -m benchmarks.adapt_pictures --loss histogram f-statistic global --seeds 1
	@$(BIN)/python -m benchmarks.adapt_pictures --true-labels --loss baseline gds-h

image:  ## build the images and run the main job inside
	@deploy/build_image.sh

clean:  ## remove what was built here
	rm -rf $(OUT) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
