"""A tracker and seeders that can be restarted: opentracker, libtorrent and aria2, all on loopback."""

import ctypes
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

TRACKER = ("127.0.0.1", 26969)
SEEDERS = {("127.0.0.2", 26881), ("127.0.0.3", 26882)}
PR_SET_PDEATHSIG = 1
# Slow enough for a download to be met in the middle.
RATE = 12 << 20


def die_with_parent():
    """However this process ends, what it started must not go on."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Service:
    """A process with a log that is started again and again."""

    def __init__(self, name, command, folder):
        self.name, self.command, self.log = name, command, folder / f"{name}.log"
        self.process = None

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent)

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def check(self):
        if self.process and self.process.poll() is not None:
            sys.exit(f"{self.name} has ended by itself:\n{self.log.read_text(errors='replace')[-2000:]}")


def tracker(folder, hashes):
    home = folder / "tracker"
    home.mkdir()
    folder.chmod(0o755)
    home.chmod(0o755)
    (home / "whitelist").write_text("".join(f"{value.hex()}\n" for value in hashes))
    (folder / "tracker.conf").write_text(
        f"listen.tcp {TRACKER[0]}:{TRACKER[1]}\naccess.whitelist whitelist\ntracker.rootdir {home}\n")
    return Service("tracker", ["opentracker", "-f", folder / "tracker.conf"], folder)


def libtorrent(folder, torrents, data):
    script = Path(__file__).with_name("seed_libtorrent.py")
    return Service("libtorrent", [sys.executable, script, "127.0.0.2:26881", str(RATE), data, *torrents], folder)


def aria2(folder, torrents, data):
    return Service("aria2", [
        "aria2c", "--no-conf", "--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false",
        "--enable-peer-exchange=false", "--interface=127.0.0.3", "--listen-port=26882", "--seed-ratio=0.0",
        "--bt-seed-unverified=true", "--check-integrity=false", "--allow-overwrite=true", f"--dir={data}",
        f"--max-overall-upload-limit={RATE}", "--console-log-level=warn", "--summary-interval=0", *torrents,
    ], folder)


def wait_for_seeders(hashes, patience=60):
    """Until the tracker names both seeders for each torrent."""
    deadline = time.monotonic() + patience
    for value in hashes:
        while not SEEDERS <= known_peers(value):
            if time.monotonic() > deadline:
                sys.exit(f"the tracker does not name the seeders after {patience} s")
            time.sleep(0.2)


def known_peers(info_hash):
    """The addresses that the tracker names; who asks here leaves again at once."""
    quoted = "".join(f"%{byte:02x}" for byte in info_hash)
    url = (f"http://{TRACKER[0]}:{TRACKER[1]}/announce?info_hash={quoted}&peer_id=-SK0001-000000000000"
           "&port=9&uploaded=0&downloaded=0&left=1&compact=1")
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            body = reply.read()
        urllib.request.urlopen(url + "&event=stopped", timeout=5).close()
        at = body.index(b"5:peers") + 7
        start = body.index(b":", at) + 1
        peers = body[start:start + int(body[at:start - 1])]
    except (OSError, ValueError):
        return set()
    cut = (peers[at:at + 6] for at in range(0, len(peers), 6))
    return {(".".join(map(str, peer[:4])), int.from_bytes(peer[4:], "big")) for peer in cut}
