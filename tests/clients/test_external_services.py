"""Services beside the server (XEP-0215), asked for by slixmpp, and credentials that coturn takes.

What a TURN server computes from a name and the secret is computed here by Python, and, where
Debian's coturn is installed, by that: a client of its own allocates a relay with what it was given.
"""

import asyncio
import base64
import calendar
import hashlib
import hmac
import shutil
import socket
import subprocess
import time

import pytest
from slixmpp.exceptions import IqError
from slixmpp.xmlstream import ET

from conftest import kind, started
from servers import DOMAIN, free_port
from test_slixmpp import SECONDS_MAX, Client

NS = "urn:xmpp:extdisco:2"
SECRET = "a secret of two"
LIFETIME_S = 600
PORT = free_port()

pytestmark = pytest.mark.skipif(kind() != "vorpal", reason="the configuration is vorpal's")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = started(
        tmp_path_factory.mktemp("services"),
        more='[[external_service]]\ntype = "stun"\nhost = "127.0.0.1"\nport = 3478\n'
        f'[[external_service]]\ntype = "turn"\nhost = "127.0.0.1"\nport = {PORT}\n'
        f'secret = "{SECRET}"\nlifetime_s = {LIFETIME_S}\n',
    )
    yield server
    server.stop()


async def ask(client, payload):
    """The services that the answer to a request has."""
    iq = client.make_iq_get(ito=DOMAIN)
    iq.append(payload)
    answer = await iq.send(timeout=SECONDS_MAX)
    return [service.attrib for service in answer.xml.iter(f"{{{NS}}}service")]


def credentials(**attributes):
    payload = ET.Element(f"{{{NS}}}credentials")
    ET.SubElement(payload, f"{{{NS}}}service", attributes)
    return payload


def given(server, user):
    """What a user is given for the relay, in both ways."""

    async def play():
        async with Client(server, user) as client:
            every = await ask(client, ET.Element(f"{{{NS}}}services"))
            assert [service["type"] for service in every] == ["stun", "turn"]
            assert "username" not in every[0]
            (turn,) = await ask(client, ET.Element(f"{{{NS}}}services", type="turn"))
            (asked,) = await ask(client, credentials(type="turn", host="127.0.0.1"))
            for one in (every[1], asked):
                assert one.keys() == turn.keys()
                assert one["username"].split(":")[1] == turn["username"].split(":")[1]
            with pytest.raises(IqError) as refusal:
                await ask(client, credentials(type="stun", host="127.0.0.1"))
            assert refusal.value.condition == "item-not-found"
            return turn

    return asyncio.run(play())


def test_credentials_are_those_that_the_relay_computes_and_end_when_they_say(server):
    before = int(time.time())
    turn = given(server, server.friends[0])
    mac = hmac.new(SECRET.encode(), turn["username"].encode(), hashlib.sha1)
    assert turn["password"] == base64.b64encode(mac.digest()).decode()
    expires = int(turn["username"].split(":")[0])
    assert before + LIFETIME_S <= expires <= int(time.time()) + LIFETIME_S
    told = calendar.timegm(time.strptime(turn["expires"], "%Y-%m-%dT%H:%M:%SZ"))
    assert told == expires
    assert turn["restricted"] == "true"
    other = given(server, server.friends[1])
    assert other["username"].split(":")[1] != turn["username"].split(":")[1]


@pytest.mark.skipif(not shutil.which("turnserver"), reason="coturn is not installed")
def test_coturn_relays_for_who_was_given_credentials_and_for_nobody_else(server, tmp_path):
    turn = given(server, server.friends[0])
    log = open(tmp_path / "log", "wb")
    relay = subprocess.Popen(
        ["turnserver", "-n", "--use-auth-secret", f"--static-auth-secret={SECRET}",
         "--realm=localhost", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1",
         f"--listening-port={PORT}", "--allow-loopback-peers", "--no-tls", "--no-dtls", "--no-cli",
         f"--db={tmp_path / 'db'}", f"--pidfile={tmp_path / 'pid'}", "--relay-threads=1",
         "--log-file=stdout"],
        stdout=log, stderr=log, cwd=tmp_path,
    )
    try:
        wait_for_tcp(PORT)
        good = allocate(turn["username"], turn["password"])
        bad = allocate(turn["username"], turn["password"][::-1])
        # Whoever gives himself more time has another name, and one whose time is over is no name.
        more = allocate("9" + turn["username"], turn["password"])
        name = f"1000000000:{turn['username'].split(':')[1]}"
        mac = hmac.new(SECRET.encode(), name.encode(), hashlib.sha1)
        over = allocate(name, base64.b64encode(mac.digest()).decode())
    finally:
        relay.terminate()
        relay.wait(SECONDS_MAX)
    said = (tmp_path / "log").read_text(errors="replace")
    assert (good, bad, more, over) == (True, False, False, False), said


def wait_for_tcp(port):
    """The relay listens on both; that it does is seen on the one that answers."""
    until = time.monotonic() + SECONDS_MAX
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 1):
                return
        except OSError:
            assert time.monotonic() < until, "coturn did not come up"
            time.sleep(0.02)


def allocate(username, password):
    """Whether coturn's own client gets a relay, and its packets through it to itself and back."""
    done = subprocess.run(
        ["turnutils_uclient", "-u", username, "-w", password, "-p", str(PORT), "-y", "-c",
         "-m", "1", "-n", "1", "-l", "64", "127.0.0.1"],
        capture_output=True, text=True, timeout=60,
    )
    return done.returncode == 0 and "Total lost packets 0 " in done.stdout
