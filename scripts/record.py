#!/usr/bin/env python3
"""Records what real clients and the server say to each other, for tests/corpus.

usage: scripts/record.py [CLIENT..]

Drives slixmpp, profanity, go-sendxmpp and tokio-xmpp as alice and bob of `vorpal.test` through a
proxy on the loopback: it does the TLS that the server agreed to, with a certificate of a throw-away
CA, speaks in clear to the server, and keeps both directions. (So nobody can bind a login to the
connection: where a client would rather not use SCRAM then, PLAIN is recorded.) The stanzas, cut
apart by expat, go to tests/corpus/recorded/CLIENT.txt in the order in which they were complete,
separated by a line `%%`; all that one connection of a client wrote goes to
tests/corpus/streams/CLIENT-ACCOUNT-NUMBER.txt as it was.

Needs what tests/clients/run.sh makes (run it once) and VORPAL, the server's binary, which is
target/debug/vorpal by default. Run it with the Python of that environment, or any that has slixmpp.
"""

import asyncio
import contextlib
import logging
import os
import pathlib
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import xml.parsers.expat

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
VENV = TARGET / "clients/venv/bin/python"
if VENV.exists() and pathlib.Path(sys.prefix) != VENV.parent.parent:
    os.execv(VENV, [str(VENV), *sys.argv])

os.environ.setdefault("VORPAL", str(TARGET / "debug/vorpal"))
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "tests/clients"))
import servers  # noqa: E402

DOMAIN = servers.DOMAIN = "vorpal.test"
import test_profanity  # noqa: E402
from slixmpp.exceptions import IqError  # noqa: E402
from test_slixmpp import Client  # noqa: E402

ALICE, BOB = f"alice@{DOMAIN}", f"bob@{DOMAIN}"
NOBODY = f"nobody@{DOMAIN}"
RECORDED = ROOT / "tests/corpus/recorded"
STREAMS = ROOT / "tests/corpus/streams"
SECONDS_MAX = 40
HEADER = re.compile(rb"(?:<\?xml[^>]*\?>\s*)?<(?:\w+:)?stream[\s>]")
STARTTLS_OFFER = re.compile(rb"<starttls\b[^>]*(?:/>|>.*?</starttls>)", re.S)


class Server(servers.Vorpal):
    """A server that lets the proxy in without TLS, with alice and bob."""

    def start(self):
        servers.make_certificates(self.directory)
        config = self.directory / "vorpal.toml"
        config.write_text(
            f'domain = "{DOMAIN}"\ndata = "{self.directory / "data"}"\nshards = 2\n'
            f'[listen]\nc2s = "127.0.0.1:{self.port}"\nc2s_tls = []\n[tls]\nrequired = false\n'
            f'cert = "{self.directory / "cert.pem"}"\nkey = "{self.directory / "key.pem"}"\n'
            "[auth]\nplain_without_tls = true\n"
        )
        for jid in (ALICE, BOB):
            servers.run(self.binary(), "user", "add", jid, "--password", servers.PASSWORD,
                        "--config", config)
        self.friends = (ALICE, BOB)
        ready = self.directory / "ready"
        command = (self.binary(), "serve", "--config", config, "--ready-file", ready)
        self.launch(command, ready.exists)


class Connection:
    """Both directions of one connection: all bytes, and the tick at which each chunk was there."""

    def __init__(self, recorder):
        self.recorder = recorder
        self.bytes = {"client": b"", "server": b""}
        self.ends = {"client": [], "server": []}

    def keep(self, side, chunk):
        self.recorder.tick += 1
        self.bytes[side] += chunk
        self.ends[side].append((len(self.bytes[side]), self.recorder.tick))

    def account(self):
        bound = re.search(rb"<jid>([^@<]+)@", self.bytes["server"])
        return bound.group(1).decode() if bound else None

    def elements(self):
        """(tick, text) of every element beneath a stream header."""
        for side in ("client", "server"):
            ends = iter(self.ends[side])
            end, tick = 0, 0
            for start, stop in cut(self.bytes[side]):
                while end < stop:
                    end, tick = next(ends)
                yield tick, self.bytes[side][start:stop].decode()


