#!/usr/bin/env python3
"""Kills a server at random under load and checks that what it acknowledged is not lost.

usage: scripts/crash.py --vorpal BINARY [--kills N] [--seed N] [--resources N] [--stored N]
                        [--power-loss]

Residents manage their streams (XEP-0198) and resume them after every kill; every third account has
several resources (--resources, 2 unless told). Chat and normal messages go to bare and to full
JIDs. What one resident sends another must arrive exactly once and in order: to a full JID at that
resource, to a bare JID at each of the account's (RFC 6121 8.5.2.1.1 and 8.5.3.1), for a session
that is to be resumed is connected, whether its client is there or not; nothing is answered by an
error. Visitors come and go with new sessions, in which they say again what was not acknowledged:
each message for them must arrive at least once, each of theirs at least once and not more often
than it was said. Messages are known by their ids; some have equal bodies, some none, and of a chat
state nothing is expected.

The server is killed with SIGKILL after a random time, 200 times, and started again on the same
data. With --stored so many messages wait in storage for others meanwhile. With --power-loss (as
root) the data lies on a file system of its own that loses with each kill whatever was not synced.
The last line is the verdict; the status is 0 only if nothing is wrong.
"""

import argparse
import asyncio
import base64
import collections
import fcntl
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from xml.etree.ElementTree import XMLPullParser

DOMAIN = "localhost"
PASSWORD = "secret"
RESIDENTS = 8
VISITORS = 3
# Of so many resident accounts, one has several resources.
SEVERAL_EVERY = 3
START_SECONDS_MAX = 60
LOGIN_SECONDS_MAX = 3
DRAIN_SECONDS_MAX = 120
# Waiting messages of one account, within its quota.
STORED_PER_ACCOUNT = 1000
SM = "urn:xmpp:sm:3"
DISK_SIZE = 4 << 30
# FS_IOC_SHUTDOWN, and its EXT4_GOING_FLAGS_NOLOGFLUSH: what is not on the disk is gone.
SHUTDOWN, NO_FLUSH = 0x8004587D, 2
CLIENT = "{jabber:client}"
PRESENCE = "<presence/>"
HEADER = (
    "<?xml version='1.0'?><stream:stream xmlns='jabber:client' "
    f"xmlns:stream='http://etherx.jabber.org/streams' to='{DOMAIN}' version='1.0'>"
)


class Closed(Exception):
    """The stream is over."""


