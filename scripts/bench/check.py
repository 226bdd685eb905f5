#!/usr/bin/env python3
"""Measures what it costs to check a whole file that is there: ringtide, libtorrent and transmission in turn.

    python3 scripts/bench/check.py [--size 4G] [--runs 5] [--ringtide target/release/ringtide] [--dest /var/tmp]

The file is in the page cache. Each client is told to download what it has already, and ends, or says so, when it has
found every piece.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))

import clients
import measure
import plan
from network import Network, wait_until
from payload import Payloads

# Of transmission's states of a torrent.
CHECK_WAITS, CHECKING = 1, 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=plan.size, default=4 << 30)
    parser.add_argument("--piece", type=plan.size, default=256 << 10)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--ringtide", default="target/release/ringtide")
    parser.add_argument("--dest", default="/var/tmp")
    args = parser.parse_args()
    args.ringtide = os.path.abspath(args.ringtide)
    network = Network()
    work = pathlib.Path(tempfile.mkdtemp(prefix="ringtide-check-", dir=args.dest))
    children = []
    try:
        announce = f"http://{network.address(0)}:1/announce"
        torrent = Payloads(work).torrent("check", args.size, args.piece, False, announce)
        rows = {
            "ringtide": lambda out: ended(ringtide_command(args.ringtide, torrent), out, children),
            "libtorrent": lambda out: ended(libtorrent_command(torrent, network), out, children),
            "transmission": lambda out: transmission(torrent, network, out, children),
        }
        costs = {name: [] for name in rows}
        for turn in range(args.runs):
            for name in sorted(rows, key=lambda name: (list(rows).index(name) + turn) % len(rows)):
                out = pathlib.Path(tempfile.mkdtemp(dir=work))
                costs[name].append(rows[name](out))
        report(args, costs)
    finally:
        for child in children:
            child.kill()
            child.wait()
        shutil.rmtree(work, ignore_errors=True)


def ringtide_command(binary, torrent):
    return [binary, "download", "--quiet", "--json", "-o", str(torrent.payload), str(torrent.path)]


def libtorrent_command(torrent, network):
    peer = str(clients.HERE / "libtorrent_peer.py")
    address = f"{network.address(0)}:{network.free_port()}"
    return [clients.libtorrent_python(), peer, "get", str(torrent.path), str(torrent.payload.parent), address]


def ended(command, out, children):
    """Wall and processor seconds of a client that ends by itself."""
    cost = measure.execute(command, out, 600, children)
    if cost["error"]:
        raise SystemExit(f"{command[0]}: {cost['error']}")
    return cost["wall"], cost["cpu"]


def transmission(torrent, network, out, children):
    """The same of a daemon, from the moment it is told of the torrent."""
    port = network.free_port()
    settings = {
        "dht-enabled": False, "lpd-enabled": False, "pex-enabled": False, "utp-enabled": False,
        "port-forwarding-enabled": False, "rpc-bind-address": network.address(0), "rpc-port": port,
        "rpc-whitelist-enabled": False, "rpc-host-whitelist-enabled": False, "peer-port": network.free_port(),
        "bind-address-ipv4": network.address(0), "bind-address-ipv6": "::1",
        "download-dir": str(torrent.payload.parent), "trash-original-torrent-files": False,
    }
    (out / "settings.json").write_text(json.dumps(settings))
    command = ["transmission-daemon", "--foreground", "--config-dir", str(out), "--log-error"]
    with open(out / ".log", "wb") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    children.append(daemon)
    rpc = Rpc(f"http://{network.address(0)}:{port}/transmission/rpc")
    trouble = wait_until(lambda: rpc.call("session-get"), 20)
    if trouble:
        raise SystemExit(f"transmission: {trouble}")
    started, spent = time.monotonic(), measure.cpu_of(daemon.pid)
    rpc.call("torrent-add", filename=str(torrent.path))
    # Each look costs the daemon a little; that it is done may be noticed so much later.
    while not rpc.has_checked():
        time.sleep(0.1)
    cost = time.monotonic() - started, measure.cpu_of(daemon.pid) - spent
    daemon.terminate()
    daemon.wait()
    children.remove(daemon)
    return cost


class Rpc:
    """What a transmission daemon is told and asked."""

    def __init__(self, url):
        self.url, self.session = url, ""

    def call(self, method, **arguments):
        body = json.dumps({"method": method, "arguments": arguments}).encode()
        request = urllib.request.Request(self.url, body, {"X-Transmission-Session-Id": self.session})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)["arguments"]
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise
            self.session = error.headers["X-Transmission-Session-Id"]
            return self.call(method, **arguments)

    def has_checked(self):
        torrents = self.call("torrent-get", fields=["status", "percentDone"])["torrents"]
        return torrents and all(it["percentDone"] == 1 and it["status"] not in (CHECK_WAITS, CHECKING) for it in torrents)


def report(args, costs):
    gib = args.size / measure.GIB
    print(f"a check of {gib:g} GiB in pieces of {args.piece >> 10} KiB, medians of {args.runs} interleaved runs\n")
    print("| client | CPU s/GiB | x ringtide | wall s |\n|---|---|---|---|")
    median = {
        name: [statistics.median(figures) for figures in zip(*runs)] for name, runs in costs.items()
    }
    for name, (wall, cpu) in median.items():
        print(f"| {name} | {cpu / gib:.3f} | {cpu / median['ringtide'][1]:.2f} | {wall:.2f} |")
    print("\nCPU s/GiB of each run:")
    for name, runs in costs.items():
        print(f"  {name}: {' '.join(f'{cpu / gib:.3f}' for _, cpu in runs)}")


main()
