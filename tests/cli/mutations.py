"""Damage as disks, transfers, editors and people do it: to bytes, to lines, to numbers."""

import re
from collections.abc import Callable

from hypothesis import strategies as st

NUMBER = re.compile(rb"-?\d+\.?\d*(?:[eE][-+]?\d+)?")
NUMBERS = [b"nan", b"inf", b"-inf", b"1e999", b"-1", b"0", b"1e-300", b"99999999999999999999", b"0x10", b"1,5", b"1e5"]
MARKS = [bytes([mark]) for mark in b" \0\n\r\t\"'[]{}=#;_%"]
WORDS = [b"", b"loop_", b"../..", b"true", b"null", b"[red]", b"</script>", b"H", b"Xx", b"\xff\xfe", b"\x80\x04", "Å".encode()]
TOKENS = NUMBERS + MARKS + WORDS

Draw = Callable[[st.SearchStrategy[int]], int]


@st.composite
def mutated(draw: Callable[[st.SearchStrategy[int]], int], whole: bytes) -> bytes:
    """`whole` with one to four pieces of damage."""
    data = whole
    for _ in range(draw(st.integers(1, 4))):
        kind = KINDS[draw(st.integers(0, len(KINDS) - 1))]
        data = kind(data, draw)
    return data


def _at(data: bytes, draw: Draw) -> int:
    return draw(st.integers(0, max(len(data) - 1, 0)))


def _flip(data: bytes, draw: Draw) -> bytes:
    n = _at(data, draw)
    return data[:n] + bytes([data[n] ^ (1 << draw(st.integers(0, 7)))]) + data[n + 1 :] if data else data


def _truncate(data: bytes, draw: Draw) -> bytes:
    return data[: _at(data, draw)]


def _cut_out(data: bytes, draw: Draw) -> bytes:
    n = _at(data, draw)
    return data[:n] + data[n + draw(st.integers(1, 64)) :]


def _repeat(data: bytes, draw: Draw) -> bytes:
    n = _at(data, draw)
    return data[:n] + data[n : n + draw(st.integers(1, 64))] * 2 + data[n:]


def _insert(data: bytes, draw: Draw) -> bytes:
    n = _at(data, draw)
    return data[:n] + TOKENS[draw(st.integers(0, len(TOKENS) - 1))] + data[n:]


def _replace_number(data: bytes, draw: Draw) -> bytes:
    found = list(NUMBER.finditer(data))
    if not found:
        return data
    number = found[draw(st.integers(0, len(found) - 1))]
    return data[: number.start()] + TOKENS[draw(st.integers(0, len(TOKENS) - 1))] + data[number.end() :]


def _zero_out(data: bytes, draw: Draw) -> bytes:
    n = _at(data, draw)
    length = min(draw(st.integers(1, 512)), len(data) - n)
    return data[:n] + bytes(length) + data[n + length :]  # what a file system may leave after a power cut


def _drop_line(data: bytes, draw: Draw) -> bytes:
    lines = data.split(b"\n")
    del lines[draw(st.integers(0, len(lines) - 1))]
    return b"\n".join(lines)


def _double_line(data: bytes, draw: Draw) -> bytes:
    lines = data.split(b"\n")
    n = draw(st.integers(0, len(lines) - 1))
    return b"\n".join([*lines[: n + 1], *lines[n:]])


def _swap_lines(data: bytes, draw: Draw) -> bytes:
    lines = data.split(b"\n")
    a, b = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
    lines[a], lines[b] = lines[b], lines[a]
    return b"\n".join(lines)


def _drop_word(data: bytes, draw: Draw) -> bytes:
    words = re.split(rb"(\s+)", data)
    del words[draw(st.integers(0, len(words) - 1))]
    return b"".join(words)


KINDS = [
    *(_flip, _truncate, _cut_out, _repeat, _insert, _replace_number, _replace_number),
    *(_zero_out, _drop_line, _double_line, _swap_lines, _drop_word),
]
