"""Bars of progress on stderr: on a terminal a line that is written anew, in a log a line for each step and for every few seconds."""

import sys
import time

WIDTH = 30
SECONDS = 2  # between two lines of a log
SMALL = 1 << 20  # bytes of an upload that is not worth a bar


class Bar:
    """Called as the C library calls its progress functions: with what is done, how much of it, and of how much."""

    def __init__(self, name):
        self.name = name
        self._line = None  # what the present line of the terminal shows
        self._since = time.monotonic()

    def __call__(self, what, done, total):
        if what == "upload keys" and total < SMALL:
            return
        filled = WIDTH * min(done, total) // total if total else WIDTH
        text = self.name if what == "rows" else f"{self.name}: {what}"
        count = f"{done}/{total}{' rows' if what == 'rows' else ''}"
        if what == "upload keys":  # bytes
            count = f"{done / 1e6:.1f}/{total / 1e6:.1f} MB"
        self._show(text, filled, f"  {text} [{'#' * filled:<{WIDTH}}] {count}", done >= total)

    def _show(self, text, filled, line, end):
        if not sys.stderr.isatty():
            if end or time.monotonic() - self._since >= SECONDS:
                self._since = time.monotonic()
                print(line, file=sys.stderr, flush=True)
            return
        if self._line is not None and self._line[0] != text:
            self.close()
        if (text, filled) != self._line or end:
            self._line = None if end else (text, filled)
            print("\r" + line, end="\n" if end else "", file=sys.stderr, flush=True)

    def close(self):
        """Ends a line that was left unfinished."""
        if self._line is not None:
            self._line = None
            print(file=sys.stderr)
