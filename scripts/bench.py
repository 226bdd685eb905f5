#!/usr/bin/env python3
"""Downloads one torrent with several clients in turn and tells what each download cost.

Everything runs on loopback: a seeder (benches/seeder.rs by default, or libtorrent), a tracker inside this program, and
the clients one at a time, in an order that rotates from round to round. Before each run the page cache is synced and
as much memory as the run needs is touched and freed, because memory that a virtual machine's host has not backed yet
is slow to touch and would charge whoever comes first. Every output is compared with the payload.

Run it through scripts/bench.sh, which builds the programs it needs. Needs Python 3.9 and nothing else; each client is
measured if it is installed, or must be if it is named with --clients.
"""

import argparse
import ctypes
import hashlib
import http.server
import json
import mmap
import os
import pathlib
import platform
import resource
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

from bencode import bencode

GIB = 1 << 30
HERE = pathlib.Path(__file__).resolve().parent


def main():
    args = arguments()
    work = pathlib.Path(tempfile.mkdtemp(prefix="ringtide-bench-", dir=args.dest))
    children = []
    try:
        bench = Bench(args, work, children)
        rows = bench.run()
        report(args, bench, rows)
    finally:
        for child in children:
            stop(child)
        shutil.rmtree(work, ignore_errors=True)
    if any(row.failures for row in rows):
        sys.exit(1)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=size, default=GIB, help="bytes of the payload (default 1G)")
    parser.add_argument("--piece", type=size, default=256 << 10, help="bytes of a piece (default 256K)")
    parser.add_argument("--seeders", type=int, default=1, help="seeder processes")
    parser.add_argument("--peers", type=int, default=None, help="addresses told to clients (default: one a seeder)")
    parser.add_argument("--seeder", choices=["bench", "libtorrent"], default="bench")
    parser.add_argument("--zeros", action="store_true", help="a payload of zeros that takes no disk")
    parser.add_argument("--dest", default="/var/tmp", help="folder for payload and outputs")
    parser.add_argument("--runs", type=int, default=7, help="rounds")
    parser.add_argument("--clients", default=None, help="comma-separated names (default: all that are there)")
    parser.add_argument("--timeout", type=float, default=120, help="seconds for one download")
    parser.add_argument("--json", metavar="FILE", help="write all raw figures there")
    parser.add_argument("--ringtide", default="target/release/ringtide")
    parser.add_argument("--against", help="another ringtide binary, measured as 'before'")
    parser.add_argument("--seeder-binary", help="the built benches/seeder.rs")
    parser.add_argument("--floor-binary", help="the built benches/floor.rs")
    parser.add_argument("--rqbit", default=shutil.which("rqbit"))
    parser.add_argument("--vortex", default=shutil.which("vortex-cli"))
    return parser.parse_args()


def size(text):
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    return int(float(text[:-1]) * units[text[-1]]) if text[-1] in units else int(text)


