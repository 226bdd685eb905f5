#!/usr/bin/env bash
# Downloads again and again for so many minutes, from libtorrent and aria2 through opentracker, with kills, signals,
# restarts of tracker and seeders, and full disks at random moments. Every result is compared with the original.
#
#   scripts/soak.sh MINUTES [SEED]
#
# RINGTIDE_SOAK_TRACE=1 prints a line for each start of ringtide.
#
# Ends with an error at the first wrong byte, unexpected exit code or file left behind, and keeps the folder. As root it
# runs in a mount namespace of its own, where the small disks are; otherwise no disk becomes full.
set -euo pipefail
# Nothing leaves this machine.
export RINGTIDE_NO_DHT=1 RINGTIDE_NO_LSD=1
cd "$(dirname "$0")/.."

[[ ${1:-} =~ ^[1-9][0-9]*$ ]] || { echo "usage: scripts/soak.sh MINUTES [SEED]" >&2; exit 2; }
scripts/install_clients.sh opentracker aria2 libtorrent
cargo build --release --quiet --locked
ringtide=$(realpath "${CARGO_TARGET_DIR:-target}/release/ringtide")
namespace=()
[ "$(id -u)" = 0 ] && namespace=(unshare --mount)
exec "${namespace[@]}" "${PYTHON:-python3}" scripts/soak "$ringtide" "$@"
