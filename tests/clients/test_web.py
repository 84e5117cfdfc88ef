"""Clients of the web: xmpp.js and strophe.js over WebSocket with TLS (RFC 7395), strophe.js over BOSH (XEP-0124, XEP-0206),
and what browsers look for (XEP-0156)."""

import json
import os
import pathlib
import queue
import subprocess
import threading
import time
import urllib.request

import pytest

from servers import DOMAIN, PASSWORD
from test_slixmpp import Client, scenario
from test_starttls import context, name, only_vorpal

HERE = pathlib.Path(__file__).resolve().parent
SECONDS_MAX = 30


class Node:
    """A client in a process of its own; its events come in order."""

    def __init__(self, server, program, jid, resource="page"):
        environment = {
            **os.environ,
            "NODE_EXTRA_CA_CERTS": str(server.ca),
            "CLIENT_PASSWORD": PASSWORD,
        }
        service = f"wss://{DOMAIN}:{server.web_port}/xmpp-websocket"
        if program == "strophe-bosh":
            program, service = "strophe", f"https://{DOMAIN}:{server.web_port}/http-bind"
        self.process = subprocess.Popen(
            ["node", "--dns-result-order=ipv4first", HERE / "node" / f"{program}.cjs",
             service, DOMAIN, name(jid), resource],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )
        self.events = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()
        self.full = self.until("online")["online"]
        assert self.full == f"{jid}/{resource}"

    def read(self):
        for line in self.process.stdout:
            self.events.put(json.loads(line))
        self.events.put(None)

    def until(self, key, fits=lambda event: True):
        """The next event of that kind that fits; those before it are gone."""
        seen = []
        end = time.monotonic() + SECONDS_MAX
        while True:
            try:
                event = self.events.get(timeout=max(0, end - time.monotonic()))
            except queue.Empty:
                self.process.kill()
                raise AssertionError(f"no {key}, only {seen}") from None
            assert event is not None, f"it ended before {key}: {seen}"
            if key in event and fits(event):
                return event
            seen.append(event)

    def send(self, to, body):
        self.process.stdin.write(f"{to} {body}\n")
        self.process.stdin.flush()

    def leave(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def by(full):
    """Whether somebody says something: what others said to an earlier client may come, too."""
    return lambda event: event["message"] == full and event.get("body")


@pytest.mark.parametrize("program", ["xmppjs", "strophe", "strophe-bosh"])
def test_it_talks_with_slixmpp(server, program):
    long = "ä<&>' " * 5_000

    async def play():
        own, friend = server.friends
        async with Client(server, friend) as other:
            with Node(server, program, own) as page:
                for body in ["hello", "ä \U0001f600 <&>", long.strip()]:
                    page.send(other.boundjid.full, body)
                    message = await other.message()
                    assert (message["from"].full, message["body"]) == (page.full, body)
                    other.send_message(mto=page.full, mbody=body, mtype="chat")
                    await other.get_roster()
                    event = page.until("message", by(other.boundjid.full))
                    assert event["body"] == body

    scenario(play())


@pytest.mark.parametrize("program", ["xmppjs", "strophe", "strophe-bosh"])
def test_its_friend_sees_it_come_and_go(server, program):
    own, friend = server.friends
    with Node(server, program, friend, "watch") as watch:
        with Node(server, program, own) as page:
            watch.until("presence", lambda it: it["presence"] == page.full and not it.get("type"))
            page.until("presence", lambda it: it["presence"] == watch.full)
            page.leave()
            gone = watch.until("presence", lambda it: it.get("type") == "unavailable")
            assert gone["presence"] == page.full


def test_xmppjs_goes_on_with_its_session_after_the_server_was_killed(fresh_server):
    server = fresh_server
    only_vorpal(server)
    own, friend = server.friends
    with Node(server, "xmppjs", own) as page:
        server.kill()
        page.until("status", lambda it: it["status"] == "disconnect")
        server.serve()
        page.until("nonza", lambda it: it["nonza"] == "resumed")
        with Node(server, "strophe", friend, "other") as other:
            other.send(page.full, "still there?")
            assert page.until("message", by(other.full))["body"] == "still there?"


def test_a_page_finds_the_websocket_by_host_meta(server):
    only_vorpal(server)
    url = f"https://{DOMAIN}:{server.web_port}/.well-known/host-meta.json"
    with urllib.request.urlopen(url, timeout=SECONDS_MAX, context=context(server)) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        links = json.load(answer)["links"]
    place = f"{DOMAIN}:{server.web_port}"
    assert links == [
        {"rel": "urn:xmpp:alt-connections:websocket", "href": f"wss://{place}/xmpp-websocket"},
        {"rel": "urn:xmpp:alt-connections:xbosh", "href": f"https://{place}/http-bind"},
    ]
