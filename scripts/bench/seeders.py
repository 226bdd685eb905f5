"""The programs that are downloaded from.

`bench` is benches/seeder.rs, the only one that is never the bottleneck; the others are real clients, which check what
they have and then seed it. Their command lines say the same as those of the tests (tests/common/clients).
"""

import json
import shutil
import subprocess
from collections import namedtuple

import clients
from network import wait_until

KINDS = ("bench", "transmission", "aria2", "rtorrent", "libtorrent")
# For starting and for checking what it has, which takes the longer the more it is.
READY_SECONDS, READY_SECONDS_PER_GIB = 30, 30


# What a command line is made of: a torrent, the (address, port) pairs to listen on, a folder for its own files.
Job = namedtuple("Job", "torrent listen home args")


def is_here(kind, args):
    programs = {
        "bench": lambda: args.seeder_binary, "transmission": lambda: shutil.which("transmission-daemon"),
        "aria2": lambda: shutil.which("aria2c"), "rtorrent": lambda: shutil.which("rtorrent"),
        "libtorrent": clients.libtorrent_python,
    }
    return bool(programs[kind]())


def start(kind, job, network, children):
    """Starts a seeder and waits until it offers everything; the child, which is in `children` too, ends with them."""
    if not is_here(kind, job.args):
        raise OSError(f"{kind} is not here")
    job.home.mkdir()
    log = job.home / "log"
    with open(log, "wb") as sink:
        command = COMMANDS[kind](job)
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, cwd=job.home)
    children.append(child)

    def is_ready():
        if child.poll() is not None:
            raise EOFError
        return network.pieces_of(*job.listen[-1], job.torrent.info_hash) == job.torrent.pieces

    try:
        problem = wait_until(is_ready, READY_SECONDS + READY_SECONDS_PER_GIB * job.torrent.length / (1 << 30))
    except EOFError:
        problem = f"it ended: {log.read_text(errors='replace').strip()[-300:]}"
    if problem:
        raise OSError(f"the {kind} seeder: {problem}")
    return child


def bench(job):
    listen = ",".join(f"{address}:{port}" for address, port in job.listen)
    source = str(job.torrent.payload) if job.torrent.digest else "--zeros"
    return [job.args.seeder_binary, "--listen", listen, str(job.torrent.path), source]


def transmission(job):
    (address, port), = job.listen
    watched = job.home / "watched"
    watched.mkdir()
    shutil.copy(job.torrent.path, watched)
    settings = {
        "bind-address-ipv4": address, "bind-address-ipv6": "::1", "peer-port": port,
        "peer-port-random-on-start": False, "port-forwarding-enabled": False, "rpc-enabled": False,
        "dht-enabled": False, "lpd-enabled": False, "pex-enabled": False, "utp-enabled": False, "encryption": 0,
        "upload-slots-per-torrent": 100, "peer-limit-per-torrent": 100, "speed-limit-up-enabled": False,
        "ratio-limit-enabled": False, "idle-seeding-limit-enabled": False, "preallocation": 0,
        "rename-partial-files": False, "incomplete-dir-enabled": False, "watch-dir-enabled": True,
    }
    (job.home / "settings.json").write_text(json.dumps(settings))
    return [
        "transmission-daemon", "--foreground", "--log-error", "--config-dir", str(job.home),
        "--download-dir", str(job.torrent.payload.parent), "--watch-dir", str(watched),
    ]


def aria2(job):
    (address, port), = job.listen
    return [
        "aria2c", "--no-conf", f"--dir={job.torrent.payload.parent}", f"--interface={address}",
        f"--listen-port={port}", "--disable-ipv6=true", "--enable-dht=false", "--enable-dht6=false",
        "--bt-enable-lpd=false", "--enable-peer-exchange=false", "--check-integrity=true",
        "--bt-hash-check-seed=true", "--seed-ratio=0.0", "--file-allocation=none", "--bt-max-peers=0",
        "--summary-interval=0", "--follow-torrent=false", "--console-log-level=error",
        "--show-console-readout=false", "--torrent-file", str(job.torrent.path),
    ]


def rtorrent(job):
    (address, port), = job.listen
    (job.home / "session").mkdir()
    (job.home / "rc").write_text(f"""
        system.daemon.set = true
        session.path.set = {job.home}/session
        directory.default.set = {job.torrent.payload.parent}
        network.bind_address.set = {address}
        network.port_range.set = {port}-{port}
        network.port_random.set = no
        dht.mode.set = disable
        protocol.pex.set = no
        protocol.encryption.set = allow_incoming
        trackers.use_udp.set = no
        pieces.hash.on_completion.set = no
        pieces.preload.type.set = 0
        throttle.global_up.max_rate.set_kb = 0
        throttle.max_uploads.set = 100
        throttle.max_uploads.global.set = 100
        load.start = {job.torrent.path}
    """)
    return ["rtorrent", "-n", "-o", f"import={job.home}/rc"]


def libtorrent(job):
    (address, port), = job.listen
    return [
        clients.libtorrent_python(), str(clients.HERE / "libtorrent_peer.py"), "seed", str(job.torrent.path),
        str(job.torrent.payload.parent), f"{address}:{port}",
    ]


COMMANDS = {
    "bench": bench, "transmission": transmission, "aria2": aria2, "rtorrent": rtorrent, "libtorrent": libtorrent,
}
