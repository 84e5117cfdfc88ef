"""External components (XEP-0114): slixmpp's, and biboumi, the gateway to IRC, where it is installed."""

import asyncio
import shutil
import subprocess
import time

import pytest
import slixmpp
from slixmpp.exceptions import IqError
from slixmpp.xmlstream import ET

from conftest import kind, started
from servers import DOMAIN, free_port
from test_slixmpp import SECONDS_MAX, Client, scenario

GATEWAY = f"gateway.{DOMAIN}"
IRC = f"irc.{DOMAIN}"
SECRET = "what two of them know"
PORT = free_port()
COMMANDS = "http://jabber.org/protocol/commands"

pytestmark = pytest.mark.skipif(kind() != "vorpal", reason="the configuration is vorpal's")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = started(
        tmp_path_factory.mktemp("components"),
        more="\n".join(f'[component."{name}"]\nsecret = "{SECRET}"' for name in (GATEWAY, IRC)),
        listen=f'component = "127.0.0.1:{PORT}"\n',
    )
    yield server
    server.stop()


class Component(slixmpp.ComponentXMPP):
    """A component that echoes, says yes to who asks, and keeps what else arrives."""

    def __init__(self, secret=SECRET):
        super().__init__(GATEWAY, secret, "127.0.0.1", PORT)
        self.auto_reconnect = False
        self.outcome = asyncio.get_running_loop().create_future()
        self.presences = asyncio.Queue()
        self.errors = asyncio.Queue()
        for plugin in ("xep_0030", "xep_0092", "xep_0199"):
            self.register_plugin(plugin)
        self.plugin["xep_0030"].add_identity(category="gateway", itype="irc", name="a gateway")
        self.add_event_handler("session_start", lambda _: self.settle("in"))
        self.add_event_handler("disconnected", lambda _: self.settle("out"))
        self.add_event_handler("stream_error", self.errors.put_nowait)
        self.add_event_handler("message", self.echo)
        for event in ("available", "unavailable", "probe"):
            self.add_event_handler(f"presence_{event}", self.presences.put_nowait)
        self.add_event_handler("presence_subscribe", self.allow)

    def settle(self, outcome):
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    def echo(self, message):
        if message["type"] != "error":
            message.reply(f"you said: {message['body']}").send()

    def allow(self, presence):
        own, asker = presence["to"].bare, presence["from"].bare
        self.send_presence(pto=asker, pfrom=own, ptype="subscribed")
        self.send_presence(pto=asker, pfrom=f"{own}/x", pstatus="here")
        self.send_presence(pto=asker, pfrom=own, ptype="subscribe")

    async def presence(self, kind):
        """The next presence of that type."""
        while True:
            presence = await asyncio.wait_for(self.presences.get(), SECONDS_MAX)
            if presence["type"] == kind:
                return presence

    async def __aenter__(self):
        self.connect()
        assert await asyncio.wait_for(self.outcome, SECONDS_MAX) == "in"
        return self

    async def __aexit__(self, *_):
        await asyncio.wait_for(self.disconnect(), SECONDS_MAX)


def test_a_component_and_users_talk_and_ask_each_other(server):
    async def play():
        user = server.friends[0]
        async with Component() as component, Client(server, f"{user}/a") as client:
            client.send_presence()
            await client.presence_of(user)
            for count in range(20):
                client.send_message(mto=f"echo@{GATEWAY}", mbody=f"{count} <&> 🦊", mtype="chat")
            for count in range(20):
                message = await client.message()
                assert message["body"] == f"you said: {count} <&> 🦊"
                assert message["from"].bare == f"echo@{GATEWAY}"
            info = await client.plugin["xep_0030"].get_info(GATEWAY, timeout=SECONDS_MAX)
            assert ("gateway", "irc", None, "a gateway") in info["disco_info"]["identities"]
            items = await client.plugin["xep_0030"].get_items(DOMAIN, timeout=SECONDS_MAX)
            listed = {str(item[0]) for item in items["disco_items"]["items"]}
            assert listed == {GATEWAY, IRC}
            assert await client.plugin["xep_0199"].ping(GATEWAY, timeout=SECONDS_MAX) is not None
            # The other way: a client, and the server itself.
            version = await component.plugin["xep_0092"].get_version(
                f"{user}/a", ifrom=GATEWAY, timeout=SECONDS_MAX
            )
            assert version["software_version"]["name"] == "Slixmpp"
            version = await component.plugin["xep_0092"].get_version(
                DOMAIN, ifrom=GATEWAY, timeout=SECONDS_MAX
            )
            assert version["software_version"]["name"] == "Vorpal"
            await component.plugin["xep_0199"].ping(DOMAIN, ifrom=GATEWAY, timeout=SECONDS_MAX)

    scenario(play())


