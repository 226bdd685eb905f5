#!/usr/bin/env bash
# A download to look at, on this machine alone: a real tracker (opentracker), a real seeder (rtorrent), ringtide. First
# the sample that comes with the source, then a file that is large enough to show a rate.
#
# Needs Rust; installs the other two on Debian where they are missing. DEMO_MIB sets the size of the large file.
set -euo pipefail
# Nothing leaves this machine.
export RINGTIDE_NO_DHT=1 RINGTIDE_NO_LSD=1
cd "$(dirname "$0")/.."

large_mib=${DEMO_MIB:-1024}
tracker_port=6969
seeder_ip=127.0.0.2
seeder_port=16881
scratch=$(mktemp -d "${TMPDIR:-/tmp}/ringtide-demo.XXXXXX")
pids=()

clean_up() {
    local pid
    for pid in "${pids[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
    echo "demo.sh: $*" >&2
    exit 1
}

is_open() { # IP PORT
    (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null
}

free_port() { # IP PORT: the first from PORT on that nobody listens on
    local port=$2
    while is_open "$1" "$port"; do port=$((port + 1)); done
    echo "$port"
}

wait_for() { # SECONDS COMMAND...
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.1
    done
}

info_hash() { # TORRENT
    "$ringtide" info "$1" | sed -n 's/^Info Hash: //p'
}

tracker_knows_the_seeder() { # TORRENT
    "$ringtide" peers "$1" 2>/dev/null | grep -q "^$seeder_ip:"
}

start_tracker() { # TORRENT...
    local torrent
    # As root it changes its root to this folder and gives up its rights, so both must be readable for others.
    mkdir -p "$scratch/tracker"
    chmod 755 "$scratch" "$scratch/tracker"
    for torrent in "$@"; do info_hash "$torrent"; done >"$scratch/tracker/whitelist"
    cat >"$scratch/tracker.conf" <<CONF
listen.tcp 127.0.0.1:$tracker_port
access.whitelist whitelist
tracker.rootdir $scratch/tracker
CONF
    opentracker -f "$scratch/tracker.conf" >"$scratch/tracker.log" 2>&1 &
    pids+=($!)
    wait_for 10 is_open 127.0.0.1 "$tracker_port" || fail "the tracker did not start: $(cat "$scratch/tracker.log")"
}

start_seeder() { # FOLDER TORRENT
    local home=$scratch/seeder-$seeder_port
    mkdir "$home"
    seeder_port=$(free_port "$seeder_ip" $((seeder_port + 1)))
    cat >"$home/rtorrent.rc" <<CONF
system.daemon.set = true
session.path.set = "$home"
directory.default.set = "$1"
network.bind_address.set = $seeder_ip
network.port_range.set = $seeder_port-$seeder_port
network.port_random.set = no
dht.mode.set = disable
protocol.pex.set = no
load.start = "$2"
CONF
    rtorrent -n -o import="$home/rtorrent.rc" >"$home/log" 2>&1 &
    pids+=($!)
    wait_for 60 tracker_knows_the_seeder "$2" || fail "the seeder did not announce itself: $(cat "$home/log")"
}

download() { # TORRENT ORIGINAL
    local output start end bytes
    output=$scratch/download/$(basename "$2")
    mkdir -p "$scratch/download"
    echo "\$ ringtide download -o $output $1"
    start=$(date +%s%N)
    "$ringtide" download -o "$output" "$1"
    end=$(date +%s%N)
    cmp "$2" "$output" || fail "$output differs from $2"
    bytes=$(stat -c %s "$output")
    awk -v bytes="$bytes" -v ns=$((end - start)) 'BEGIN {
        printf "verified: %d bytes, identical to the original, in %.2f s: %.1f MB/s\n", bytes, ns / 1e9, bytes * 1e3 / ns
    }'
}

echo "==> tracker and seeder"
scripts/install_clients.sh opentracker rtorrent
echo "==> build"
cargo build --release --quiet --locked
ringtide=${CARGO_TARGET_DIR:-target}/release/ringtide

sample=test_samples/single.torrent
if [ "$(free_port 127.0.0.1 $tracker_port)" != $tracker_port ]; then
    # The sample names port 6969, which is taken: the same content under a port of our own. The announce URL
    # is outside the info dictionary, so the info hash stays.
    tracker_port=$(free_port 127.0.0.1 16969)
    sed "s|30:http://127.0.0.1:6969/announce|31:http://127.0.0.1:$tracker_port/announce|" $sample >"$scratch/single.torrent"
    sample=$scratch/single.torrent
fi
mkdir "$scratch/large"
head -c $((large_mib * 1024 * 1024)) /dev/urandom >"$scratch/large/large.bin"
python3 scripts/make_torrent.py "$scratch/large/large.bin" "http://127.0.0.1:$tracker_port/announce" "$scratch/large.torrent"
start_tracker "$sample" "$scratch/large.torrent"

echo "==> the sample that comes with the source"
mkdir "$scratch/sample"
cp test_samples/payload/single.bin "$scratch/sample"
start_seeder "$scratch/sample" "$(realpath "$sample")"
download "$sample" test_samples/payload/single.bin

echo "==> $large_mib MiB"
start_seeder "$scratch/large" "$scratch/large.torrent"
download "$scratch/large.torrent" "$scratch/large/large.bin"
