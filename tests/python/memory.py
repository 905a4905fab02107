"""Looks for bytes in this process's own memory.

What is looked for is held reversed, and memory is read reversed: the pattern itself, and the buffers of the search, are
not found."""

import ctypes


def reversed_rows(tensor, floats=4, rows=8):
    """Patterns (16 bytes each, reversed) from the beginnings of a matrix's rows."""
    array = tensor.detach().numpy()
    step = max(1, len(array) // rows)
    return [array[i, :floats].tobytes()[::-1] for i in range(0, len(array), step)]


def count(patterns):
    """How often the patterns occur, in all writable memory."""
    found = 0
    with open("/proc/self/maps") as maps:
        regions = [line.split() for line in maps]
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        for region in regions:
            if not region[1].startswith("rw") or region[-1] in ("[vvar]", "[vsyscall]"):
                continue
            start, end = (int(x, 16) for x in region[0].split("-"))
            position = start
            while position < end:
                size = min(1 << 22, end - position)
                try:
                    memory.seek(position)
                    data = bytearray(memory.read(size))
                except (OSError, OverflowError, ValueError):
                    break
                data.reverse()
                found += sum(data.count(p) for p in patterns)
                ctypes.memset((ctypes.c_char * len(data)).from_buffer(data), 0, len(data))
                position += size - 64 if size > 64 and position + size < end else size
    return found
