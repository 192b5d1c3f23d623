"""What a shared library of Linux says of itself, and for which GPUs it holds code, read from the file alone."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from gn_deploy.errors import InputError

_FATBIN = struct.pack("<I", 0xBA55ED50)  # begins every group of GPU programs that nvcc embeds
_PTX, _MACHINE_CODE = 1, 2  # kinds of programs in it
_NEEDED, _SONAME = 1, 14  # tags of the dynamic section (System V ABI)
_DYNAMIC, _DYNAMIC_SYMBOLS = 6, 11  # types of sections
_LOCAL = 0  # binding of a symbol


@dataclass(frozen=True, slots=True)
class SharedLibrary:
    """1. ``needed`` are the libraries the loader looks for. 2. ``exports`` are the symbols others may call, sorted.
    3. ``machine_code`` and ``ptx`` are compute capabilities, 90 for 9.0, ascending."""

    needed: tuple[str, ...]
    exports: tuple[str, ...]
    machine_code: tuple[int, ...]
    ptx: tuple[int, ...]


def read(data: bytes) -> SharedLibrary:
    """Raises InputError for anything but a 64-bit little-endian ELF file."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise InputError("not a shared library of 64-bit Linux")
    try:
        sections = _sections(data)
        needed = tuple(_needed(data, sections))
        exports = tuple(sorted(_exports(data, sections)))
        programs = set(_programs(data))
    except (struct.error, IndexError, ValueError) as error:
        raise InputError("a shared library that is cut off or damaged") from error
    return SharedLibrary(
        needed,
        exports,
        tuple(sorted(arch for kind, arch in programs if kind == _MACHINE_CODE)),
        tuple(sorted(arch for kind, arch in programs if kind == _PTX)),
    )


@dataclass(frozen=True, slots=True)
class _Section:
    kind: int
    offset: int
    size: int
    link: int
    entry: int


def _sections(data: bytes) -> list[_Section]:
    (table,) = struct.unpack_from("<Q", data, 0x28)
    size, count = struct.unpack_from("<HH", data, 0x3A)
    found = []
    for i in range(count):
        _, kind, _, _, offset, length, link, _, _, entry = struct.unpack_from("<IIQQQQIIQQ", data, table + i * size)
        found.append(_Section(kind, offset, length, link, entry))
    return found


def _text(data: bytes, table: _Section, place: int) -> str:
    begin = table.offset + place
    return data[begin : data.index(b"\0", begin)].decode()


def _needed(data: bytes, sections: list[_Section]) -> Iterator[str]:
    for section in (s for s in sections if s.kind == _DYNAMIC):
        for at in range(section.offset, section.offset + section.size, 16):
            tag, value = struct.unpack_from("<qQ", data, at)
            if tag == _NEEDED:
                yield _text(data, sections[section.link], value)


def _exports(data: bytes, sections: list[_Section]) -> Iterator[str]:
    for section in (s for s in sections if s.kind == _DYNAMIC_SYMBOLS):
        for at in range(section.offset, section.offset + section.size, section.entry):
            name, info, _, index = struct.unpack_from("<IBBH", data, at)
            if index and info >> 4 != _LOCAL:  # index 0: defined elsewhere
                yield _text(data, sections[section.link], name)


def _programs(data: bytes) -> Iterator[tuple[int, int]]:
    """(kind, compute capability) of every GPU program; the layout is that of nvcc 11 to 13, as cuobjdump reads it."""
    at = data.find(_FATBIN)
    while at >= 0:
        header, size = struct.unpack_from("<HQ", data, at + 6)
        entry, end = at + header, at + header + size
        while entry < end:
            kind, _, length, payload = struct.unpack_from("<HHIQ", data, entry)
            (capability,) = struct.unpack_from("<I", data, entry + 28)
            if length == 0:
                break
            yield kind, capability
            entry += length + payload
        at = data.find(_FATBIN, at + 4)
