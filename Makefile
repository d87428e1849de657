# The front door. `make help` lists what there is.
#
# Everything lives in the checkout: the environment in .venv, what cargo builds in target. A stamp in .venv
# says what was installed; nothing is downloaded or rebuilt while nothing changed. Targets are relative, so a
# path with a space is fine.

VENV := .venv
BIN := $(VENV)/bin
DEPENDENCIES := $(VENV)/.dependencies

# release: what users get. dev: rebuilds in seconds, for the loop of editing Rust (`make test PROFILE=dev`).
PROFILE ?= release
EXTENSION := $(VENV)/.extension-$(PROFILE)

# Arguments for the command behind a target, as in `make demo ARGS="training.epochs=3"`.
ARGS ?=

OLDEST_RUST := 89
RUST_SOURCES := Cargo.toml Cargo.lock $(shell find rust -name '*.rs' -o -name Cargo.toml)

python = $(shell for p in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
need_python = $(or $(python),$(error Python 3.11 or newer is missing: install it from https://python.org, or name one with `make PYTHON=...`))
need_cargo = $(or $(shell command -v cargo),$(error cargo is missing: install the Rust toolchain from https://rustup.rs))
need_cc = $(or $(shell command -v cc || command -v gcc || command -v clang),$(error a C compiler is missing: install gcc or clang; Rust links with it))
need_rust = $(if $(shell rustc --version 2>/dev/null | awk -F'[ .]' '$$2 > 1 || $$3 >= $(OLDEST_RUST)'),,$(error rustc 1.$(OLDEST_RUST) or newer is missing: run `rustup toolchain install stable && rustup default stable`))
tools = $(if $(need_cargo),$(if $(need_cc),$(need_rust)))

# uv is faster where it is there; pip does the same where it is not.
UV := $(shell command -v uv)
INSTALL = $(if $(UV),uv pip install --python $(BIN)/python,$(BIN)/python -m pip install --disable-pip-version-check)
BUILD = MATURIN_PEP517_ARGS="--locked --profile $(PROFILE)" $(INSTALL) --no-build-isolation

# The lower bounds of what a user installs, as exact versions.
define OLDEST_VERSIONS
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
extras = project["optional-dependencies"]
for bound in project["dependencies"] + extras["data"] + extras["plots"]:
    print(bound.replace(">=", "=="))
endef
export OLDEST_VERSIONS
OLDEST := $(VENV)-oldest

.PHONY: help demo test test-rust test-python test-oldest lint format bench docs wheel clean
.DEFAULT_GOAL := help

help: ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

demo: $(EXTENSION) ## Train, evaluate and draw on real data, in under a minute.
	@$(BIN)/python -m flyball demo $(ARGS)

test: test-rust test-python ## Run every test, Rust and Python.

test-rust:
	@:$(tools)
	@if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --locked --workspace && cargo test --locked --quiet --doc; \
	else cargo test --locked --workspace; fi

test-python: $(EXTENSION)
	$(BIN)/python -m pytest $(ARGS)

test-oldest: $(EXTENSION) ## Run the Python tests with the oldest versions that pyproject.toml allows.
	@test -x $(OLDEST)/bin/python || $(need_python) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check $$($(BIN)/python -c "$$OLDEST_VERSIONS") \
		hypothesis pytest "maturin>=1.9.4,<2"
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	$(OLDEST)/bin/python -m pytest --ignore tests/benches -W ignore $(ARGS) # what old packages warn of is not ours

lint: $(EXTENSION) ## Check format, lints, types, stubs and docs.
	@:$(tools)
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --quiet -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" cargo doc --locked --workspace --no-deps --quiet
	$(BIN)/ruff format --check --quiet
	$(BIN)/ruff check --quiet
	$(BIN)/python -m mypy
	$(BIN)/python -m mypy.stubtest flyball._native

format: $(EXTENSION) ## Format everything and apply the safe fixes.
	@:$(tools)
	cargo fmt --all
	$(BIN)/ruff format --quiet
	$(BIN)/ruff check --fix

bench: $(EXTENSION) ## Measure against rivals; writes benches/results and the table in benches/README.md.
	@:$(tools)
	cargo bench --locked
	$(BIN)/python -m benches $(ARGS)
	$(BIN)/python -m benches.faults
	$(BIN)/python -m benches.faults closed

docs: $(DEPENDENCIES) ## Build the pages of docs as a site, into site.
	@$(BIN)/python -c 'import material' 2>/dev/null || $(INSTALL) --quiet "mkdocs-material>=9.5"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

wheel: $(EXTENSION) ## Build the release wheel into dist.
	$(BIN)/maturin build --release --locked --out dist
	@du -h dist/*.whl

clean: ## Remove what make and cargo built, .venv included.
	rm -rf $(VENV) $(OLDEST) target dist site python/flyball/_native*.so

$(BIN)/python:
	@:$(tools)
	@echo "setting up $(VENV) with $(need_python)"
	@$(if $(UV),uv venv --quiet --seed --python $(need_python) $(VENV),$(need_python) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "python's venv module is incomplete: on Debian and Ubuntu, install python3-venv" >&2; exit 1; })

# The stamp is a copy of what it was made from: a touched but unchanged file installs nothing.
$(DEPENDENCIES): pyproject.toml | $(BIN)/python
	@:$(tools)
	@cmp -s pyproject.toml $@ || { echo "installing the dependencies into $(VENV): minutes the first time (torch is large)" && \
		$(INSTALL) --quiet "maturin>=1.9.4,<2" && $(BUILD) --editable '.[dev]' && rm -f $(VENV)/.extension-*; }
	@cp pyproject.toml $@

$(EXTENSION): $(DEPENDENCIES) $(RUST_SOURCES)
	@:$(tools)
	@echo "building the extension ($(PROFILE))"
	@$(BUILD) --quiet --no-deps --editable .
	@rm -f $(VENV)/.extension-* && touch $@
