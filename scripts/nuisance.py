#!/usr/bin/env python3
"""Shows that nobody is held up by one user who does as much as one user can.

usage: scripts/nuisance.py [--bin DIRECTORY] [--port N] [--seconds S] [--rounds N] [--only NAMES]

On a server of one shard, 200 clients with managed streams chat by the clock, at first alone and
then beside one account that does one of these without a pause:

  subscriptions  asks 2,000 others for their presence, and takes every request back
  unacked        has 3,000 messages sent to a client of its own that acknowledges nothing
  sixteen        has them sent to sixteen such clients, which all lose their connections then and do
                 not come back in the second that they have
  apart          the same, but each of the sixteen is sent 3,000 of its own
  offline        sends 3,000 messages to an account that is away
  names          unblocks 14,000 addresses with one request
  rosters        asks for a full roster with four managed sessions that acknowledge nothing
  presence       comes and goes with that roster and a full block list
  reports        reports a thousand others with one request
  documents      stores private data and a vCard of 200 kB each
  statuses       comes with a status of 15 kB in four managed sessions that the server stores
  prefixes       sends messages of 260 kB whose 43,000 elements have prefixes, from sixteen clients
  strangers      has 64 clients that never log in send as much of that as a stranger may

and once each, after a kill of the server that accounts with sixteen such clients survive:

  woken          is sent a message, for which the server reads all that its clients have
  returned       comes back with all sixteen, which resume at once
  cancelled      comes back, and cancels itself
  parted         the same, but each of the sixteen was sent 3,000 of its own
  deleted        is deleted by an administrator

and the same on a server of two shards, which tell each other of presence:

  followers      says that it is here to 4,000 contacts who are not
  barred         says it to 200 contacts, and blocks a thousand resources of the domain

Prints p99 of the others' messages and acknowledgements in the slowest round of each, how late the
generator itself was, which is part of the messages', and what the nuisance got done.
The status is 0 only if nothing was lost and the p99 of everything stayed below 50 ms.
"""

import argparse
import base64
import json
import os
import pathlib
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

DOMAIN = "bench.localhost"
PASSWORD = "bench"
P99_MAX_MS = 50
SUBSCRIPTIONS = 2_000
MESSAGES = 3_000
ROSTER = 4_000
FOLLOWERS = {"followers": 4_000, "barred": 200}
BLOCKED = 1_000
CLIENTS = 200
RESOURCES = 16
STRANGERS = 64
# As often a stranger may fail before its stream is ended.
TRIES = 5
# Behind these a stanza is too large, after and before its sender has logged in.
STANZA_SIZE = 262_000
STRANGERS_STANZA_SIZE = 65_000
BODY = "x" * 200
HEADER = (
    "<?xml version='1.0'?><stream:stream xmlns='jabber:client' "
    f"xmlns:stream='http://etherx.jabber.org/streams' to='{DOMAIN}' version='1.0'>"
)

PREFIXES = HEADER.replace(
    " to=", "".join(f" xmlns:h{n}='h{n}'" for n in range(62)) + " xmlns:_='_' to="
)


class Wire:
    """A client that sends without looking, and reads only as much as it must."""

    def __init__(self, port, user, resource=None, header=HEADER):
        self.socket = socket.create_connection(("127.0.0.1", port), 30)
        proof = base64.b64encode(f"\0{user}\0{PASSWORD}".encode()).decode()
        sasl = "urn:ietf:params:xml:ns:xmpp-sasl"
        self.ask(header, "</stream:features>")
        self.ask(f"<auth xmlns='{sasl}' mechanism='PLAIN'>{proof}</auth>", "<success")
        self.ask(header, "</stream:features>")
        if resource:
            bind = "urn:ietf:params:xml:ns:xmpp-bind"
            self.ask(f"<iq type='set' id='b'><bind xmlns='{bind}'><resource>{resource}</resource>"
                     "</bind></iq>", "</iq>")
        self.received, self.first = 0, b""
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def ask(self, text, end):
        self.socket.sendall(text.encode())
        heard = b""
        while end.encode() not in heard:
            more = self.socket.recv(1 << 16)
            if not more:
                raise ConnectionError(f"the server closed, after {heard[-300:]!r}")
            heard += more

    def read(self):
        try:
            while more := self.socket.recv(1 << 18):
                self.received += len(more)
                if len(self.first) < 1 << 12:
                    self.first += more
        except OSError:
            pass

    def send(self, text):
        self.socket.sendall(text.encode())


