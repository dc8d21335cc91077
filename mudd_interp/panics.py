"""Panics of libraries written in Rust, which Python sees as no ``Exception``. No dependency."""


def is_panic(error: BaseException) -> bool:
    """Whether a library below broke down: its class cannot be imported, so it goes by its name."""
    return type(error).__name__ == "PanicException"


def is_failure(error: BaseException) -> bool:
    """Whether something failed; what asks a program to end or to begin anew is no failure."""
    return isinstance(error, Exception) or is_panic(error)
