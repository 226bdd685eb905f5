#!/usr/bin/env python3
"""Builds the tests once and runs each in a process of its own, several side by side.

    scripts/run_tests.py [--jobs N] [--times] [FILTER..]

Most tests of this project wait: for a client's timers, for a tracker, for a limit to pass. So the unit tests run as one
job, and every integration test is a job of its own. A job of root's has a network of its own too (`unshare --net`), so
that no two of them meet at a port. Some tests run a second and third time, as on machines without io_uring.

A FILTER is a part of a job's name, such as `real_swarm::` or `epoll failures::`. A job fails unless its test says that
it passed; so neither a filter nor an attribute can keep one from running unnoticed.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from threading import Condition

PROFILE = "checked"
JOBS = 6
# A test that takes longer hangs.
TIMEOUT_S = 900
# Tests that keep the processors busy, or that measure memory or rates, leave room for fewer beside them.
WEIGHTS = {
    "unit": 3,
    "sim_swarm": 2,
    "hostile_peers": 2,
    "hostile_torrents": 2,
    "long_links": 3,
}
# Those that take longest begin first.
FIRST = ["magnet_swarm", "hostile_peers", "resume", "real_swarm", "encryption", "long_links", "disk_faults", "keeping"]
# The same tests on machines that refuse io_uring: the environment, and the tests.
VARIANTS = [
    ("epoll", {"RINGTIDE_TEST_BACKEND": "epoll"}, r"^(failures|unpredictable_peers)::"),
    ("seccomp", {"RINGTIDE_TEST_SECCOMP": "1"}, r"^real_swarm::(?!.*one_gibibyte)"),
]


@dataclass
class Job:
    """One test, or all of a binary's."""

    name: str
    command: list
    expected: int
    weight: int = 1
    env: dict = field(default_factory=dict)


@dataclass
class Outcome:
    job: Job
    passed: int
    seconds: float
    cpu_s: float
    output: str

    @property
    def is_right(self):
        return self.passed == self.job.expected


class Slots:
    """Lets jobs begin as long as their weights fit."""

    def __init__(self, count):
        self.free = self.count = count
        self.changed = Condition()

    def take(self, weight):
        weight = min(weight, self.count)
        with self.changed:
            self.changed.wait_for(lambda: self.free >= weight)
            self.free -= weight
        return weight

    def give(self, weight):
        with self.changed:
            self.free += weight
            self.changed.notify_all()


def build():
    """Builds all test binaries. Returns the name and the path of each."""
    command = ["cargo", "test", "--profile", PROFILE, "--no-run", "--lib", "--bins", "--tests"]
    built = subprocess.run(
        [*command, "--message-format=json-render-diagnostics"], stdout=subprocess.PIPE, check=True, text=True
    )
    binaries = {}
    for line in built.stdout.splitlines():
        message = json.loads(line)
        if message.get("reason") == "compiler-artifact" and message["profile"]["test"] and message["executable"]:
            name = "unit" if "lib" in message["target"]["kind"] else message["target"]["name"]
            binaries[name] = message["executable"]
    return binaries


def tests_of(binary):
    """The names of the tests in a binary; none may be left out by an attribute."""
    listed = subprocess.run([binary, "--list", "--format", "terse"], stdout=subprocess.PIPE, check=True, text=True)
    return [line.removesuffix(": test") for line in listed.stdout.splitlines() if line.endswith(": test")]


def jobs_of(binaries):
    """Every test as part of a job, the longest first."""
    isolated = ["unshare", "--net", "sh", "-c", 'ip link set lo up 2>/dev/null || ifconfig lo up; exec "$@"', "sh"]
    isolated = isolated if os.geteuid() == 0 and has_network_tools() else []
    jobs = []
    for name, binary in binaries.items():
        tests, weight = tests_of(binary), WEIGHTS.get(name, 1)
        if name == "unit":
            jobs.append(Job("unit", [binary, "-q"], len(tests), weight))
            continue
        for test in tests:
            command = [*isolated, binary, "--exact", test]
            jobs.append(Job(f"{name}::{test}", command, 1, weight))
    variants = [
        Job(f"{label} {job.name}", job.command, 1, job.weight, env)
        for label, env, pattern in VARIANTS
        for job in jobs
        if re.search(pattern, job.name)
    ]
    rank = {name: index for index, name in enumerate(FIRST)}
    jobs += variants
    jobs.sort(key=lambda job: rank.get(job.name.split(" ")[-1].split("::")[0], len(FIRST)))
    return jobs


def has_network_tools():
    """Whether a network of its own can be given to a job, with its loopback interface up."""
    probe = "ip link set lo up 2>/dev/null || ifconfig lo up"
    return subprocess.run(["unshare", "--net", "sh", "-c", probe], stderr=subprocess.DEVNULL).returncode == 0


def run(job, slots):
    """Runs a job when there is room for it."""
    taken = slots.take(job.weight)
    try:
        started = time.monotonic()
        with tempfile.TemporaryFile() as log:
            child = subprocess.Popen(
                job.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **job.env}
            )
            usage = wait(child)
            log.seek(0)
            output = log.read().decode(errors="replace")
        # A test that has run itself in a namespace says so twice; the last word is the job's.
        results = re.findall(r"^test result: ok\. (\d+) passed; 0 failed; 0 ignored", output, re.M)
        passed = int(results[-1]) if results and child.returncode == 0 else 0
        return Outcome(job, passed, time.monotonic() - started, usage, output)
    finally:
        slots.give(taken)


def wait(child):
    """Waits for a child, at most as long as a test may take. Returns the processor seconds of it and of its own."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return usage.ru_utime + usage.ru_stime
        if time.monotonic() > deadline:
            child.kill()
        time.sleep(0.02)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=JOBS, help=f"jobs of weight 1 at a time (default: {JOBS})")
    parser.add_argument("--times", action="store_true", help="print how long each job took, the longest first")
    parser.add_argument("filters", nargs="*", metavar="FILTER")
    args = parser.parse_args()

    # What whoever started this ignores (nohup, a job in the background) would be ignored by what the tests run, too.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)

    jobs = jobs_of(build())
    if args.filters:
        jobs = [job for job in jobs if any(part in job.name for part in args.filters)]
    slots = Slots(args.jobs)
    outcomes = []
    started = time.monotonic()
    with ThreadPoolExecutor(max_workers=args.jobs) as pool:
        for done in as_completed([pool.submit(run, job, slots) for job in jobs]):
            outcome = done.result()
            outcomes.append(outcome)
            verdict = "ok" if outcome.is_right else "FAILED"
            print(f"{verdict:6} {outcome.seconds:6.1f} s  {outcome.job.name}", flush=True)
            if not outcome.is_right:
                print(outcome.output, flush=True)
    wrong = [outcome for outcome in outcomes if not outcome.is_right]
    if args.times:
        for outcome in sorted(outcomes, key=lambda outcome: -outcome.seconds):
            print(f"{outcome.seconds:7.1f} s {outcome.cpu_s:7.1f} s of processor  {outcome.job.name}")
    for outcome in wrong:
        print(f"failed: {outcome.job.name}")
    passed = sum(outcome.passed for outcome in outcomes)
    failed = sum(max(outcome.job.expected - outcome.passed, 0) for outcome in outcomes)
    print(f"{time.monotonic() - started:.0f} s, {sum(outcome.cpu_s for outcome in outcomes):.0f} s of processor")
    print(f"{passed} passed, {failed} failed, 0 skipped")
    sys.exit(1 if wrong or not outcomes else 0)


if __name__ == "__main__":
    main()