def tag_end(data, start):
    """Where the tag that starts there ends; an attribute may contain `>`."""
    quote = None
    for index in range(start, len(data)):
        byte = data[index:index + 1]
        if quote:
            quote = None if byte == quote else quote
        elif byte in (b"'", b'"'):
            quote = byte
        elif byte == b">":
            return index + 1
    raise ValueError("a tag without an end")


def cut(data):
    """The places of the elements one level below the stream headers."""
    headers = [found.start() for found in HEADER.finditer(data)] + [len(data)]
    for base, stop in zip(headers, headers[1:]):
        document, found, open_at = data[base:stop], [], []
        parser = xml.parsers.expat.ParserCreate()

        def opened(*_, parser=parser, open_at=open_at):
            open_at.append(parser.CurrentByteIndex)

        def closed(*_, parser=parser, open_at=open_at, found=found, document=document, base=base):
            start = open_at.pop()
            if len(open_at) == 1:
                end = tag_end(document, start)
                if document[end - 2:end] != b"/>":
                    end = tag_end(document, parser.CurrentByteIndex)
                found.append((base + start, base + end))

        parser.StartElementHandler, parser.EndElementHandler = opened, closed
        parser.Parse(document, False)
        yield from found


class Recorder:
    """The proxy in front of a server; to a client of tests/clients it is the server."""

    def __init__(self, server, name):
        self.server, self.name = server, name
        self.ca, self.directory, self.friends = server.ca, server.directory, server.friends
        self.connections, self.tick = [], 0
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(server.directory / "cert.pem", server.directory / "key.pem")

    async def __aenter__(self):
        self.listener = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.listener.close()

    async def serve(self, reader, writer):
        connection = Connection(self)
        self.connections.append(connection)
        # A reset is an end like any other, and a client may leave at any time.
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            if await self.relay(connection, reader, writer, is_clear=True):
                await writer.start_tls(self.tls)
                await self.relay(connection, reader, writer, is_clear=False)
        writer.close()

    async def relay(self, connection, reader, writer, is_clear):
        """Carries both directions to the end, or to <proceed/>: then the answer is yes."""
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.server.port)

        async def upwards():
            while chunk := await reader.read(65536):
                connection.keep("client", chunk)
                up_writer.write(chunk)
                await up_writer.drain()
            up_writer.write_eof()

        async def downwards():
            while chunk := await up_reader.read(65536):
                if not is_clear:
                    # TLS is there already, only the server does not know.
                    chunk = STARTTLS_OFFER.sub(b"", chunk)
                connection.keep("server", chunk)
                writer.write(chunk)
                await writer.drain()
                if is_clear and b"<proceed" in chunk:
                    return True
            if writer.can_write_eof():
                writer.write_eof()
            return False

        sending = asyncio.create_task(upwards())
        try:
            proceeds = await downwards()
            if not proceeds:
                await asyncio.wait([sending], timeout=1)
            return proceeds
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError, ssl.SSLError):
                await sending
            up_writer.close()

    def write(self):
        """Leaves the files of this client; says what there is."""
        for folder in (RECORDED, STREAMS):
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob(f"{self.name}[.-]*txt"):
                old.unlink()
        elements = sorted(
            (pair for connection in self.connections for pair in connection.elements()),
            key=lambda pair: pair[0],
        )
        kept = list(dict.fromkeys(text for _, text in elements if "\n%%\n" not in text))
        (RECORDED / f"{self.name}.txt").write_text("\n%%\n".join(kept) + "\n")
        for number, connection in enumerate(self.connections, 1):
            name = f"{self.name}-{connection.account() or 'nobody'}-{number}.txt"
            (STREAMS / name).write_bytes(connection.bytes["client"])
        print(f"{self.name}: {len(kept)} elements, {len(self.connections)} connections")


async def refused(request):
    """Awaits what the server may not offer; its error is as good a record as its answer."""
    with contextlib.suppress(IqError):
        await request


PLUGINS = ("xep_0004", "xep_0045", "xep_0049", "xep_0054", "xep_0059", "xep_0071", "xep_0085",
           "xep_0115", "xep_0184", "xep_0191", "xep_0280", "xep_0308", "xep_0313", "xep_0333",
           "xep_0334", "xep_0352", "xep_0359")


