"""slixmpp with stream management: its network goes, the server stops or is killed, and nothing is lost."""

import asyncio

import pytest
from slixmpp.plugins.xep_0198.stanza import Enable

from test_messaging import Person, drain, friends
from test_slixmpp import SECONDS_MAX, scenario

COUNT = 40


class Resident(Person):
    """A client that comes back by itself, with the session that it had."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.register_plugin("xep_0198")
        self.resumed = asyncio.Queue()
        self.add_event_handler("session_resumed", self.resumed.put_nowait)
        self.add_event_handler("sm_failed", lambda _: self.resumed.put_nowait(None))
        self.enabled = asyncio.get_running_loop().create_future()
        self.add_event_handler("sm_enabled", lambda _: self.enabled.set_result(None))

    async def __aenter__(self):
        await super().__aenter__()
        await asyncio.wait_for(self.enabled, SECONDS_MAX)
        return self

    async def come_back(self):
        """Connects again until the server is there, and resumes."""
        async with asyncio.timeout(2 * SECONDS_MAX):
            while True:
                port = self.under_test.tls_port if self.direct else self.under_test.port
                self.connect("127.0.0.1", port)
                back = asyncio.create_task(self.resumed.get())
                lost = asyncio.create_task(wait_for(self, "connection_failed"))
                done, rest = await asyncio.wait({back, lost}, return_when=asyncio.FIRST_COMPLETED)
                for task in rest:
                    task.cancel()
                if back in done:
                    assert back.result() is not None, "the session was gone"
                    return
                await asyncio.sleep(0.2)

    def lose_network(self):
        self.transport.abort()

    async def gone(self):
        async with asyncio.timeout(SECONDS_MAX):
            while self.transport is not None and not self.transport.is_closing():
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)

    async def say(self, bare, bodies):
        """Sends messages, and waits until all are acknowledged."""
        for body in bodies:
            self.send_message(mto=bare, mbody=body, mtype="chat")
        plugin = self.plugin["xep_0198"]
        async with asyncio.timeout(SECONDS_MAX):
            while plugin.unacked_queue:
                plugin.request_ack()
                await asyncio.sleep(0.05)


async def wait_for(client, event):
    happened = asyncio.get_running_loop().create_future()

    def note(value):
        if not happened.done():
            happened.set_result(value)

    client.add_event_handler(event, note, disposable=True)
    return await happened


async def read(client, wanted):
    bodies = [(await client.message())["body"] for _ in wanted]
    assert bodies == wanted
    await client.settled()
    assert client.messages.empty(), "something came twice"


def test_a_lost_network_loses_no_message(server):
    _, two = server.friends

    async def play():
        async with friends(server, Resident) as (alice, bob):
            for round_ in range(3):
                bob.lose_network()
                await bob.gone()
                wanted = [f"round {round_}, {count}" for count in range(COUNT)]
                await alice.say(two, wanted)
                await bob.come_back()
                await read(bob, wanted)
            # Nobody was seen to go.
            assert not [p for p in drain(alice.presences) if p["type"] == "unavailable"]

    scenario(play())


def test_who_does_not_come_back_in_time_is_gone_and_what_came_meanwhile_waits(server):
    one, two = server.friends

    def in_a_hurry(stanza):
        if isinstance(stanza, Enable):
            stanza["max"] = "2"
        return stanza

    async def play():
        async with Resident(server, f"{one}/a") as alice:
            alice.send_presence()
            bob = Resident(server, f"{two}/b")
            bob.add_filter("out", in_a_hurry)
            async with bob:
                bob.send_presence()
                await alice.presence_of(two, "available")
                bob.lose_network()
                await bob.gone()
                wanted = [f"are you there? {count}" for count in range(COUNT)]
                await alice.say(f"{two}/b", wanted)
                await alice.presence_of(two, "unavailable")
            async with Resident(server, f"{two}/b") as bob:
                bob.send_presence()
                await read(bob, wanted)

    scenario(play())


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_server_that_ends_loses_no_acknowledged_message(fresh_server, how):
    server = fresh_server
    one, two = server.friends

    async def play():
        async with friends(server, Resident) as (alice, bob):
            bob.lose_network()
            await bob.gone()
            wanted = [f"before, {count}" for count in range(COUNT)]
            await alice.say(two, wanted)
            await asyncio.to_thread(getattr(server, how))
            await alice.gone()
            await asyncio.to_thread(server.serve)
            await alice.come_back()
            await bob.come_back()
            await read(bob, wanted)
            alice.send_message(mto=two, mbody="afterwards", mtype="chat")
            await read(bob, ["afterwards"])
            bob.send_message(mto=f"{one}/a", mbody="and back", mtype="chat")
            assert (await alice.message())["body"] == "and back"

    scenario(play())


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_who_does_not_come_back_to_a_server_that_ended_is_seen_to_be_gone(fresh_server, how):
    server = fresh_server
    one, two = server.friends

    async def play():
        async with Resident(server, f"{one}/a") as alice, Person(server, f"{two}/b") as bob:
            alice.send_presence()
            bob.send_presence(pstatus="without stream management")
            await alice.presence_of(two, "available")
            # Her presence is stored: it is acknowledged.
            await alice.say(two, [])
            await asyncio.to_thread(getattr(server, how))
            await alice.gone()
            await asyncio.to_thread(server.serve)
            await alice.come_back()
            await alice.presence_of(two, "unavailable")
            # He missed nothing either, when he is there again.
            await alice.say(two, ["while you were gone"])
            async with Person(server, f"{two}/b") as again:
                again.send_presence()
                assert (await again.message())["body"] == "while you were gone"
                await alice.presence_of(two, "available")
                await again.presence_of(one, "available")

    scenario(play())
