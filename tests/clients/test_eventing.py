"""Personal eventing (XEP-0163) by slixmpp: avatars (0084), bookmarks (0402), publish-options."""

import asyncio
import hashlib

import pytest
from slixmpp.exceptions import IqError
from slixmpp.xmlstream import ET

from conftest import started
from test_slixmpp import SECONDS_MAX, Client, scenario

PUBSUB = "http://jabber.org/protocol/pubsub"
ERRORS = f"{{{PUBSUB}#errors}}"
METADATA = "urn:xmpp:avatar:metadata"
BOOKMARKS = "urn:xmpp:bookmarks:1"
PHOTO = bytes(range(256)) * 300
PRIVATE = {
    "pubsub#persist_items": "true",
    "pubsub#max_items": "max",
    "pubsub#send_last_published_item": "never",
    "pubsub#access_model": "whitelist",
}


class Follower(Client):
    """A client that is interested in some nodes and keeps what it is told of any."""

    def __init__(self, *arguments, interests=(), **options):
        super().__init__(*arguments, **options)
        for plugin in ("xep_0004", "xep_0060", "xep_0115", "xep_0163", "xep_0084"):
            self.register_plugin(plugin)
        self.events = asyncio.Queue()
        for kind in ("publish", "retract"):
            self.add_event_handler(f"pubsub_{kind}", self.events.put_nowait)
        self.interests = interests

    async def __aenter__(self):
        await super().__aenter__()
        # The plugin for avatars is interested in them by itself.
        self.plugin["xep_0030"].del_feature(feature=f"{METADATA}+notify")
        for node in self.interests:
            self.plugin["xep_0030"].add_feature(f"{node}+notify")
        await self.plugin["xep_0115"].update_caps(broadcast=False)
        self.send_presence()
        return self

    async def notice(self):
        message = await asyncio.wait_for(self.events.get(), SECONDS_MAX)
        assert message["type"] == "headline"
        return message["from"].full, message["pubsub_event"]["items"]["node"], message

    async def ask(self):
        """All that was sent to it before is there when this returns."""
        await self.plugin["xep_0199"].ping(self.boundjid.host, timeout=SECONDS_MAX)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = started(tmp_path_factory.mktemp("eventing"))
    yield server
    server.stop()


def options(client, fields, kind="publish-options"):
    form = client.plugin["xep_0004"].make_form(ftype="submit")
    form.add_field(var="FORM_TYPE", ftype="hidden", value=f"{PUBSUB}#{kind}")
    for var, value in fields.items():
        form.add_field(var=var, value=value)
    return form


def conference(name):
    element = ET.Element(f"{{{BOOKMARKS}}}conference", {"name": name, "autojoin": "true"})
    ET.SubElement(element, f"{{{BOOKMARKS}}}nick").text = "Puck"
    return element


async def publish(client, node, item, payload, fields=None):
    return await client.plugin["xep_0060"].publish(
        client.boundjid.bare,
        node,
        id=item,
        payload=payload,
        options=options(client, fields) if fields else None,
        timeout=SECONDS_MAX,
    )


async def items_of(client, owner, node):
    found = await client.plugin["xep_0060"].get_items(owner, node, timeout=SECONDS_MAX)
    return [item["id"] for item in found["pubsub"]["items"]]


def test_an_account_is_a_service_of_its_own(server):
    async def play():
        async with Follower(server, server.friends[0]) as alice:
            bare = alice.boundjid.bare
            info = await alice.plugin["xep_0030"].get_info(jid=bare, timeout=SECONDS_MAX)
            kinds = {(one[0], one[1]) for one in info["disco_info"]["identities"]}
            assert ("pubsub", "pep") in kinds
            features = info["disco_info"]["features"]
            assert {f"{PUBSUB}#publish-options", f"{PUBSUB}#auto-create"} <= set(features)

    scenario(play())