def subscriptions(port, over):
    """Rounds of requests and their withdrawals."""
    done = 0
    wire = Wire(port, "n0", "nuisance")
    wire.send("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq><presence/>")
    while not over.is_set():
        for kind in ("subscribe", "unsubscribe"):
            for number in range(SUBSCRIPTIONS):
                if over.is_set():
                    return done
                wire.send(f"<presence to='s{number}@{DOMAIN}' type='{kind}'/>")
                done += 1
    return done


def flood(port, over, target):
    done = 0
    wire = Wire(port, "n0", "nuisance")
    for _ in range(MESSAGES):
        if over.is_set():
            return done
        wire.send(f"<message to='{target}' type='chat'><body>{BODY}</body></message>")
        done += 1
    wire.send("</stream:stream>")
    return done


def unacked(port, over):
    done = 0
    while not over.is_set():
        silent = Wire(port, "n1", "silent")
        silent.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/><presence/>")
        try:
            done += flood(port, over, f"n1@{DOMAIN}/silent")
        except OSError:
            pass
        silent.socket.close()
    return done


def many(port, user, attributes=""):
    """As many clients of one account as it may have; they acknowledge nothing."""
    wires = [Wire(port, user, f"r{number}") for number in range(RESOURCES)]
    for wire in wires:
        wire.send(f"<enable xmlns='urn:xmpp:sm:3' resume='true'{attributes}/><presence/>")
    return wires


def await_messages(wires, over):
    """Waits until each has all that was sent, or nothing more comes."""
    before = -1
    while (heard := sum(wire.received for wire in wires)) != before and not over.is_set():
        before = heard
        over.wait(0.3)


def lose(wires):
    for wire in wires:
        wire.socket.shutdown(socket.SHUT_RDWR)
        wire.socket.close()


def lost(port, over, user, targets):
    """Rounds of messages to sixteen clients that are lost then, until their time is over."""
    done = 0
    while not over.is_set():
        try:
            wires = many(port, user, " max='1'")
            for target in targets:
                done += flood(port, over, target)
            await_messages(wires, over)
            lose(wires)
        except OSError:
            pass
        over.wait(2)
    return done


def sixteen(port, over):
    return lost(port, over, "n4", [f"n4@{DOMAIN}"])


def apart(port, over):
    return lost(port, over, "n5", [f"n5@{DOMAIN}/r{number}" for number in range(RESOURCES)])


# What the clients of `returned` resume, and the servers by their ports.
RESUMED, SERVERS = [], {}


def survive(server):
    """A kill leaves the clients of some accounts in storage."""
    over = threading.Event()
    for user in ("n1", "n2", "n5", "n6", "n7"):
        wires = many(server.port, user)
        time.sleep(0.3)
        each = [f"/r{number}" for number in range(RESOURCES)] if user == "n5" else [""]
        for resource in each:
            flood(server.port, over, f"{user}@{DOMAIN}{resource}")
        await_messages(wires, over)
        if user == "n1":
            found = (re.search(rb"<enabled[^>]* id='([^']+)'", wire.first) for wire in wires)
            RESUMED[:] = [match[1].decode() for match in found]
    SERVERS[server.port] = server
    server.restart()


def woken(port, over):
    over.wait(2)
    wire = Wire(port, "n0", "nuisance")
    wire.send(f"<message to='n6@{DOMAIN}' type='chat'><body>wake</body></message>")
    over.wait()
    return 1