async def record_slixmpp(server, recorder):
    """First of all: here alice and bob become friends."""
    async with Client(recorder, f"{ALICE}/a") as alice, Client(recorder, f"{BOB}/b") as bob:
        for client in (alice, bob):
            for plugin in PLUGINS:
                client.register_plugin(plugin)
            client.send_presence(pshow="chat", pstatus="at the “desk” <&>", ppriority=5)
        alice.send_presence_subscription(pto=BOB, pnick="Alice 🦊")
        for _ in range(SECONDS_MAX * 10):
            if alice.client_roster[BOB]["subscription"] == "both":
                break
            await asyncio.sleep(0.1)
        assert alice.client_roster[BOB]["subscription"] == "both", "they did not become friends"
        await alice.update_roster(BOB, name="Bob's “name” <&>", groups=["friends & more", "<all>"])
        for sender, receiver in ((alice, bob), (bob, alice)):
            to = receiver.boundjid.full
            composing = sender.make_message(mto=to, mtype="chat")
            composing["chat_state"] = "composing"
            composing.send()
            message = sender.make_message(
                mto=to, mtype="chat", mbody="""a <b> & "c" 'd' ]]> é 漢字 🦊\n\tsecond line"""
            )
            message["chat_state"] = "active"
            message["request_receipt"] = True
            message["markable"] = True
            message["origin_id"]["id"] = "origin-1"
            message.enable("store")
            message.send()
            got = await receiver.message()
            assert got["body"].startswith("a <b> & "), got
            correction = sender.make_message(mto=to, mtype="chat", mbody="a correction")
            correction["replace"]["id"] = message["id"]
            correction.send()
            await receiver.message()
        html = alice.make_message(
            mto=BOB, mtype="headline", msubject="a subject", mbody="plain",
            mhtml="<p>not <em>so</em> <a href='http://localhost/?a=1&amp;b=2'>plain</a></p>",
        )
        html.send()
        await bob.message()
        alice.send_message(mto=NOBODY, mbody="is anybody there?", mtype="chat")
        assert (await alice.message())["type"] == "error"
        await ask(alice, bob)
        alice.send_presence(pshow="away", pstatus="")
        await bob.presence_of(ALICE, "away")
        alice.plugin["xep_0045"].join_muc(f"room@rooms.{DOMAIN}", "alice")
        alice.send_presence(ptype="unavailable")
        await bob.presence_of(ALICE, "unavailable")


async def ask(alice, bob):
    """Requests to the server, to the other client, and for what is not there."""
    disco = alice.plugin["xep_0030"]
    for jid in (DOMAIN, ALICE, bob.boundjid.full):
        await refused(disco.get_info(jid=jid, timeout=SECONDS_MAX))
        await refused(disco.get_items(jid=jid, timeout=SECONDS_MAX))
        await refused(alice.plugin["xep_0199"].send_ping(jid, timeout=SECONDS_MAX))
        await refused(alice.plugin["xep_0092"].get_version(jid, timeout=SECONDS_MAX))
        await refused(alice.plugin["xep_0202"].get_entity_time(jid, timeout=SECONDS_MAX))
    await refused(alice.plugin["xep_0054"].get_vcard(BOB, timeout=SECONDS_MAX))
    await refused(alice.plugin["xep_0191"].block(NOBODY, timeout=SECONDS_MAX))
    await refused(alice.plugin["xep_0191"].get_blocked(timeout=SECONDS_MAX))
    await refused(alice.plugin["xep_0280"].enable(timeout=SECONDS_MAX))
    await refused(alice.plugin["xep_0313"].retrieve(with_jid=BOB, timeout=SECONDS_MAX))
    await refused(alice.make_iq_get("urn:xmpp:ping", ito=NOBODY).send(timeout=SECONDS_MAX))


