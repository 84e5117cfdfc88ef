"""SASL2 (XEP-0388) by hand, for slixmpp does not speak it: Bind 2 (XEP-0386), a session resumed in it, and tokens
(XEP-0484)."""

import base64
import hashlib
import hmac
import re

import pytest

from conftest import kind, started
from servers import PASSWORD
from test_slixmpp import SECONDS_MAX, Client, scenario
from test_starttls import Wire, context, name, only_vorpal

USER_AGENT = "<user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'/>"
BIND = (
    "<bind xmlns='urn:xmpp:bind:0'><tag>test</tag>"
    "<enable xmlns='urn:xmpp:sm:3' resume='true'/></bind>"
)


def authenticate(user, inner):
    proof = base64.b64encode(f"\0{user}\0{PASSWORD}".encode()).decode()
    return (
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'>"
        f"<initial-response>{proof}</initial-response>{USER_AGENT}{inner}</authenticate>"
    )


def opened(server):
    wire = Wire(server, context(server), server.tls_port)
    features = wire.open()
    assert "<authentication xmlns='urn:xmpp:sasl:2'>" in features
    assert "<feature var='urn:xmpp:sm:3'/>" in features
    return wire


@pytest.fixture
def bound(server):
    """A client that is bound and managed: its wire, its full JID and its session's id."""
    only_vorpal(server)
    wire = opened(server)
    wire.send(authenticate(name(server.friends[0]), BIND))
    success = wire.until("</stream:features>")
    full = re.search("<authorization-identifier>([^<]*)<", success).group(1)
    session = re.search("<bound [^>]*><enabled [^>]*id='([^']*)'", success).group(1)
    assert full.startswith(f"{server.friends[0]}/test/")
    return wire, full, session


def test_who_binds_by_sasl2_talks_with_slixmpp(server, bound):
    wire, full, _ = bound

    async def play():
        async with Client(server, server.friends[1]) as other:
            other.send_message(mto=full, mbody="hello", mtype="chat")
            await other.get_roster()
            assert "hello" in wire.until("</message>")
            to = other.boundjid.full
            wire.send(f"<message to='{to}' type='chat'><body>and back</body></message>")
            message = await other.message()
            assert message["body"] == "and back"
            assert message["from"].full == full

    scenario(play())


def test_a_lost_session_is_resumed_with_the_login(server, bound):
    wire, full, session = bound

    async def play():
        wire.socket.close()
        async with Client(server, server.friends[1]) as other:
            other.send_message(mto=full, mbody="meanwhile", mtype="chat")
            await other.get_roster()
        again = opened(server)
        resume = f"<resume xmlns='urn:xmpp:sm:3' previd='{session}' h='0'/>"
        again.send(authenticate(name(server.friends[0]), resume + BIND))
        answer = again.until("</message>")
        assert f"<resumed xmlns='urn:xmpp:sm:3' previd='{session}'" in answer
        assert "meanwhile" in answer
        assert "<bound" not in answer and "features" not in answer

    scenario(play())


def test_the_resource_is_the_same_at_the_next_login(server, bound):
    wire, full, _ = bound
    again = opened(server)
    again.send(authenticate(name(server.friends[0]), BIND))
    answer = again.until("</stream:features>")
    assert f"<authorization-identifier>{full}<" in answer
    assert "<conflict" in wire.rest()


@pytest.mark.skipif(kind() != "vorpal", reason="the other servers have no archive here")
def test_the_bind_says_where_the_archive_begins_and_ends(tmp_path):
    server = started(tmp_path, more="[archive]\nenabled = true\n")
    one, two = server.friends
    ends = []

    async def play():
        async with Client(server, one) as client:
            client.register_plugin("xep_0313")
            for number in range(3):
                client.send_message(mto=two, mbody=str(number), mtype="chat")
            told = await client.plugin["xep_0313"].get_archive_metadata(timeout=SECONDS_MAX)
            ends.extend(told["mam_metadata"][end]["id"] for end in ("start", "end"))

    scenario(play())
    wire = opened(server)
    wire.send(authenticate(name(one), BIND))
    success = wire.until("</stream:features>")
    metadata = re.search("<metadata xmlns='urn:xmpp:mam:2'>(.*)</metadata></bound>", success)
    assert re.findall(" id='([^']*)'", metadata.group(1)) == ends
    server.stop()


def by_token(user, token, mechanism, channel=b"", fast=""):
    proof = hmac.digest(token.encode(), b"Initiator" + channel, "sha256")
    message = base64.b64encode(user.encode() + b"\0" + proof).decode()
    return (
        f"<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{mechanism}'>"
        f"<initial-response>{message}</initial-response>{USER_AGENT}"
        f"<fast xmlns='urn:xmpp:fast:0' {fast}/>{BIND}</authenticate>"
    )


def given(server, mechanism):
    """A token that is given with the password."""
    wire = opened(server)
    request = f"<request-token xmlns='urn:xmpp:fast:0' mechanism='{mechanism}'/>"
    wire.send(authenticate(name(server.friends[0]), request + BIND))
    success = wire.until("</success>.*</stream:features>")
    found = re.search("<token xmlns='urn:xmpp:fast:0' expiry='([^']*Z)' token='([^']*)'/>", success)
    return found.group(2)


def test_a_token_logs_in_and_its_client_talks_with_slixmpp(server):
    only_vorpal(server)
    certificate = opened(server).socket.getpeercert(True)
    # The server's own is signed with SHA-256.
    channels = {"HT-SHA-256-NONE": b"", "HT-SHA-256-ENDP": hashlib.sha256(certificate).digest()}
    for mechanism, channel in channels.items():
        token = given(server, mechanism)
        wire = opened(server)
        wire.send(by_token(name(server.friends[0]), token, mechanism, channel))
        success = wire.until("</success>.*</stream:features>")
        full = re.search("<authorization-identifier>([^<]*)<", success).group(1)
        answer = hmac.digest(token.encode(), b"Responder" + channel, "sha256")
        assert base64.b64encode(answer).decode() in success

        async def play():
            async with Client(server, server.friends[1]) as other:
                other.send_message(mto=full, mbody="hello", mtype="chat")
                await other.get_roster()
                assert "hello" in wire.until("</message>")

        scenario(play())


def test_a_token_that_was_given_up_is_void(server):
    only_vorpal(server)
    token = given(server, "HT-SHA-256-NONE")
    user = name(server.friends[0])
    wire = opened(server)
    wire.send(by_token(user, token, "HT-SHA-256-NONE", fast="invalidate='true'"))
    wire.until("</success>")
    again = opened(server)
    again.send(by_token(user, token, "HT-SHA-256-NONE"))
    assert "<not-authorized" in again.until("</failure>")
