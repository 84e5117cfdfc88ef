"""go-sendxmpp, a client in Go: one message over STARTTLS and one over direct TLS."""

import asyncio
import os
import shutil
import subprocess

import pytest

from servers import PASSWORD
from test_slixmpp import Client

SECONDS_MAX = 40


def send(server, text, *options, trusted):
    environment = dict(os.environ, SSL_CERT_FILE=str(trusted), SSL_CERT_DIR=str(trusted.parent / "no"))
    direct = "--tls" in options
    port = server.tls_port if direct else server.port
    one, two = server.friends
    return subprocess.run(
        ["go-sendxmpp", "--username", one, "--password", PASSWORD,
         "--jserver", f"127.0.0.1:{port}", *options, two],
        input=text, env=environment, capture_output=True, text=True, timeout=SECONDS_MAX,
    )


@pytest.mark.parametrize("options", [(), ("--tls",)], ids=["starttls", "direct"])
def test_a_message_arrives(server, options):
    if not shutil.which("go-sendxmpp"):
        pytest.fail("go-sendxmpp is needed: apt-get install go-sendxmpp")

    async def play():
        async with Client(server, server.friends[1]) as friend:
            friend.send_presence()
            await friend.presence_of(server.friends[1], "available")
            done = await asyncio.to_thread(send, server, "from go", *options, trusted=server.ca)
            assert done.returncode == 0, done.stderr
            message = await friend.message()
            assert message["body"].strip() == "from go"
            assert message["from"].bare == server.friends[0]

    asyncio.run(play())


def test_a_message_to_who_is_away_waits(server):
    done = send(server, "sent before you came", trusted=server.ca)
    assert done.returncode == 0, done.stderr

    async def play():
        async with Client(server, server.friends[1]) as friend:
            friend.send_presence()
            message = await friend.message()
            assert message["body"].strip() == "sent before you came"
            assert message["delay"]["stamp"]

    asyncio.run(play())


def test_an_untrusted_certificate_is_refused(server, tmp_path):
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    done = send(server, "never", trusted=empty)
    assert done.returncode != 0 and "certificate" in done.stderr