async def record_profanity(server, recorder):
    home = server.directory / "profanity"
    home.mkdir()
    profanity = test_profanity.Profanity(recorder, ALICE, home, server.directory / "trusted")
    try:
        await asyncio.to_thread(profanity.connect)
        await profanity.until("logged in successfully")
        async with Client(server, f"{BOB}/desk") as bob:
            bob.send_presence(pstatus="at the desk")
            await bob.presence_of(ALICE, "available")
            profanity.type(f"/msg {BOB} hello <from> the & \"terminal\" 🦊")
            message = await bob.message()
            while not message["body"]:
                message = await bob.message()
            bob.send_message(mto=message["from"], mbody="hello from the desk", mtype="chat")
            await profanity.until("hello from the desk")
            for line in (f"/ping {DOMAIN}", f"/disco info {DOMAIN}", f"/disco items {DOMAIN}",
                         f"/software {BOB}/desk", "/away at lunch", "/online",
                         f"/roster nick {BOB} Bobby", f"/roster add {NOBODY}",
                         f"/msg {NOBODY} is anybody there", "/join room@rooms." + DOMAIN):
                profanity.type(line)
                await asyncio.sleep(0.3)
            await asyncio.sleep(1)
        profanity.type("/disconnect")
        await profanity.until("logged out successfully")
    finally:
        profanity.quit()


async def go_sendxmpp(server, recorder, jid, *options):
    environment = dict(os.environ, SSL_CERT_FILE=str(server.ca),
                       SSL_CERT_DIR=str(server.directory / "no"), HOME=str(server.directory))
    return await asyncio.create_subprocess_exec(
        "go-sendxmpp", "--username", jid, "--password", servers.PASSWORD,
        "--jserver", f"127.0.0.1:{recorder.port}", *options, env=environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )


async def record_go_sendxmpp(server, recorder):
    async with Client(server, f"{BOB}/desk") as bob:
        bob.send_presence()
        await bob.presence_of(BOB, "available")
        sender = await go_sendxmpp(server, recorder, ALICE, BOB)
        said, _ = await asyncio.wait_for(
            sender.communicate("from <go> & \"with\" love 🦊\nsecond line".encode()), SECONDS_MAX
        )
        assert sender.returncode == 0, said
        assert (await bob.message())["body"].startswith("from <go>")
        await bob.presence_of(ALICE, "unavailable")
        listener = await go_sendxmpp(server, recorder, ALICE, "--listen")
        await bob.presence_of(ALICE, "available")
        bob.send_message(mto=ALICE, mbody="to go", mtype="chat")
        line = await asyncio.wait_for(listener.stdout.readline(), SECONDS_MAX)
        while b"to go" not in line:
            assert line, "the listener ended"
            line = await asyncio.wait_for(listener.stdout.readline(), SECONDS_MAX)
        listener.send_signal(signal.SIGINT)
        await asyncio.wait_for(listener.communicate(), SECONDS_MAX)


async def record_tokio_xmpp(server, recorder):
    binary = os.environ.get("TOKIO_CLIENT", TARGET / "clients/tokio/debug/tokio-client")
    environment = dict(os.environ, SSL_CERT_FILE=str(server.ca))
    environment.pop("SSL_CERT_DIR", None)
    client = await asyncio.create_subprocess_exec(
        str(binary), "127.0.0.1", str(recorder.port), "0", servers.PASSWORD, ALICE, BOB, "chat",
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(client.communicate(), SECONDS_MAX)
    assert client.returncode == 0, said


CLIENTS = {
    "slixmpp": record_slixmpp,
    "profanity": record_profanity,
    "go-sendxmpp": record_go_sendxmpp,
    "tokio-xmpp": record_tokio_xmpp,
}


async def record(server, names):
    for name in dict.fromkeys(["slixmpp", *names]):
        async with Recorder(server, name) as recorder:
            await CLIENTS[name](server, recorder)
            # The server's last bytes may still be on their way through the proxy.
            await asyncio.sleep(0.5)
        if name in names:
            recorder.write()


def main():
    names = sys.argv[1:] or list(CLIENTS)
    unknown = set(names) - set(CLIENTS)
    if unknown:
        sys.exit(f"record: no client {sorted(unknown)}; there are {list(CLIENTS)}")
    # What the clients' libraries complain of is in the record already.
    logging.disable()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="record-"))
    server = Server(directory)
    try:
        server.start()
        asyncio.run(record(server, names))
    finally:
        if server.process and server.process.poll() is None:
            server.stop()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
