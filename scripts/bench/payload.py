"""Payloads, their torrents, and the check of what a client made of them."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from bencode import Raw, bencode

CHUNK = 1 << 20


@dataclass
class Torrent:
    """A metainfo file and what a download of it must result in."""

    path: Path
    info_hash: bytes
    pieces: int
    length: int
    # The payload that seeders read; one of zeros is a file that takes no disk.
    payload: Path
    # None: zeros.
    digest: str

    def check(self, out):
        """What is wrong with the output, or None."""
        files = [path for path in out.rglob("payload.bin") if path.is_file()]
        if len(files) != 1 or files[0].stat().st_size != self.length:
            return "no output of the right length"
        if self.digest:
            return None if digest(files[0]) == self.digest else "the output differs from the payload"
        return check_zeros(files[0], self.length)


class Payloads:
    """Makes each payload and each list of piece hashes once, however many torrents are made of them."""

    def __init__(self, folder):
        self.folder, self.payloads, self.hashes = folder, {}, {}

    def torrent(self, name, length, piece_length, zeros, announce):
        payload, whole = self.payload(length, zeros)
        key = (length, piece_length, zeros)
        if key not in self.hashes:
            self.hashes[key] = zero_hashes(length, piece_length) if zeros else piece_hashes(payload, piece_length)
        pieces = self.hashes[key]
        info = bencode({"length": length, "name": "payload.bin", "piece length": piece_length, "pieces": pieces})
        path = self.folder / f"{name}.torrent"
        path.write_bytes(bencode({"announce": announce, "info": Raw(info)}))
        return Torrent(path, hashlib.sha1(info).digest(), len(pieces) // 20, length, payload, whole)

    def payload(self, length, zeros):
        """The file and its digest; random bytes, so that no two pieces are equal, or a sparse file of zeros."""
        if (length, zeros) not in self.payloads:
            folder = self.folder / f"{'zeros' if zeros else 'random'}-{length}"
            folder.mkdir()
            path = folder / "payload.bin"
            with open(path, "wb") as file:
                for at in range(0, 0 if zeros else length, CHUNK):
                    file.write(os.urandom(min(CHUNK, length - at)))
                file.truncate(length)
            self.payloads[length, zeros] = path, None if zeros else digest(path)
        return self.payloads[length, zeros]


def piece_hashes(payload, piece_length):
    with open(payload, "rb") as file:
        return b"".join(hashlib.sha1(piece).digest() for piece in iter(lambda: file.read(piece_length), b""))


def zero_hashes(length, piece_length):
    full, rest = divmod(length, piece_length)
    hashes = hashlib.sha1(bytes(piece_length)).digest() * full
    return hashes + hashlib.sha1(bytes(rest)).digest() if rest else hashes


def digest(path):
    whole = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            whole.update(chunk)
    return whole.hexdigest()


def check_zeros(path, length):
    """Zeros everywhere, and written: space that was only reserved reads as zeros too, but is a hole."""
    zeros = bytes(CHUNK)
    buffer = bytearray(CHUNK)
    with open(path, "rb", buffering=0) as file:
        if os.lseek(file.fileno(), 0, os.SEEK_HOLE) != length:
            return "a part of the output was never written"
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        while n := file.readinto(buffer):
            if buffer != zeros if n == CHUNK else any(buffer[:n]):
                return "the output is not all zeros"
    return None
