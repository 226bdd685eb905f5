"""The programs that download: their command lines, and what ends each.

ringtide     ends itself when everything is verified.
floor        the same.
libtorrent   libtorrent_peer.py ends itself when everything is verified and flushed.
aria2        runs a command when everything is verified, tells the tracker, and ends itself at its next tick (1 s).
transmission runs a command when everything is verified, which ends it with SIGTERM; it tells the tracker first.
rtorrent     runs a command when everything is verified and is then told to shut down at once.
rqbit        --exit-on-finish.
vortex       ends itself.

Of those that run a command, the time until then is the wall time: the command makes the file `done`. None of them
uploads meanwhile, as the seeders ask for nothing, so their processor time is that of the download.
"""

import functools
import json
import pathlib
import shlex
import shutil
import subprocess
import sys

# Beside the mapped file: how many bytes are written at a time.
FLOOR_METHODS = ["pwrite:16K", "pwrite:64K", "pwrite:256K", "uncached:64K", "uncached:256K"]

HERE = pathlib.Path(__file__).resolve().parent
VENV = HERE.parent.parent / "target/clients/venv/bin/python3"


class Client:
    """A row: how to call it, and where its program is (None: it is not here)."""

    def __init__(self, name, program, command, figures=None, problem=None):
        self.name, self.program, self.command = name, program, command
        # Why it cannot work here though it is here.
        self.problem = problem
        # What its standard output tells beside what the kernel knows.
        self.figures = figures or (lambda text: {})


def known(args, network):
    """All clients by name, those that are not here included."""
    def own(name, binary, *more):
        return Client(name, binary, functools.partial(ringtide, binary, more), ringtide_figures)

    no_loopback = network.refused and f"it connects to no 127.0.0.0/8, and there is no namespace: {network.refused}"
    found = [
        Client("floor", args.floor_binary, functools.partial(floor, args.floor_binary, "mmap")),
        *(Client(f"floor {method}", args.floor_binary if args.everyday else None,
                 functools.partial(floor, args.floor_binary, method)) for method in FLOOR_METHODS),
        own("ringtide", args.ringtide),
        own("ringtide --sync", args.ringtide, "--sync"),
        own("before", args.against),
        *(own(name, args.ringtide, *shlex.split(more)) for name, more in args.row),
        Client("libtorrent", libtorrent_python(), libtorrent),
        Client("aria2", shutil.which("aria2c"), aria2),
        Client("transmission", shutil.which("transmission-daemon"), transmission, problem=no_loopback),
        Client("rtorrent", shutil.which("rtorrent"), rtorrent),
        Client("rqbit", args.rqbit, functools.partial(rqbit, args.rqbit)),
        Client("vortex", args.vortex, functools.partial(vortex, args.vortex)),
    ]
    return {client.name: client for client in found}


def choose(args, network):
    """The clients to measure. One that is named must be here."""
    clients = known(args, network)
    if args.clients is None:
        default = [name for name in clients if name != "ringtide --sync" or args.extra]
        return [clients[name] for name in default if clients[name].program]
    names = args.clients.split(",") + [name for name, _ in args.row]
    names += ["before"] * bool(args.against) + ["ringtide --sync"] * args.extra
    names = list(dict.fromkeys(names))
    missing = [name for name in names if name not in clients or not clients[name].program]
    if missing:
        raise SystemExit(f"not here: {', '.join(missing)}; known: {', '.join(clients)}")
    return [clients[name] for name in names]


@functools.lru_cache(maxsize=None)
def libtorrent_python():
    """The first Python that can import libtorrent, where scripts/install_clients.sh looks for it."""
    for python in (sys.executable, "python3", "/usr/bin/python3", str(VENV)):
        path = shutil.which(python)
        if path and subprocess.run([path, "-c", "import libtorrent"], capture_output=True).returncode == 0:
            return path
    return None


# Each of these makes what the client needs in the empty folder `out` and returns the command line. `place` is where
# the torrent is to be had: its metainfo file, its peers, and a network to listen in.


