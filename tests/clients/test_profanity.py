"""profanity, driven through tmux, over STARTTLS with certificate checking on."""

import asyncio
import os
import shutil
import subprocess
import time
import uuid

import pytest

from servers import DOMAIN, PASSWORD
from test_messaging import Person
from test_slixmpp import Client

SECONDS_MAX = 40


class Profanity:
    """One profanity in a terminal of its own, with a home of its own."""

    def __init__(self, server, jid, home, trusted, resource="prof", port=None):
        self.jid = jid
        self.resource = resource
        self.session = f"profanity-{uuid.uuid4().hex[:8]}"
        self.socket = home / "tmux"
        accounts = home / "data" / "profanity"
        settings = home / "config" / "profanity"
        accounts.mkdir(parents=True)
        settings.mkdir(parents=True)
        (accounts / "accounts").write_text(
            f"[{jid}]\nenabled=true\njid={jid}\npassword={PASSWORD}\n"
            f"resource={resource}\nserver=127.0.0.1\nport={port or server.port}\n"
            "tls.policy=force\n"
        )
        (settings / "profrc").write_text(
            "[connection]\nautoping=0\nreconnect=1\n"
            "[ui]\nsplash=false\ntime.chat=%Y-%m-%dT%H:%M:%SZ\n[notifications]\nmessage=false\n"
        )
        # OpenSSL's roots are this directory and nothing else.
        empty = home / "empty.pem"
        empty.write_text("")
        environment = {
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_DATA_HOME": str(home / "data"),
            "SSL_CERT_FILE": str(empty),
            "SSL_CERT_DIR": str(trusted),
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "TERM": "screen",
        }
        self.tmux("-f", "/dev/null", "new-session", "-d", "-s", self.session, "-x", "180",
                  "-y", "60", "profanity", environment=environment)

    def tmux(self, *arguments, environment=None):
        done = subprocess.run(
            ["tmux", "-u", "-S", str(self.socket), *arguments],
            capture_output=True, text=True, timeout=SECONDS_MAX, env=environment,
        )
        assert done.returncode == 0, f"tmux {arguments}: {done.stderr}"
        return done.stdout

    def type(self, line):
        self.tmux("send-keys", "-t", self.session, "-l", line)
        self.tmux("send-keys", "-t", self.session, "Enter")

    def screen(self):
        rows = self.tmux("capture-pane", "-p", "-t", self.session).splitlines()
        return "\n".join(row.rstrip() for row in rows if row.strip())

    def shows(self, *wanted):
        """Waits until all of it stands on the screen."""
        until = time.monotonic() + SECONDS_MAX
        while True:
            screen = self.screen()
            if all(text in screen for text in wanted):
                return screen
            assert time.monotonic() < until, f"{wanted} did not appear:\n{screen}"
            time.sleep(0.1)

    def console(self, line):
        """Types it in the console, of which nothing older is left to be mistaken for the answer."""
        self.type("/win 1")
        self.type("/clear")
        self.type(line)

    async def answers(self, line, *wanted, without=()):
        """Asks again until the answer has all of it, and nothing of what must be gone."""
        until = time.monotonic() + SECONDS_MAX
        while True:
            await asyncio.to_thread(self.console, line)
            again = time.monotonic() + 1
            while time.monotonic() < again:
                screen = await asyncio.to_thread(self.screen)
                if all(text in screen for text in wanted):
                    if not any(text in screen for text in without):
                        return
                    break
                await asyncio.sleep(0.05)
            assert time.monotonic() < until, f"{wanted} without {without} did not appear:\n{screen}"

    def send(self, stanza):
        """Sends a stanza by hand, as a person does for whom there is no command."""
        self.type("/xmlconsole")
        self.shows("XML Console")
        self.type(stanza)
        self.type("/win 1")

    async def until(self, *wanted):
        return await asyncio.to_thread(self.shows, *wanted)

    def connect(self):
        self.shows("Type '/help'")
        self.type(f"/connect {self.jid}")

    def log_in(self):
        self.connect()
        self.shows("logged in successfully")

    def quit(self):
        # The private tmux server holds only this session, and goes with it.
        subprocess.run(["tmux", "-S", str(self.socket), "kill-session", "-t", self.session],
                       capture_output=True, timeout=SECONDS_MAX, check=False)


@pytest.fixture
def open_profanity(server, tmp_path):
    if not shutil.which("profanity") or not shutil.which("tmux"):
        pytest.fail("profanity and tmux are needed: apt-get install profanity tmux")
    opened = []

    def open_one(jid, trusted, **options):
        home = tmp_path / f"home{len(opened)}"
        opened.append(Profanity(server, jid, home, trusted, **options))
        return opened[-1]

    yield open_one
    for profanity in opened:
        profanity.quit()


def test_profanity_chats_and_sees_presence_and_errors(server, open_profanity):
    one, two = server.friends
    profanity = open_profanity(one, server.directory / "trusted")
    profanity.connect()
    profanity.shows("logged in successfully")

    async def play():
        async with Client(server, f"{two}/desk") as friend:
            friend.send_presence(pstatus="at the desk")
            await friend.presence_of(one, "available")
            await profanity.until(f'++ {two} (desk) is online, "at the desk"')
            profanity.type(f"/msg {two} hello from the terminal")
            message = await friend.message()
            assert message["body"] == "hello from the terminal"
            assert message["from"].full == f"{one}/prof"
            friend.send_message(mto=message["from"], mbody="hello from the desk", mtype="chat")
            await profanity.until("hello from the desk")
        profanity.type("/win 1")
        await profanity.until(f"-- {two} (desk) is offline")

    asyncio.run(play())
    profanity.type(f"/msg nobody@{DOMAIN} is anybody there")
    profanity.shows(f"Error from nobody@{DOMAIN}: service-unavailable")


def test_profanity_befriends_and_blocks_and_hears_what_it_missed(server, open_profanity):
    one, stranger = server.friends[0], server.stranger

    async def before():
        async with Person(server, stranger) as other:
            other.send_presence()
            other.send_message(mto=one, mbody="you were away", mtype="chat")
            await other.settled()

    asyncio.run(before())
    profanity = open_profanity(one, server.directory / "trusted")
    profanity.connect()
    profanity.shows("logged in successfully")
    profanity.type(f"/msg {stranger}")
    profanity.shows("you were away")
    profanity.type("/win 1")

    async def play():
        async with Person(server, f"{stranger}/desk") as other:
            other.send_presence()
            profanity.type(f"/sub request {stranger}")
            await other.request("subscribe", one)
            other.send_presence(pto=one, ptype="subscribed")
            other.send_presence(pto=one, ptype="subscribe")
            await profanity.until(f"{stranger} (desk) is online", "Received authorization request")
            profanity.type(f"/sub allow {stranger}")
            await other.request("subscribed", one)
            await other.presence_of(one, "available")
            profanity.type(f"/blocked add {stranger}")
            await other.presence_of(one, "unavailable")
            other.send_message(mto=one, mbody="hello?", mtype="chat")
            assert (await other.message())["error"]["condition"] == "service-unavailable"
            profanity.type(f"/blocked remove {stranger}")
            await other.presence_of(one, "available")
            profanity.type(f"/roster remove {stranger}")
            await other.presence_of(one, "unavailable")

    asyncio.run(play())


def test_profanity_refuses_an_untrusted_certificate(server, open_profanity, tmp_path):
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    profanity = open_profanity(server.friends[0], nothing)
    profanity.connect()
    screen = profanity.shows("TLS certificate verification failed")
    assert "logged in successfully" not in screen
