"""What a reader is told."""

import json
import os
import pathlib
import platform
import subprocess
import sys
from statistics import median

from plan import human

GIB, MIB = 1 << 30, 1 << 20


def progress(row, run):
    """One line a run, while it goes."""
    name = " ".join(filter(None, [row.place.config.label, row.client.name]))
    if run["error"]:
        text = f"FAILED: {run['error']}"
    else:
        gib = row.place.config.size / GIB
        text = (f"{run['cpu'] / gib:6.3f} CPU s/GiB {run['wall']:7.2f} s wall "
                f"{run['seeder_cpu'] / gib:6.2f} seeder CPU s/GiB")
    print(f"  {run['round'] + 1:2} {name:32} {text}", file=sys.stderr, flush=True)


def write(bench):
    sweep = len(bench.places) > 1
    for line in header(bench):
        print(line)
    print()
    if bench.args.hits:
        table(["seeder", "blocks direct", "blocks copied", "hit rate % (worst)", "receives/MiB", "bytes wasted",
               "CPU s/GiB", "wall s", "failed"], [hits_row(bench, row) for row in bench.rows])
    else:
        table(*costs(bench, sweep))
        told = [row for row in bench.rows if row.runs and "blocks_direct" in row.runs[0]]
        if told:
            print()
            table(["", "blocks direct", "blocks copied", "hit rate % (worst)", "receives/MiB", "bytes wasted", "method",
                   "pages, s/GiB"], [[label(bench, row)] + scatter(row) + method(row) for row in told])
        if bench.args.everyday:
            print()
            table(*order_dependence(bench))
    print()
    print("Each figure is the median (minimum) of the runs; machine CPU is that of all but the seeders, until all is "
          "on the disk; memory is a peak, median (minimum to maximum).")
    for line in notes(bench):
        print(line)
    if bench.args.json:
        pathlib.Path(bench.args.json).write_text(json.dumps(raw(bench), indent=1))


def header(bench):
    args, config = bench.args, bench.places[0].config
    yield config.title() + f"; {args.runs} interleaved run(s); destination {filesystem(args.dest)}"
    yield machine()
    if args.everyday:
        yield f"everyday memory: nothing is touched beforehand, {args.pause:g} s of rest before each run, any order"
    if bench.sink and bench.sink.runs:
        seconds = [run["wall"] for run in bench.sink.runs]
        seeder = [run["seeder_cpu"] / (config.size / GIB) for run in bench.sink.runs]
        yield (f"a sink that discards drains the seeder at {config.size / 1e6 / median(seconds):.0f} MB/s "
               f"(best {config.size / 1e6 / min(seconds):.0f}), which costs the seeder {median(seeder):.2f} CPU s/GiB")


def notes(bench):
    warmth, network = bench.warmth, bench.network
    if warmth.probes:
        yield (f"Touching the memory of a run beforehand took up to {max(warmth.first):.2f} s/GiB, once it was warm "
               f"up to {max(warmth.last):.2f}, and a part of it right before the run up to {max(warmth.probes):.2f}.")
    if warmth.is_slow():
        yield "WARNING: memory is not backed by the host, or the machine is busy; figures include that."
    if network.refused:
        yield (f"no network namespace ({network.refused}): everything was on 127.0.0.0/8, to which transmission "
               "does not connect")
    for row in bench.rows + ([bench.sink] if bench.sink else []):
        slow = max((run["lingered"] for run in row.runs), default=0)
        if slow > 5:
            yield f"{label(bench, row)} took up to {slow:.0f} s to end after it was done"
        for run in row.failures:
            yield f"failed: {label(bench, row)}, run {run['round'] + 1}: {run['error']}"


def costs(bench, sweep):
    """One line a row. Where several configurations are measured, each is compared with the first of its client."""
    titles = ["", "CPU s/GiB", "user s/GiB", "sys s/GiB", "machine CPU s/GiB", "wall s", "MB/s", "RSS MiB", "anon RSS MiB",
              "switches/MiB vol.+invol.", "seeder CPU s/GiB"]
    if sweep:
        titles += ["CPU / first", "wall / first", "hit rate %"]
    else:
        titles += ["CPU / floor", "CPU / ringtide", "wall / ringtide"]
    titles += ["failed"]
    lines = []
    for row in bench.rows:
        failed = f"{len(row.failures)} of {bench.args.runs}"
        if not row.runs:
            lines.append([label(bench, row), "failed"] + ["-"] * (len(titles) - 3) + [failed])
            continue
        of = lambda name: [run[name] for run in row.runs]
        gib = row.place.config.size / GIB
        cells = [spread(of(name), gib, digits) for name, digits in (("cpu", 3), ("user", 3), ("sys", 3))]
        cells += [spread(of("machine_cpu"), gib, 3)]
        cells += [spread(of("wall"), 1, 2), spread([row.place.config.size / 1e6 / wall for wall in of("wall")], 1, 0)]
        cells += [peak(of(name)) for name in ("rss", "anon")]
        switches = [median(of(f"switches_{kind}")) / gib / 1024 for kind in ("voluntary", "involuntary")]
        cells += [" + ".join(f"{number:.2f}" for number in switches)]
        cells += [f"{median(of('seeder_cpu')) / gib:.2f}"]
        if sweep:
            first = next(other for other in bench.rows if other.client is row.client)
            cells += [ratio(row, first, "cpu"), ratio(row, first, "wall"), scatter(row)[2]]
        else:
            rows = {other.client.name: other for other in bench.rows}
            cells += [ratio(row, rows.get("floor"), "cpu"), ratio(row, rows.get("ringtide"), "cpu"),
                      ratio(row, rows.get("ringtide"), "wall")]
        lines.append([label(bench, row)] + cells + [failed])
    return titles, lines


