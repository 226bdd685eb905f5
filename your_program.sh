#!/bin/sh
# Runs ringtide for CodeCrafters: the release binary, built first when it is missing or older than its sources.
set -e

# The folder of this script, without starting a process for it.
case $0 in
*/*) root=${0%/*} ;;
*) root=. ;;
esac
target=${CARGO_TARGET_DIR:-$root/target}
binary=$target/release/ringtide

fresh() {
    [ -x "$binary" ] &&
        [ -z "$(find "$root/src" "$root/Cargo.toml" "$root/Cargo.lock" -newer "$binary" -print -quit)" ]
}

if ! fresh; then
    # stdout belongs to the program. Cargo leaves a binary alone that it finds unchanged, so the time is set here.
    cargo build --release --quiet --locked --manifest-path "$root/Cargo.toml" --target-dir "$target" >&2
    touch -c "$binary"
fi
exec "$binary" "$@"
