"""What an operator does while people chat: backups, moves (XEP-0227), accounts made and ended."""

import asyncio
import contextlib

import pytest
from slixmpp.xmlstream import ET

from servers import DOMAIN, PASSWORD, Vorpal
from test_management import Resident
from test_messaging import Person
from test_slixmpp import SECONDS_MAX, scenario
from test_starttls import only_vorpal

PASSWORDS = ("montague", "rosaline")
OWN_PASSWORD = "wherefore art thou"
MAIL_COUNT = 10
# Below what may wait for one account, however long a command takes.
CHAT_COUNT_MAX = 500
SETTINGS = "<exodus xmlns='exodus:prefs'><defaultnick>Juliet 🌹</defaultnick></exodus>"


@pytest.fixture
def elsewhere(tmp_path):
    """Another server, that is configured and has no data."""
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    server = Vorpal(directory)
    server.configure()
    yield server
    if server.process and server.process.poll() is None:
        server.stop()


def private(request, element):
    query = ET.SubElement(request.xml, "{jabber:iq:private}query")
    query.append(ET.fromstring(element))
    return request


async def settle_in(server):
    """The first friend has made the account her own, and mail waits for her."""
    one, two = server.friends
    async with Person(server, one) as alice:
        await alice.plugin["xep_0077"].change_password(OWN_PASSWORD, timeout=SECONDS_MAX)
        await alice.update_roster(two, name="Bob & Co", groups=["Friends", "<3"],
                                  timeout=SECONDS_MAX)
        await alice.update_roster(f"benvolio@{DOMAIN}", name="Ben", groups=[],
                                  timeout=SECONDS_MAX)
        await alice.plugin["xep_0191"].block(server.stranger, timeout=SECONDS_MAX)
        card = alice.plugin["xep_0054"].make_vcard()
        card["FN"], card["PHOTO"]["BINVAL"] = "Alice in Wonderland 🐇", b"\x89PNG" + bytes(5000)
        await alice.plugin["xep_0054"].publish_vcard(card, timeout=SECONDS_MAX)
        await private(alice.make_iq_set(), SETTINGS).send(timeout=SECONDS_MAX)
    async with Resident(server, two) as bob:
        await bob.say(one, [f"before, {count}" for count in range(MAIL_COUNT)])


async def belongings(server, jid, password):
    """What a person finds who comes back, and what waited with its times."""
    async with Person(server, jid, password=password) as client:
        roster = {
            bare: (item["name"], set(item["groups"]), item["subscription"])
            for bare, item in ((bare, client.client_roster[bare]) for bare in client.client_roster)
        }
        card = await client.plugin["xep_0054"].get_vcard(jid, timeout=SECONDS_MAX)
        asked = private(client.make_iq_get(), "<exodus xmlns='exodus:prefs'/>")
        settings = await asked.send(timeout=SECONDS_MAX)
        found = {
            "roster": roster,
            "blocked": await client.plugin["xep_0191"].get_blocked_jids(timeout=SECONDS_MAX),
            "name": card["vcard_temp"]["FN"],
            "picture": card["vcard_temp"]["PHOTO"]["BINVAL"],
            "settings": settings.xml.findtext(".//{exodus:prefs}defaultnick"),
        }
        client.send_presence()
        client.send_message(mto=jid, mbody="that is all", mtype="chat")
        waited = []
        while (message := await client.message())["body"] != "that is all":
            waited.append((message["body"], message["delay"]["stamp"]))
        return found, waited


@contextlib.asynccontextmanager
async def chatting(server):
    """Two talk all the while, and one writes to somebody who is away: gives what it writes her."""
    one, two = server.friends
    said, begun, enough = [], asyncio.Event(), asyncio.Event()
    async with Person(server, two) as bob, Person(server, server.stranger) as stranger:
        stranger.send_presence()
        await stranger.presence_of(server.stranger, "available")

        async def talk():
            while len(said) < CHAT_COUNT_MAX and not enough.is_set():
                said.append(f"meanwhile, {len(said)}")
                bob.send_message(mto=one, mbody=said[-1], mtype="chat")
                bob.send_message(mto=server.stranger, mbody=said[-1], mtype="chat")
                assert (await stranger.message())["body"] == said[-1]
                begun.set()

        talking = asyncio.create_task(talk())
        await asyncio.wait_for(begun.wait(), SECONDS_MAX)
        yield said
        enough.set()
        await talking
        await bob.settled()
        assert bob.messages.empty(), "a message came back"