def test_an_avatar_is_seen_by_the_contact_that_is_interested_and_by_no_other(server):
    one, two = server.friends

    async def play():
        async with (
            Follower(server, f"{one}/a") as alice,
            Follower(server, f"{two}/keen", interests=[METADATA]) as keen,
            Follower(server, f"{two}/idle") as idle,
        ):
            await keen.ask()
            await alice.plugin["xep_0084"].publish_avatar(PHOTO, timeout=SECONDS_MAX)
            digest = hashlib.sha1(PHOTO).hexdigest()
            about = {"id": digest, "type": "image/png", "bytes": len(PHOTO)}
            await alice.plugin["xep_0084"].publish_avatar_metadata([about], timeout=SECONDS_MAX)
            sender, node, _ = await keen.notice()
            assert (sender, node) == (one, METADATA)
            photo = await keen.plugin["xep_0084"].retrieve_avatar(one, digest, timeout=SECONDS_MAX)
            data = photo["pubsub"]["items"]["item"]["avatar_data"]["value"]
            assert data == PHOTO
            await idle.ask()
            assert idle.events.empty()
        # Nobody of the account is there: the last item comes with the login.
        async with Follower(server, f"{two}/late", interests=[METADATA]) as late:
            sender, node, message = await late.notice()
            assert (sender, node) == (one, METADATA)
            assert message["delay"]["stamp"]

    scenario(play())


def test_bookmarks_are_the_owners_alone_and_on_all_of_his_devices(server):
    one, two = server.friends

    async def play():
        async with (
            Follower(server, f"{one}/desk") as desk,
            Follower(server, f"{one}/phone", interests=[BOOKMARKS]) as phone,
            Follower(server, f"{two}/b", interests=[BOOKMARKS]) as bob,
        ):
            await phone.ask()
            await bob.ask()
            rooms = ["play@rooms.example", "orchard@rooms.example"]
            for room in rooms:
                await publish(desk, BOOKMARKS, room, conference(room), PRIVATE)
                sender, node, message = await phone.notice()
                assert (sender, node) == (one, BOOKMARKS)
                assert message["pubsub_event"]["items"]["item"]["id"] == room
            assert sorted(await items_of(phone, one, BOOKMARKS)) == sorted(rooms)
            with pytest.raises(IqError) as refused:
                await items_of(bob, one, BOOKMARKS)
            assert refused.value.iq.xml.find(f".//{ERRORS}closed-node") is not None
            await desk.plugin["xep_0060"].retract(
                one, BOOKMARKS, rooms[0], notify=True, timeout=SECONDS_MAX
            )
            _, _, message = await phone.notice()
            assert message["pubsub_event"]["items"]["retract"]["id"] == rooms[0]
            assert await items_of(phone, one, BOOKMARKS) == rooms[1:]
            # By the way that an event would have come.
            with pytest.raises(IqError):
                await items_of(bob, one, BOOKMARKS)
            assert bob.events.empty()

    scenario(play())


def test_what_a_publisher_expects_of_a_node_is_so_or_it_is_configured(server):
    one, _ = server.friends
    node = "urn:example:options"

    async def play():
        async with Follower(server, f"{one}/a") as alice:
            payload = ET.Element("{urn:example}x")
            await publish(alice, node, "1", payload)
            with pytest.raises(IqError) as refused:
                await publish(alice, node, "2", payload, PRIVATE)
            assert refused.value.condition == "conflict"
            assert refused.value.iq.xml.find(f".//{ERRORS}precondition-not-met") is not None
            answer = await alice.plugin["xep_0060"].get_node_config(one, node, timeout=SECONDS_MAX)
            values = answer["pubsub_owner"]["configure"]["form"].get_values()
            assert values["pubsub#access_model"] == "presence"
            form = options(alice, PRIVATE, "node_config")
            await alice.plugin["xep_0060"].set_node_config(one, node, form, timeout=SECONDS_MAX)
            await publish(alice, node, "2", payload, PRIVATE)
            assert await items_of(alice, one, node) == ["2", "1"]
            await alice.plugin["xep_0060"].delete_node(one, node, timeout=SECONDS_MAX)
            with pytest.raises(IqError) as refused:
                await items_of(alice, one, node)
            assert refused.value.condition == "item-not-found"

    scenario(play())
