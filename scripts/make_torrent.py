#!/usr/bin/env python3
"""Writes a metainfo file for one file: make_torrent.py FILE ANNOUNCE_URL OUTPUT [PIECE_LENGTH]"""

import hashlib
import os
import sys

from bencode import bencode


def main():
    path, announce, output = sys.argv[1:4]
    piece_length = int(sys.argv[4]) if len(sys.argv) > 4 else 256 * 1024
    with open(path, "rb") as file:
        pieces = b"".join(hashlib.sha1(piece).digest() for piece in iter(lambda: file.read(piece_length), b""))
    info = {
        "length": os.path.getsize(path),
        "name": os.path.basename(path),
        "piece length": piece_length,
        "pieces": pieces,
    }
    with open(output, "wb") as file:
        file.write(bencode({"announce": announce, "info": info}))


if __name__ == "__main__":
    main()
