"""The bencode encoder of the scripts (BEP 3)."""


class Raw(bytes):
    """Bytes that are bencode already, right or wrong."""


class Unsorted(dict):
    """A dictionary whose keys are written in the order in which they were put in."""


def bencode(value):
    """The bytes of a value; text is UTF-8, keys are text and are sorted."""
    if isinstance(value, Raw):
        return bytes(value)
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, list):
        return b"l" + b"".join(map(bencode, value)) + b"e"
    entries = [(key.encode(), item) for key, item in value.items()]
    if not isinstance(value, Unsorted):
        entries.sort()
    return b"d" + b"".join(bencode(key) + bencode(item) for key, item in entries) + b"e"
