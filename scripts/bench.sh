#!/usr/bin/env bash
# Measures downloads: the floor, ringtide and the other clients that are installed, interleaved, in one run.
#
#   scripts/bench.sh                                     1 GiB, 256 KiB pieces, one seeder, 7 rounds
#   scripts/bench.sh --seeders 4                         the same from four seeder processes
#   scripts/bench.sh --hits                              ringtide from every real seeder: scatter hit rates
#   scripts/bench.sh --sweep peers=1,4,16,64,256         what the number of peers costs
#   scripts/bench.sh --help                              all options
#
# With RINGTIDE_BENCH_SMOKE=1 it only shows that it works: 32 MiB, one round, and every client must be there.
# RINGTIDE_BENCH_PROFILE=checked measures that build instead of a release.
set -euo pipefail
# Nothing leaves this machine.
export RINGTIDE_NO_DHT=1 RINGTIDE_NO_LSD=1
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
for argument in "$@"; do
    case $argument in
    -h | --help) exec "$python" scripts/bench --help ;;
    esac
done

profile=${RINGTIDE_BENCH_PROFILE:-release}
bench_profile=$profile
# Cargo has a profile of its own for benchmarks, which is the release one.
[ "$profile" = release ] && bench_profile=bench

# Runs cargo and prints the path of what it built: executable NAME BUILD-COMMAND..
executable() {
    cargo "${@:2}" --quiet --message-format=json | "$python" -c 'import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["target"]["name"] == sys.argv[1]:
        print(message["executable"])' "$1"
}
ringtide=$(executable ringtide build --profile "$profile")
seeder=$(executable seeder bench --profile "$bench_profile" --no-run --bench seeder)
floor=$(executable floor bench --profile "$bench_profile" --no-run --bench floor)
exec "$python" scripts/bench --ringtide "$ringtide" --seeder-binary "$seeder" --floor-binary "$floor" "$@"
