"""profanity, whose network is lost and whose server ends: it comes back, and missed nothing.

profanity 0.13.1 has stream management (XEP-0198): its libstrophe resumes the stream in the first
attempt after a loss. If that attempt finds nobody, it forgets the stream and logs in anew; what
was said meanwhile then comes as any message that waited, with the time at which it was said.
"""

import asyncio
import contextlib
import datetime
import re

import pytest

from test_management import Resident
from test_messaging import Person, drain
from test_profanity import open_profanity
from test_slixmpp import SECONDS_MAX, scenario


class Relay:
    """The network between a client and the server, that somebody may cut."""

    def __init__(self, server):
        self.server = server
        self.links = set()
        self.passes = asyncio.Event()
        self.passes.set()
        self.refuses = False
        self.tried = asyncio.Event()

    async def __aenter__(self):
        self.listener = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        self.port = self.listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.listener.close()
        self.cut()

    async def accept(self, reader, writer):
        if self.refuses:
            self.tried.set()
            writer.transport.abort()
            return
        await self.passes.wait()
        try:
            beyond = await asyncio.open_connection("127.0.0.1", self.server.port)
        except OSError:
            writer.transport.abort()
            return
        link = (writer, beyond[1])
        self.links.add(link)
        await asyncio.gather(self.carry(reader, beyond[1]), self.carry(beyond[0], writer))
        self.links.discard(link)

    async def carry(self, reader, writer):
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                await self.passes.wait()
                writer.write(chunk)
                await writer.drain()
        writer.transport.abort()

    def cut(self):
        """Both ends are told that the connection is gone."""
        for link in self.links:
            for writer in link:
                writer.transport.abort()

    def fall_silent(self):
        """Nothing passes any more, and nobody is told."""
        self.passes.clear()

    def mend(self):
        """What was on its way when the network fell silent never arrives."""
        self.cut()
        self.refuses = False
        self.passes.set()


@contextlib.asynccontextmanager
async def over_a_relay(server, open_profanity, kind=Person):
    """profanity behind a relay, and a friend of it who is always there."""
    one, two = server.friends
    async with Relay(server) as relay, kind(server, f"{two}/desk") as friend:
        friend.send_presence()
        profanity = open_profanity(one, server.directory / "trusted", port=relay.port)
        await asyncio.to_thread(profanity.log_in)
        await friend.presence_of(one, "available")
        yield relay, profanity, friend


async def shows_once(profanity, friend, bodies):
    """All of it in the window of the chat, in order, and none twice."""
    profanity.type(f"/msg {friend.boundjid.bare}")
    screen = await profanity.until(*bodies)
    assert [screen.count(body) for body in bodies] == [1] * len(bodies), screen
    assert sorted(bodies, key=screen.index) == bodies, screen
    return screen


async def talks(profanity, friend):
    profanity.type(f"/msg {friend.boundjid.bare} I am back")
    message = await friend.message()
    assert message["body"] == "I am back"
    friend.send_message(mto=message["from"], mbody="so I see", mtype="chat")
    await profanity.until("so I see")


def went(friend):
    """Whether the terminal was seen to go: who resumes is not."""
    seen = drain(friend.presences)
    return any(p["type"] == "unavailable" and p["from"].resource == "prof" for p in seen)


@pytest.mark.parametrize("outage", ["short", "long"])
def test_profanity_whose_network_is_lost_misses_nothing(server, open_profanity, outage):
    one = server.friends[0]
    said = [f"while {outage} cut off, {count}." for count in range(12)]

    async def play():
        async with over_a_relay(server, open_profanity) as (relay, profanity, friend):
            drain(friend.presences)
            relay.refuses = outage == "long"
            relay.cut()
            await profanity.until("Lost connection.")
            for body in said:
                friend.send_message(mto=one, mbody=body, mtype="chat")
            await friend.settled()
            said_at = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"
            if outage == "long":
                # It has tried in vain.
                await asyncio.wait_for(relay.tried.wait(), SECONDS_MAX)
                relay.mend()
            await profanity.until("Connection re-established.")
            screen = await shows_once(profanity, friend, said)
            await talks(profanity, friend)
            if outage == "short":
                assert not went(friend), "it did not resume"
            else:
                # It came seconds later, and is shown as of when it was said.
                stamps = re.findall(r"(\S+Z) - .*while", screen)
                assert len(stamps) == len(said) and max(stamps) <= said_at, screen

    scenario(play())


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_profanity_whose_server_ends_misses_nothing(fresh_server, open_profanity, how):
    server = fresh_server
    one = server.friends[0]
    before = [f"before the {how}, {count}." for count in range(12)]
    after = [f"after the {how}, {count}." for count in range(12)]

    async def play():
        async with over_a_relay(server, open_profanity, Resident) as (relay, profanity, friend):
            # It is said and acknowledged, and does not reach the terminal any more.
            drain(friend.presences)
            relay.fall_silent()
            await friend.say(one, before)
            await asyncio.to_thread(getattr(server, how))
            relay.cut()
            await profanity.until("Lost connection.")
            await friend.gone()
            await asyncio.to_thread(server.serve)
            await friend.come_back()
            await friend.say(one, after)
            relay.mend()
            await profanity.until("Connection re-established.")
            await shows_once(profanity, friend, before + after)
            await talks(profanity, friend)
            assert not went(friend), "it did not resume"

    scenario(play())
