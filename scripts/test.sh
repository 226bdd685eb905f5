#!/usr/bin/env bash
# Everything that must hold: format, lints, documentation, all tests (with real clients, which it installs where they
# are missing), and the benchmarks in a size that only shows that they run. Half an hour on two cores, most of which goes by
# waiting for clients that take their time.
set -euo pipefail
# Nothing leaves this machine.
export RINGTIDE_NO_DHT=1 RINGTIDE_NO_LSD=1
cd "$(dirname "$0")/.."

# The test binaries whose every test downloads from real clients, and where those note that they ran.
real_client_binaries=(real_swarm magnet_swarm encryption dht lsd discovery_swarm disk_faults)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# An interrupted script leaves by the same door.
trap 'exit 130' INT
trap 'exit 143' TERM

step() {
    printf '\n==> %s\n' "$*"
}

expected_real_client_tests() {
    local binary
    for binary in "${real_client_binaries[@]}"; do
        cargo test --profile checked --quiet --test "$binary" -- --list | sed -n 's/: test$//p'
    done
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
step "tests"
RINGTIDE_REAL_CLIENT_LOG=$scratch/ran cargo test --profile checked

step "tests where there is no io_uring"
RINGTIDE_TEST_BACKEND=epoll cargo test --profile checked --quiet --test failures --test unpredictable_peers
RINGTIDE_TEST_SECCOMP=1 cargo test --profile checked --quiet --test real_swarm -- --skip one_gibibyte

step "fuzz targets, a few seconds each"
scripts/fuzz.sh 5

step "benchmarks, smoke size"
RINGTIDE_BENCH_SMOKE=1 cargo bench --profile checked --bench '*'
export RINGTIDE_BENCH_PROFILE=checked
RINGTIDE_BENCH_SMOKE=1 scripts/bench.sh
RINGTIDE_BENCH_SMOKE=1 scripts/bench.sh --sweep 'peers=4;seeder=rtorrent;pieces=1000,piece=16K,zeros'

step "real-client tests"
expected_real_client_tests | sort >"$scratch/expected"
touch "$scratch/ran"
sort -o "$scratch/ran" "$scratch/ran"
missing=$(comm -23 "$scratch/expected" "$scratch/ran")
echo "real-client tests: $(wc -l <"$scratch/ran") ran, $(grep -c . <<<"$missing" || true) skipped"
if [ -n "$missing" ] || [ ! -s "$scratch/expected" ]; then
    printf 'did not run:\n%s\n' "$missing" >&2
    exit 1
fi