def label(bench, row):
    """The configuration, where there are several, and the client, where there are several."""
    several = len({other.client.name for other in bench.rows}) > 1
    parts = [row.place.config.label, row.client.name if several or not row.place.config.label else ""]
    return ", ".join(filter(None, parts))


def hits_row(bench, row):
    failed = f"{len(row.failures)} of {bench.args.runs}"
    if not row.runs:
        return [row.place.config.seeder, "failed"] + ["-"] * 6 + [failed]
    gib = row.place.config.size / GIB
    costs = [spread([run["cpu"] for run in row.runs], gib, 3), spread([run["wall"] for run in row.runs], 1, 2)]
    return [row.place.config.seeder] + scatter(row) + costs + [failed]


def order_dependence(bench):
    """What each row cost by who ran before it."""
    names = list(dict.fromkeys(row.client.name for row in bench.rows))
    lines = []
    for row in bench.rows:
        gib = row.place.config.size / GIB
        by = {name: [run["cpu"] / gib for run in row.runs if run["after"] == name] for name in names}
        lines.append([label(bench, row)] + [f"{median(by[name]):.2f}" if by[name] else "-" for name in names])
    return ["CPU s/GiB after"] + names, lines


def scatter(row):
    """How ringtide received: blocks that the kernel put in place, blocks that were copied, and so on."""
    runs = [run for run in row.runs if "blocks_direct" in run]
    if not runs:
        return ["-"] * 5
    of = lambda name: median([run.get(name, 0) for run in runs])
    rates = [100 * run["blocks_direct"] / max(1, run["blocks_direct"] + run["blocks_copied"]) for run in runs]
    mib = row.place.config.size / MIB
    return [f"{of('blocks_direct'):.0f}", f"{of('blocks_copied'):.0f}", f"{median(rates):.2f} ({min(rates):.2f})",
            f"{of('receives') / mib:.2f}", f"{of('bytes_wasted'):.0f}"]


def method(row):
    """How ringtide wrote, and what a page cost it."""
    methods = [run.get("io", "?") for run in row.runs]
    prices = [run["page_seconds_per_gib"] for run in row.runs if run.get("page_seconds_per_gib") is not None]
    told = ", ".join(f"{name} {methods.count(name)}x" for name in sorted(set(methods)))
    return [told, f"{median(prices):.2f}" if prices else "-"]


def spread(values, unit, digits):
    """Median (minimum)."""
    return f"{median(values) / unit:.{digits}f} ({min(values) / unit:.{digits}f})"


def peak(values):
    """Median (minimum to maximum): of memory, the worst run counts."""
    return f"{median(values) / MIB:.1f} ({min(values) / MIB:.1f} to {max(values) / MIB:.1f})"


def ratio(row, other, name):
    """Of medians, for the same number of bytes."""
    if not other or not other.runs:
        return "-"
    of = lambda row: median([run[name] for run in row.runs]) / row.place.config.size
    return f"{of(row) / of(other):.2f}"


def table(titles, lines):
    print("| " + " | ".join(titles) + " |")
    print("|" + "---|" * len(titles))
    for line in lines:
        print("| " + " | ".join(line) + " |")


def raw(bench):
    rows = bench.rows + ([bench.sink] if bench.sink else [])
    return {
        "machine": machine(), "filesystem": filesystem(bench.args.dest), "command": sys.argv[1:],
        "network_namespace": bench.network.refused is None,
        "touch_seconds_per_gib": vars(bench.warmth),
        "rows": [{"client": row.client.name, "config": vars(row.place.config), "runs": row.runs + row.failures}
                 for row in rows],
    }


def filesystem(path):
    """The type of the mount that holds the path."""
    found = subprocess.run(["df", "--output=fstype", path], capture_output=True, text=True)
    return found.stdout.split()[-1] if found.returncode == 0 else "unknown"


def machine():
    with open("/proc/cpuinfo") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return f"{models[0] if models else '?'}, {os.cpu_count()} cores, {human(memory)}, Linux {platform.release()}"
