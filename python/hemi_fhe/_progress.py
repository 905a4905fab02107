"""Bars of progress on stderr: a line that is written anew whenever there is more to see."""

import sys

WIDTH = 30
SMALL = 1 << 20  # bytes of an upload that is not worth a bar


class Bar:
    """Called as the C library calls its progress functions: with what is done, how much of it, and of how much."""

    def __init__(self, name):
        self.name = name
        self._line = None  # what the present line shows

    def __call__(self, what, done, total):
        if what == "upload keys" and total < SMALL:
            return
        filled = WIDTH * min(done, total) // total if total else WIDTH
        text = self.name if what == "rows" else f"{self.name}: {what}"
        end = done >= total
        if (text, filled) == self._line and not end:
            return
        if self._line is not None and self._line[0] != text:
            self.close()
        self._line = None if end else (text, filled)
        count = f"{done}/{total}{' rows' if what == 'rows' else ''}"
        if what == "upload keys":  # bytes
            count = f"{done / 1e6:.1f}/{total / 1e6:.1f} MB"
        print(f"\r  {text} [{'#' * filled:<{WIDTH}}] {count}", end="\n" if end else "", file=sys.stderr, flush=True)

    def close(self):
        """Ends a line that was left unfinished."""
        if self._line is not None:
            self._line = None
            print(file=sys.stderr)
