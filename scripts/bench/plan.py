"""What is to be measured: configurations, which options and sweeps describe."""

import argparse
from dataclasses import dataclass, fields, replace


@dataclass(frozen=True)
class Config:
    """A torrent and the seeders of it."""

    size: int
    piece: int
    seeders: int
    # Addresses told to clients; a bench seeder has as many as it takes, the others have one each.
    peers: int
    seeder: str
    zeros: bool
    # How a table calls it.
    label: str = ""

    def title(self):
        payload = "zeros" if self.zeros else "random bytes"
        return (f"{human(self.size)} of {payload}, {human(self.piece)} pieces, {self.seeders} {self.seeder} "
                f"seeder(s), {self.peers} address(es)")


def size(text):
    """Bytes from a number with K, M or G."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    try:
        return int(float(text[:-1]) * units[text[-1]]) if text[-1] in units else int(text)
    except (ValueError, IndexError):
        raise argparse.ArgumentTypeError(f"'{text}' is no size") from None


def human(length):
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if length >= unit:
            return f"{length / unit:.4g} {name}"
    return f"{length} bytes"


def configurations(args, kinds):
    """The configurations to measure, the one that the others are compared with first."""
    base = {"size": args.size, "piece": args.piece, "seeders": args.seeders, "peers": args.peers,
            "seeder": args.seeder, "zeros": args.zeros}
    sweep = args.sweep or ("seeder=" + ",".join(kinds) if args.hits else "")
    try:
        configs = [resolve(base, words) for words in variants(sweep)]
        for config in configs:
            check(config, kinds)
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise SystemExit(f"--sweep: {error}") from None
    marked = [config for config in configs if config.label.startswith("*")]
    configs = [replace(config, label=config.label.lstrip("*")) for config in marked[:1]
               + [config for config in configs if config not in marked[:1]]]
    if len({config.label for config in configs}) != len(configs):
        raise SystemExit("--sweep: a configuration is named twice")
    return configs


def variants(sweep):
    """`key=a,*b,c`, or `key=a,key=b,flag;*key=c`: a list of lists of words, and a `*` before the base."""
    if ";" in sweep:
        return [variant.strip().split(",") for variant in sweep.split(";")]
    key, equals, values = sweep.partition("=")
    if not equals:
        return [[key] if key else []]
    return [["*" * value.startswith("*") + f"{key}={value.lstrip('*')}"] for value in values.split(",")]


def resolve(base, words):
    settings, pieces = dict(base), None
    for word in words:
        key, equals, value = word.lstrip("*").strip().partition("=")
        if key == "pieces" and equals:
            pieces = int(value)
        elif key in ("size", "piece") and equals:
            settings[key] = size(value)
        elif key in ("peers", "seeders") and equals:
            settings[key] = int(value)
        elif key == "seeder" and equals:
            settings[key] = value
        elif key == "zeros" and not equals:
            settings[key] = True
        else:
            keys = ", ".join(field.name for field in fields(Config) if field.name != "label")
            raise ValueError(f"'{word}' is none of {keys}, pieces")
    if pieces is not None:
        settings["size"] = pieces * settings["piece"]
    settings["peers"] = settings["peers"] or settings["seeders"]
    return Config(**settings, label=" ".join(words))


def check(config, kinds):
    if config.seeder not in kinds:
        raise ValueError(f"'{config.seeder}' is none of {', '.join(kinds)}")
    if min(config.size, config.piece, config.seeders) < 1 or config.peers < config.seeders:
        raise ValueError("sizes and counts are at least 1, and a seeder has at least one address")
    if config.seeder != "bench" and config.peers != config.seeders:
        raise ValueError(f"a {config.seeder} seeder has one address; use seeders=N")
