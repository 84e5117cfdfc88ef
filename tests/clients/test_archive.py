"""The archive of an account (XEP-0313, 0359, 0424, 0441) by slixmpp: two devices, one of which was away."""

import pytest

from conftest import kind, started
from test_slixmpp import SECONDS_MAX, Client, scenario

SID = "{urn:xmpp:sid:0}stanza-id"
ARCHIVE = "[archive]\nenabled = true\n"

pytestmark = pytest.mark.skipif(kind() != "vorpal", reason="the other servers have no archive here")


class Reader(Client):
    """A client that reads its archive."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        for plugin in ("xep_0059", "xep_0297", "xep_0313", "xep_0359", "xep_0424", "xep_0441"):
            self.register_plugin(plugin)

    async def archive(self, **query):
        found = []
        async for message in self.plugin["xep_0313"].iterate(**query):
            result = message["mam_result"]
            forwarded = result["forwarded"]["stanza"]
            found.append((result["id"], forwarded["body"]))
        return found


def shown(message):
    (element,) = message.xml.findall(SID)
    return element.get("by"), element.get("id")


def test_a_device_that_was_away_finds_what_the_others_sent_and_got(tmp_path):
    server = started(tmp_path, more=ARCHIVE)
    one, two = server.friends

    async def play():
        async with Reader(server, f"{one}/desk") as desk, Reader(server, f"{two}/x") as friend:
            desk.send_presence()
            friend.send_presence()
            await desk.presence_of(two, "available")
            ids = []
            for number in range(30):
                desk.send_message(mto=f"{two}/x", mbody=f"to {number}", mtype="chat")
                message = await friend.messages.get()
                assert shown(message)[0] == two
                friend.send_message(mto=f"{one}/desk", mbody=f"from {number}", mtype="chat")
                by, archived = shown(await desk.messages.get())
                assert by == one
                ids.append(archived)
        async with Reader(server, f"{one}/phone") as phone:
            info = await phone.plugin["xep_0030"].get_info(jid=one, timeout=SECONDS_MAX)
            features = info["disco_info"]["features"]
            assert {"urn:xmpp:mam:2", "urn:xmpp:mam:2#extended", "urn:xmpp:sid:0"} <= set(features)
            found = await phone.archive(rsm={"max": 7})
            expected = [text for n in range(30) for text in (f"to {n}", f"from {n}")]
            assert [body for _, body in found] == expected
            assert [archived for archived, body in found if body.startswith("from")] == ids
            behind = await phone.archive(rsm={"max": 50, "after": ids[27]})
            assert [body for _, body in behind] == expected[56:]
            first, last = found[0][0], found[-1][0]
            metadata = await phone.plugin["xep_0313"].get_archive_metadata(timeout=SECONDS_MAX)
            told = metadata["mam_metadata"]
            assert (told["start"]["id"], told["end"]["id"]) == (first, last)

    try:
        scenario(play())
    finally:
        server.stop()


def test_what_was_retracted_is_in_neither_archive_any_more(tmp_path):
    server = started(tmp_path, more=ARCHIVE)
    one, two = server.friends

    async def play():
        async with Reader(server, f"{one}/desk") as desk, Reader(server, f"{two}/x") as friend:
            friend.send_presence()
            for number in range(3):
                message = desk.make_message(mto=f"{two}/x", mbody=f"secret {number}", mtype="chat")
                message["id"] = f"m{number}"
                message.send()
                await friend.message()
            retraction = desk.plugin["xep_0424"].send_retraction(f"{two}/x", "m1")
            assert (await friend.message())["retract"]["id"] == "m1"
            for reader in (desk, friend):
                found = []
                async for message in reader.plugin["xep_0313"].iterate():
                    found.append(message["mam_result"]["forwarded"]["stanza"])
                assert len(found) == 4
                assert [stanza["body"] for stanza in found[:3]] == ["secret 0", "", "secret 2"]
                assert found[1]["id"] == "m1"
                assert found[1]["retracted"]["id"] == retraction["id"]
                assert found[3]["retract"]["id"] == "m1"
            info = await desk.plugin["xep_0030"].get_info(jid=one, timeout=SECONDS_MAX)
            retract = "urn:xmpp:message-retract:1"
            assert {retract, f"{retract}#tombstone"} <= set(info["disco_info"]["features"])

    try:
        scenario(play())
    finally:
        server.stop()
