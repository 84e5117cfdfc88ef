"""slixmpp, as a person uses a chat server: contacts, messages while away, and what is kept.

Of the extensions: last activity (XEP-0012), private XML (XEP-0049), vcard-temp (XEP-0054) with
pictures (XEP-0153), registration (XEP-0077), messages that wait (XEP-0160), blocking (XEP-0191)
and reports (XEP-0377); and roster versions (RFC 6121 2.6) and approvals given beforehand (3.4).
"""

import asyncio
import contextlib
import hashlib

import pytest
from slixmpp.exceptions import IqError
from slixmpp.xmlstream import ET

from conftest import started
from servers import DOMAIN, PASSWORD
from test_slixmpp import SECONDS_MAX, Client, scenario

NEW = f"newcomer@{DOMAIN}"


@pytest.fixture(scope="module")
def open_server(tmp_path_factory):
    """One where anybody may register, and that says whom to write to."""
    server = started(
        tmp_path_factory.mktemp("open"),
        more='[registration]\nopen = true\n[contact]\nabuse = ["mailto:abuse@localhost"]\n',
    )
    yield server
    server.stop()


class Person(Client):
    """A client with what people use, that decides about subscriptions itself."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.auto_authorize = None
        self.auto_subscribe = False
        for number in ("0004", "0012", "0049", "0054", "0077", "0085", "0191", "0203", "0377"):
            self.register_plugin(f"xep_{number}")
        self.requests = asyncio.Queue()
        for kind in ("subscribe", "subscribed", "unsubscribe", "unsubscribed"):
            self.add_event_handler(f"presence_{kind}", self.requests.put_nowait)

        self.states = asyncio.Queue()
        self.add_event_handler("chatstate", self.states.put_nowait)

    def send_state(self, bare, state):
        message = self.make_message(mto=bare, mtype="chat")
        message["chat_state"] = state
        message.send()

    async def request(self, kind, bare):
        presence = await asyncio.wait_for(self.requests.get(), SECONDS_MAX)
        assert (presence["type"], presence["from"].bare) == (kind, bare)
        return presence

    async def subscription(self, bare, wanted):
        """Waits until the roster says so."""
        async with asyncio.timeout(SECONDS_MAX):
            while self.client_roster[bare]["subscription"] != wanted:
                await asyncio.sleep(0.01)

    async def item(self, bare, **wanted):
        """Waits until the roster says this of the contact; nothing means that it is removed."""
        async with asyncio.timeout(SECONDS_MAX):
            while self.said_of(bare, wanted) != wanted:
                await asyncio.sleep(0.01)

    def said_of(self, bare, wanted):
        if bare not in self.client_roster.keys():
            return {}
        item = self.client_roster[bare]
        said = {key: item[key] for key in wanted} or {"subscription": item["subscription"]}
        if "groups" in said:
            said["groups"] = set(said["groups"])
        return said

    async def settled(self):
        """Everything sent before was handled, and what it made the server send has come."""
        await self.plugin["xep_0199"].ping(DOMAIN, timeout=SECONDS_MAX)


def drain(queue):
    found = []
    while not queue.empty():
        found.append(queue.get_nowait())
    return found


@contextlib.asynccontextmanager
async def friends(server, kind=Person):
    """Two contacts, each in a session of that kind, of whom the second sees the first."""
    one, two = server.friends
    async with kind(server, f"{one}/a") as alice, kind(server, f"{two}/b") as bob:
        alice.send_presence()
        bob.send_presence()
        await bob.presence_of(one, "available")
        yield alice, bob


def test_strangers_become_contacts_and_part_again(server):
    one, stranger = server.friends[0], server.stranger

    async def play():
        async with Person(server, f"{one}/desk") as alice:
            alice.send_presence()
            alice.send_presence(pto=stranger, ptype="subscribe", pstatus="from the party")
            await alice.settled()
        # The request waits for whoever is away, at each login, until it is answered.
        for answered in (False, True):
            async with Person(server, stranger) as bob:
                bob.send_presence()
                asked = await bob.request("subscribe", one)
                assert asked["status"] == "from the party"
                if answered:
                    bob.send_presence(pto=one, ptype="subscribed")
                    await bob.subscription(one, "from")
        async with Person(server, f"{one}/desk") as alice, Person(server, stranger) as bob:
            assert alice.client_roster[stranger]["subscription"] == "to"
            alice.send_presence()
            bob.send_presence(pshow="away", pstatus="now you see me")
            seen = await alice.presence_of(stranger, "away")
            assert seen["status"] == "now you see me"
            bob.send_presence(pto=one, ptype="subscribe")
            await alice.request("subscribe", stranger)
            alice.send_presence(pto=stranger, ptype="subscribed")
            await bob.request("subscribed", one)
            await bob.presence_of(one, "available")
            await bob.subscription(one, "both")
            # He withdraws what he granted: she sees him go.
            bob.send_presence(pto=one, ptype="unsubscribed")
            await alice.request("unsubscribed", stranger)
            await alice.presence_of(stranger, "unavailable")
            await alice.subscription(stranger, "from")
            await alice.del_roster_item(stranger)
            await bob.presence_of(one, "unavailable")
            await bob.subscription(one, "none")

    scenario(play())


def test_an_approval_given_beforehand_answers_the_request(server):
    one, stranger = server.friends[0], server.stranger

    async def play():
        async with Person(server, f"{one}/desk") as alice, Person(server, stranger) as bob:
            alice.send_presence()
            bob.send_presence()
            alice.send_presence(pto=stranger, ptype="subscribed")
            await alice.settled()
            bob.send_presence(pto=one, ptype="subscribe")
            await bob.request("subscribed", one)
            await bob.presence_of(one, "available")
            await alice.subscription(stranger, "from")
            # She was asked nothing.
            await alice.settled()
            assert alice.requests.empty()
            await alice.del_roster_item(stranger)
            await bob.subscription(one, "none")
            await bob.del_roster_item(one)

    scenario(play())


def test_a_stranger_who_was_shown_presence_is_told_of_the_end(server):
    one, stranger = server.friends[0], server.stranger

    async def play():
        async with Person(server, stranger) as bob:
            bob.send_presence()
            async with Person(server, f"{one}/desk") as alice:
                alice.send_presence()
                alice.send_presence(pto=bob.boundjid.full, pstatus="for you alone")
                seen = await bob.presence_of(one, "available")
                assert seen["status"] == "for you alone"
            gone = await bob.presence_of(one, "unavailable")
            assert gone["from"].resource == "desk"

    scenario(play())


def test_a_request_is_denied_and_another_is_withdrawn(server):
    one, stranger = server.friends[0], server.stranger

    async def play():
        async with Person(server, f"{one}/desk") as alice:
            alice.send_presence()
            alice.send_presence(pto=stranger, ptype="subscribe")
            await alice.item(stranger, pending_out=True)
            async with Person(server, stranger) as bob:
                bob.send_presence()
                await bob.request("subscribe", one)
                bob.send_presence(pto=one, ptype="unsubscribed")
                await alice.request("unsubscribed", stranger)
                await alice.item(stranger, subscription="none", pending_out=False)
                # What was answered is not asked again.
                await bob.settled()
                assert bob.requests.empty()
            alice.send_presence(pto=stranger, ptype="subscribe")
            await alice.item(stranger, pending_out=True)
            alice.send_presence(pto=stranger, ptype="unsubscribe")
            await alice.item(stranger, pending_out=False)
            async with Person(server, stranger) as bob:
                bob.send_presence()
                await bob.settled()
                asked = [request["type"] for request in drain(bob.requests)]
                assert "subscribe" not in asked, "it was withdrawn while he was away"
            await alice.del_roster_item(stranger)

    scenario(play())


def test_a_roster_has_names_and_groups_and_every_client_knows(server):
    one, added = server.friends[0], f"benvolio@{DOMAIN}"

    async def play():
        async with Person(server, f"{one}/desk") as desk, Person(server, f"{one}/phone") as phone:
            groups = ["Friends", "The Montagues & Co <3"]
            await desk.update_roster(added, name="Benvolio", groups=groups, timeout=SECONDS_MAX)
            await phone.item(added, name="Benvolio", groups=set(groups))
            await phone.update_roster(added, name="Ben", groups=["Cousins"], timeout=SECONDS_MAX)
            await desk.item(added, name="Ben", groups={"Cousins"})
            async with Person(server, f"{one}/tablet") as tablet:
                await tablet.item(added, name="Ben", groups={"Cousins"})
            await desk.del_roster_item(added)
            await phone.item(added)
            async with Person(server, f"{one}/tablet") as tablet:
                assert added not in tablet.client_roster.keys()

    scenario(play())


class Returning(Person):
    """A client with the roster of its last session, that notes what it is told of it."""

    def __init__(self, server, jid, kept, version):
        super().__init__(server, jid)
        self.client_roster.version = version
        for bare, fields in kept.items():
            for field, value in fields.items():
                self.client_roster[bare][field] = value
        self.told = {}
        self.add_event_handler("roster_update", self.note)

    def note(self, iq):
        for jid, item in iq["roster"]["items"].items():
            self.told[jid.bare] = item["subscription"]


def test_a_client_that_kept_its_roster_is_told_what_changed(server):
    one, two = server.friends
    old, gone, new = (f"{name}@{DOMAIN}" for name in ("mercutio", "tybalt", "benvolio"))

    async def kept_by(client):
        await client.settled()
        roster = client.client_roster
        fields = ("name", "groups", "from", "to", "pending_out")
        kept = {bare: {field: roster[bare][field] for field in fields} for bare in roster}
        return kept, roster.version

    async def play():
        async with Person(server, f"{one}/desk") as desk:
            for bare in (old, gone):
                await desk.update_roster(bare, timeout=SECONDS_MAX)
                await desk.item(bare, subscription="none")
            kept = await kept_by(desk)
        async with Returning(server, f"{one}/desk", *kept) as desk:
            kept = await kept_by(desk)
            assert desk.told == {}
        async with Person(server, f"{one}/phone") as phone:
            await phone.update_roster(new, name="Ben", timeout=SECONDS_MAX)
            await phone.update_roster(two, name="Juliet", timeout=SECONDS_MAX)
            await phone.del_roster_item(gone)
        async with Returning(server, f"{one}/desk", *kept) as desk:
            kept = await kept_by(desk)
            assert desk.told == {new: "none", two: "both", gone: "remove"}
            await desk.item(two, name="Juliet", subscription="both")
            await desk.item(old, subscription="none")
            await desk.item(gone)
        # Of a version that never was, everything is told.
        async with Returning(server, f"{one}/desk", kept[0], "of another server") as desk:
            await desk.settled()
            assert desk.told == {new: "none", two: "both", old: "none"}
            await desk.update_roster(two, name="", timeout=SECONDS_MAX)
            for bare in (old, new):
                await desk.del_roster_item(bare)

    scenario(play())


def test_each_resource_has_its_presence_and_priority(server):
    one, two = server.friends

    async def play():
        async with Person(server, f"{two}/b") as bob:
            bob.send_presence()
            here, there = Person(server, f"{one}/desk"), Person(server, f"{one}/phone")
            async with here as desk, there as phone:
                desk.send_presence(ppriority=5, pshow="away", pstatus="at supper")
                phone.send_presence(ppriority=-1)
                seen = {}
                while len(seen) < 2:
                    presence = await bob.presence_of(one)
                    seen[presence["from"].resource] = (presence["type"], presence["priority"])
                    seen.pop("", None)
                assert seen == {"desk": ("away", 5), "phone": ("available", -1)}
                await phone.presence_of(one, "away")
                bob.send_message(mto=one, mbody="to the account", mtype="chat")
                bob.send_message(mto=f"{one}/phone", mbody="to the phone", mtype="chat")
                assert (await desk.message())["body"] == "to the account"
                assert (await phone.message())["body"] == "to the phone"
                # Nobody is left who wants what is sent to the account: it waits.
                desk.send_presence(ptype="unavailable")
                gone = await bob.presence_of(one, "unavailable")
                assert gone["from"].resource == "desk"
                bob.send_message(mto=one, mbody="later", mtype="chat")
                await bob.settled()
                await phone.settled()
                assert phone.messages.empty()
                phone.send_presence(ppriority=0)
                message = await phone.message()
                assert message["body"] == "later" and message["delay"]["stamp"]

    scenario(play())


def test_each_resource_gets_what_is_for_it_and_nothing_else(server):
    one, two = server.friends

    async def until_end(client):
        bodies = []
        while (message := await client.message())["body"] != "end":
            bodies.append(message["body"])
        return bodies

    async def play():
        here, there = Person(server, f"{one}/desk"), Person(server, f"{one}/phone")
        async with here as desk, there as phone, Person(server, f"{two}/b") as bob:
            for client, priority in ((desk, 7), (phone, 0)):
                client.send_presence(ppriority=priority)
                await client.settled()
            for to, kind, body in [
                (one, "chat", "to the account"),
                (f"{one}/desk", "chat", "to the desk"),
                (f"{one}/phone", "normal", "to the phone"),
                (f"{one}/tablet", "chat", "to where nobody is"),
                (one, "headline", "news"),
            ]:
                bob.send_message(mto=to, mbody=body, mtype=kind)
            # What cannot be for an account as a whole, or for who is not there, comes back.
            for to, kind in ((one, "groupchat"), (f"{one}/tablet", "normal")):
                bob.send_message(mto=to, mbody="never", mtype=kind)
                answer = await bob.message()
                assert (answer["from"], answer["error"]["condition"]) == (to, "service-unavailable")
            # One that left is still there for what names it; what it writes is for nobody else.
            phone.send_presence(ptype="unavailable")
            await phone.settled()
            bob.send_message(mto=one, mbody="who is there", mtype="chat")
            bob.send_message(mto=f"{one}/phone", mbody="are you there", mtype="chat")
            phone.send_message(mto=f"{two}/b", mbody="I am", mtype="chat")
            assert (await bob.message())["body"] == "I am"
            for resource in ("desk", "phone"):
                bob.send_message(mto=f"{one}/{resource}", mbody="end", mtype="chat")
            assert await until_end(desk) == [
                "to the account", "to the desk", "to where nobody is", "news", "who is there",
            ]
            assert await until_end(phone) == [
                "to the account", "to the phone", "to where nobody is", "news", "are you there",
            ]

    scenario(play())


def test_messages_wait_for_who_is_away(server):
    one, two = server.friends

    async def play():
        async with Person(server, one) as alice:
            alice.send_presence()
            for count in range(20):
                alice.send_message(mto=two, mbody=f"while you were away {count}", mtype="chat")
            alice.send_state(two, "composing")
            await alice.settled()
        async with Person(server, two) as bob, Person(server, one) as alice:
            bob.send_presence()
            for count in range(20):
                message = await bob.message()
                assert message["body"] == f"while you were away {count}"
                assert message["delay"]["stamp"] and message["delay"]["from"].bare == DOMAIN
            # The first chat state that he hears is one of now.
            alice.send_state(two, "paused")
            state = await asyncio.wait_for(bob.states.get(), SECONDS_MAX)
            assert state["chat_state"] == "paused", "a chat state was stored"
        async with Person(server, two) as bob:
            bob.send_presence()
            await bob.settled()
            assert bob.messages.empty(), "what was delivered is gone"

    scenario(play())


def test_a_blocked_contact_is_neither_heard_nor_shown_anything(server):
    one, two = server.friends

    async def play():
        async with friends(server) as (alice, bob):
            await alice.plugin["xep_0191"].block(two, timeout=SECONDS_MAX)
            await bob.presence_of(one, "unavailable")
            assert await alice.plugin["xep_0191"].get_blocked_jids(timeout=SECONDS_MAX) == {two}
            bob.send_message(mto=one, mbody="do you hear me", mtype="chat")
            answer = await bob.message()
            assert (answer["type"], answer["error"]["condition"]) == ("error", "service-unavailable")
            with pytest.raises(IqError) as refusal:
                await bob.plugin["xep_0199"].ping(f"{one}/a", timeout=SECONDS_MAX)
            assert refusal.value.condition == "service-unavailable"
            # Nor can she write to him by accident.
            alice.send_message(mto=two, mbody="oh, sorry", mtype="chat")
            answer = await alice.message()
            assert answer["error"]["condition"] == "not-acceptable"
            await alice.plugin["xep_0191"].unblock(two, timeout=SECONDS_MAX)
            await bob.presence_of(one, "available")
            bob.send_message(mto=one, mbody="and now", mtype="chat")
            assert (await alice.message())["body"] == "and now"

    scenario(play())


def test_a_spammer_is_reported(server):
    one, two = server.friends

    async def play():
        async with Person(server, one) as alice:
            request = alice.make_iq_set()
            request.xml.append(ET.fromstring(
                f"<block xmlns='urn:xmpp:blocking'><item jid='{two}'>"
                "<report xmlns='urn:xmpp:reporting:1' reason='urn:xmpp:reporting:spam'>"
                "<text>Never came trouble to my house like this.</text></report></item></block>"
            ))
            await request.send(timeout=SECONDS_MAX)
            assert await alice.plugin["xep_0191"].get_blocked_jids(timeout=SECONDS_MAX) == {two}
            await alice.plugin["xep_0191"].unblock(two, timeout=SECONDS_MAX)
        said = (server.directory / "log").read_text(errors="replace")
        assert "Never came trouble" in said

    if server.name == "vorpal":
        scenario(play())


def test_settings_and_a_card_are_kept(server):
    one, two = server.friends

    async def play():
        async with Person(server, one) as alice:
            query = alice.make_iq_set()
            query.xml.append(ET.fromstring(
                "<query xmlns='jabber:iq:private'><exodus xmlns='exodus:prefs'>"
                "<defaultnick>Hamlet</defaultnick></exodus></query>"
            ))
            await query.send(timeout=SECONDS_MAX)
            card = alice.plugin["xep_0054"].make_vcard()
            card["FN"] = "Alice in Wonderland 🐇"
            card["NICKNAME"] = "alice"
            await alice.plugin["xep_0054"].publish_vcard(card, timeout=SECONDS_MAX)
        async with Person(server, one) as alice, Person(server, two) as bob:
            query = alice.make_iq_get()
            query.xml.append(ET.fromstring(
                "<query xmlns='jabber:iq:private'><exodus xmlns='exodus:prefs'/></query>"
            ))
            answer = await query.send(timeout=SECONDS_MAX)
            assert answer.xml.findtext(".//{exodus:prefs}defaultnick") == "Hamlet"
            seen = await bob.plugin["xep_0054"].get_vcard(one, timeout=SECONDS_MAX)
            assert seen["vcard_temp"]["FN"] == "Alice in Wonderland 🐇"

    scenario(play())


class Portrayed(Person):
    """A client that announces its picture, and asks for those that others announce."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.register_plugin("xep_0153")
        self.announced = asyncio.Queue()
        self.add_event_handler("vcard_avatar_update", self.announced.put_nowait)

    async def picture_of(self, bare, size):
        """The picture of that size, once its hash stands in a presence."""
        while True:
            presence = await asyncio.wait_for(self.announced.get(), SECONDS_MAX)
            stamp = presence["vcard_temp_update"]["photo"]
            if presence["from"].bare != bare or not stamp:
                continue
            answer = await self.plugin["xep_0054"].get_vcard(bare, timeout=SECONDS_MAX)
            picture = answer["vcard_temp"]["PHOTO"]["BINVAL"]
            # The server and the client both announce it: one of the picture before may still come.
            if len(picture) == size and stamp == hashlib.sha1(picture).hexdigest():
                return picture


