"""What one run costs, and how the machine is made ready for it."""

import ctypes
import mmap
import os
import subprocess
import threading
import time

GIB = 1 << 30
PROBE_LENGTH = 256 << 20
# Touching a gigabyte that the host of a virtual machine backs takes a fifth of this in huge pages, and a half in small
# ones; one that it does not back takes far more.
SLOW_SECONDS_PER_GIB = {"huge": 0.4, "small": 1.0}
SAMPLE_SECONDS = 0.01
WARM_PASSES_MAX = 3


def execute(client_command, out, timeout, children):
    """Runs a program to its end: wall, user and system seconds, peak memory, and what went wrong."""
    log, said = out / ".log", out / "done"
    with open(log, "wb") as errors, open(out / ".stdout", "wb") as told:
        began, started = time.time(), time.monotonic()
        child = subprocess.Popen(client_command, stdout=told, stderr=errors, stdin=subprocess.DEVNULL)
        children.append(child)
        memory = Memory(child.pid)
        late = threading.Event()
        timer = threading.Timer(timeout, lambda: (late.set(), child.kill()))
        timer.start()
        try:
            _, status, usage = os.wait4(child.pid, 0)
            elapsed = time.monotonic() - started
        finally:
            timer.cancel()
            memory.stop()
    # The child is reaped; tell Popen, so that it does not look for it.
    child.returncode = os.waitstatus_to_exitcode(status)
    children.remove(child)
    # A client that takes its time to quit has said when it was done.
    wall = said.stat().st_mtime - began if said.exists() else elapsed
    error = None
    if late.is_set():
        error = f"not done in {timeout:g} s"
    elif child.returncode != 0 and not said.exists():
        text = log.read_text(errors="replace") + (out / ".stdout").read_text(errors="replace")
        error = f"exit {child.returncode}: {' '.join(text.split())[-300:]}"
    return {
        "wall": wall, "lingered": elapsed - wall, "user": usage.ru_utime, "sys": usage.ru_stime,
        "cpu": usage.ru_utime + usage.ru_stime, "rss": memory.total, "anon": memory.anon,
        "switches_voluntary": usage.ru_nvcsw, "switches_involuntary": usage.ru_nivcsw,
        "faults": usage.ru_minflt, "error": error,
    }


def machine_cpu():
    """Seconds that the processors of this machine have worked, for whomever: the kernel's own threads included."""
    with open("/proc/stat") as file:
        user, nice, system, _idle, _wait, hard, soft = map(int, file.readline().split()[1:8])
    return (user + nice + system + hard + soft) / os.sysconf("SC_CLK_TCK")


class Memory:
    """Samples the memory of a process. The kernel keeps the peak of the total, but only while the process lives, and
    none of its anonymous part."""

    def __init__(self, pid):
        self.path, self.anon, self.total, self.over = f"/proc/{pid}/status", 0, 0, threading.Event()
        self.thread = threading.Thread(target=self.sample, daemon=True)
        self.thread.start()

    def sample(self):
        while not self.over.wait(SAMPLE_SECONDS):
            try:
                with open(self.path) as file:
                    lines = dict(line.split(":", 1) for line in file)
            except OSError:
                return
            # A process that is ending has no memory any more.
            kilobytes = lambda name: int(lines.get(name, "0").split()[0])
            self.anon = max(self.anon, kilobytes("RssAnon") << 10)
            self.total = max(self.total, kilobytes("VmHWM") << 10)

    def stop(self):
        self.over.set()
        self.thread.join()


class Warmth:
    """Touches and frees memory before each run, so that the host of a virtual machine backs it, and keeps how long
    that took: the reader must see when it was not enough."""

    def __init__(self):
        # Seconds a gigabyte: of the first pass of each warm-up, of its last one, and of a probe right before the run.
        self.first, self.last, self.probes = [], [], []

    def prepare(self, length):
        """Makes ready for a run that fills the page cache with `length` bytes."""
        length = min(length + (512 << 20), int(0.6 * available()))
        passes = [touch(length)]
        # A host may take back the beginning while the end is being touched; the next pass tells.
        while passes[-1] > slow_seconds() and len(passes) < WARM_PASSES_MAX:
            passes.append(touch(length))
        self.first.append(passes[0])
        self.last.append(passes[-1])
        self.probes.append(touch(min(PROBE_LENGTH, length)))

    def is_slow(self):
        return max(self.last + self.probes, default=0) > slow_seconds()


def slow_seconds():
    return SLOW_SECONDS_PER_GIB["huge" if has_huge_pages() else "small"]


def touch(length):
    """Seconds a gigabyte. In huge pages where there are any: that is much quicker, and large folios of the page cache
    come from the same blocks of free memory."""
    started = time.monotonic()
    memory = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if has_huge_pages():
        memory.madvise(mmap.MADV_HUGEPAGE)
    view = ctypes.c_char.from_buffer(memory)
    ctypes.memset(ctypes.addressof(view), 1, length)
    del view
    memory.close()
    return (time.monotonic() - started) / (length / GIB)


def has_huge_pages():
    try:
        with open("/sys/kernel/mm/transparent_hugepage/enabled") as file:
            return "[never]" not in file.read()
    except OSError:
        return False


def available():
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable"))


def cpu_of(pid):
    """User and system seconds of a running process."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
