"""Push notifications (XEP-0357): slixmpp's client enables them, slixmpp's component is the push service."""

import asyncio

import pytest
import slixmpp
from slixmpp.xmlstream import ET
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath

from conftest import kind, started
from servers import DOMAIN, free_port
from test_slixmpp import SECONDS_MAX, Client, scenario

SERVICE = f"push.{DOMAIN}"
SECRET = "what two of them know"
PORT = free_port()
PUSH = "urn:xmpp:push:0"
PUBSUB = "http://jabber.org/protocol/pubsub"
OPTIONS = f"{PUBSUB}#publish-options"
FORMS = "jabber:x:data"

pytestmark = pytest.mark.skipif(kind() != "vorpal", reason="the configuration is vorpal's")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = started(
        tmp_path_factory.mktemp("push"),
        more=f'[component."{SERVICE}"]\nsecret = "{SECRET}"\n'
        '[push]\nenabled = true\nbody = "notice"\n',
        listen=f'component = "127.0.0.1:{PORT}"\n',
    )
    yield server
    server.stop()


class Service(slixmpp.ComponentXMPP):
    """A push service: it keeps what is published, and answers as it is told."""

    def __init__(self):
        super().__init__(SERVICE, SECRET, "127.0.0.1", PORT)
        self.auto_reconnect = False
        self.outcome = asyncio.get_running_loop().create_future()
        self.published = asyncio.Queue()
        self.error = None
        self.add_event_handler("session_start", lambda _: self.outcome.set_result("in"))
        path = f"{{{self.default_ns}}}iq/{{{PUBSUB}}}pubsub"
        self.register_handler(Callback("published", MatchXPath(path), self.take))

    def take(self, iq):
        if self.error:
            reply = iq.reply(clear=True)
            reply["type"] = "error"
            reply["error"]["type"], reply["error"]["condition"] = self.error
        else:
            reply = iq.reply(clear=True)
        reply.send()
        self.published.put_nowait(iq)

    async def next(self):
        """Who publishes, to which node, what the notification says, and with which options."""
        iq = await asyncio.wait_for(self.published.get(), SECONDS_MAX)
        publish = iq.xml.find(f"{{{PUBSUB}}}pubsub/{{{PUBSUB}}}publish")
        form = publish.find(f"{{{PUBSUB}}}item/{{{PUSH}}}notification/{{{FORMS}}}x")
        options = iq.xml.find(f"{{{PUBSUB}}}pubsub/{{{PUBSUB}}}publish-options/{{{FORMS}}}x")
        return str(iq["from"]), publish.get("node"), fields(form), fields(options)

    async def __aenter__(self):
        self.connect()
        assert await asyncio.wait_for(self.outcome, SECONDS_MAX) == "in"
        return self

    async def __aexit__(self, *_):
        await asyncio.wait_for(self.disconnect(), SECONDS_MAX)


def fields(form):
    all_fields = [] if form is None else form.findall(f"{{{FORMS}}}field")
    return {field.get("var"): field.findtext(f"{{{FORMS}}}value") for field in all_fields}


async def ask(client, name, node, secret=None):
    """`<enable/>` or `<disable/>`, in XML: slixmpp has no plugin for it."""
    iq = client.make_iq_set(ito=client.boundjid.bare)
    request = ET.Element(f"{{{PUSH}}}{name}", {"jid": SERVICE, "node": node})
    if secret:
        form = ET.SubElement(request, f"{{{FORMS}}}x", {"type": "submit"})
        for var, value in (("FORM_TYPE", OPTIONS), ("secret", secret)):
            field = ET.SubElement(form, f"{{{FORMS}}}field", {"var": var})
            ET.SubElement(field, f"{{{FORMS}}}value").text = value
    iq.append(request)
    return await iq.send(timeout=SECONDS_MAX)


def test_a_phone_that_is_gone_is_notified_until_its_service_says_no(server):
    async def play():
        user, friend = server.friends[:2]
        async with Service() as service:
            async with Client(server, f"{user}/phone") as phone:
                phone.send_presence()
                info = await phone.plugin["xep_0030"].get_info(user, timeout=SECONDS_MAX)
                assert PUSH in info["disco_info"]["features"]
                await ask(phone, "enable", "first", "a secret <&>")
                await ask(phone, "enable", "second")
                await ask(phone, "disable", "second")
            async with Client(server, f"{friend}/b") as other:
                other.send_message(mto=user, mbody="are you there?", mtype="chat")
                sender, node, said, options = await service.next()
                assert (sender, node) == (user, "first")
                assert options == {"FORM_TYPE": OPTIONS, "secret": "a secret <&>"}
                assert said == {
                    "FORM_TYPE": "urn:xmpp:push:summary",
                    "message-count": "1",
                    "last-message-body": "New message",
                }
                service.error = ("cancel", "item-not-found")
                other.send_message(mto=user, mbody="hello?", mtype="chat")
                _, node, said, _ = await service.next()
                assert (node, said["message-count"]) == ("first", "2")
            async with Client(server, f"{user}/phone") as phone:
                phone.send_presence()
                assert [(await phone.message())["body"] for _ in range(2)] == [
                    "are you there?",
                    "hello?",
                ]
                # What the service refused is not registered any more, and can be once more.
                service.error = None
                await ask(phone, "enable", "third")
            async with Client(server, f"{friend}/b") as other:
                other.send_message(mto=user, mbody="and now?", mtype="chat")
                _, node, said, _ = await service.next()
                assert (node, said["message-count"]) == ("third", "1")
                assert service.published.empty()

    scenario(play())