@pytest.mark.parametrize("how", ["backup", "export"])
def test_people_find_everything_on_the_server_that_they_were_moved_to(
    fresh_server, elsewhere, tmp_path, how
):
    only_vorpal(fresh_server)
    server = fresh_server
    one, two = server.friends
    file = tmp_path / how

    async def move():
        await settle_in(server)
        async with chatting(server) as said:
            await asyncio.to_thread(server.command, how, file)
        return said

    async def play():
        meanwhile = await move()
        before = [f"before, {number}" for number in range(MAIL_COUNT)]
        if how == "backup":
            elsewhere.command("restore", file)
            elsewhere.serve()
        else:
            elsewhere.serve()
            elsewhere.command("import", file)
        stayed = await belongings(server, one, OWN_PASSWORD)
        assert stayed[0] == {
            "roster": {two: ("Bob & Co", {"Friends", "<3"}, "both"),
                       f"benvolio@{DOMAIN}": ("Ben", set(), "none")},
            "blocked": {server.stranger},
            "name": "Alice in Wonderland 🐇",
            "picture": b"\x89PNG" + bytes(5000),
            "settings": "Juliet 🌹",
        }
        assert [body for body, _ in stayed[1]] == before + meanwhile
        # What was said until some moment of the command, in its order and with its times.
        moved = await belongings(elsewhere, one, OWN_PASSWORD)
        assert moved[0] == stayed[0]
        assert len(moved[1]) >= MAIL_COUNT and moved[1] == stayed[1][: len(moved[1])]
        await goes_on(server, elsewhere)

    scenario(play())


async def goes_on(server, elsewhere):
    """Who moved is who was there, and nobody else."""
    one, two = server.friends
    guess = Person(elsewhere, one, password=PASSWORD)
    assert await guess.log_in() == "refused"
    guess.abort()
    async with Person(elsewhere, one, password=OWN_PASSWORD) as alice:
        alice.send_presence()
        await alice.settled()
        assert alice.messages.empty(), "what was delivered is gone"
        async with Person(elsewhere, two) as bob, Person(elsewhere, server.stranger) as stranger:
            bob.send_presence()
            await bob.presence_of(one, "available")
            await alice.presence_of(two, "available")
            bob.send_message(mto=one, mbody="here we are", mtype="chat")
            assert (await alice.message())["body"] == "here we are"
            stranger.send_message(mto=one, mbody="me too", mtype="chat")
            assert (await stranger.message())["error"]["condition"] == "service-unavailable"


def test_accounts_are_made_and_ended_while_the_server_runs(server):
    only_vorpal(server)
    romeo, friend = f"romeo@{DOMAIN}", server.friends[0]

    async def types(*words):
        await asyncio.to_thread(server.command, "user", *words)

    async def refused(password):
        client = Person(server, romeo, password=password)
        assert await client.log_in() == "refused"
        client.abort()

    async def befriended(client, alice):
        alice.send_presence(pto=romeo, ptype="subscribed")
        client.send_presence(pto=friend, ptype="subscribed")
        client.send_presence(pto=friend, ptype="subscribe")
        await client.request("subscribed", friend)
        alice.send_presence(pto=romeo, ptype="subscribe")
        await alice.request("subscribed", romeo)
        await alice.presence_of(romeo, "available")

    async def play():
        await refused(PASSWORDS[0])
        await types("add", romeo, "--password", PASSWORDS[0])
        older, newer = (Person(server, romeo, password=password) for password in PASSWORDS)
        async with Person(server, friend) as alice, older as client:
            alice.send_presence()
            client.send_presence()
            await befriended(client, alice)
            # With a new password nobody stays who is there by the old one.
            ends = asyncio.Queue()
            client.add_event_handler("stream_error", lambda e: ends.put_nowait(e["condition"]))
            await types("passwd", romeo, "--password", PASSWORDS[1])
            assert await asyncio.wait_for(ends.get(), SECONDS_MAX) == "reset"
            await refused(PASSWORDS[0])
            await newer.__aenter__()
            newer.add_event_handler("stream_error", lambda e: ends.put_nowait(e["condition"]))
            newer.send_presence()
            await alice.presence_of(romeo, "available")
            await types("del", romeo)
            assert await asyncio.wait_for(ends.get(), SECONDS_MAX) == "not-authorized"
            await alice.presence_of(romeo, "unavailable")
            alice.send_message(mto=romeo, mbody="where are you", mtype="chat")
            assert (await alice.message())["error"]["condition"] == "service-unavailable"
        await refused(PASSWORDS[1])
        # Whoever gets the name next gets nothing else.
        await types("add", romeo, "--password", PASSWORDS[0])
        async with Person(server, romeo, password=PASSWORDS[0]) as client:
            assert not list(client.client_roster)

    scenario(play())
