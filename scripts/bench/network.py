"""The network of a measurement: addresses that never leave this machine, a tracker, and a look at a seeder.

transmission connects to no address in 127.0.0.0/8, and some clients take one address for one peer. So the measurement
runs in a network namespace of its own, which has nothing but a loopback interface, and every peer gets an address out
of 198.18.0.0/15, the block that is reserved for benchmarks (RFC 2544).
"""

import ctypes
import fcntl
import http.server
import os
import socket
import struct
import threading
import time
import urllib.parse

from bencode import bencode

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x8914, 0x8916, 0x891C
IFF_UP, IFF_LOOPBACK, IFF_RUNNING = 0x1, 0x8, 0x40


class Network:
    """Where peers listen. `refused` says why there is no namespace, if there is none."""

    def __init__(self):
        """Moves this process and its future children into the namespace; needs to run before any thread starts."""
        self.prefix, self.refused = "198.18", None
        try:
            enter_namespace()
            raise_loopback(self.prefix + ".0.1")
        except OSError as error:
            self.prefix, self.refused = "127.0", str(error)

    def address(self, index):
        """The address of a peer; 0 is that of the tracker and of the client."""
        return f"{self.prefix}.{index // 250}.{1 + index % 250}"

    def free_port(self, index=0):
        with socket.socket() as probe:
            probe.bind((self.address(index), 0))
            return probe.getsockname()[1]

    def pieces_of(self, address, port, info_hash):
        """How many pieces the seeder at this address offers."""
        # From an address of its own: transmission refuses one that called before until it noticed that the caller left.
        with socket.create_connection((address, port), 2, source_address=(f"{self.prefix}.255.1", 0)) as stream:
            stream.sendall(b"\x13BitTorrent protocol" + bytes(8) + info_hash + b"-BN0001-a look at it")
            answer = read_exact(stream, 68)
            if answer[28:48] != info_hash:
                raise OSError("it answers for another torrent")
            while True:
                (length,) = struct.unpack(">I", read_exact(stream, 4))
                message = read_exact(stream, length)
                if message[:1] == b"\x05":
                    return bin(int.from_bytes(message[1:], "big")).count("1")


def enter_namespace():
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWNET) == 0:
        return
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    # The same user inside as outside, or nothing could be read or written.
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def raise_loopback(address):
    """Brings lo up and gives it the address and all others of its /16."""
    def with_address(text):
        return struct.pack("16sHH4s16x", b"lo:1", socket.AF_INET, 0, socket.inet_aton(text))

    with socket.socket() as control:
        flags = IFF_UP | IFF_LOOPBACK | IFF_RUNNING
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags))
        fcntl.ioctl(control, SIOCSIFADDR, with_address(address))
        fcntl.ioctl(control, SIOCSIFNETMASK, with_address("255.255.0.0"))


def read_exact(stream, length):
    data = b""
    while len(data) < length:
        chunk = stream.recv(length - len(data))
        if not chunk:
            raise OSError("it hung up")
        data += chunk
    return data


def wait_until(look, seconds):
    """Calls `look` until it returns something true; what went wrong last is told when the time is over."""
    over, last = time.monotonic() + seconds, None
    while time.monotonic() < over:
        try:
            if look():
                return None
        except OSError as error:
            last = error
        time.sleep(0.1)
    return str(last or "it does not get ready")


class Tracker:
    """Answers every announce of a downloader with the peers of its torrent, and one of a seeder with nobody."""

    def __init__(self, network):
        self.peers = {}
        tracker = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                path, _, query = self.path.partition("?")
                complete = urllib.parse.parse_qs(query).get("left") == ["0"]
                peers = [] if complete else tracker.peers.get(path, [])
                packed = b"".join(socket.inet_aton(address) + struct.pack(">H", port) for address, port in peers)
                body = bencode({"interval": 1800, "peers": packed})
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer((network.address(0), 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.base = f"http://{network.address(0)}:{self.server.server_port}"

    def serve(self, path, peers):
        """From now on announces to this path learn of these peers."""
        self.peers[path] = peers

    def url(self, path):
        return self.base + path