def test_a_contact_at_a_component_is_subscribed_to_and_told_of_presence(server):
    async def play():
        user, contact = server.stranger, f"nick@{GATEWAY}"
        async with Component() as component:
            async with Client(server, f"{user}/a") as client:
                await client.get_roster(timeout=SECONDS_MAX)
                client.send_presence()
                await client.presence_of(user)
                client.send_presence_subscription(pto=contact)
                presence = await client.presence_of(contact, "available")
                assert (presence["from"].resource, presence["status"]) == ("x", "here")
                # slixmpp's client says yes to the request that came with it.
                presence = await component.presence("available")
                assert presence["from"].full == f"{user}/a"
                # By the pushes, which came before the answer to this.
                await client.get_roster(timeout=SECONDS_MAX)
                assert client.client_roster[contact]["subscription"] == "both"
            presence = await component.presence("unavailable")
            assert (presence["from"].full, presence["to"].full) == (f"{user}/a", contact)

    scenario(play())


def test_a_wrong_secret_is_refused_and_who_is_not_connected_does_not_answer(server):
    async def play():
        component = Component(secret="what nobody knows")
        component.connect()
        error = await asyncio.wait_for(component.errors.get(), SECONDS_MAX)
        assert error["condition"] == "not-authorized"
        assert await asyncio.wait_for(component.outcome, SECONDS_MAX) == "out"
        async with Client(server, f"{server.friends[0]}/a") as client:
            with pytest.raises(IqError) as refusal:
                await client.plugin["xep_0199"].send_ping(GATEWAY, timeout=SECONDS_MAX)
            assert refusal.value.condition == "remote-server-timeout"

    scenario(play())


@pytest.fixture
def biboumi(server, tmp_path):
    """The gateway to IRC, connected."""
    config = tmp_path / "biboumi.cfg"
    config.write_text(
        f"hostname={IRC}\npassword={SECRET}\nxmpp_server_ip=127.0.0.1\nport={PORT}\n"
        f"db_name={tmp_path / 'biboumi.sqlite'}\nlog_level=0\nadmin={server.friends[0]}\n"
        "identd_port=0\n"
    )
    # Another one may have been there before.
    before = (server.directory / "log").stat().st_size
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(["biboumi", config], stdout=log, stderr=log, cwd=tmp_path)
    until = time.monotonic() + SECONDS_MAX
    while IRC.encode() not in (said := (server.directory / "log").read_bytes()[before:]):
        own = (tmp_path / "log").read_text(errors="replace")
        assert process.poll() is None, f"biboumi ended at once:\n{own}"
        assert time.monotonic() < until, f"biboumi did not connect:\n{own}\n{said}"
        time.sleep(0.02)
    yield process
    if process.poll() is None:
        process.kill()
        process.wait()


@pytest.mark.skipif(not shutil.which("biboumi"), reason="biboumi is not installed")
def test_biboumi_is_found_and_lists_its_commands_and_answers_them(server, biboumi):
    async def play():
        async with Client(server, f"{server.friends[0]}/a") as client:
            client.send_presence()
            info = await client.plugin["xep_0030"].get_info(IRC, timeout=SECONDS_MAX)
            identities = info["disco_info"]["identities"]
            assert any(one[:2] == ("conference", "irc") for one in identities), identities
            assert COMMANDS in info["disco_info"]["features"]
            items = await client.plugin["xep_0030"].get_items(IRC, node=COMMANDS, timeout=SECONDS_MAX)
            commands = {item[1] for item in items["disco_items"]["items"]}
            assert {"ping", "hello"} <= commands, commands
            iq = client.make_iq_set(ito=IRC)
            iq.append(ET.Element(f"{{{COMMANDS}}}command", node="ping", action="execute"))
            answer = await iq.send(timeout=SECONDS_MAX)
            (command,) = answer.xml.iter(f"{{{COMMANDS}}}command")
            assert command.attrib["status"] == "completed"
            assert "Pong" in [note.text for note in command.iter(f"{{{COMMANDS}}}note")]
            await client.plugin["xep_0199"].send_ping(IRC, timeout=SECONDS_MAX)

    scenario(play())
    biboumi.terminate()
    biboumi.wait(SECONDS_MAX)
    until = time.monotonic() + SECONDS_MAX
    while "component disconnected" not in (server.directory / "log").read_text():
        assert time.monotonic() < until, "the server did not notice that biboumi ended"
        time.sleep(0.02)


