#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets that are not torrents to fuzz/seeds: what real clients and trackers say, and what
is nearly that. Torrents come from test_samples when the fuzzers run; the seeds of `session` are inputs that the fuzzer
found itself."""

import hashlib
import pathlib
import struct

from bencode import bencode

SEEDS = pathlib.Path(__file__).resolve().parent.parent / "fuzz" / "seeds"


def write(target, **seeds):
    folder = SEEDS / target
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in seeds.items():
        (folder / name.replace("_", "-")).write_bytes(content)


def message(number, payload=b""):
    return struct.pack(">IB", len(payload) + 1, number) + payload


def block(piece, begin, body):
    return message(7, struct.pack(">II", piece, begin) + body)


def handshake(reserved, peer_id):
    return b"\x13BitTorrent protocol" + reserved + bytes(range(20)) + peer_id


# The extension handshakes of libtorrent 2 and Transmission 4, and one that lies.
LIBTORRENT = bencode({
    "complete_ago": 1, "e": 0, "ipv4": b"\x7f\0\0\1",
    "m": {"lt_donthave": 7, "share_mode": 8, "upload_only": 3, "ut_holepunch": 4, "ut_metadata": 2, "ut_pex": 1},
    "metadata_size": 340, "p": 6881, "reqq": 2000, "upload_only": 1, "v": b"libtorrent/2.0.11",
    "yourip": b"\x7f\0\0\1",
})
TRANSMISSION = bencode({
    "e": 1, "m": {"ut_metadata": 3, "ut_pex": 1}, "metadata_size": 340, "p": 51413, "reqq": 512,
    "upload_only": 1, "v": b"Transmission 4.0.5",
})

write(
    "bencode",
    string=b"5:hello", integers=b"li0ei-52ei4294967300ei18446744073709551616ee", unordered=b"d1:bi1e1:ai2ee",
    nested=b"d1:ad2:bcli-12e3:xyzee1:dlee", deep=b"l" * 13 + b"e" * 13, trailing=b"d1:ai1eerest",
    huge_length=b"99999999999999999999:x", minus_zero=b"i-0e", leading_zero=b"05:hello", duplicate=b"d1:a0:1:a0:e",
    not_utf8=b"d2:\xff\xfe3:\x00\x1b\x85e",
)
write(
    "metainfo",
    single=bencode({
        "announce": b"http://a/", "info": {"length": 5, "name": b"n", "piece length": 4, "pieces": bytes(40)},
    }),
    folder=bencode({
        "announce-list": [[b"http://a/", b"udp://b/"], [b"http://c/"]],
        "info": {
            "files": [
                {"length": 3, "path": [b"..", b"a"]},
                {"attr": b"p", "length": 1, "path": [b".pad", b"1"]},
                {"length": 2, "path": [b"a", b"b.txt"], "path.utf-8": [b"a", b"b.txt"]},
                {"length": 0, "path": [b"a"]},
            ],
            "name": b"/etc", "piece length": 4, "pieces": bytes(40), "private": 1,
        },
    }),
    overflow=bencode({
        "info": {
            "files": [{"length": 2**63 - 1, "path": [b"a"]}, {"length": 1, "path": [b"b"]}],
            "name": b"n", "piece length": 16384, "pieces": bytes(20),
        },
    }),
)
# The first byte is the count of pieces, the second chooses the cuts.
start = bytes([20, 7])
write(
    "decoder",
    seeder=start + message(5, b"\xff\xff\xf0") + message(1) + block(3, 0, b"x" * 40) + block(3, 16384, b"y" * 232),
    fast=start + message(14) + message(20, b"\0" + LIBTORRENT) + message(17, b"\0\0\0\5") + message(1)
    + message(16, struct.pack(">III", 5, 0, 16384)),
    haves=start + b"".join(message(4, struct.pack(">I", piece)) for piece in range(20)) + b"\0\0\0\0" * 3,
    whole_block=start + message(1) + block(0, 0, bytes(16384)) + message(0),
    unknown=start + message(99, b"whatever") + message(10) + message(9, b"\x1a\xe1"),
    long=start + b"\xff\xff\xff\xff\x07", too_long_block=start + struct.pack(">IB", 16394, 7) + bytes(100),
    other_bitfield=start + message(5, b"\xff"),
)
write(
    "handshake",
    plain=handshake(bytes(8), b"-XX0000-0123456789ab"),
    libtorrent=handshake(b"\0\0\0\0\0\x10\0\5", b"-LT20B0-0123456789ab"),
    transmission=handshake(b"\0\0\0\0\0\x10\0\4", b"-TR4050-0123456789ab"),
    encrypted=bytes(range(100, 168)), other_length=b"\x12" + bytes(67), other_name=b"\x13BitTorrent Protocol" + bytes(48),
)
write(
    "extension",
    libtorrent=LIBTORRENT, transmission=TRANSMISSION, reqq_zero=b"d4:reqqi0ee", reqq_huge=b"d4:reqqi99999999999ee",
    reqq_string=b"d4:reqq3:250e", metadata=b"d8:msg_typei1e5:piecei0e10:total_sizei340eedata", deep=b"d1:m" + b"l" * 9,
)
v4 = bytes([10, 0, 0, 1, 0x1a, 0xe1, 203, 0, 113, 7, 0xc8, 0xd5])
v6 = bytes.fromhex("20010db8000000000000000000000001") + b"\x1a\xe1"
mapped = bytes(10) + b"\xff\xff\x01\x02\x03\x04\x00\x05"
write(
    "pex",
    libtorrent=bencode({
        "added": v4, "added.f": b"\x12\x10", "added6": v6, "added6.f": b"\x04", "dropped": v4[:6], "dropped6": v6,
    }),
    transmission=bencode({"added": v4, "added.f": b"\x02\x00"}), empty=bencode({"added": b"", "dropped": b""}),
    cut=bencode({"added": v4[:-1], "added.f": b"", "added6": v6[:-1]}), mapped=bencode({"added6": v6 + mapped}),
    port_zero=bencode({"added": v4[:4] + b"\0\0", "dropped": bytes(6)}),
    many=bencode({"added": v4 * 55, "added.f": bytes(110), "added6": v6 * 3, "dropped": v4 * 55}),
    odd_types=bencode({"added": 1, "added.f": [], "added6": {}, "dropped": [v4]}), trailing=b"d5:added0:eand more",
)
# Flags, the cut, the selection (lowest and highest byte), the lengths of both paddings (lowest byte first).
write(
    "mse",
    rc4=struct.pack("<BBBBHH", 2, 255, 2, 0, 77, 3), plain=struct.pack("<BBBBHH", 2, 0, 1, 0, 0, 0) + b"pad",
    only_rc4=struct.pack("<BBBBHH", 3, 40, 2, 0, 512, 512), plain_refused=struct.pack("<BBBBHH", 3, 40, 1, 0, 0, 0),
    both=struct.pack("<BBBBHH", 2, 40, 3, 0, 1, 1), high=struct.pack("<BBBBHH", 2, 40, 2, 128, 1, 1),
    long_padding=struct.pack("<BBBBHH", 2, 40, 2, 0, 513, 0), long_end=struct.pack("<BBBBHH", 2, 40, 2, 0, 0, 513),
    key_of_zeros=bytes(8 + 96), key_of_ones=bytes(8) + b"\xff" * 96,
    endless_padding=struct.pack("<BBBBHH", 4, 40, 0, 0, 0, 0) + bytes(600),
    web_page=bytes(8) + b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n" + b"x" * 200,
)
hash_hex = b"ad42ce8109f54c99613ce38f9b4d87e70f24a165"
write(
    "magnet",
    course=b"magnet:?xt=urn:btih:" + hash_hex
    + b"&dn=magnet1.gif&tr=http%3A%2F%2Fbittorrent-test-tracker.codecrafters.io%2Fannounce",
    base32=b"MAGNET:?XT=URN:BTIH:VVBM5AIJ6VGJSYJ44OHZWTMH44HSJILF&dn=a+b%20c",
    peers=b"magnet:?x.pe=1.2.3.4:5&x.pe=%5B::1%5D:6&x.pe=[2001:db8::1]:7&x.pe=seed.example:8&xt=urn:btih:" + hash_hex,
    files=b"magnet:?so=0,2,4,6-8&amp;so=3-5&xt.1=urn:btih:" + hash_hex + b"&ws=http://w/&tr.1=udp://t:1",
    hybrid=b"magnet:?xt=urn:btmh:1220" + b"00" * 32 + b"&xt=urn:btih:" + hash_hex,
    v2=b"magnet:?xt=urn:btmh:1220" + b"00" * 32, short=b"magnet:?xt=urn:btih:abc",
    hostile=b"magnet:?xt=urn:btih:" + hash_hex + b"&dn=..%2F%1b[31m%e2%80%ae%ff%4&tr=%0d%0a&so=&tr=%",
)
write(
    "metadata",
    request=b"d8:msg_typei0e5:piecei0ee", reject=b"d8:msg_typei2e5:piecei7ee", unknown=b"d8:msg_typei9ee",
    data=b"d8:msg_typei1e5:piecei0e10:total_sizei3eexyz", empty=b"d8:msg_typei1e5:piecei0ee",
    huge_piece=b"d8:msg_typei0e5:piecei4294967296ee", unordered=b"d5:piecei1e8:msg_typei0eerest",
    # Steps: what, who, how.
    liar=bytes([0, 0, 1, 4, 0, 2, 4, 0, 3]), mixed=bytes([0, 0, 1, 0, 1, 1, 4, 1, 2, 4, 0, 1, 4, 0, 0, 4, 1, 3]),
    sizes=bytes([0, 0, 0, 0, 1, 1, 0, 2, 2, 3, 0, 255, 0, 4, 0, 2, 1, 0, 1, 2, 0]),
)
peers = bytes([127, 0, 0, 1, 0x1a, 0xe1, 10, 0, 0, 1, 0, 0, 255, 255, 255, 255, 255, 255])
write(
    "tracker_reply",
    compact=bencode({
        "complete": 5, "incomplete": 3, "interval": 1800, "min interval": 900, "peers": peers,
        "peers6": bytes(15) + b"\1\x1a\xe1", "tracker id": b"abc",
    }),
    dictionaries=bencode({
        "interval": 60, "peers": [
            {"ip": b"127.0.0.1", "peer id": b"-XX0000-0123456789ab", "port": 6881},
            {"ip": b"::1", "port": 1}, {"ip": b"tracker.example", "port": 2}, {"ip": 1, "port": b"x"},
        ],
    }) + b"\n",
    refusal=b"d14:failure reason32:Requested download is not \x1b[31m\xffoke",
    warning=bencode({"interval": -1, "peers": b"", "warning message": b"\xe2\x80\xaeupdate\r\nyour client"}),
    odd_types=bencode({
        "interval": b"1800", "min interval": [], "peers": 7, "peers6": {}, "tracker id": 1, "warning message": {},
    }),
    huge_interval=b"d8:intervali99999999999999999999e5:peers0:e", page=b"<!DOCTYPE html>\n", gzip=b"\x1f\x8b\x08\0\0\0\0\0",
)


def datagram(how, body):
    return bytes([how, len(body)]) + body


# The first byte says what is asked; each datagram has one that says how it is made to fit, and its length.
counts = struct.pack(">III", 1800, 3, 5)
write(
    "udp_reply",
    announce=b"\0" + datagram(1, bytes(8)) + datagram(1, counts + peers),
    announce_v6=b"\2" + datagram(1, bytes(8)) + datagram(1, counts + bytes(15) + b"\1\x1a\xe1"),
    scrape=b"\1" + datagram(1, bytes(8)) + datagram(1, counts), remembered=b"\4" + datagram(1, counts + peers),
    forgotten=b"\4" + datagram(3, b"Connection ID missmatch.\0") + datagram(1, bytes(8)) + datagram(1, counts),
    refusal=b"\0" + datagram(3, b"no \x1b[31m\xff"), late=b"\0" + datagram(0xf0, b"") * 9 + datagram(1, bytes(8)),
    plain=b"\0" + struct.pack(">II", 1, 7) + counts + peers, plain_scrape=b"\1" + struct.pack(">II", 2, 7) + counts,
    plain_error=b"\0" + struct.pack(">II", 3, 7) + b"go away", cut=b"\0" + datagram(1, bytes(7)) + datagram(1, bytes(11)),
)
write(
    "url",
    relative=b"http://tracker.example:8080/a/b/announce?passkey=1\n../x?y=/../z#w",
    absolute=b"HTTPS://Tracker.Example\nhttp://other:1/", slashes=b"http://h/a\n//other/b", query=b"http://h/a?x&\n?y",
    file=b"http://h/\nfile:///etc/passwd", smuggled=b"http://h/a b\r\nX: y\n/\r\nSet-Cookie: z",
    user=b"http://user:pw@h/\n/", v6=b"http://[::1]:80/\n/", udp=b"udp://[2001:db8::1]:6969/announce?x\nudp://h:1/", port=b"http://h:65535\n.", accents="http://h/é\n日".encode(),
)


def search(*lines):
    return "\r\n".join(("BT-SEARCH * HTTP/1.1", *lines, "", "", "")).encode()


HOST, HASH = "Host: 239.192.152.143:6771", "Infohash: " + bytes(range(20)).hex()
write(
    "lsd",
    libtorrent=search(HOST, "Port: 6881", HASH, "cookie: 4f2a91c3"), transmission=search(HOST, "Port: 51413", HASH),
    several=search("Host: [ff15::efc0:988f]:6771", "Port: 1", HASH.upper(), *[HASH] * 20), no_port=search(HOST, HASH),
    two_ports=search("Port: 1", "Port: 2", HASH), signed_port=search("Port: +1", HASH), wide_port=search("Port: 65536", HASH),
    short_hash=search("Port: 7", HASH[:-1]), odd_hash=search("Port: 7", HASH[:-1] + "g"), late=search("Port: 7", "", HASH),
    bare=b"bt-search * http/1.0\nport:7\ninfohash:" + b"ab" * 20, other=b"M-SEARCH * HTTP/1.1\r\n\r\n",
    odd_cookies=search("Port: 7", HASH, "cookie: a b", "cookie: " + "x" * 65, "cookie: \u00e9"),
)


def record(total, piece, closed, durable, verified, version=1):
    head = b"ringtide resume\n" + struct.pack("<I", version) + bytes(range(20))
    head += struct.pack("<QIq", total, piece, 1_700_000_000) + b"\2" * 16 + bytes([closed])
    return head + b"\3" * 20 + b"\4" * 20 + durable + verified


# Without the digest at the end, which the target adds.
closed = record(100_000, 16384, 1, b"\x10", b"\x12")
write(
    "record",
    closed=closed, open=record(100_000, 16384, 0, b"\0", b"\xfe"), empty_content=record(0, 16384, 1, b"", b""),
    piece_length_zero=record(100_000, 0, 1, b"\x10", b"\x12"), spare_bits=record(100_000, 16384, 1, b"\xff", b"\xff"),
    huge=record(2**64 - 1, 2**32 - 1, 1, b"\x10", b"\x12"), many_pieces=record(2**32 - 1, 1, 1, b"\x10", b"\x12"),
    newer=record(100_000, 16384, 1, b"\x10", b"\x12", version=2), signed=closed + hashlib.sha1(closed).digest(),
    odd_state=record(100_000, 16384, 2, b"\x10", b"\x12"), foreign=b'{"resume": 1}',
)

NODE_V4 = bytes(range(20)) + b"\x01\x02\x03\x04\x1a\xe1"
NODE_V6 = bytes(range(20)) + b"\x20\x01\x0d\xb8" + bytes(11) + b"\1\x1a\xe1"
write(
    "krpc",
    libtorrent=bencode({
        "ip": b"\x05\x06\x07\x08\x1a\xe1", "r": {
            "id": bytes(range(20)), "nodes": NODE_V4 * 8, "nodes6": NODE_V6 * 8, "p": 6881, "token": b"aoeu",
            "values": [NODE_V4[20:], NODE_V6[20:], NODE_V4[20:]],
        },
        "t": b"abcd", "v": b"LT\2\1", "y": b"r",
    }),
    error=bencode({"e": [203, b"Invalid token"], "t": b"abcd", "y": b"e"}),
    query=bencode({"a": {"id": bytes(20)}, "q": b"ping", "t": b"aa", "y": b"q"}),
    odd_types=bencode({"ip": 1, "r": {"id": bytes(20), "nodes": [], "token": 1, "values": {}}, "t": b"abcd", "y": b"r"}),
    one_string=bencode({"r": {"id": bytes(20), "values": [NODE_V4[20:] * 5]}, "t": b"abcd", "y": b"r"}),
    local=bencode({"r": {"id": bytes(20), "nodes": bytes(20) + b"\x7f\0\0\1\0\1"}, "t": b"abcd", "y": b"r"}),
    no_id=b"d1:t4:abcd1:y1:re",
)
