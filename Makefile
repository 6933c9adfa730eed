# One-word doors over CMake. Each word first sets up what it needs (tools/setup.sh) and says so.
#
#   make demo     build the tool and let the shipped model find facts in a long document
#   make test     check the tree, build everything, run every test
#   make bench    measure attention on this machine: msa bench
#   make install  install libraries, headers, tool and model below PREFIX (/usr/local)
#   make format   format all C++ and Python
#   make python   build the Python package msa-cpp and install it in .venv
#   make picture  draw the README's pictures: docs/demo.png, docs/inspect.png
#
# Beside them: tree-check and format-check (parts of test), lint (clang-tidy over all C++), and
# check-PRESET, which builds and runs the C++ tests under any preset of CMakePresets.json.
# ARGS passes arguments on: make demo ARGS="--length 65536 --seed 7"
JOBS ?= $(shell nproc)
PREFIX ?= /usr/local
ARGS ?=
BUILD := build/release
PYTHON := .venv/bin/python
REQUIREMENTS_TEST := training/requirements.txt
REQUIREMENTS_PYTHON := training/requirements.txt python/requirements.txt
REQUIREMENTS_FORMAT := tools/requirements-format.txt
REQUIREMENTS_LINT := tools/requirements-lint.txt
REQUIREMENTS_PICTURE := tools/requirements-picture.txt
CPP_FILES = $(shell git ls-files --cached --others --exclude-standard \
  '*.c' '*.cpp' '*.h' '*.cu' '*.cuh')
# clang-tidy reads GCC's build; omp.h is found in GCC's own folder, after clang's.
TIDY = .venv/bin/clang-tidy -p $(BUILD) --quiet \
  --extra-arg=-idirafter$(shell $(CXX) -print-file-name=include)

# Not in the default build.
NOT_LINTED := examples/% src/cuda/% tests/cuda/% bench/cuda/% python/%

.PHONY: help demo test bench install python picture format format-check tree-check lint \
  setup-build setup-format
help:
	@sed -n 's/^#   make /  make /p' $(firstword $(MAKEFILE_LIST))

demo: setup-build $(BUILD)/build.ninja
	@cmake --build $(BUILD) --target msa-tool --parallel $(JOBS)
	$(BUILD)/bin/msa demo $(ARGS)

picture: setup-build $(BUILD)/build.ninja
	@tools/setup.sh python $(REQUIREMENTS_PICTURE)
	@cmake --build $(BUILD) --target msa-tool --parallel $(JOBS)
	$(BUILD)/bin/msa demo --seed 1 $(ARGS) --json > $(BUILD)/demo.json
	$(PYTHON) tools/draw_demo.py $(BUILD)/demo.json docs/demo.png
	$(BUILD)/bin/msa inspect --seed 1 --layer 2 --png docs/inspect.png

test: tree-check format-check setup-build $(BUILD)/build.ninja
	cmake --build $(BUILD) --parallel $(JOBS)
	ctest --test-dir $(BUILD) --output-on-failure --no-tests=error --parallel $(JOBS)
	@tools/setup.sh python $(REQUIREMENTS_TEST)
	@$(MAKE) --no-print-directory python
	$(PYTHON) -m pytest

# The build folder is kept, so that a second build compiles only what has changed.
python: setup-build
	@tools/setup.sh python $(REQUIREMENTS_PYTHON)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
	  -C build-dir=build/python -C cmake.define.MSA_WARNINGS_AS_ERRORS=ON .

bench: setup-build $(BUILD)/build.ninja
	@cmake --build $(BUILD) --target msa-tool --parallel $(JOBS)
	$(BUILD)/bin/msa bench $(ARGS)

install: setup-build $(BUILD)/build.ninja
	cmake --build $(BUILD) --parallel $(JOBS)
	cmake --install $(BUILD) --prefix $(PREFIX)

format: setup-format
	.venv/bin/clang-format -i $(CPP_FILES)
	.venv/bin/ruff format .

format-check: setup-format
	.venv/bin/clang-format --dry-run --Werror $(CPP_FILES)
	.venv/bin/ruff format --check --diff .

tree-check:
	python3 tools/check_tree.py

lint: setup-build $(BUILD)/build.ninja
	@tools/setup.sh python $(REQUIREMENTS_FORMAT) $(REQUIREMENTS_LINT)
	.venv/bin/ruff check .
	printf '%s\n' $(filter-out $(NOT_LINTED),$(filter %.cpp,$(CPP_FILES))) | \
	  xargs -n 1 -P $(JOBS) $(TIDY)

# Any preset: make check-debug, check-asan, check-tsan, check-clang, check-fuzz.
check-%: setup-build
	@case $* in clang | tsan | fuzz) tools/setup.sh clang ;; esac
	cmake --preset $*
	cmake --build --preset $* --parallel $(JOBS)
	ctest --preset $* --parallel $(JOBS)

$(BUILD)/build.ninja: | setup-build
	cmake --preset release

setup-build:
	@tools/setup.sh build

setup-format:
	@tools/setup.sh python $(REQUIREMENTS_FORMAT)
