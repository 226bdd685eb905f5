#!/usr/bin/env bash
# Builds every fuzz target on stable Rust and runs each for a while from its seeds, as many at a time as there are
# cores. Ends with an error when one finds something, and says how to see it again.
#
#   scripts/fuzz.sh [SECONDS [TARGET..]]     5 seconds each, all targets
#
# RINGTIDE_FUZZ_CORPUS names a folder in which the inputs that were found stay, for the next long run.
#
# The targets are in the layout of cargo-fuzz, which needs a nightly compiler for its sanitizers. libFuzzer itself needs
# only the coverage counters that LLVM puts in, and those a stable compiler can be told to ask for. The C++ compiler
# builds libFuzzer.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-5}
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { echo "usage: scripts/fuzz.sh [SECONDS [TARGET..]]" >&2; exit 2; }
shift $(($# > 0))
targets=("$@")
if [ $# = 0 ]; then
    for file in fuzz/fuzz_targets/*.rs; do
        targets+=("$(basename "$file" .rs)")
    done
fi

host=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
bin=$CARGO_TARGET_DIR/$host/release
# With a target named, build scripts and macros are compiled without these.
started=$SECONDS
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Ccodegen-units=1" \
    cargo build --release --quiet --locked --manifest-path fuzz/Cargo.toml --target "$host" "${targets[@]/#/--bin=}"
echo "fuzz targets built in $((SECONDS - started)) s"

scratch=$(mktemp -d)
# Only what still runs: the number of a process that has ended may be another's by now.
trap 'running=$(jobs -pr); [ -z "$running" ] || kill $running; rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The longest input: what a few messages or a small torrent take. A block is 16 KiB.
longest() {
    case $1 in
        handshake) echo 80 ;;
        extension | magnet | udp_reply | url) echo 600 ;;
        # A hundred addresses of either family, added and dropped, and a few too many.
        pex) echo 6000 ;;
        mse) echo 800 ;;
        lsd) echo 1500 ;;
        decoder) echo 40000 ;;
        metainfo | record) echo 20000 ;;
        *) echo 4096 ;;
    esac
}

run() {
    local target=$1 corpus=${RINGTIDE_FUZZ_CORPUS:-$scratch}/$1 log=$scratch/$1.log artifacts=fuzz/artifacts/$1
    mkdir -p "$corpus" "$artifacts"
    cp "fuzz/seeds/$target"/* "$corpus"
    case $target in
        # The samples of the tests are torrents of every kind, good and bad.
        bencode | metainfo)
            find test_samples -name '*.torrent' -size -20k -print0 |
                while IFS= read -r -d '' sample; do
                    cp "$sample" "$corpus/${sample//\//_}"
                done
            ;;
    esac
    "$bin/$target" "$corpus" -max_total_time="$seconds" -max_len="$(longest "$target")" -rss_limit_mb=512 \
        -timeout=5 -artifact_prefix="$artifacts/" >"$log" 2>&1 &
    trap "kill $!" TERM
    local status=0
    wait $! || status=$?
    trap - TERM
    if [ "$status" = 0 ]; then
        printf '%-14s %12s executions, %6s features\n' "$target" \
            "$(sed -n 's/^Done \([0-9]*\) runs.*/\1/p' "$log")" \
            "$(sed -n 's/.* ft: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)"
        return
    fi
    local artifact
    artifact=$(sed -n "s/.*Test unit written to //p" "$log" | tail -n 1)
    tail -n 40 "$log" >&2
    if [ -n "$artifact" ]; then
        echo "$target: a finding, kept; see it again with" >&2
        echo "    $bin/$target $artifact" >&2
    else
        echo "$target: ended with status $status and without a finding" >&2
    fi
    return 1
}

failed=0
running=0
for target in "${targets[@]}"; do
    if [ "$running" -ge "$(nproc)" ]; then
        wait -n || failed=1
        running=$((running - 1))
    fi
    run "$target" &
    running=$((running + 1))
done
while [ "$running" -gt 0 ]; do
    wait -n || failed=1
    running=$((running - 1))
done
exit "$failed"
