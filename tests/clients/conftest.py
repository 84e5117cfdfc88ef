"""Fixtures: one running server for each test file, stopped by its pid."""

import os

import pytest

from servers import SERVERS


def pytest_report_header():
    return f"server under test: {kind()}"


def kind():
    return os.environ.get("SERVER_UNDER_TEST", "vorpal")


def started(directory, **options):
    server = SERVERS[kind()](directory)
    server.start(**options)
    return server


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = started(tmp_path_factory.mktemp(kind()))
    yield server
    server.stop()


@pytest.fixture
def fresh_server(tmp_path):
    """A server that the test itself stops."""
    server = started(tmp_path)
    yield server
    if server.process.poll() is None:
        server.stop()