def test_a_picture_is_announced_in_presence(server):
    two = server.friends[1]

    async def play():
        async with friends(server, Portrayed) as (alice, bob):
            await alice.presence_of(two, "available")
            for size in (3000, 5000):
                picture = b"\x89PNG" + bytes(size - 4)
                await bob.plugin["xep_0153"].set_avatar(
                    avatar=picture, mtype="image/png", timeout=SECONDS_MAX
                )
                assert await alice.picture_of(two, size) == picture
            # Who comes later sees it as well.
            async with Portrayed(server, f"{server.friends[0]}/phone") as phone:
                phone.send_presence()
                assert await phone.picture_of(two, size) == picture

    scenario(play())


def test_contacts_ask_since_when_somebody_is_away_and_strangers_are_told_nothing(server):
    one, two = server.friends

    async def play():
        async with Person(server, one) as alice:
            alice.send_presence()
            alice.send_presence(ptype="unavailable", pstatus="gone fishing")
            await alice.settled()
        async with Person(server, two) as bob, Person(server, server.stranger) as stranger:
            seen = await bob.plugin["xep_0012"].get_last_activity(one, timeout=SECONDS_MAX)
            assert 0 <= seen["last_activity"]["seconds"] < 2 * SECONDS_MAX
            with pytest.raises(IqError) as refusal:
                await stranger.plugin["xep_0012"].get_last_activity(one, timeout=SECONDS_MAX)
            assert refusal.value.condition in ("forbidden", "service-unavailable")

    scenario(play())