def ringtide(binary, more, place, out):
    quiet = ["--quiet", "--json"] if tells_json(binary) else ["--quiet"]
    return [binary, "download", *quiet, *more, "-o", str(out / "payload.bin"), str(place.torrent.path)]


@functools.lru_cache(maxsize=None)
def tells_json(binary):
    """A build that is measured as 'before' may be too old for it."""
    return "--json" in subprocess.run([binary, "download", "--help"], capture_output=True, text=True).stdout


def ringtide_figures(text):
    return json.loads(text) if text.strip() else {}


def floor(binary, method, place, out):
    address, port = place.peers[0]
    return [binary, f"{address}:{port}", str(place.torrent.path), str(out / "payload.bin"), method]


def sink(binary, place):
    """Not a client: drains one seeder and throws everything away."""
    address, port = place.peers[0]
    return [binary, f"{address}:{port}", str(place.torrent.path), "--discard"]


def libtorrent(place, out):
    return [
        libtorrent_python(), str(HERE / "libtorrent_peer.py"), "get", str(place.torrent.path), str(out),
        f"{place.network.address(0)}:{place.network.free_port()}",
    ]


def aria2(place, out):
    return [
        "aria2c", "--quiet", "--no-conf", "--seed-time=0", "--file-allocation=falloc", "--enable-dht=false",
        "--enable-dht6=false", "--bt-enable-lpd=false", "--enable-peer-exchange=false", "--disable-ipv6=true",
        f"--listen-port={place.network.free_port()}", f"--dir={out}", "--follow-torrent=false", "--bt-max-peers=0",
        f"--on-bt-download-complete={done_script(out)}", str(place.torrent.path),
    ]


def transmission(place, out):
    home = out / ".transmission"
    (home / "watch").mkdir(parents=True)
    shutil.copy(place.torrent.path, home / "watch")
    settings = {
        "dht-enabled": False, "lpd-enabled": False, "pex-enabled": False, "utp-enabled": False,
        "port-forwarding-enabled": False, "rpc-enabled": False, "encryption": 0,
        "peer-port": place.network.free_port(), "bind-address-ipv4": place.network.address(0),
        "bind-address-ipv6": "::1", "download-dir": str(out), "preallocation": 2, "cache-size-mb": 4,
        "peer-limit-global": 1000, "peer-limit-per-torrent": 1000,
        "script-torrent-done-enabled": True, "script-torrent-done-filename": done_script(out, "kill -TERM $PPID"),
        "watch-dir-enabled": True, "watch-dir": str(home / "watch"), "trash-original-torrent-files": False,
    }
    (home / "settings.json").write_text(json.dumps(settings))
    return ["transmission-daemon", "--foreground", "--config-dir", str(home), "--log-error"]


def rtorrent(place, out):
    home = out / ".rtorrent"
    home.mkdir()
    (home / "rc").write_text(f"""
        directory.default.set = {out}
        session.path.set = {home}
        network.port_range.set = {place.network.free_port()}-65000
        network.bind_address.set = {place.network.address(0)}
        dht.mode.set = disable
        protocol.pex.set = no
        trackers.use_udp.set = no
        pieces.hash.on_completion.set = no
        throttle.max_peers.normal.set = 1000
        system.daemon.set = true
        system.file.allocate.set = 1
        method.set_key = event.download.finished, done, "execute.nothrow={done_script(out)} ; system.shutdown.quick="
        load.start = {place.torrent.path}
    """)
    return ["rtorrent", "-n", "-o", f"import={home}/rc"]


def rqbit(binary, place, out):
    return [
        binary, "--http-api-listen-addr", f"{place.network.address(0)}:0", "--disable-dht",
        "--disable-upnp-port-forward", "download", "--exit-on-finish", "-o", str(out), str(place.torrent.path),
    ]


def vortex(binary, place, out):
    return [binary, "-t", str(place.torrent.path), "-d", str(out)]


def done_script(out, then=""):
    """A command that makes the file `done` and then does what else is asked."""
    script = out / ".done.sh"
    # The shell does it itself: what a child of it costs would be charged to the client.
    script.write_text(f"#!/bin/sh\n: >{out}/done\n{then}\n")
    script.chmod(0o755)
    return str(script)
