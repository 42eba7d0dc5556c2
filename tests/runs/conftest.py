"""A disk that takes only so much."""

import contextlib
import resource

import pytest


@pytest.fixture
def bytes_of_a_file():
    """A context manager within which no file may grow beyond so many bytes."""

    @contextlib.contextmanager
    def limited(count: int):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited
