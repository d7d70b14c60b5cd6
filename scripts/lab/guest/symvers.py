#!/usr/bin/python3
"""symvers.py KERNEL: print a Module.symvers for a kernel that comes without one.

Debian ships user-mode-linux without a headers package. What a module may link
against, and what of that only under the GPL, stands in the export tables of
the binary: an array each of (address, name, namespace) pointers. The kernel
has no MODVERSIONS, so every CRC is zero.
"""
import struct
import sys


def sections(elf):
    """Yield (name, address, content) of each section of a 64-bit little-endian ELF file."""
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names = struct.unpack_from("<HHH", elf, 0x3A)
    heads = [struct.unpack_from("<IIQQQQ", elf, table + i * size) for i in range(count)]
    for name, _type, _flags, address, offset, length in heads:
        start = heads[names][4] + name
        yield elf[start:elf.index(b"\0", start)].decode(), address, elf[offset:offset + length]


def main():
    with open(sys.argv[1], "rb") as kernel:
        found = {name: (address, content) for name, address, content in sections(kernel.read())}
    base, strings = found["__ksymtab_strings"]

    def text(pointer):
        start = pointer - base
        return strings[start:strings.index(b"\0", start)].decode()

    for section, kind in (("__ksymtab", "EXPORT_SYMBOL"), ("__ksymtab_gpl", "EXPORT_SYMBOL_GPL")):
        for _value, name, space in struct.iter_unpack("<QQQ", found[section][1]):
            print(f"0x00000000\t{text(name)}\tvmlinux\t{kind}\t{text(space) if space else ''}")


main()