class Bench:
    """The torrent, its seeders and its tracker."""

    def __init__(self, args, work, children):
        self.args, self.work, self.children = args, work, children
        self.payload = work / "source" / "payload.bin"
        self.torrent = work / "payload.torrent"
        self.tracker = Tracker()
        self.payload_digest = make_payload(args, self.payload, self.torrent, self.tracker.url)
        self.seeders = [self.start_seeder(index) for index in range(args.seeders)]
        wanted = args.peers or args.seeders
        per_seeder = [ports for _, ports in self.seeders]
        self.ports = [ports[round] for round in range(max(map(len, per_seeder))) for ports in per_seeder][:wanted]
        self.tracker.ports = self.ports

    def start_seeder(self, index):
        args = self.args
        count = -(-(args.peers or args.seeders) // args.seeders)
        ports = [free_port() for _ in range(count if args.seeder == "bench" else 1)]
        if args.seeder == "bench":
            source = "--zeros" if args.zeros else str(self.payload)
            listen = ",".join(f"127.0.0.1:{port}" for port in ports)
            command = [args.seeder_binary, "--listen", listen, str(self.torrent), source]
        else:
            command = [sys.executable, str(HERE / "bench_libtorrent.py"), "seed", str(self.torrent), str(self.payload.parent), str(ports[0])]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.children.append(child)
        if not child.stdout.readline():
            raise SystemExit(f"the seeder did not start: {' '.join(command)}")
        return child, ports

    def clients(self):
        args = self.args
        known = {
            "floor": (args.floor_binary, floor),
            "sink": (args.floor_binary, sink),
            "ringtide": (args.ringtide, ringtide),
            "ringtide --sync": (args.ringtide, ringtide_sync),
            "before": (args.against, before),
            "libtorrent": (has_libtorrent(), libtorrent),
            "aria2": (shutil.which("aria2c"), aria2),
            "transmission": (shutil.which("transmission-daemon"), transmission),
            "rtorrent": (shutil.which("rtorrent"), rtorrent),
            "rqbit": (args.rqbit, rqbit),
            "vortex": (args.vortex, vortex),
        }
        if args.clients:
            names = args.clients.split(",")
            missing = [name for name in names if not known.get(name, (None,))[0]]
            if missing:
                raise SystemExit(f"not here: {', '.join(missing)}; known: {', '.join(known)}")
            return {name: known[name][1] for name in names}
        return {name: command for name, (there, command) in known.items() if there}

    def run(self):
        clients = self.clients()
        rows = {name: Row(name) for name in clients}
        names = list(clients)
        for round in range(self.args.runs):
            shift = round % len(names)
            for name in names[shift:] + names[:shift]:
                self.measure(rows[name], clients[name], round)
        return list(rows.values())

    def measure(self, row, client, round):
        out = self.work / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        os.sync()
        # Last, as a host takes memory back from a guest within seconds of its being freed.
        warm(self.args.size + (512 << 20))
        before = [cpu_of(child.pid) for child, _ in self.seeders]
        run = execute(client(self, out), out, self.args.timeout)
        run["seeder_cpu"] = sum(cpu_of(child.pid) for child, _ in self.seeders) - sum(before)
        run["round"] = round
        run["error"] = run["error"] or (None if row.name in ("sink",) else self.check(out))
        row.add(run)
        print(f"  {round + 1:2} {row.name:22} " + describe(run, self.args.size), file=sys.stderr, flush=True)

    def check(self, out):
        files = [path for path in out.rglob("payload.bin") if path.is_file()]
        if len(files) != 1 or files[0].stat().st_size != self.args.size:
            return "no output of the right length"
        return None if digest(files[0]) == self.payload_digest else "the output differs from the payload"


class Row:
    """All runs of one client."""

    def __init__(self, name):
        self.name, self.runs, self.failures = name, [], []

    def add(self, run):
        (self.failures if run["error"] else self.runs).append(run)

    def of(self, key, pick=statistics.median):
        return pick([run[key] for run in self.runs]) if self.runs else None


# --- the clients: each returns the command line and, if it needs one, how it says that it is done ---


def ringtide(bench, out, *more, binary=None):
    binary = binary or bench.args.ringtide
    return [binary, "download", "--quiet", *more, "-o", str(out / "payload.bin"), str(bench.torrent)]


def before(bench, out):
    return ringtide(bench, out, binary=bench.args.against)


def ringtide_sync(bench, out):
    return ringtide(bench, out, "--sync")


def floor(bench, out):
    return [bench.args.floor_binary, f"127.0.0.1:{bench.ports[0]}", str(bench.torrent), str(out / "payload.bin")]


def sink(bench, out):
    return [bench.args.floor_binary, f"127.0.0.1:{bench.ports[0]}", str(bench.torrent), "--discard"]


def libtorrent(bench, out):
    return [sys.executable, str(HERE / "bench_libtorrent.py"), "get", str(bench.torrent), str(out), str(free_port())]


def aria2(bench, out):
    return [
        "aria2c", "--quiet", "--no-conf", "--seed-time=0", "--file-allocation=falloc", "--enable-dht=false",
        "--enable-dht6=false", "--bt-enable-lpd=false", "--enable-peer-exchange=false", "--disable-ipv6=true",
        f"--listen-port={free_port()}", f"--dir={out}", "--follow-torrent=false", str(bench.torrent),
    ]


def transmission(bench, out):
    home = out / ".transmission"
    home.mkdir()
    done = home / "done.sh"
    done.write_text(f"#!/bin/sh\ntouch {home}/done\nkill -TERM $PPID\n")
    done.chmod(0o755)
    (home / "watch").mkdir()
    shutil.copy(bench.torrent, home / "watch")
    settings = {
        "dht-enabled": False, "lpd-enabled": False, "pex-enabled": False, "utp-enabled": False,
        "port-forwarding-enabled": False, "rpc-enabled": False, "peer-port": free_port(), "encryption": 0,
        "bind-address-ipv4": "127.0.0.1", "bind-address-ipv6": "::1", "download-dir": str(out),
        "preallocation": 2, "script-torrent-done-enabled": True, "script-torrent-done-filename": str(done),
        "watch-dir-enabled": True, "watch-dir": str(home / "watch"), "trash-original-torrent-files": False,
    }
    (home / "settings.json").write_text(json.dumps(settings))
    return ["transmission-daemon", "--foreground", "--config-dir", str(home), "--log-error"]


def rtorrent(bench, out):
    home = out / ".rtorrent"
    home.mkdir()
    (home / "rc").write_text(f"""
        directory.default.set = {out}
        session.path.set = {home}
        network.port_range.set = {free_port()}-65000
        network.bind_address.set = 127.0.0.1
        dht.mode.set = disable
        protocol.pex.set = no
        trackers.use_udp.set = no
        pieces.hash.on_completion.set = no
        system.daemon.set = true
        system.file.allocate.set = 1
        method.set_key = event.download.finished, done, "execute.nothrow=touch,{home}/done ; system.shutdown.quick="
        load.start = {bench.torrent}
    """)
    return ["rtorrent", "-n", "-o", f"import={home}/rc"]


def rqbit(bench, out):
    return [
        bench.args.rqbit, "--http-api-listen-addr", "127.0.0.1:0", "--disable-dht", "--disable-upnp-port-forward",
        "download", "--exit-on-finish", "-o", str(out), str(bench.torrent),
    ]


def vortex(bench, out):
    return [bench.args.vortex, "-t", str(bench.torrent), "-d", str(out)]


# --- measuring ---


def execute(command, out, timeout):
    """Runs a client to its end: wall, user and system seconds, peak memory, and what went wrong."""
    log = out / ".log"
    with open(log, "wb") as sink:
        started = time.monotonic()
        began = time.time()
        child = subprocess.Popen(command, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL)
        memory = Memory(child.pid)
        timer = threading.Timer(timeout, child.kill)
        timer.start()
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.monotonic() - started
        timer.cancel()
        memory.stop()
    # The child is reaped; tell Popen, so that it does not look for it.
    child.returncode = os.waitstatus_to_exitcode(status)
    # A client that takes its time to quit has said when it was done.
    said = list(out.rglob("done"))
    if said:
        wall = said[0].stat().st_mtime - began
    error = None
    if child.returncode != 0 and not said:
        error = f"exit {child.returncode}: {log.read_text(errors='replace').strip()[-300:]}"
    return {
        "wall": wall, "user": usage.ru_utime, "sys": usage.ru_stime, "cpu": usage.ru_utime + usage.ru_stime,
        "rss": memory.total, "anon": memory.anon, "error": error,
        "switches": usage.ru_nvcsw + usage.ru_nivcsw, "faults": usage.ru_minflt,
    }


class Memory:
    """Samples the anonymous memory of a process; the kernel keeps the peak only of the total."""

    def __init__(self, pid):
        self.path, self.anon, self.total, self.over = f"/proc/{pid}/status", 0, 0, threading.Event()
        self.thread = threading.Thread(target=self.sample, daemon=True)
        self.thread.start()

    def sample(self):
        while not self.over.wait(0.02):
            try:
                text = open(self.path).read()
            except OSError:
                return
            field = lambda name: int(text.partition(name + ":")[2].split(None, 1)[0] or 0) << 10 if name + ":" in text else 0
            self.anon = max(self.anon, field("RssAnon"))
            self.total = max(self.total, field("VmHWM"))

    def stop(self):
        self.over.set()
        self.thread.join()


def warm(length):
    """Touches and frees memory, so that the host backs it."""
    memory = mmap.mmap(-1, length)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    ctypes.memset(address, 1, length)


def cpu_of(pid):
    fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def make_payload(args, payload, torrent, announce):
    """Writes the payload and its torrent; returns the payload's digest."""
    payload.parent.mkdir()
    pieces, whole, left = [], hashlib.sha256(), args.size
    block = os.urandom(min(args.size, 64 << 20))
    zeros = bytes(args.piece)
    zero_digest = hashlib.sha1(zeros).digest()
    with open(payload, "wb") as file:
        at = 0
        while left > 0:
            length = min(args.piece, left)
            if args.zeros:
                pieces.append(zero_digest if length == args.piece else hashlib.sha1(zeros[:length]).digest())
            else:
                # A rotating window over random bytes, numbered, so that no two pieces are equal.
                start = (at * 4099) % max(1, len(block) - length) if len(block) > length else 0
                data = (at.to_bytes(8, "big") + (block[start:start + length]).ljust(length, b"\x5a"))[:length]
                pieces.append(hashlib.sha1(data).digest())
                file.write(data)
                whole.update(data)
            at, left = at + 1, left - length
    info = {"length": args.size, "name": "payload.bin", "piece length": args.piece, "pieces": b"".join(pieces)}
    torrent.write_bytes(bencode({"announce": announce, "info": info}))
    return whole.hexdigest() if not args.zeros else None


def digest(path):
    whole = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            whole.update(chunk)
    return whole.hexdigest()


class Tracker:
    """Answers every announce with the seeders."""

    def __init__(self):
        self.ports = []
        tracker = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                peers = b"".join(socket.inet_aton("127.0.0.1") + struct.pack(">H", port) for port in tracker.ports)
                body = bencode({"interval": 1800, "peers": peers})
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}/announce"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def has_libtorrent():
    probe = subprocess.run([sys.executable, "-c", "import libtorrent"], capture_output=True)
    return probe.returncode == 0