class Stream:
    """One connection, read element by element."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.restart()

    def restart(self):
        self.parser = XMLPullParser(["start", "end"])
        self.depth, self.root = 0, None
        self.send(HEADER)

    def send(self, text):
        self.writer.write(text.encode())

    async def next(self):
        while True:
            for event, element in self.parser.read_events():
                if event == "start":
                    self.depth += 1
                    self.root = self.root if self.depth > 1 else element
                    continue
                self.depth -= 1
                if self.depth == 0:
                    raise Closed
                if self.depth == 1:
                    self.root.remove(element)
                    return element
            data = await self.reader.read(1 << 16)
            if not data:
                raise Closed
            self.parser.feed(data)

    async def expect(self, name):
        element = await self.next()
        if not element.tag.endswith("}" + name):
            raise Closed
        return element


class Sent:
    """A message, whom it is for, and what became of it."""

    def __init__(self, type_, to, receivers):
        self.type, self.to, self.receivers = type_, to, receivers
        self.at, self.said, self.bounced = time.monotonic(), 0, None


class Person:
    """Somebody with one client, over many connections."""

    def __init__(self, world, account, resource, resumes):
        self.world, self.account, self.resource, self.resumes = world, account, resource, resumes
        self.name = f"{account}/{resource}"
        self.session, self.acked, self.received = None, 0, 0
        self.unacked = collections.deque()
        self.count, self.acknowledged = 0, set()
        self.seen, self.order = collections.Counter(), collections.defaultdict(list)
        self.resumed, self.lost, self.available = 0, 0, False
        self.began = float("inf")
        self.stream = None
        self.last_news = time.monotonic()

    async def live(self):
        while not self.world.over:
            try:
                await self.connect()
                await self.visit()
            except (Closed, OSError):
                pass
            finally:
                if self.stream:
                    self.stream.writer.close()
                    self.stream = None
            pause = (0.02, 0.2) if self.resumes else (0.2, 1.5)
            await asyncio.sleep(random.uniform(*pause))

    async def connect(self):
        ends = await asyncio.open_connection("127.0.0.1", self.world.port)
        self.stream = stream = Stream(*ends)
        await stream.expect("features")
        proof = base64.b64encode(f"\0{self.account}\0{PASSWORD}".encode()).decode()
        ns = "urn:ietf:params:xml:ns:xmpp-sasl"
        stream.send(f"<auth xmlns='{ns}' mechanism='PLAIN'>{proof}</auth>")
        await stream.expect("success")
        self.world.logged_in()
        stream.restart()
        await stream.expect("features")
        if self.session and await self.resume():
            return
        ns = "urn:ietf:params:xml:ns:xmpp-bind"
        stream.send(
            f"<iq type='set' id='b'><bind xmlns='{ns}'><resource>{self.resource}</resource>"
            "</bind></iq>"
        )
        await stream.expect("iq")
        wish = " resume='true'" if self.resumes else ""
        stream.send(f"<enable xmlns='{SM}'{wish}/>")
        while True:
            element = await stream.next()
            if element.tag == f"{{{SM}}}enabled":
                break
            if element.tag == CLIENT + "message":
                self.hear(element)
        # Only now: the connection may have gone before.
        left, self.unacked = self.unacked, collections.deque()
        self.session, self.acked, self.received = element.get("id"), 0, 0
        self.began = time.monotonic()
        self.say(PRESENCE, None)
        for text, key in left:
            if key:
                self.say(text, key)

    async def resume(self):
        self.stream.send(f"<resume xmlns='{SM}' previd='{self.session}' h='{self.received}'/>")
        element = await self.stream.next()
        if element.tag == f"{{{SM}}}resumed":
            self.resumed += 1
            self.acknowledge(int(element.get("h")))
            for text, _ in self.unacked:
                self.stream.send(text)
            return True
        if element.tag == f"{{{SM}}}failed":
            self.lost += 1
            self.session = None
            return False
        raise Closed

    def say(self, text, key):
        if key:
            self.world.sent[key].said += 1
        self.unacked.append((text, key))
        self.stream.send(text)

    def acknowledge(self, h):
        if not self.acked <= h <= self.acked + len(self.unacked):
            open_ = len(self.unacked)
            self.world.blame(
                "a wrong count",
                f"{self.name} was told that {h} are handled, of {self.acked} and {open_} more",
            )
            raise Closed
        for _ in range(h - self.acked):
            text, key = self.unacked.popleft()
            self.available |= text == PRESENCE
            if key:
                self.acknowledged.add(key)
        self.acked = h

    async def visit(self):
        talk = asyncio.ensure_future(self.talk())
        try:
            if self.resumes:
                await self.listen()
            else:
                try:
                    await asyncio.wait_for(self.listen(), random.uniform(0.3, 1.5))
                except asyncio.TimeoutError:
                    if not self.world.quiet:
                        self.stream.send(f"<a xmlns='{SM}' h='{self.received}'/></stream:stream>")
                        await self.stream.writer.drain()
                        raise Closed from None
                    await self.listen()
        finally:
            talk.cancel()

    async def listen(self):
        while True:
            element = await self.stream.next()
            if element.tag == f"{{{SM}}}a":
                self.acknowledge(int(element.get("h")))
            elif element.tag == f"{{{SM}}}r":
                self.stream.send(f"<a xmlns='{SM}' h='{self.received}'/>")
            elif element.tag.startswith(CLIENT):
                self.received += 1
                if element.tag == CLIENT + "message":
                    self.hear(element)

    def hear(self, message):
        self.last_news = time.monotonic()
        key = message.get("id")
        is_error = message.get("type") == "error"
        sent = self.world.sent.get(key)
        if sent is None:
            if is_error:
                self.world.blame("bounced", f"{self.name} got an error for {key}")
            return
        if is_error:
            conditions = [element.tag for element in message.iterfind(f"{CLIENT}error/*")]
            sent.bounced = conditions[0].split("}")[1] if conditions else "nothing"
            return
        self.seen[key] += 1
        # What was sent before comes with the first presence, and what is sent to the full address
        # before that does not wait for it (RFC 6121 8.5.3.1).
        # Nor has what is said once more in a new session a place among what was said first.
        if sent.at >= self.began and sent.said == 1:
            sender, number = key.split("#")
            self.order[sender, message.get("to")].append(int(number))

    async def talk(self):
        while True:
            if not self.world.quiet and self.world.is_peopled():
                for _ in range(random.randrange(8 if self.resumes else 3)):
                    self.say_something()
            if self.stream.writer.is_closing():
                return
            self.stream.send(f"<r xmlns='{SM}'/>")
            await self.stream.writer.drain()
            await asyncio.sleep(random.uniform(0.005, 0.05))

    def say_something(self):
        person = random.choice(self.world.people)
        to, receivers = f"{person.account}@{DOMAIN}", self.world.accounts[person.account]
        if person.resumes and random.random() < 0.5:
            to, receivers = f"{to}/{person.resource}", [person]
        if random.random() < 0.1:
            # Nobody would miss it, and it is counted all the same.
            state = "<composing xmlns='http://jabber.org/protocol/chatstates'/>"
            self.say(f"<message to='{to}' id='state' type='chat'>{state}</message>", None)
            return
        self.count += 1
        key = f"{self.name}#{self.count}"
        type_ = random.choice(("chat", "normal"))
        receipt = "<received xmlns='urn:xmpp:receipts' id='yours'/>"
        content = random.choice((f"<body>{key}</body>", "<body>yes</body>", receipt))
        self.world.sent[key] = Sent(type_, to, receivers)
        self.say(f"<message to='{to}' id='{key}' type='{type_}'>{content}</message>", key)


class Disk:
    """A file system in a file, for as long as the process lives."""

    def __init__(self, directory):
        self.image, self.place = directory / "disk.img", directory / "disk"
        with open(self.image, "wb") as image:
            image.truncate(DISK_SIZE)
        run("mkfs.ext4", "-q", "-F", self.image)
        self.place.mkdir()
        self.mount()

    def mount(self):
        run("mount", "-o", "loop", self.image, self.place)

    def unmount(self):
        run("umount", self.place)

    def lose_power(self):
        place = os.open(self.place, os.O_RDONLY)
        fcntl.ioctl(place, SHUTDOWN, NO_FLUSH.to_bytes(4, sys.byteorder))
        os.close(place)
        self.unmount()
        self.mount()


def run(*command):
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)


class World:
    """The server, everybody who uses it, and what must be true in the end."""

    def __init__(self, arguments, directory):
        self.binary, self.directory = arguments.vorpal, directory
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.over = self.quiet = False
        self.sent = {}
        # What is wrong, by kind, each as a sentence.
        self.wrong = []
        # The resources of each account.
        self.accounts = {}
        for number in range(RESIDENTS + VISITORS):
            account, resumes = f"u{number}", number < RESIDENTS
            has_several = resumes and number % SEVERAL_EVERY == 0
            names = [f"r{index}" for index in range(arguments.resources if has_several else 1)]
            self.accounts[account] = [Person(self, account, name, resumes) for name in names]
        self.people = [person for account in self.accounts.values() for person in account]
        self.process, self.started, self.login_seconds = None, None, []
        self.disk = Disk(directory) if arguments.power_loss else None
        data = self.disk.place / "data" if self.disk else directory / "data"
        self.config = directory / "vorpal.toml"
        self.config.write_text(
            f'domain = "{DOMAIN}"\ndata = "{data}"\nshards = 2\nlog = "warn"\n'
            f'[listen]\nc2s = "127.0.0.1:{self.port}"\nc2s_tls = []\n'
            "[tls]\nrequired = false\n[auth]\nplain_without_tls = true\n"
        )

    def vorpal(self, *words):
        command = [self.binary, *words, "--config", self.config]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def prepare(self, stored):
        count = RESIDENTS + VISITORS
        self.vorpal("user", "make", "u%d", "--count", str(count), "--password", PASSWORD)
        if stored:
            path = self.directory / "stored.xml"
            write_stored(path, stored)
            self.vorpal("import", str(path))

    def start(self):
        ready = self.directory / "ready"
        ready.unlink(missing_ok=True)
        self.started = time.monotonic()
        command = [self.binary, "serve", "--config", self.config, "--ready-file", ready]
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def blame(self, kind, sentence):
        self.wrong.append((kind, sentence))

    def is_peopled(self):
        """Whether all residents came: until then a bare JID is not yet for all resources."""
        return all(person.available for person in self.people if person.resumes)

    def logged_in(self):
        if self.started:
            self.login_seconds.append(time.monotonic() - self.started)
            self.started = None

    async def wait_for_login(self):
        until = time.monotonic() + START_SECONDS_MAX
        while self.started:
            if self.process.poll() is not None or time.monotonic() > until:
                sys.exit(f"crash: the server did not come up; see {self.directory}/log")
            await asyncio.sleep(0.01)

    def kill(self):
        if self.process.poll() is not None:
            self.blame("an end", f"the server ended by itself with {self.process.returncode}")
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        if self.disk:
            self.disk.lose_power()

    async def drain(self):
        """Until everything is acknowledged and nothing has come for a while."""
        self.quiet = True
        until = time.monotonic() + DRAIN_SECONDS_MAX
        while time.monotonic() < until:
            await asyncio.sleep(0.2)
            open_ = sum(len(person.unacked) for person in self.people)
            news = max(person.last_news for person in self.people)
            if open_ == 0 and time.monotonic() - news > 3:
                return

    def judge(self):
        """Looks for every violation."""
        for seconds in self.login_seconds:
            if seconds > LOGIN_SECONDS_MAX:
                self.blame("late", f"the first login came {seconds:.2f} s after a start")
        acknowledged = set().union(*(person.acknowledged for person in self.people))
        for key, sent in self.sent.items():
            self.judge_message(key, sent, key in acknowledged)
        for person in self.people:
            if person.lost:
                self.blame("not resumed", f"{person.name} could not resume {person.lost} times")
            for (sender, to), numbers in person.order.items():
                if person.resumes and numbers != sorted(numbers):
                    self.blame(
                        "out of order", f"{sender} to {to} arrived out of order at {person.name}"
                    )

    def judge_message(self, key, sent, is_acknowledged):
        what = f"{key}, {sent.type} to {sent.to},"
        if not is_acknowledged:
            self.blame("unacknowledged", f"{what} was never acknowledged")
        if sent.bounced:
            self.blame("bounced", f"{what} came back with {sent.bounced}")
        arrived = [person for person in self.people if person.seen[key]]
        for person in self.people:
            copies = person.seen[key]
            if person not in sent.receivers:
                if copies:
                    self.blame("astray", f"{what} arrived at {person.name}")
            elif copies == 0 and is_acknowledged and not sent.bounced:
                kind = "missed" if arrived else "lost"
                self.blame(kind, f"{what} was acknowledged and is {kind} at {person.name}")
            elif person.resumes and copies > sent.said:
                self.blame("repeated", f"{what} arrived {copies} times at {person.name}")


def write_stored(path, count):
    """A file of XEP-0227 with messages that wait."""
    with open(path, "w", encoding="utf-8") as out:
        out.write(
            "<?xml version='1.0'?><server-data xmlns='urn:xmpp:pie:0'>"
            f"<host jid='{DOMAIN}'>"
        )
        for account in range(-(-count // STORED_PER_ACCOUNT)):
            out.write(f"<user name='stored{account}' password='x'><offline-messages>")
            for number in range(min(STORED_PER_ACCOUNT, count - account * STORED_PER_ACCOUNT)):
                out.write(
                    f"<message xmlns='jabber:client' from='u0@{DOMAIN}/home' "
                    f"to='stored{account}@{DOMAIN}' id='s{number}' type='chat'>"
                    f"<body>{'x' * 120}</body></message>"
                )
            out.write("</offline-messages></user>")
        out.write("</host></server-data>")


async def play(world, kills):
    tasks = [asyncio.ensure_future(person.live()) for person in world.people]
    world.start()
    for number in range(kills):
        await world.wait_for_login()
        await asyncio.sleep(random.uniform(0.05, 1.2))
        world.kill()
        if (number + 1) % 20 == 0:
            print(f"{number + 1} kills, {len(world.sent)} messages", flush=True)
        world.start()
    await world.wait_for_login()
    await asyncio.sleep(1)
    await world.drain()
    world.over = True
    for task in tasks:
        task.cancel()
    for end in await asyncio.gather(*tasks, return_exceptions=True):
        if not isinstance(end, (asyncio.CancelledError, type(None))):
            world.blame("a failure", f"a client failed: {end!r}")
    world.process.terminate()
    world.process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vorpal", required=True, help="the server's binary")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--resources", type=int, default=2, help="of every third account")
    parser.add_argument("--stored", type=int, default=0, help="messages that wait meanwhile")
    parser.add_argument("--power-loss", action="store_true", help="lose what was not synced")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    random.seed(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="vorpal-crash-") as directory:
        world = World(arguments, pathlib.Path(directory))
        world.prepare(arguments.stored)
        try:
            asyncio.run(play(world, arguments.kills))
        finally:
            if world.process and world.process.poll() is None:
                world.kill()
            if world.disk:
                world.disk.unmount()
        world.judge()
    for _, sentence in world.wrong[:20]:
        print(sentence)
    kinds = collections.Counter(kind for kind, _ in world.wrong)
    if kinds:
        print(", ".join(f"{kind}: {count}" for kind, count in kinds.most_common()))
    resumed = sum(person.resumed for person in world.people)
    visitors = [person for person in world.people if not person.resumes]
    again = sum(copies - 1 for person in visitors for copies in person.seen.values())
    slowest = max(world.login_seconds)
    print(f"{resumed} resumptions, {again} second copies for visitors")
    print(f"first login at most {slowest:.2f} s after the start, {arguments.stored} stored")
    print(f"{arguments.kills} kills, {len(world.sent)} messages, {len(world.wrong)} violations")
    sys.exit(1 if world.wrong else 0)


if __name__ == "__main__":
    main()
