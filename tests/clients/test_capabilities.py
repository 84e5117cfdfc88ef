"""What the server says of itself (XEP-0030, 0128, 0157) and the hash of it (XEP-0115), by slixmpp.

The hash is computed by slixmpp, and here from the bytes of the answer, by the method of XEP-0115 5.1.
"""

import base64
import hashlib

import pytest

from conftest import kind, started
from servers import DOMAIN
from test_slixmpp import SECONDS_MAX, Client, scenario

CAPS = "{http://jabber.org/protocol/caps}c"
INFO = "{http://jabber.org/protocol/disco#info}"
FORM = "{jabber:x:data}"
CONTACT = (
    "[contact]\n"
    'support = ["xmpp:b@localhost", "mailto:a@localhost"]\n'
    'abuse = ["https://localhost/?a&b"]\n'
)

pytestmark = pytest.mark.skipif(kind() != "vorpal", reason="the configuration is vorpal's")


def verification(query):
    said = [
        f"{one.get('category')}/{one.get('type')}//{one.get('name', '')}"
        for one in query.iter(f"{INFO}identity")
    ]
    said += sorted(one.get("var") for one in query.iter(f"{INFO}feature"))
    for form in query.iter(f"{FORM}x"):
        assert form.get("type") == "result"
        fields = {
            field.get("var"): sorted(value.text for value in field.iter(f"{FORM}value"))
            for field in form.iter(f"{FORM}field")
        }
        said += fields.pop("FORM_TYPE")
        for var in sorted(fields):
            said += [var, *fields[var]]
    text = "".join(part + "<" for part in said).encode()
    return base64.b64encode(hashlib.sha1(text).digest()).decode()


class Asker(Client):
    """A client that keeps what the features said of the server."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.register_plugin("xep_0115")
        self.told = []
        self.add_filter("in", self.note)

    def note(self, stanza):
        if stanza.xml.tag == "{http://etherx.jabber.org/streams}features":
            self.told += [dict(c.attrib) for c in stanza.xml.iter(CAPS)]
        return stanza


@pytest.mark.parametrize("more", ["", CONTACT], ids=["plain", "with contacts"])
def test_the_hash_in_the_stream_features_is_that_of_the_answer(tmp_path, more):
    server = started(tmp_path, more=more)

    async def play():
        async with Asker(server, server.friends[0]) as alice:
            (told,) = alice.told
            assert told["hash"] == "sha-1"
            node = f"{told['node']}#{told['ver']}"
            for asked in (None, node):
                info = await alice.plugin["xep_0030"].get_info(
                    jid=DOMAIN, node=asked, timeout=SECONDS_MAX
                )
                query = info.xml.find(f"{INFO}query")
                assert query.get("node") == asked
                assert len(query.findall(f"{FORM}x")) == bool(more)
                assert verification(query) == told["ver"]
                by_slixmpp = alice.plugin["xep_0115"].generate_verstring(
                    info["disco_info"], "sha-1"
                )
                assert by_slixmpp == told["ver"]

    try:
        scenario(play())
    finally:
        server.stop()


def test_contacts_see_the_resources_that_are_there(tmp_path):
    server = started(tmp_path)
    one, two = server.friends

    async def items(client, jid):
        found = await client.plugin["xep_0030"].get_items(jid=jid, timeout=SECONDS_MAX)
        return [item[0] for item in found["disco_items"]["items"]]

    async def play():
        async with (
            Client(server, f"{one}/a") as alice,
            Client(server, f"{two}/b") as bob,
            Client(server, server.stranger) as eve,
        ):
            alice.send_presence()
            bob.send_presence()
            await bob.presence_of(one, "available")
            assert await items(bob, one) == [f"{one}/a"]
            assert await items(eve, one) == []
            assert await items(eve, f"nobody@{DOMAIN}") == []

    try:
        scenario(play())
    finally:
        server.stop()
