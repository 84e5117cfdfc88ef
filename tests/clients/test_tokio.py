"""tokio-xmpp: SCRAM-SHA-256-PLUS bound to TLS 1.3 by tls-exporter, and a chat over STARTTLS."""

import os
import pathlib
import subprocess

import pytest

from servers import PASSWORD

SECONDS_MAX = 90


def client(server, what):
    binary = os.environ.get("TOKIO_CLIENT")
    assert binary, "set TOKIO_CLIENT to the built tests/clients/tokio, or use tests/clients/run.sh"
    # rustls-native-certs takes its roots from here alone; checking cannot be switched off.
    environment = dict(os.environ, SSL_CERT_FILE=str(server.ca))
    environment.pop("SSL_CERT_DIR", None)
    arguments = [str(pathlib.Path(binary).resolve()), "127.0.0.1", str(server.port),
                 str(server.tls_port), PASSWORD, *server.friends, what]
    done = subprocess.run(
        arguments, env=environment, capture_output=True, text=True, timeout=SECONDS_MAX
    )
    assert done.returncode == 0, done.stderr


def test_scram_sha_256_plus_over_tls_1_3(server):
    if server.name == "prosody":
        pytest.skip("this Prosody does not offer tls-exporter")
    client(server, "binding")


def test_chat_presence_and_errors(server):
    client(server, "chat")
