"""Downloads torrents with several clients in turn and tells what each download cost.

Everything stays on this machine, in a network namespace of its own where that is allowed: the seeders, a tracker
inside this program, and the clients one at a time, in an order that rotates from round to round. Every output is
compared with the payload. Each client is measured if it is installed, or must be if it is named with --clients.
"""

import argparse
import itertools
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))

import clients
import measure
import plan
import report
import seeders
from network import Network, Tracker
from payload import Payloads

SMOKE_CLIENTS = "floor,ringtide,libtorrent,aria2,transmission,rtorrent"


def main():
    args = arguments()
    configs = plan.configurations(args, seeders.KINDS)
    network = Network()
    children = []
    work = pathlib.Path(tempfile.mkdtemp(prefix="ringtide-bench-", dir=args.dest))
    try:
        bench = Bench(args, configs, network, work, children)
        bench.run()
        report.write(bench)
    finally:
        # Nothing interrupts the cleaning up.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        stop(children)
        shutil.rmtree(work, ignore_errors=True)
    if bench.has_failed():
        sys.exit(1)


def arguments():
    smoke = bool(os.environ.get("RINGTIDE_BENCH_SMOKE"))
    parser = argparse.ArgumentParser(
        usage="scripts/bench.sh [OPTION]..", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_argument_group("what is downloaded")
    what.add_argument("--size", type=plan.size, default=32 << 20 if smoke else 1 << 30, help="of the payload (1G)")
    what.add_argument("--piece", type=plan.size, default=256 << 10, help="size of a piece (256K)")
    what.add_argument("--zeros", action="store_true", help="a payload of zeros, which takes no disk")
    what.add_argument("--seeder", default="bench", help="|".join(seeders.KINDS))
    what.add_argument("--seeders", type=int, default=1, help="how many seeder processes")
    what.add_argument("--peers", type=int, help="how many addresses they have (one each)")
    what.add_argument("--sweep", metavar="KEY=A,B,..", help="several configurations in one run: one key with several "
                      "values, or 'key=a,key=b;key=c,..' for several keys each; keys: size, piece, pieces (sets the "
                      "size), peers, seeders, seeder, zeros; a * marks the one to compare with (the first)")
    what.add_argument("--hits", action="store_true", help="ringtide from every kind of seeder: the hit rates")
    who = parser.add_argument_group("who downloads")
    who.add_argument("--clients", help="comma-separated names (all that are here; in a sweep ringtide)")
    who.add_argument("--row", action="append", type=row, default=[], metavar="NAME=ARGS",
                     help="ringtide with more arguments, as a row of its own; may be given several times")
    who.add_argument("--extra", action="store_true", help="the row 'ringtide --sync' too")
    who.add_argument("--against", metavar="BINARY", help="another ringtide, as the row 'before'")
    how = parser.add_argument_group("how")
    how.add_argument("--runs", type=int, help="rounds (7; with --hits 1)")
    how.add_argument("--everyday", action="store_true", help="memory as it is found: nothing is touched beforehand, "
                     "there is a pause before each run, the order is another in each round, and the floor is measured "
                     "with every way to write")
    how.add_argument("--pause", type=float, default=0.1 if smoke else 5, help="seconds before each run, with "
                     "--everyday (5)")
    how.add_argument("--dest", default="/var/tmp", help="folder for payload and outputs (/var/tmp)")
    how.add_argument("--timeout", type=float, default=60 if smoke else 900, help="seconds for one download (900)")
    how.add_argument("--json", metavar="FILE", help="all figures of all runs")
    binaries = parser.add_argument_group("programs (scripts/bench.sh builds the first three)")
    binaries.add_argument("--ringtide", default="target/release/ringtide")
    binaries.add_argument("--seeder-binary")
    binaries.add_argument("--floor-binary")
    binaries.add_argument("--rqbit", default=shutil.which("rqbit"))
    binaries.add_argument("--vortex", default=shutil.which("vortex-cli"))
    args = parser.parse_args()
    if args.runs is None:
        args.runs = 1 if smoke or args.hits else 7
    if args.clients is None and (args.sweep or args.hits):
        args.clients = "ringtide"
    if args.clients is None and smoke:
        args.clients = SMOKE_CLIENTS
    return args


def row(text):
    name, equals, more = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError("it goes NAME=ARGS")
    return name, more


class Place:
    """Where one configuration's torrent is to be had. `problem` says why it is not."""

    def __init__(self, bench, index, config):
        self.config, self.network, self.problem, self.children = config, bench.network, None, []
        path = f"/announce/{index}"
        self.torrent = bench.payloads.torrent(
            str(index), config.size, config.piece, config.zeros, bench.tracker.url(path))
        # Each peer has its own address, as in the world. They take turns over the seeders.
        peers = [(bench.network.address(number), bench.network.free_port(number))
                 for number in range(1, config.peers + 1)]
        try:
            for number in range(config.seeders):
                home = bench.work / f"seeder-{index}-{number}"
                job = seeders.Job(self.torrent, peers[number::config.seeders], home, bench.args)
                self.children.append(seeders.start(config.seeder, job, bench.network, bench.children))
        except OSError as error:
            self.problem = str(error)
        self.peers = peers
        bench.tracker.serve(path, peers)

    def seeder_cpu(self):
        return sum(measure.cpu_of(child.pid) for child in self.children)

    def fault(self):
        if self.problem is None and any(child.poll() is not None for child in self.children):
            self.problem = "a seeder ended"
        return self.problem


class Row:
    """All runs of one client in one configuration."""

    def __init__(self, client, place):
        self.client, self.place, self.runs, self.failures = client, place, [], []

    def add(self, run):
        (self.failures if run["error"] else self.runs).append(run)


class Bench:
    """All rows, and what they share."""

    def __init__(self, args, configs, network, work, children):
        self.args, self.network, self.work, self.children = args, network, work, children
        self.tracker, self.payloads, self.warmth = Tracker(network), Payloads(work), measure.Warmth()
        chosen = clients.choose(args, network)
        self.places = [Place(self, index, config) for index, config in enumerate(configs)]
        self.rows = [Row(client, place) for place, client in itertools.product(self.places, chosen)]
        drain = clients.Client("sink", args.floor_binary, None)
        drain.command = lambda place, _: clients.sink(args.floor_binary, place)
        # Shows how fast the seeder is; only the bench seeder can be drained.
        can_drain = args.floor_binary and configs[0].seeder == "bench"
        self.sink = Row(drain, self.places[0]) if can_drain else None
        # Who ran last.
        self.last = None

    def run(self):
        for round in range(self.args.runs):
            for row in self.order(round):
                self.measure(row, round)
            if self.sink:
                self.measure(self.sink, round)

    def order(self, round):
        """Everybody's turn: rotated from round to round, or, as what ran before leaves its memory, in any order."""
        if self.args.everyday:
            return random.Random(round).sample(self.rows, len(self.rows))
        shift = round % len(self.rows)
        return self.rows[shift:] + self.rows[:shift]

    def measure(self, row, round):
        place = row.place
        run = {"error": row.client.problem or place.fault(), "round": round, "after": self.last}
        self.last = row.client.name
        if not run["error"]:
            out = self.work / "out"
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            os.sync()
            if self.args.everyday:
                time.sleep(self.args.pause)
            else:
                # Last, as a host takes memory back from a guest within seconds of its being freed.
                self.warmth.prepare(0 if row is self.sink else place.config.size)
            before, machine_before = place.seeder_cpu(), measure.machine_cpu()
            try:
                command = row.client.command(place, out)
                run.update(measure.execute(command, out, self.args.timeout, self.children))
                # What is not on the disk yet must be brought there.
                os.sync()
                run["seeder_cpu"] = place.seeder_cpu() - before
                run["machine_cpu"] = measure.machine_cpu() - machine_before - run["seeder_cpu"]
                if not run["error"]:
                    run["error"] = None if row is self.sink else place.torrent.check(out)
                    run.update(row.client.figures((out / ".stdout").read_text(errors="replace")))
            # Whatever goes wrong with one client is its failure, and the others go on.
            except (OSError, ValueError) as error:
                run["error"] = str(error)
            shutil.rmtree(out, ignore_errors=True)
        row.add(run)
        report.progress(row, run)

    def has_failed(self):
        return any(row.failures for row in self.rows + ([self.sink] if self.sink else []))


def stop(children):
    for child in children:
        child.terminate()
    for child in children:
        try:
            child.wait(3)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
