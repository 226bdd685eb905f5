"""Downloads with misfortunes, for a while: see scripts/soak.sh."""

import filecmp
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import swarm  # noqa: E402
from bencode import bencode  # noqa: E402

PIECE = 256 << 10
# After so many attempts a download is left in peace.
ATTEMPTS_DISTURBED = 8
ATTEMPTS_MAX = 12
PATIENCE = 120
# What ringtide answers where it can: done, no tracker, nobody left to ask, the output.
DONE, NO_TRACKER, NO_PEERS, DISK = 0, 3, 4, 5


@dataclass
class Torrent:
    path: Path
    original: Path
    length: int
    info_hash: bytes


def make_torrent(folder, original, files):
    """`files`: paths and lengths below the original, or None for a single file."""
    whole = b"".join((original / path).read_bytes() for path, _ in files) if files else original.read_bytes()
    pieces = b"".join(hashlib.sha1(whole[at:at + PIECE]).digest() for at in range(0, len(whole), PIECE))
    info = {"name": original.name, "piece length": PIECE, "pieces": pieces}
    if files:
        info["files"] = [{"length": length, "path": path.split("/")} for path, length in files]
    else:
        info["length"] = len(whole)
    encoded = bencode(dict(sorted(info.items())))
    path = folder / f"{original.name}.torrent"
    announce = "http://%s:%d/announce" % swarm.TRACKER
    path.write_bytes(b"d8:announce%d:%s4:info%se" % (len(announce), announce.encode(), encoded))
    return Torrent(path, original, len(whole), hashlib.sha1(encoded).digest())


def make_torrents(folder, data):
    single = data / "single.bin"
    single.write_bytes(os.urandom(64 << 20))
    many, files = data / "many", []
    for number in range(300):
        path, length = f"{number % 7}/{number:03}", random.choice([0, 1, 5_000, 70_000, 300_000])
        (many / path).parent.mkdir(parents=True, exist_ok=True)
        (many / path).write_bytes(os.urandom(length))
        files.append((path, length))
    return [make_torrent(folder, single, None), make_torrent(folder, many, files)]


def is_same(original, output):
    if original.is_file():
        return output.is_file() and filecmp.cmp(original, output, shallow=False)
    names = {path.relative_to(original) for path in original.rglob("*") if path.is_file()}
    found = {path.relative_to(output) for path in output.rglob("*") if path.is_file()}
    return names == found and all(filecmp.cmp(original / name, output / name, shallow=False) for name in names)


class SmallDisk:
    """A file system that holds a download and not much more, and a file that takes what is free."""

    def __init__(self, folder, length):
        self.folder, self.filler = folder, folder / "filler"
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={length + (8 << 20)}", "tmpfs", folder], check=True)

    def fill(self):
        with open(self.filler, "wb") as file:
            free = os.statvfs(self.folder)
            try:
                os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize)
            except OSError:
                pass

    def make_room(self):
        self.filler.unlink(missing_ok=True)

    def remove(self):
        subprocess.run(["umount", "--lazy", self.folder], check=True)
        self.folder.rmdir()


