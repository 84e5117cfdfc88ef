"""go-sendxmpp, a client in Go for scripts: it sends, it listens, and sends stanzas by hand.

go-sendxmpp 0.5.7 has no command for anything but messages: rosters, subscriptions, blocking, last
activity, private XML, vCards and the change and end of an account go through its --raw, and what
came of it is asked by slixmpp or read in its --debug. What it cannot do at all: register an
account, stay with a priority other than 0 or be away, manage or resume a stream (XEP-0198), and
come back by itself: a listener whose server is gone reports errors without end, until a person
starts it again.
"""

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import threading
import time

import pytest
from slixmpp.xmlstream import ET

from servers import DOMAIN, PASSWORD
from test_messaging import Person, open_server
from test_profanity import open_profanity
from test_slixmpp import Client

SECONDS_MAX = 40


def command(server, *options, account=None):
    if not shutil.which("go-sendxmpp"):
        pytest.fail("go-sendxmpp is needed: apt-get install go-sendxmpp")
    port = server.tls_port if "--tls" in options else server.port
    return ["go-sendxmpp", "--username", account or server.friends[0], "--password", PASSWORD,
            "--jserver", f"127.0.0.1:{port}", *options]


def environment(trusted):
    return dict(os.environ, SSL_CERT_FILE=str(trusted), SSL_CERT_DIR=str(trusted.parent / "no"))


def send(server, text, *options, trusted=None, to=None, account=None):
    recipients = [server.friends[1]] if to is None else to
    return subprocess.run(
        [*command(server, *options, account=account), *recipients], input=text, text=True,
        env=environment(trusted or server.ca), capture_output=True, timeout=SECONDS_MAX,
    )


async def sends(server, text, *options, **more):
    done = await asyncio.to_thread(send, server, text, *options, **more)
    assert done.returncode == 0, done.stderr


async def by_hand(server, stanza, account=None):
    """Sends a stanza as it stands."""
    await sends(server, stanza, "--raw", to=[], account=account)


