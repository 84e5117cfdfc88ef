"""slixmpp over STARTTLS and direct TLS with certificate checking on: log in, chat, presence, errors."""

import asyncio
import re
import ssl

import pytest
import slixmpp
from slixmpp.exceptions import IqError

from servers import DOMAIN, PASSWORD

SECONDS_MAX = 30


class Client(slixmpp.ClientXMPP):
    """A client that keeps what arrives in queues."""

    def __init__(self, server, jid, password=PASSWORD, ca=None, direct=False, mechanism=None):
        super().__init__(jid, password, sasl_mech=mechanism)
        # Only the throw-away CA is trusted, and slixmpp's own checking stays on.
        self.ssl_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        assert self.ssl_context.check_hostname
        assert self.ssl_context.verify_mode == ssl.CERT_REQUIRED
        if ca is not False:
            self.ssl_context.load_verify_locations(ca or server.ca)
        self.under_test = server
        self.direct = direct
        self.enable_direct_tls = direct
        self.enable_starttls = not direct
        self.enable_plaintext = False
        self.auto_reconnect = False
        self.messages = asyncio.Queue()
        self.presences = asyncio.Queue()
        self.outcome = asyncio.get_running_loop().create_future()
        self.register_plugin("xep_0030")
        self.register_plugin("xep_0092")
        self.register_plugin("xep_0199")
        self.register_plugin("xep_0202")
        self.register_plugin("xep_0203")
        self.add_event_handler("session_start", lambda _: self.settle("in"))
        self.add_event_handler("failed_auth", lambda _: self.settle("refused"))
        self.add_event_handler("ssl_invalid_chain", lambda _: self.settle("untrusted"))
        self.add_event_handler("connection_failed", lambda why: self.settle(f"failed: {why}"))
        self.add_event_handler("disconnected", lambda why: self.settle(f"disconnected: {why}"))
        self.add_event_handler("message", self.keep)
        self.add_event_handler("message_error", self.messages.put_nowait)
        for kind in ("available", "away", "unavailable", "error"):
            self.add_event_handler(f"presence_{kind}", self.presences.put_nowait)

    def settle(self, outcome):
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    def keep(self, message):
        # An error with a body is an event of both kinds.
        if message["type"] != "error":
            self.messages.put_nowait(message)

    async def log_in(self):
        port = self.under_test.tls_port if self.direct else self.under_test.port
        self.connect("127.0.0.1", port)
        return await asyncio.wait_for(asyncio.shield(self.outcome), SECONDS_MAX)

    async def __aenter__(self):
        outcome = await self.log_in()
        assert outcome == "in", f"{self.boundjid} could not log in: {outcome}"
        await self.get_roster(timeout=SECONDS_MAX)
        return self

    async def __aexit__(self, *_):
        await asyncio.wait_for(self.disconnect(), SECONDS_MAX)

    async def message(self):
        return await asyncio.wait_for(self.messages.get(), SECONDS_MAX)

    async def presence_of(self, bare, kind=None):
        """The next presence of that user, and of that type if one is given."""
        while True:
            presence = await asyncio.wait_for(self.presences.get(), SECONDS_MAX)
            if presence["from"].bare == bare and kind in (None, presence["type"]):
                return presence


def scenario(coroutine):
    asyncio.run(coroutine)


def test_logs_in_over_starttls_with_the_certificate_checked(server):
    async def play():
        async with Client(server, f"{server.friends[0]}/desk") as client:
            assert client.boundjid.full == f"{server.friends[0]}/desk"
            assert client.transport.get_extra_info("ssl_object").version() == "TLSv1.3"
            peer = client.transport.get_extra_info("peercert")
            assert ("DNS", DOMAIN) in peer["subjectAltName"]

    scenario(play())


def test_logs_in_over_direct_tls(server):
    async def play():
        async with Client(server, server.friends[0], direct=True) as client:
            assert client.boundjid.resource
            assert client.transport.get_extra_info("ssl_object").version() == "TLSv1.3"

    scenario(play())


def test_refuses_a_certificate_that_no_trusted_authority_signed(server):
    async def play():
        client = Client(server, server.friends[0], ca=False)
        outcome = await client.log_in()
        client.abort()
        assert outcome != "in", "the certificate was not checked"

    scenario(play())


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"])
def test_logs_in_with(server, mechanism):
    if server.name == "prosody" and mechanism == "SCRAM-SHA-256":
        pytest.skip("this Prosody keeps SHA-1 keys only")

    async def play():
        async with Client(server, server.friends[0], mechanism=mechanism) as client:
            assert client.plugin["feature_mechanisms"].mech.name == mechanism

    scenario(play())


def test_a_wrong_password_is_refused(server):
    async def play():
        client = Client(server, server.friends[0], password="wrong")
        outcome = await client.log_in()
        client.abort()
        assert outcome == "refused"

    scenario(play())


