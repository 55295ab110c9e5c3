#!/usr/bin/env bash
# Fuzzes every decoder, and whole archives and checkpoints, for so many seconds each, with seeds of
# its own: scripts/fuzz.sh [SECONDS]
set -euo pipefail
cd "$(dirname "$0")/.."
export MOMOS_FUZZ_SECONDS=${1:-600}
seed=$(date +%s)
for kind in archives checkpoints; do
  PYTHONPATH=tests "${PYTHON:-python}" tests/support/mutants.py "$kind" \
    --seconds "$MOMOS_FUZZ_SECONDS" --seed "$seed"
done
cargo test --release --package momos-core --test mutated_streams -- --nocapture
