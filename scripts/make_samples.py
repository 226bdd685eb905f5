#!/usr/bin/env python3
"""Makes test_samples/: torrents, their payloads, and torrents with one defect each.

Needs nothing but Python. Same bytes on every run and machine: payloads come from SHA-256 of a label and a counter.
The tests hold the info hashes as constants, so a change here that changes a torrent is noticed.

    scripts/make_samples.py [FOLDER]     FOLDER: where to write, test_samples of this checkout by default
"""

import hashlib
import pathlib
import shutil
import sys

from bencode import Raw, Unsorted, bencode

ANNOUNCE = b"http://127.0.0.1:6969/announce"
BLOCK_LEN = 16384


def noise(label, length):
    """Bytes that look random and do not compress."""
    count = -(-length // 32)
    blocks = (hashlib.sha256(b"%s %d" % (label.encode(), number)).digest() for number in range(count))
    return b"".join(blocks)[:length]


def piece_hashes(content, piece_len):
    pieces = (content[at : at + piece_len] for at in range(0, len(content), piece_len))
    return b"".join(hashlib.sha1(piece).digest() for piece in pieces)


def single(name, content, piece_len):
    pieces = piece_hashes(content, piece_len)
    return {"length": len(content), "name": name, "piece length": piece_len, "pieces": pieces}


def multi(name, files, piece_len):
    """The info dictionary of files given as (path elements, content, other keys)."""
    entries = [{"length": len(content), "path": path, **more} for path, content, more in files]
    content = b"".join(content for _, content, _ in files)
    return {"files": entries, "name": name, "piece length": piece_len, "pieces": piece_hashes(content, piece_len)}


def torrent(info, **more):
    return {"announce": ANNOUNCE, "info": info, **more}


def with_pads(files, piece_len):
    """The files with pads (BEP 47) between them, so that each starts a piece."""
    padded = []
    for path, content, more in files:
        padded.append((path, content, more))
        gap = -len(content) % piece_len
        if gap:
            padded.append(([".pad", str(gap)], bytes(gap), {"attr": "p"}))
    return padded[:-1] if padded[-1][2] else padded


def plain(files):
    return [(path.split("/"), content, {}) for path, content in files]


def good_samples():
    """Pairs of torrent name and torrent, and the payload as pairs of path and content."""
    big = noise("single.bin", 20 * BLOCK_LEN + 17999)
    tiny = b"Every byte of this text is a piece.\n"
    sevens = noise("sevens.bin", 100)
    tree = [
        ("00 empty first.txt", b""),
        ("README.txt", b"A folder of files, to test how pieces and files lie across each other.\n"),
        ("deep/er/and/deeper/still/leaf.bin", noise("leaf", 5000)),
        ("deep/er/sibling.bin", noise("sibling", 70000)),
        ("many/empty", b""),
        *((f"many/{number:02}.txt", noise(f"many {number}", 97 * number)) for number in range(1, 13)),
        ("names/Grüße & café.txt", "Grüße\n".encode()),
        ("names/日本語/音楽 🎵.bin", noise("music", 33333)),
        ("names/Ελληνικά/Привет.txt", "Γειά, привет\n".encode()),
        ("names/it's $HOME #1;.txt", b"Nothing for a shell.\n"),
        ("spans several pieces.bin", noise("spans", 6 * BLOCK_LEN + 1)),
        ("zz/empty last", b""),
    ]
    aligned = [("a.bin", noise("a", 20000)), ("b/exact.bin", noise("b", 2 * BLOCK_LEN)), ("b/c.bin", noise("c", 1))]
    aligned.append(("last.bin", noise("last", 12345)))
    legacy = [("r\u00e9sum\u00e9.txt", b"Latin-1 name, UTF-8 beside it.\n"), ("plain.txt", b"plain\n")]
    legacy_files = [
        Unsorted(path=[path.encode("latin-1")], length=len(content), **{"path.utf-8": [path]})
        for path, content in legacy
    ]
    legacy_info = multi("", plain(legacy), 32)
    legacy_info = Unsorted(
        [("name", "vieilles donn\u00e9es".encode("latin-1")), ("name.utf-8", "vieilles donn\u00e9es")]
        + [("pieces", legacy_info["pieces"]), ("piece length", 32), ("files", legacy_files)]
    )
    tiers = [[ANNOUNCE, b"http://127.0.0.1:6970/announce"], [b"udp://127.0.0.1:6969"]]
    torrents = {
        "single": torrent(single("single.bin", big, 2 * BLOCK_LEN), comment="made by scripts/make_samples.py"),
        "odd-pieces": torrent(single("single.bin", big, 50001)),
        "one-piece": torrent(single("single.bin", big, 1 << 20)),
        "pieces-of-1": torrent(single("tiny.txt", tiny, 1)),
        "pieces-of-7": torrent(single("sevens.bin", sevens, 7)),
        "multi": torrent(multi("multi", plain(tree), BLOCK_LEN), **{"announce-list": tiers}),
        "padded": torrent(multi("padded", with_pads(plain(aligned), BLOCK_LEN), BLOCK_LEN)),
        "legacy": Unsorted(info=legacy_info, announce=ANNOUNCE),
        "zero-length": torrent(single("zero-length.bin", b"", BLOCK_LEN)),
        "no-tracker": {"info": {**single("tiny.txt", tiny, BLOCK_LEN), "private": 1}},
    }
    payload = [("single.bin", big), ("tiny.txt", tiny), ("sevens.bin", sevens), ("zero-length.bin", b"")]
    folders = {"multi": tree, "padded": aligned, "vieilles donn\u00e9es": legacy}
    payload += [(f"{folder}/{path}", content) for folder, files in folders.items() for path, content in files]
    return torrents, payload


def hostile_samples():
    """Torrents whose names must be repaired. Every file is one zero byte."""

    def files(name, *paths):
        return torrent(multi(name, [(list(path), b"\0", {}) for path in paths], BLOCK_LEN))

    long = "long " * 60
    return {
        "traversal": files(
            "../../evil", ["..", "..", "etc", "passwd"], ["/etc/passwd"], ["a", "..", "b"], ["a", ".", "", "c"],
            [".."], [], ["..\\..\\windows"], ["~", "x"], ["a/../../d"],
        ),
        "traversal-single": torrent(single("/etc/passwd", b"\0", BLOCK_LEN)),
        "dot-dot-name": torrent(single("..", b"\0", BLOCK_LEN)),
        "collisions": files(
            "collisions", ["a.txt"], ["a.txt"], ["A.txt"], ["a.1.txt"], ["a.txt"], ["d", "f"], ["d"], ["f"],
            ["f", "g"], ["f", "h"], [long + "1.txt"], [long + "2.txt"], ["x/y"], ["x\\y"],
        ),
        "odd-names": files(
            "odd\nnames", [b"nul\0.txt"], ["new\nline"], ["\x1b[31mred"], ["gpj.\u202eexe"], [b"caf\xe9"],
            [".ringtide"], [".ringtide-resume", "x"], ["日" * 100 + ".txt"], ["\u200f\u0085"],
        ),
    }  # fmt: skip


def malformed_samples():
    """Torrents with one defect each, which their name tells."""
    info = single("bad.bin", bytes(20), BLOCK_LEN)
    file = {"length": 20, "path": ["bad.bin"]}
    folder = {"files": [file], "name": "bad", "piece length": BLOCK_LEN, "pieces": info["pieces"]}
    good = bencode(torrent(info))

    def without(dictionary, key):
        return {name: value for name, value in dictionary.items() if name != key}

    def info_with(**more):
        return bencode(torrent({**info, **{key.replace("_", " "): value for key, value in more.items()}}))

    def files_are(*files):
        return bencode(torrent({**folder, "files": list(files)}))

    return {
        "empty": b"",
        "not-bencode": b"<!DOCTYPE html>\n<title>404</title>\n",
        "not-a-dict": bencode([torrent(info)]),
        "trailing-bytes": good + b"\n",
        "truncated-string": good[:-10],
        "truncated-dict": good[:-1],
        "leading-zero": info_with(length=Raw(b"i020e")),
        "negative-zero": info_with(length=Raw(b"i-0e")),
        "no-digits": info_with(length=Raw(b"ie")),
        "not-a-digit": info_with(length=Raw(b"i0x14e")),
        "negative-length-string": info_with(name=Raw(b"-7:bad.bin")),
        "leading-zero-string": info_with(name=Raw(b"07:bad.bin")),
        "huge-string-length": info_with(name=Raw(b"99999999999999999999999:bad.bin")),
        "depth-bomb": b"d1:a" + b"l" * 20000 + b"e" * 20001,
        "duplicate-key": info_with(length=Raw(b"i20e6:lengthi21e")),
        "key-not-string": b"di1e4:infoe",
        "key-without-value": b"d8:announcee",
        "no-info": bencode(without(torrent(info), "info")),
        "info-not-dict": bencode(torrent("info")),
        "no-piece-length": bencode(torrent(without(info, "piece length"))),
        "piece-length-zero": info_with(piece_length=0),
        "piece-length-negative": info_with(piece_length=-16384),
        "piece-length-too-large": info_with(piece_length=(1 << 29) + 1),
        "piece-length-wraps-32-bits": info_with(piece_length=(1 << 32) + BLOCK_LEN),
        "piece-length-not-integer": info_with(piece_length="16384"),
        "no-pieces": bencode(torrent(without(info, "pieces"))),
        "pieces-not-string": info_with(pieces=[info["pieces"]]),
        "pieces-not-multiple-of-20": info_with(pieces=bytes(21)),
        "too-few-pieces": info_with(length=BLOCK_LEN + 1),
        "too-many-pieces": info_with(pieces=bytes(40)),
        "more-pieces-than-allowed": info_with(length=(1 << 22) + 1, piece_length=1),
        "name-not-string": info_with(name=7),
        "length-negative": info_with(length=-20),
        "length-too-large": info_with(length=1 << 63),
        "length-not-integer": info_with(length="20"),
        "length-and-files": info_with(files=[file]),
        "neither-length-nor-files": bencode(torrent(without(info, "length"))),
        "empty-file-list": files_are(),
        "files-not-list": bencode(torrent({**folder, "files": file})),
        "file-not-dict": files_are(file, "bad.bin"),
        "no-file-length": files_are(file, without(file, "length")),
        "negative-file-length": files_are({**file, "length": 40}, {**file, "length": -20}),
        "file-length-overflow": files_are(*[{**file, "length": (1 << 62)}] * 4),
        "no-path": files_are(without(file, "path")),
        "path-not-list": files_are({**file, "path": "bad.bin"}),
        "path-element-not-string": files_are({**file, "path": ["bad", 1]}),
        "path-too-deep": files_are({**file, "path": ["d"] * 101}),
        "path-too-long": files_are({**file, "path": ["d" * 200] * 16}),
        "symlink": files_are(file, {"attr": "l", "length": 0, "path": ["l"], "symlink path": ["..", "x"]}),
        "symlink-single": info_with(attr="l"),
        "v2-only": bencode(torrent({**v2_info(), "meta version": 2})),
    }


def v2_info():
    tree = {"bad.bin": {"": {"length": 20, "pieces root": hashlib.sha256(bytes(20)).digest()}}}
    return {"file tree": tree, "name": "bad.bin", "piece length": BLOCK_LEN}


def main():
    default = pathlib.Path(__file__).resolve().parent.parent / "test_samples"
    root = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    torrents, payload = good_samples()
    outputs = {f"{name}.torrent": bencode(value) for name, value in torrents.items()}
    outputs |= {f"hostile/{name}.torrent": bencode(value) for name, value in hostile_samples().items()}
    outputs |= {f"malformed/{name}.torrent": content for name, content in malformed_samples().items()}
    outputs |= {f"payload/{path}": content for path, content in payload}
    for folder in ("hostile", "malformed", "payload"):
        shutil.rmtree(root / folder, ignore_errors=True)
    for path, content in outputs.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    for name, value in torrents.items():
        print(hashlib.sha1(bencode(value["info"])).hexdigest(), f"{name}.torrent")
    print(f"{len(outputs)} files, {sum(map(len, outputs.values()))} bytes in {root}")


if __name__ == "__main__":
    main()