def test_an_account_is_registered_used_and_cancelled(open_server):
    server = open_server

    async def register():
        client = Person(server, NEW, password="first")
        client.plugin["xep_0077"].force_registration = True
        asked = asyncio.get_running_loop().create_future()

        async def fill(form):
            assert {"username", "password"} <= set(form["register"]["fields"])
            answer = client.make_iq_set()
            answer["register"]["username"] = client.boundjid.user
            answer["register"]["password"] = "first"
            await answer.send(timeout=SECONDS_MAX)
            asked.set_result(None)

        client.add_event_handler("register", fill)
        async with client:
            await asked
            await client.plugin["xep_0077"].change_password("second", timeout=SECONDS_MAX)

    async def play():
        await register()
        old = Person(server, NEW, password="first")
        assert await old.log_in() == "refused"
        old.abort()
        async with Person(server, NEW, password="second") as client:
            # slixmpp makes another one as soon as this has come true.
            disconnected = client.disconnected
            await client.plugin["xep_0077"].cancel_registration(timeout=SECONDS_MAX)
            await asyncio.wait_for(disconnected, SECONDS_MAX)
        again = Person(server, NEW, password="second")
        assert await again.log_in() == "refused"
        again.abort()

    scenario(play())


def test_the_server_says_whom_to_write_to(open_server):
    async def play():
        async with Person(open_server, open_server.friends[0]) as alice:
            info = await alice.plugin["xep_0030"].get_info(jid=DOMAIN, timeout=SECONDS_MAX)
            form = info["disco_info"].xml.find("{jabber:x:data}x")
            fields = {
                field.get("var"): [value.text for value in field.iter("{jabber:x:data}value")]
                for field in form.iter("{jabber:x:data}field")
            }
            assert fields["FORM_TYPE"] == ["http://jabber.org/network/serverinfo"]
            assert fields["abuse-addresses"] == ["mailto:abuse@localhost"]

    scenario(play())