def stop(child):
    child.terminate()
    try:
        child.wait(5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


# --- telling ---


def describe(run, length):
    if run["error"]:
        return f"FAILED: {run['error']}"
    gib = length / GIB
    return f"{run['cpu'] / gib:6.3f} CPU s/GiB {run['wall']:7.2f} s wall {run['seeder_cpu'] / gib:6.2f} seeder CPU s/GiB"


def report(args, bench, rows):
    gib = args.size / GIB
    base = {row.name: row for row in rows}
    own = base.get("ringtide")
    ground = base.get("floor")
    print(f"{args.size / GIB:g} GiB, {args.piece >> 10} KiB pieces, {args.seeders} x {args.seeder} seeder, "
          f"{len(bench.ports)} peer(s), {args.runs} interleaved runs, {filesystem(args.dest)}")
    print(f"{machine()}")
    print()
    print("| client | CPU s/GiB median (min) | user | sys | wall s median (min) | MB/s | peak RSS MiB (anon) "
          "| CPU / floor | CPU / ringtide | wall / ringtide | seeder CPU s/GiB | failed |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        if not row.runs:
            print(f"| {row.name} | failed |" + " |" * 9 + f" {len(row.failures)} of {args.runs} |")
            continue
        cpu, wall = row.of("cpu"), row.of("wall")
        ratio = lambda value, other, key: f"{value / other.of(key):.2f}" if other and other.runs else "-"
        print(f"| {row.name} | {cpu / gib:.3f} ({row.of('cpu', min) / gib:.3f}) | {row.of('user') / gib:.2f} "
              f"| {row.of('sys') / gib:.2f} | {wall:.2f} ({row.of('wall', min):.2f}) | {args.size / 1e6 / wall:.0f} "
              f"| {row.of('rss', max) >> 20} ({row.of('anon', max) >> 20}) | {ratio(cpu, ground, 'cpu')} "
              f"| {ratio(cpu, own, 'cpu')} | {ratio(wall, own, 'wall')} | {row.of('seeder_cpu') / gib:.2f} "
              f"| {len(row.failures)} of {args.runs} |")
    for row in rows:
        for run in row.failures:
            print(f"failed: {row.name}, run {run['round'] + 1}: {run['error']}")
    if args.json:
        data = {row.name: row.runs + row.failures for row in rows}
        pathlib.Path(args.json).write_text(json.dumps({"size": args.size, "piece": args.piece, "clients": data}))


def filesystem(path):
    found = subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, text=True)
    return found.stdout.strip()


def machine():
    model = next((line.partition(":")[2].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
