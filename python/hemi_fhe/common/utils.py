"""What the other modules share."""

import enum


class HybridFHEMode(enum.Enum):
    """How the remote modules of a HybridFHEModel compute."""

    DISABLE = "disable"  # quantised, in the clear
    TORCH = "torch"  # the float module itself
    CALIBRATE = "calibrate"  # the float module itself; its inputs are kept for compile_model
    SIMULATE = "simulate"  # quantised, in the clear, with the noise that encryption is predicted to add
    EXECUTE = "execute"  # encrypted, run and decrypted in this process
    REMOTE = "remote"  # encrypted here, run on the server

    @classmethod
    def of(cls, mode):
        """The mode itself, or the one of that name."""
        if isinstance(mode, cls):
            return mode
        try:
            return cls(str(getattr(mode, "value", mode)).lower())
        except ValueError:
            names = ", ".join(repr(m.value) for m in cls)
            raise ValueError(f"{mode!r} is not a mode of execution; there are {names}") from None