def test_friends_chat_both_ways(server):
    async def play():
        one, two = server.friends
        async with Client(server, f"{one}/a") as alice, Client(server, f"{two}/b") as bob:
            alice.send_presence()
            bob.send_presence()
            await bob.presence_of(one, "available")
            await alice.presence_of(two, "available")
            for count in range(50):
                alice.send_message(mto=two, mbody=f"to bob {count} <&> 🦊", mtype="chat")
            for count in range(50):
                message = await bob.message()
                assert message["body"] == f"to bob {count} <&> 🦊"
                assert message["from"].full == f"{one}/a" and message["type"] == "chat"
            bob.send_message(mto=f"{one}/a", mbody="to alice", mtype="chat")
            message = await alice.message()
            assert (message["body"], message["from"].full) == ("to alice", f"{two}/b")

    scenario(play())


def test_contacts_see_each_other_come_and_go_and_strangers_do_not(server):
    async def play():
        one, two = server.friends
        async with Client(server, one) as alice, Client(server, server.stranger) as stranger:
            alice.send_presence()
            stranger.send_presence()
            roster = alice.client_roster
            assert roster[two]["subscription"] == "both"
            async with Client(server, f"{two}/b") as bob:
                bob.send_presence(pshow="away", pstatus="at lunch")
                seen = await alice.presence_of(two, "away")
                assert seen["from"].full == f"{two}/b"
                assert (seen["type"], seen["status"]) == ("away", "at lunch")
                # The probe made by bob's initial presence finds alice.
                await bob.presence_of(one, "available")
            gone = await alice.presence_of(two, "unavailable")
            assert gone["from"].full == f"{two}/b"
            # Whatever the stranger was going to see was sent before this answer.
            await stranger.plugin["xep_0199"].ping(DOMAIN, timeout=SECONDS_MAX)
            strays = []
            while not stranger.presences.empty():
                strays.append(stranger.presences.get_nowait())
            assert not [p for p in strays if p["from"].bare in server.friends]

    scenario(play())


def test_an_unclean_disconnect_is_seen_by_contacts(server):
    async def play():
        one, two = server.friends
        async with Client(server, one) as alice:
            alice.send_presence()
            bob = Client(server, f"{two}/b")
            assert await bob.log_in() == "in"
            bob.send_presence()
            await alice.presence_of(two, "available")
            bob.transport.abort()
            await alice.presence_of(two, "unavailable")

    scenario(play())


def test_stanzas_to_nonexistent_users_come_back_as_errors(server):
    async def play():
        async with Client(server, server.friends[0]) as alice:
            alice.send_presence()
            nobody = f"nobody@{DOMAIN}"
            alice.send_message(mto=nobody, mbody="hello?", mtype="chat")
            answer = await alice.message()
            assert (answer["type"], answer["from"].bare) == ("error", nobody)
            assert answer["error"]["condition"] == "service-unavailable"
            assert answer["error"]["type"] == "cancel"
            with pytest.raises(IqError) as refusal:
                await alice.make_iq_get("urn:xmpp:ping", ito=nobody).send(timeout=SECONDS_MAX)
            assert refusal.value.condition == "service-unavailable"

    scenario(play())


def test_the_server_says_who_it_is(server):
    async def play():
        async with Client(server, server.friends[0]) as alice:
            info = await alice.plugin["xep_0030"].get_info(jid=DOMAIN, timeout=SECONDS_MAX)
            assert ("server", "im") in {(i[0], i[1]) for i in info["disco_info"]["identities"]}
            features = info["disco_info"]["features"]
            assert {"urn:xmpp:ping", "urn:xmpp:time", "jabber:iq:version"} <= features
            version = await alice.plugin["xep_0092"].get_version(DOMAIN, timeout=SECONDS_MAX)
            assert version["software_version"]["name"].lower().startswith(server.name)
            time = await alice.plugin["xep_0202"].get_entity_time(DOMAIN, timeout=SECONDS_MAX)
            utc = time["entity_time"].xml.findtext("{urn:xmpp:time}utc")
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", utc)
            assert await alice.plugin["xep_0199"].ping(DOMAIN, timeout=SECONDS_MAX) < SECONDS_MAX

    scenario(play())


def test_the_same_resource_ends_the_older_session(server):
    async def play():
        jid = f"{server.friends[0]}/same"
        older = Client(server, jid)
        conditions = asyncio.Queue()
        older.add_event_handler("stream_error", lambda e: conditions.put_nowait(e["condition"]))
        assert await older.log_in() == "in"
        async with Client(server, jid) as newer:
            if newer.boundjid.full == jid:
                assert await asyncio.wait_for(conditions.get(), SECONDS_MAX) == "conflict"
        older.abort()

    scenario(play())