def returned(port, over):
    wires = [Wire(port, "n1") for _ in RESUMED]
    over.wait(2)
    for wire, previous in zip(wires, RESUMED, strict=True):
        wire.send(f"<resume xmlns='urn:xmpp:sm:3' previd='{previous}' h='0'/>")
    over.wait()
    return sum(b"<resumed" in wire.first for wire in wires)


def cancel(port, over, user):
    over.wait(2)
    wire = Wire(port, user, "last")
    wire.send(request("set", "<query xmlns='jabber:iq:register'><remove/></query>"))
    over.wait()
    return 1


def cancelled(port, over):
    return cancel(port, over, "n7")


def parted(port, over):
    return cancel(port, over, "n5")


def deleted(port, over):
    over.wait(2)
    server = SERVERS[port]
    subprocess.run([server.vorpal, "user", "del", f"n2@{DOMAIN}", "--config", server.config],
                   check=True, capture_output=True)
    over.wait()
    return 1


def offline(port, over):
    done = 0
    while not over.is_set():
        try:
            done += flood(port, over, f"n2@{DOMAIN}")
        except OSError:
            pass
    return done


def request(type_, payload):
    return f"<iq type='{type_}' id='i'>{payload}</iq>"


def blocking(command, items):
    return request("set", f"<{command} xmlns='urn:xmpp:blocking'>{''.join(items)}</{command}>")


def again(port, over, text, sessions=1, user="n3"):
    """Sends the same from each of these sessions, with new ones where the server ends them."""
    done = 0
    while not over.is_set():
        try:
            wires = [Wire(port, user, f"r{number}") for number in range(sessions)]
            for wire in wires:
                wire.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>" if sessions > 1 else "")
            while not over.is_set():
                for wire in wires:
                    wire.send(text)
                    done += 1
        except OSError:
            pass
    return done


def fill(server):
    """Gives an account the largest roster and the longest block list."""
    wire = Wire(server.port, "n3", "first")
    for number in range(ROSTER):
        item = f"<item jid='contact{number:06}@{DOMAIN}'><group>{'g' * 200}</group></item>"
        wire.send(request("set", f"<query xmlns='jabber:iq:roster'>{item}</query>"))
    wire.send(blocking("block", (f"<item jid='b{number:06}@{DOMAIN}'/>" for number in range(BLOCKED))))
    wire.send("</stream:stream>")
    wire.reader.join()


def names(port, over):
    return again(port, over, blocking("unblock", (f"<item jid='{n:04x}'/>" for n in range(14_000))))


def rosters(port, over):
    return again(port, over, request("get", "<query xmlns='jabber:iq:roster'/>") * 64, 4)


def presence(port, over):
    return again(port, over, "<presence/><presence type='unavailable'/>" * 32)


def reports(port, over):
    # A stanza declares 128 namespaces at the most.
    report = "<r:report reason='urn:xmpp:reporting:spam'/>"
    items = (f"<item jid='b{number:06}@{DOMAIN}'>{report}</item>" for number in range(BLOCKED))
    text = blocking("block", items).replace("<iq", "<iq xmlns:r='urn:xmpp:reporting:1'", 1)
    return again(port, over, text)


def documents(port, over):
    large = "x" * 200_000
    private = f"<query xmlns='jabber:iq:private'><large xmlns='large'>{large}</large></query>"
    vcard = f"<vCard xmlns='vcard-temp'><NOTE>{large}</NOTE></vCard>"
    return again(port, over, request("set", private) + request("set", vcard))


def statuses(port, over):
    return again(port, over, f"<presence><status>{'x' * 15_000}</status></presence>", 4)