class Irc:
    """As much of an IRC server as one user of one channel needs."""

    def __init__(self):
        self.said = asyncio.Queue()
        self.left = asyncio.Event()
        self.nick = "nobody"

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()
        self.writer.close()
        await asyncio.wait_for(self.writer.wait_closed(), SECONDS_MAX)

    def tell(self, line):
        self.writer.write(f"{line}\r\n".encode())

    async def serve(self, reader, writer):
        self.writer = writer
        while line := (await reader.readline()).decode().strip():
            verb, _, rest = line.partition(" ")
            own = f"{self.nick}!u@h"
            if verb == "NICK":
                self.nick = rest.lstrip(":")
            elif verb == "CAP" and rest.startswith("REQ"):
                self.tell(f":irc.test CAP * ACK {rest.removeprefix('REQ ')}")
            elif verb == "USER":
                self.tell(f":irc.test 001 {self.nick} :welcome")
                self.tell(f":irc.test 376 {self.nick} :End of /MOTD command.")
            elif verb == "PING":
                self.tell(f":irc.test PONG irc.test {rest}")
            elif verb == "JOIN":
                self.tell(f":{own} JOIN {rest}")
                self.tell(f":irc.test 353 {self.nick} = {rest} :{self.nick} other")
                self.tell(f":irc.test 366 {self.nick} {rest} :End of /NAMES list.")
            elif verb == "PRIVMSG":
                self.said.put_nowait(rest)
            elif verb in ("PART", "QUIT"):
                self.left.set()
        writer.close()


async def use_port(client, port):
    """Tells biboumi by its form which port the IRC server has."""
    to, data = f"127.0.0.1@{IRC}", "jabber:x:data"
    iq = client.make_iq_set(ito=to)
    iq.append(ET.Element(f"{{{COMMANDS}}}command", node="configure", action="execute"))
    answer = await iq.send(timeout=SECONDS_MAX)
    (command,) = answer.xml.iter(f"{{{COMMANDS}}}command")
    assert command.attrib["status"] == "executing"
    iq = client.make_iq_set(ito=to)
    attributes = {"node": "configure", "action": "complete", **command.attrib}
    attributes.pop("status")
    done = ET.Element(f"{{{COMMANDS}}}command", attributes)
    form = ET.SubElement(done, f"{{{data}}}x", type="submit")
    for var, value in (("ports", str(port)), ("tls_ports", "")):
        field = ET.SubElement(form, f"{{{data}}}field", var=var)
        ET.SubElement(field, f"{{{data}}}value").text = value
    iq.append(done)
    answer = await iq.send(timeout=SECONDS_MAX)
    (command,) = answer.xml.iter(f"{{{COMMANDS}}}command")
    assert command.attrib["status"] == "completed"


@pytest.mark.skipif(not shutil.which("biboumi"), reason="biboumi is not installed")
def test_a_user_talks_in_a_channel_of_irc_and_leaves_it_by_logging_out(server, biboumi):
    async def play():
        channel = f"#c%127.0.0.1@{IRC}"
        async with Irc() as irc:
            async with Client(server, f"{server.friends[0]}/a") as client:
                client.send_presence()
                await use_port(client, irc.port)
                join = client.make_presence(pto=f"{channel}/alice")
                join.append(ET.Element("{http://jabber.org/protocol/muc}x"))
                join.send()
                while True:
                    presence = await client.presence_of(channel)
                    assert presence["type"] != "error", presence
                    if presence["from"].resource == "alice":
                        break
                irc.tell(":other!u@h PRIVMSG #c :hello <alice>")
                while (message := await client.message())["body"] != "hello <alice>":
                    pass
                assert message["from"].full == f"{channel}/other"
                assert message["type"] == "groupchat"
                client.send_message(mto=channel, mbody="hello other", mtype="groupchat")
                said = await asyncio.wait_for(irc.said.get(), SECONDS_MAX)
                assert said == "#c :hello other"
            # No farewell of the client's own: the server withdraws its presence.
            await asyncio.wait_for(irc.left.wait(), SECONDS_MAX)

    scenario(play())
