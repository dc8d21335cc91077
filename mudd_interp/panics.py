"""Panics of libraries written in Rust, which to Python are not an ``Exception``. No dependency."""


def is_panic(error: BaseException) -> bool:
    """Whether a library below panicked: the class cannot be imported, so its name decides."""
    return type(error).__name__ == "PanicException"


def is_failure(error: BaseException) -> bool:
    """Whether something failed; what asks a program to end or to restart is not a failure."""
    return isinstance(error, Exception) or is_panic(error)
