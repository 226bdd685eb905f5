#!/usr/bin/env bash
# Everything that must hold: format, lints, documentation, all tests (with real clients, which it installs where they
# are missing), and the benchmarks in a size that only shows that they run.
#
# Some tests mount file systems: run it as root, or leave those out with RINGTIDE_NO_ROOT=1.
set -euo pipefail
# Nothing leaves this machine.
export RINGTIDE_NO_DHT=1 RINGTIDE_NO_LSD=1
cd "$(dirname "$0")/.."

step() {
    printf '\n==> %s (%d s)\n' "$*" $SECONDS
}

step "real clients"
scripts/install_clients.sh

step "format"
cargo fmt --all --check

step "lints"
cargo clippy --all-targets --quiet -- -D warnings

step "documentation"
RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --quiet

step "dependencies"
if cargo deny --version >/dev/null 2>&1; then
    # Not the advisories: those change with the day, not with the source, and need the network.
    cargo deny --log-level error check bans licenses sources
else
    echo "skipped: cargo-deny is not installed (cargo install cargo-deny --locked)"
fi

# Optimized, so that the downloads of a gigabyte are quick; one build serves the tests and the benchmarks.
step "examples in the documentation"
cargo test --profile checked --quiet --doc

step "fuzz targets, a few seconds each"
scripts/fuzz.sh 5

step "benchmarks, smoke size"
RINGTIDE_BENCH_SMOKE=1 cargo bench --profile checked --bench '*'
export RINGTIDE_BENCH_PROFILE=checked
RINGTIDE_BENCH_SMOKE=1 scripts/bench.sh
RINGTIDE_BENCH_SMOKE=1 scripts/bench.sh --everyday --clients 'floor pwrite:64K,floor uncached:64K,ringtide'
RINGTIDE_BENCH_SMOKE=1 scripts/bench.sh --sweep 'peers=4;seeder=rtorrent;pieces=1000,piece=16K,zeros'

step "tests"
scripts/run_tests.py --times
step "done"