def prefixed(start, end, size):
    """An element of so many bytes, as dear to read as can be: each name is sought in all prefixes."""
    start = start.replace(" ", "".join(f" xmlns:q{n}='q{n}'" for n in range(126)) + " ", 1)
    element = "<_:a/>"
    return start + element * ((size - len(start + end)) // len(element)) + end


def prefixes(port, over):
    text = prefixed(f"<message to='nobody@{DOMAIN}' type='headline'>", "</message>", STANZA_SIZE)
    done = []

    def annoy(resource):
        sent = 0
        while not over.is_set():
            try:
                wire = Wire(port, "n3", resource, PREFIXES)
                while not over.is_set():
                    wire.send(text)
                    sent += 1
            except OSError:
                pass
        done.append(sent)

    beside_each_other(annoy, [f"r{number}" for number in range(RESOURCES)])
    return sum(done)


def strangers(port, over):
    auth = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>"
    text = prefixed(auth, "</auth>", STRANGERS_STANZA_SIZE)
    done = []

    def annoy(_):
        sent = 0
        while not over.is_set():
            try:
                with socket.create_connection(("127.0.0.1", port), 30) as stranger:
                    stranger.sendall(PREFIXES.encode())
                    for _ in range(TRIES):
                        stranger.sendall(text.encode())
                        sent += 1
                    stranger.shutdown(socket.SHUT_WR)
                    while stranger.recv(1 << 16):
                        pass
            except OSError:
                pass
        done.append(sent)

    beside_each_other(annoy, range(STRANGERS))
    return sum(done)


def beside_each_other(act, arguments):
    threads = [threading.Thread(target=act, args=(argument,)) for argument in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def bar(server):
    """Has an account block a thousand resources, whoever has them."""
    wire = Wire(server.port, "barred", "first")
    wire.send(blocking("block", (f"<item jid='{DOMAIN}/r{n}'/>" for n in range(BLOCKED))))
    wire.send("</stream:stream>")
    wire.reader.join()


def followers(port, over):
    return again(port, over, "<presence/>" * 64, user="followers")


def barred(port, over):
    return again(port, over, "<presence/>" * 64, user="barred")


def followed():
    """Accounts with contacts who get their presence, as another server would export them."""
    users = []
    for name, count in FOLLOWERS.items():
        items = "".join(f"<item jid='contact{number:06}@{DOMAIN}' subscription='from'/>"
                        for number in range(count))
        users.append(f"<user name='{name}' password='{PASSWORD}'>"
                     f"<query xmlns='jabber:iq:roster'>{items}</query></user>")
    return (f"<server-data xmlns='urn:xmpp:pie:0'><host jid='{DOMAIN}'>{''.join(users)}"
            "</host></server-data>")


# These cannot be done again on the same server.
ONCE = (woken, returned, cancelled, parted, deleted)
# These take so many times as long to come to what they are there for.
LONG = {apart: 3}


class Server:
    def __init__(self, binaries, port, directory, shards):
        self.loadgen, self.port, self.directory = binaries / "loadgen", port, directory
        vorpal, config = binaries / "vorpal", directory / "vorpal.toml"
        config.write_text(
            f'domain = "{DOMAIN}"\ndata = "{directory / "data"}"\nshards = {shards}\nlog = "warn"\n'
            f'[listen]\nc2s = "127.0.0.1:{port}"\nc2s_tls = []\n[tls]\nrequired = false\n'
            "[auth]\nplain_without_tls = true\n[archive]\nenabled = false\n"
        )
        for pattern, count in (("u%d", CLIENTS), ("n%d", 8), ("s%d", SUBSCRIPTIONS)):
            subprocess.run(
                [vorpal, "user", "make", pattern, "--count", str(count), "--password", PASSWORD,
                 "--config", config], check=True, capture_output=True)
        export = directory / "followed.xml"
        export.write_text(followed())
        subprocess.run([vorpal, "import", export, "--config", config], check=True,
                       capture_output=True)
        self.vorpal, self.config, self.ready = vorpal, config, directory / "ready"
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [self.vorpal, "serve", "--config", self.config, "--ready-file", self.ready],
            stderr=(self.directory / "log").open("ab"))
        while not self.ready.exists():
            if self.process.poll() is not None:
                sys.exit((self.directory / "log").read_text())
            time.sleep(0.05)

    def restart(self):
        self.process.kill()
        self.process.wait()
        self.ready.unlink()
        self.start()

    def chat(self, seconds):
        """Milliseconds: p99 of messages, of acknowledgements, and of the generator's own lag."""
        result = self.directory / "chat.json"
        done = subprocess.run(
            [self.loadgen, "--domain", DOMAIN, "--password", PASSWORD, "--port", str(self.port),
             "--tls", "none", "--quiet", "--clients", str(CLIENTS), "--rate", "2000",
             "--stream-management", "--no-spin", "--warmup", "1", "--duration", str(seconds),
             "--json", result], capture_output=True, text=True)
        # An invalid run (3) was late itself, which counts against the server here.
        if done.returncode not in (0, 3):
            sys.exit(f"nuisance: loadgen ended with {done.returncode}\n{done.stdout}{done.stderr}")
        found = json.loads(result.read_text())
        kinds = (found["latency"], found["acks"], found["generator"]["lag"])
        return tuple(kind["p99_us"] / 1e3 for kind in kinds)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def beside(server, kind, seconds):
    """What the others saw, and how much the nuisance got done in a second."""
    over, done = threading.Event(), []
    began = time.monotonic()

    def annoy():
        # The nuisance takes no core from those that are measured.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        done.append(kind(server.port, over))

    thread = threading.Thread(target=annoy)
    thread.start()
    time.sleep(0.5)
    seen = server.chat(seconds)
    over.set()
    thread.join()
    return seen, done[0] / (time.monotonic() - began)


def measure(server, kinds, arguments, shards):
    """Prints what the others saw beside each nuisance; the slowest of it all."""
    worst = 0
    for kind in kinds:
        rounds = []
        for _ in range(1 if kind in ONCE else arguments.rounds):
            seconds = arguments.seconds * LONG.get(kind, 1)
            rounds.append(beside(server, kind, seconds) if kind
                          else (server.chat(seconds), 0))
        message, ack, lag = (max(seen[i] for seen, _ in rounds) for i in range(3))
        rate = statistics.median(rate for _, rate in rounds)
        title = f"beside {kind.__name__}" if kind else f"alone, shards: {shards}"
        print(f"{title:24}{message:16.2f}{ack:12.2f}{lag:12.2f}{rate:15.0f}", flush=True)
        worst = max(worst, message, ack)
        if kind and rate == 0:
            sys.exit(f"nuisance: {kind.__name__} did nothing, and so shows nothing")
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--bin", type=pathlib.Path, default=pathlib.Path("target/release"))
    parser.add_argument("--port", type=int, default=26322)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="the names of some of them, with commas between")
    arguments = parser.parse_args()
    worst = 0
    print(f"{CLIENTS} clients chatting with managed streams, 2,000 messages a second; "
          "the slowest of the rounds")
    print(f"{'':24}{'message p99 ms':>16}{'ack p99 ms':>12}{'lag p99 ms':>12}{'done a second':>15}")
    for shards, prepare, kinds in (
        (1, fill, (None, subscriptions, unacked, sixteen, apart, offline, names, rosters, presence,
                   reports, documents, statuses, prefixes, strangers)),
        (1, survive, (None, *ONCE)),
        (2, bar, (None, followers, barred)),
    ):
        if arguments.only:
            wanted = arguments.only.split(",")
            kinds = [kind for kind in kinds if kind and kind.__name__ in wanted]
        if not kinds:
            continue
        with tempfile.TemporaryDirectory() as directory:
            binaries = arguments.bin.resolve()
            server = Server(binaries, arguments.port, pathlib.Path(directory), shards)
            try:
                prepare(server)
                worst = max(worst, measure(server, kinds, arguments, shards))
            finally:
                server.stop()
    return worst >= P99_MAX_MS


if __name__ == "__main__":
    sys.exit(main())
