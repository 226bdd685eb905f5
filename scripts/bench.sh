#!/usr/bin/env bash
# Measures downloads: the floor, ringtide and the other clients that are installed, interleaved, in one run.
#
#   scripts/bench.sh                                     1 GiB, 256 KiB pieces, one seeder, 7 rounds
#   scripts/bench.sh --runs 5 --seeder libtorrent --clients ringtide,libtorrent,aria2
#   scripts/bench.sh --help                              all options
#
# With RINGTIDE_BENCH_SMOKE=1 it only shows that it works: 32 MiB, one round.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
[ -x target/clients/venv/bin/python ] && python=${PYTHON:-target/clients/venv/bin/python}
smoke=()
[ -n "${RINGTIDE_BENCH_SMOKE:-}" ] && smoke=(--size 32M --runs 1 --timeout 60)

cargo build --release --quiet
binary() {
    cargo bench --no-run --quiet --bench "$1" --message-format=json |
        "$python" -c 'import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["target"]["name"] == sys.argv[1]:
        print(message["executable"])' "$1"
}
exec "$python" scripts/bench.py --ringtide "${CARGO_TARGET_DIR:-target}/release/ringtide" \
    --seeder-binary "$(binary seeder)" --floor-binary "$(binary floor)" "${smoke[@]}" "$@"