class Soak:
    def __init__(self, ringtide, folder):
        self.ringtide, self.folder, self.counts = ringtide, folder, Counter()
        data = folder / "data"
        data.mkdir()
        self.torrents = make_torrents(folder, data)
        self.hashes = [torrent.info_hash for torrent in self.torrents]
        paths = [str(torrent.path) for torrent in self.torrents]
        self.tracker = swarm.tracker(folder, self.hashes)
        self.seeders = [swarm.libtorrent(folder, paths, data), swarm.aria2(folder, paths, data)]
        self.services = [self.tracker, *self.seeders]
        for service in self.services:
            service.start()
        swarm.wait_for_seeders(self.hashes)

    def stop(self):
        for service in self.services:
            service.stop()

    def episode(self):
        """One download, however often it has to be started."""
        torrent = random.choice(self.torrents)
        options = random.choice([[], ["--io", "pwrite"], ["--backend", "epoll"], ["--threads", "1"], ["--sync"]])
        disk = None
        home = self.folder / "home"
        if os.geteuid() == 0 and random.random() < 0.3:
            disk = SmallDisk(home, torrent.length)
        else:
            home.mkdir()
        out = home / "out"
        try:
            for attempt in range(ATTEMPTS_MAX):
                if self.attempt(torrent, out, options, disk, attempt < ATTEMPTS_DISTURBED):
                    break
            else:
                self.finding(f"not done after {ATTEMPTS_MAX} attempts")
            if not is_same(torrent.original, out):
                self.finding(f"{out} differs from {torrent.original}")
            left = sorted(path.name for path in home.iterdir() if path.name not in ("out", "filler"))
            if left:
                self.finding(f"left behind: {left}")
            self.counts["downloads"] += 1
            if disk:
                disk.make_room()
            shutil.rmtree(home, ignore_errors=True) if not disk else None
        finally:
            if disk:
                disk.remove()

    def attempt(self, torrent, out, options, disk, is_disturbed):
        """Whether it is done."""
        event = "nothing"
        if is_disturbed:
            events = ["nothing", "KILL", "KILL", "INT", "TERM", "tracker", "seeder"] + (["full disk"] * 4 if disk else [])
            event = random.choice(events)
        env = {**os.environ, "RINGTIDE_RECORD_MS": str(random.choice([50, 500, 5000]))}
        command = [self.ringtide, "download", "-q", "-o", out, "--timeout", "30", *options, torrent.path]
        before = list(self.services)
        if event == "full disk" and random.random() < 0.3:
            disk.fill()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, env=env)
        try:
            process.wait(random.uniform(0.02, 2))
        except subprocess.TimeoutExpired:
            self.disturb(event, process, disk)
        try:
            said = process.communicate(timeout=PATIENCE)[1].decode(errors="replace").strip()
        except subprocess.TimeoutExpired:
            process.kill()
            self.finding(f"{event}: still running after {PATIENCE} s: {command}")
        if disk:
            disk.make_room()
        for service in before:
            service.check()
        self.counts["attempts"] += 1
        if os.environ.get("RINGTIDE_SOAK_TRACE"):
            print(event, options, process.returncode, said, flush=True)
        self.counts[event] += 1
        expected = {"KILL": {-9}, "INT": {130}, "TERM": {143}, "tracker": {NO_TRACKER, NO_PEERS}, "seeder": {NO_PEERS},
                    "full disk": {DISK}}.get(event, set())
        if process.returncode not in expected | {DONE}:
            self.finding(f"{event}: exit code {process.returncode}: {said}")
        return process.returncode == DONE

    def disturb(self, event, process, disk):
        if event in ("KILL", "INT", "TERM"):
            process.send_signal(getattr(signal, f"SIG{event}"))
        elif event == "full disk":
            disk.fill()
        elif event in ("tracker", "seeder"):
            # A new tracker knows nobody, so the seeders have to come again.
            services = self.services if event == "tracker" else [random.choice(self.seeders)]
            for service in services:
                service.stop()
            time.sleep(random.uniform(0, 1))
            for service in services:
                service.start()
            swarm.wait_for_seeders(self.hashes)

    def finding(self, text):
        sys.exit(f"soak: {text}\nkept: {self.folder}")


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    ringtide, minutes = sys.argv[1], int(sys.argv[2])
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(1 << 32)
    random.seed(seed)
    print(f"seed {seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="ringtide-soak.", dir=os.environ.get("TMPDIR", "/var/tmp")))
    soak = Soak(ringtide, folder)
    deadline = time.monotonic() + 60 * minutes
    told = time.monotonic()
    try:
        while time.monotonic() < deadline:
            soak.episode()
            if time.monotonic() - told > 60:
                told = time.monotonic()
                print(dict(soak.counts), flush=True)
    finally:
        soak.stop()
    print(dict(soak.counts))
    shutil.rmtree(folder)


main()
