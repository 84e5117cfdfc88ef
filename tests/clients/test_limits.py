"""slixmpp and go-sendxmpp where the server says no: wrong passwords, and mail for who has enough."""

import asyncio
import re

import pytest

from conftest import started
from servers import PASSWORD
from test_go_sendxmpp import send
from test_messaging import Person
from test_slixmpp import SECONDS_MAX, scenario

FAILURES_MAX = 4
OFFLINE_MAX = 3
MINUTE_S = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One with limits that are soon reached."""
    limits = f"auth_failures_per_minute_max = {FAILURES_MAX}\noffline_max = {OFFLINE_MAX}\n"
    server = started(tmp_path_factory.mktemp("limits"), more=f"[limits]\n{limits}")
    yield server
    server.stop()


async def refusal(server, jid, password, mechanism):
    """Why a log-in is refused."""
    client = Person(server, jid, password=password, mechanism=mechanism)
    reasons = asyncio.Queue()
    client.add_event_handler("failed_auth", lambda why: reasons.put_nowait(why["condition"]))
    assert await client.log_in() == "refused"
    client.abort()
    return reasons.get_nowait()


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "PLAIN"])
def test_who_mistypes_a_password_is_told_so_and_gets_in_with_the_right_one(server, mechanism):
    async def play():
        person = server.friends[1]
        assert await refusal(server, person, "Correct Horse", mechanism) == "not-authorized"
        # That it goes well is not counted.
        for _ in range(FAILURES_MAX):
            async with Person(server, person, mechanism=mechanism) as client:
                assert client.plugin["feature_mechanisms"].mech.name == mechanism

    scenario(play())


def test_who_guesses_a_password_is_put_off_and_nobody_else_is(server):
    one, two = server.friends

    def told(password):
        done = send(server, "let me in", "--password", password)
        assert done.returncode != 0
        return re.search("auth failure: (.*)", done.stderr).group(1)

    async def play():
        async with Person(server, one) as owner:
            for guess in range(FAILURES_MAX - 1):
                assert await refusal(server, one, f"guess {guess}", "SCRAM-SHA-256") \
                    == "not-authorized"
            assert await asyncio.to_thread(told, "another guess") == "not-authorized"
            # From now on nothing is examined, and the answer says that later may do.
            for password in ("yet another", PASSWORD):
                assert await refusal(server, one, password, "SCRAM-SHA-256") \
                    == "temporary-auth-failure"
                assert await refusal(server, one, password, "PLAIN") == "temporary-auth-failure"
                assert await asyncio.to_thread(told, password) == "temporary-auth-failure"
            await owner.settled()
            async with Person(server, two) as other:
                await other.settled()
            # A minute after the first guess the owner gets in again.
            await asyncio.sleep(MINUTE_S)
            async with Person(server, one) as again:
                await again.settled()

    scenario(play())


def test_mail_that_finds_no_room_comes_back_and_there_is_room_again(server):
    two, stranger = server.friends[1], server.stranger

    async def fills(sender, first):
        bodies = [f"message {count}" for count in range(first, first + OFFLINE_MAX + 2)]
        for body in bodies:
            sender.send_message(mto=stranger, mbody=body, mtype="chat")
        for body in bodies[OFFLINE_MAX:]:
            returned = await sender.message()
            assert (returned["type"], returned["body"]) == ("error", body)
            assert returned["error"]["condition"] == "resource-constraint"
            assert returned["error"]["type"] == "wait"
        await sender.settled()
        assert sender.messages.empty()
        return bodies[:OFFLINE_MAX]

    async def play():
        async with Person(server, two) as sender:
            for first in (0, 100):
                kept = await fills(sender, first)
                async with Person(server, stranger) as reader:
                    reader.send_presence()
                    for body in kept:
                        message = await reader.message()
                        assert message["body"] == body and message["delay"]["stamp"]
                    await reader.settled()
                    assert reader.messages.empty()

    scenario(play())
