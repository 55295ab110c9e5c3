# Two commands do everything on a machine with Rust and Python: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
RUST_SOURCES := $(shell find crates -name '*.rs' -o -name '*.bin' -o -name Cargo.toml) Cargo.toml Cargo.lock

.PHONY: demo test check format bench clean

demo: $(INSTALLED)
	$(BIN)/python -m momos_rs.cli.demo demo

test: $(INSTALLED)
	cargo test --workspace --quiet
	$(BIN)/python -m pytest

check: $(INSTALLED)
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --quiet
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/stubtest --allowlist tests/stubtest_allowlist.txt momos_rs._core

format: $(INSTALLED)
	cargo fmt --all
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	cargo bench --workspace
	$(BIN)/python benches/bench_nearest.py
	$(BIN)/python benches/bench_lloyd.py
	$(BIN)/python benches/bench_seeding.py --quick
	$(BIN)/python benches/fit_search_costs.py
	$(BIN)/python benches/bench_complexity.py
	$(BIN)/python benches/bench_packing.py
	$(BIN)/python benches/bench_scale.py search --most 16M --seconds 60
	$(BIN)/python benches/bench_scale.py pack --weights 50M --memory 500M
	$(BIN)/python benches/bench_codec.py
	$(BIN)/python benches/bench_projection.py

$(INSTALLED): pyproject.toml $(RUST_SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[demo,test,lint]'
	touch $@

clean:
	rm -rf $(VENV) target demo
