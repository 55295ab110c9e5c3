#!/usr/bin/env bash
# Fuzzes every decoder for so many seconds each, with seeds of its own: scripts/fuzz.sh [SECONDS]
set -euo pipefail
cd "$(dirname "$0")/.."
export MOMOS_FUZZ_SECONDS=${1:-600}
cargo test --release --package momos-core --test mutated_streams -- --nocapture