class Listener:
    """A go-sendxmpp that prints the messages that come."""

    def __init__(self, server, account, *options):
        self.said = []
        self.process = subprocess.Popen(
            command(server, "--listen", *options, account=account), text=True,
            env=environment(server.ca), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.said.append(line.rstrip("\n"))

    async def prints(self, pattern):
        until = time.monotonic() + SECONDS_MAX
        while not any(re.fullmatch(pattern, line) for line in list(self.said)):
            assert time.monotonic() < until, f"{pattern} was not printed: {self.said}"
            await asyncio.sleep(0.02)

    def end(self):
        self.process.kill()
        self.process.wait()
        self.reader.join()
        self.process.stdout.close()


@contextlib.contextmanager
def listening(*arguments):
    listener = Listener(*arguments)
    try:
        yield listener
    finally:
        listener.end()


@pytest.mark.parametrize("options", [(), ("--tls",)], ids=["starttls", "direct"])
def test_a_message_arrives(server, options):
    async def play():
        async with Client(server, server.friends[1]) as friend:
            friend.send_presence()
            await friend.presence_of(server.friends[1], "available")
            await sends(server, "from go", *options)
            message = await friend.message()
            assert message["body"].strip() == "from go"
            assert message["from"].bare == server.friends[0]

    asyncio.run(play())


def test_a_message_to_who_is_away_waits(server):
    done = send(server, "sent before you came")
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


def test_a_message_goes_to_several_from_a_file_and_from_a_named_resource(server, tmp_path):
    one, two = server.friends
    file = tmp_path / "message"
    file.write_text("first line\nsecond line <&> 🦊\n")

    async def play():
        async with Client(server, two) as friend, Client(server, server.stranger) as stranger:
            friend.send_presence()
            stranger.send_presence()
            await friend.presence_of(two, "available")
            await stranger.presence_of(server.stranger, "available")
            await sends(server, "", "--message", str(file), "--resource", "cron",
                        to=[two, server.stranger])
            for reader in (friend, stranger):
                message = await reader.message()
                assert message["body"].strip() == "first line\nsecond line <&> 🦊"
                assert message["from"].full == f"{one}/cron"
            # As its contact, the friend saw it come and go.
            await friend.presence_of(one, "available")
            await friend.presence_of(one, "unavailable")

    asyncio.run(play())


def test_each_line_is_a_message_where_it_is_interactive(server):
    two = server.friends[1]

    async def play():
        async with Client(server, two) as friend:
            friend.send_presence()
            await friend.presence_of(two, "available")
            process = subprocess.Popen(
                command(server, "--interactive", two), env=environment(server.ca), text=True,
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            try:
                for count in range(5):
                    process.stdin.write(f"line {count}\n")
                    process.stdin.flush()
                    assert (await friend.message())["body"].strip() == f"line {count}"
            finally:
                process.kill()
                process.communicate()

    asyncio.run(play())


def test_one_listens_to_the_other(server):
    one, two = server.friends
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"

    async def play():
        await sends(server, "before you listened")
        async with Client(server, one) as friend:
            friend.send_presence()
            # Only what this contact says is shown.
            with listening(server, two, one) as listener:
                await listener.prints(f"{stamp} {one}: before you listened")
                await friend.presence_of(two, "available")
                await sends(server, "not for your ears", account=server.stranger)
                await sends(server, "while you listen", "--tls")
                await listener.prints(f"{stamp} {one}: while you listen")
                assert not [line for line in listener.said if "not for your ears" in line]
            # It is gone, and so is nothing that is said now.
            await friend.presence_of(two, "unavailable")
        await sends(server, "after you left")
        with listening(server, two) as listener:
            await listener.prints(f"{stamp} {one}: after you left")

    asyncio.run(play())


def test_what_a_listener_missed_by_a_killed_server_waits_for_it(fresh_server):
    server = fresh_server
    one, two = server.friends

    async def play():
        async with Client(server, one) as friend:
            friend.send_presence()
            with listening(server, two) as listener:
                await friend.presence_of(two, "available")
                await sends(server, "before the kill")
                await listener.prints(f".* {one}: before the kill")
                listener.end()
                await friend.presence_of(two, "unavailable")
                await sends(server, "and nobody was there")
                await asyncio.to_thread(server.kill)
            friend.abort()
        done = await asyncio.to_thread(send, server, "to nobody")
        assert done.returncode != 0
        await asyncio.to_thread(server.serve)
        await sends(server, "after the kill")
        with listening(server, two) as listener:
            await listener.prints(f".* {one}: and nobody was there")
            await listener.prints(f".* {one}: after the kill")

    asyncio.run(play())


async def until(client, namespace, wanted, query="<query xmlns='{}'/>", to=None):
    """Asks the account's own data until it says what was sent by hand."""
    async with asyncio.timeout(SECONDS_MAX):
        while True:
            request = client.make_iq_get(ito=to)
            request.xml.append(ET.fromstring(query.format(namespace)))
            answer = ET.tostring((await request.send(timeout=SECONDS_MAX)).xml, encoding="unicode")
            if wanted in answer:
                return
            await asyncio.sleep(0.05)


def test_last_activity_is_asked_for_by_hand(server):
    one, two = server.friends
    ask = "<iq type='get' id='last' to='{}'><query xmlns='jabber:iq:last'/></iq>"

    async def answer(to, pattern):
        async with asyncio.timeout(SECONDS_MAX):
            while True:
                done = await asyncio.to_thread(
                    send, server, ask.format(to), "--raw", "--debug", to=[], account=two
                )
                if re.search(f"id='last'.*{pattern}", done.stderr):
                    return

    async def play():
        await answer(DOMAIN, "seconds='[0-9]+'")
        await answer(server.stranger, "<forbidden ")
        async with Client(server, f"{one}/desk") as friend:
            friend.send_presence()
            await friend.presence_of(one, "available")
            await answer(one, "seconds='0'")
        await answer(one, "seconds='[0-9]+'")

    asyncio.run(play())


def test_it_and_a_profanity_talk(server, open_profanity):
    one, two = server.friends
    profanity = open_profanity(two, server.directory / "trusted")
    profanity.log_in()

    async def play():
        with listening(server, one) as listener:
            await profanity.answers(f"/info {one}", "Subscription: both", "go-sendxmpp")
            await sends(server, "from one terminal to another")
            profanity.type(f"/msg {one}")
            await profanity.until("from one terminal to another")
            profanity.type("and back")
            await listener.prints(f".* {two}: and back")
        await profanity.answers(f"/info {one}", "Subscription: both", without=["go-sendxmpp"])
        profanity.type(f"/msg {one} until you listen again")
        await profanity.until("until you listen again")
        with listening(server, one) as listener:
            await listener.prints(f".* {two}: until you listen again")

    asyncio.run(play())


def test_a_roster_a_card_and_settings_are_kept_by_hand(server):
    one, two = server.friends

    async def play():
        async with Person(server, f"{one}/desk") as desk, Person(server, two) as friend:
            await by_hand(server, "<iq type='set' id='r'><query xmlns='jabber:iq:roster'><item "
                          f"jid='{two}' name='Juliet'><group>Verona</group></item></query></iq>")
            await desk.item(two, name="Juliet", groups={"Verona"})
            await by_hand(server, "<iq type='set' id='p'><query xmlns='jabber:iq:private'>"
                          "<go xmlns='go:prefs'>kept</go></query></iq>")
            await until(desk, "jabber:iq:private", ">kept<",
                        "<query xmlns='{}'><go xmlns='go:prefs'/></query>")
            await by_hand(server, "<iq type='set' id='v'><vCard xmlns='vcard-temp'>"
                          "<FN>Go Gopher</FN></vCard></iq>")
            await until(friend, "vcard-temp", "Go Gopher", "<vCard xmlns='{}'/>", to=one)
            await by_hand(server, "<iq type='set' id='r'><query xmlns='jabber:iq:roster'><item "
                          f"jid='{two}'/></query></iq>")
            await desk.item(two, name="", groups=set())

    asyncio.run(play())


async def sees(client, full, kind):
    while (await client.presence_of(full.split("/")[0], kind))["from"].full != full:
        pass


def test_strangers_become_contacts_and_are_blocked_by_hand(server):
    one, stranger = server.friends[0], server.stranger

    async def play():
        async with Person(server, stranger) as other, Person(server, f"{one}/desk") as desk:
            other.send_presence()
            desk.send_presence()
            await by_hand(server, f"<presence to='{stranger}' type='subscribe'/>")
            await other.request("subscribe", one)
            other.send_presence(pto=one, ptype="subscribed")
            await desk.request("subscribed", stranger)
            await desk.presence_of(stranger, "available")
            # The other way round: asked and denied, asked again and allowed.
            for answer in ("unsubscribed", "subscribed"):
                other.send_presence(pto=one, ptype="subscribe")
                await desk.request("subscribe", stranger)
                await by_hand(server, f"<presence to='{stranger}' type='{answer}'/>")
                await other.request(answer, one)
            await sees(other, f"{one}/desk", "available")
            block = "<iq type='set' id='b'><{0} xmlns='urn:xmpp:blocking'>" \
                "<item jid='{1}'/></{0}></iq>"
            await by_hand(server, block.format("block", stranger))
            await sees(other, f"{one}/desk", "unavailable")
            other.send_message(mto=one, mbody="hello?", mtype="chat")
            assert (await other.message())["error"]["condition"] == "service-unavailable"
            await by_hand(server, block.format("unblock", stranger))
            await sees(other, f"{one}/desk", "available")
            # What was allowed is cancelled, and what was asked for given up.
            await by_hand(server, f"<presence to='{stranger}' type='unsubscribed'/>")
            await other.request("unsubscribed", one)
            await sees(other, f"{one}/desk", "unavailable")
            await by_hand(server, f"<presence to='{stranger}' type='unsubscribe'/>")
            await other.request("unsubscribe", one)
            await by_hand(server, "<iq type='set' id='r'><query xmlns='jabber:iq:roster'><item "
                          f"jid='{stranger}' subscription='remove'/></query></iq>")
            await desk.item(stranger)

    asyncio.run(play())


def test_a_password_is_changed_and_the_account_ended_by_hand(open_server):
    server = open_server
    account = f"gopher@{DOMAIN}"
    user = "<iq type='set' id='{}' to='localhost'><query xmlns='jabber:iq:register'>{}</query></iq>"

    async def play():
        client = Person(server, account)
        client.plugin["xep_0077"].force_registration = True

        async def fill(_):
            answer = client.make_iq_set()
            answer["register"]["username"], answer["register"]["password"] = "gopher", PASSWORD
            await answer.send(timeout=SECONDS_MAX)

        client.add_event_handler("register", fill)
        async with client:
            pass
        new = "<username>gopher</username><password>burrow</password>"
        await by_hand(server, user.format("c", new), account=account)
        async with asyncio.timeout(SECONDS_MAX):
            while (await asyncio.to_thread(send, server, "x", account=account)).returncode == 0:
                await asyncio.sleep(0.05)
        ended = user.format("e", "<remove/>")
        await sends(server, ended, "--raw", "--password", "burrow", to=[], account=account)
        again = Person(server, account, password="burrow")
        assert await again.log_in() == "refused"
        again.abort()

    asyncio.run(play())
