"""slixmpp, whose sessions end in every way there is: whoever saw them is told that they went."""

import asyncio

import pytest

from test_management import Resident
from test_messaging import Person
from test_slixmpp import SECONDS_MAX, scenario


async def leaves(client):
    client.send_presence(ptype="unavailable")
    await client.settled()


async def closes(client):
    await asyncio.wait_for(client.disconnect(), SECONDS_MAX)


async def is_cut(client):
    client.transport.abort()


async def breaks_the_stream(client):
    client.send_raw("<message></presence>")
    await asyncio.wait_for(client.disconnected, SECONDS_MAX)


async def is_replaced(client):
    async with Person(client.under_test, client.boundjid.full) as newer:
        await newer.settled()


async def cancels_the_account(client):
    # slixmpp makes another one as soon as this has come true.
    disconnected = client.disconnected
    await client.plugin["xep_0077"].cancel_registration(timeout=SECONDS_MAX)
    await asyncio.wait_for(disconnected, SECONDS_MAX)


async def sees(watcher, full, kind):
    while (await watcher.presence_of(full.split("/")[0], kind))["from"].full != full:
        pass


@pytest.mark.parametrize(
    "kind, goes",
    [
        (Person, leaves),
        (Person, closes),
        (Resident, closes),
        (Person, is_cut),
        (Person, breaks_the_stream),
        (Person, is_replaced),
        # With this the account is gone: it is the last.
        (Person, cancels_the_account),
    ],
    ids=lambda it: it.__name__,
)
def test_whoever_saw_a_session_sees_that_it_ends(server, kind, goes):
    (one, two), stranger = server.friends, server.stranger
    full = f"{two}/b"

    async def play():
        async with Person(server, one) as contact, Person(server, stranger) as other:
            contact.send_presence()
            async with Person(server, f"{one}/phone") as shown, kind(server, full) as client:
                client.send_presence()
                await sees(contact, full, "available")
                for watcher in (shown, other):
                    client.send_presence(pto=watcher.boundjid.full, pstatus="for you")
                    await sees(watcher, full, "available")
                await goes(client)
                for watcher in (contact, shown, other):
                    await sees(watcher, full, "unavailable")

    scenario(play())
