"""What newer clients publish older ones find, and the other way round: avatars (XEP-0398). And what
needs nothing of the server but nodes: vCard4 (XEP-0292), nicknames (XEP-0172).
"""

import hashlib

import pytest

from conftest import started
from test_eventing import METADATA, PHOTO, Follower, options, publish
from test_slixmpp import SECONDS_MAX, scenario

UPDATE = "{vcard-temp:x:update}"
VCARD4 = "urn:ietf:params:xml:ns:vcard-4.0"
NICK = "http://jabber.org/protocol/nick"
OPEN = {"pubsub#access_model": "open"}
DIGEST = hashlib.sha1(PHOTO).hexdigest()


class Person(Follower):
    """A client that knows the older ways, too."""

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        for plugin in ("xep_0054", "xep_0172", "xep_0292"):
            self.register_plugin(plugin)

    async def announced(self):
        bare = self.boundjid.bare
        info = await self.plugin["xep_0030"].get_info(jid=bare, timeout=SECONDS_MAX)
        return set(info["disco_info"]["features"])

    async def hash_of(self, bare):
        """What the next presence of somebody says of a picture that it says anything of."""
        while True:
            presence = await self.presence_of(bare)
            photo = presence.xml.find(f"{UPDATE}x/{UPDATE}photo")
            if photo is not None:
                return photo.text

    async def photo_of(self, bare):
        found = await self.plugin["xep_0054"].get_vcard(bare, timeout=SECONDS_MAX, cached=False)
        return found["vcard_temp"]["PHOTO"]["BINVAL"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = started(tmp_path_factory.mktemp("conversions"))
    yield server
    server.stop()


def test_a_picture_of_nodes_is_in_the_card_and_in_presence_and_back(server):
    one, two = server.friends

    async def play():
        async with (
            Person(server, f"{one}/a") as alice,
            Person(server, f"{two}/b", interests=[METADATA]) as bob,
        ):
            assert "urn:xmpp:pep-vcard-conversion:0" in await alice.announced()
            await bob.ask()
            avatars = alice.plugin["xep_0084"]
            form = {"options": options(alice, OPEN), "timeout": SECONDS_MAX}
            await avatars.publish_avatar(PHOTO, **form)
            about = {"id": DIGEST, "type": "image/png", "bytes": len(PHOTO)}
            await avatars.publish_avatar_metadata([about], **form)
            assert await bob.hash_of(one) == DIGEST
            assert await bob.photo_of(one) == PHOTO
            await bob.notice()
            # An older client takes another one.
            card = alice.plugin["xep_0054"].make_vcard()
            card["PHOTO"]["TYPE"] = "image/gif"
            card["PHOTO"]["BINVAL"] = b"another"
            await alice.plugin["xep_0054"].publish_vcard(card, timeout=SECONDS_MAX)
            digest = hashlib.sha1(b"another").hexdigest()
            assert await bob.hash_of(one) == digest
            _, node, message = await bob.notice()
            assert (node, message["pubsub_event"]["items"]["item"]["id"]) == (METADATA, digest)
            found = await bob.plugin["xep_0084"].retrieve_avatar(one, digest, timeout=SECONDS_MAX)
            assert found["pubsub"]["items"]["item"]["avatar_data"]["value"] == b"another"

    scenario(play())


def test_contacts_have_each_others_newer_cards_and_nicknames(server):
    one, two = server.friends

    async def play():
        async with (
            Person(server, f"{one}/a") as alice,
            Person(server, f"{two}/b", interests=[NICK]) as bob,
        ):
            await bob.ask()
            await alice.plugin["xep_0172"].publish_nick("Puck", timeout=SECONDS_MAX)
            _, node, message = await bob.notice()
            nick = message.xml.find(f".//{{{NICK}}}nick")
            assert (node, nick.text) == (NICK, "Puck")
            await alice.plugin["xep_0292"].publish_vcard(full_name="Alice A", timeout=SECONDS_MAX)
            found = await bob.plugin["xep_0292"].retrieve_vcard(one, timeout=SECONDS_MAX)
            name = found.xml.find(f".//{{{VCARD4}}}fn/{{{VCARD4}}}text")
            assert name.text == "Alice A"

    scenario(play())
