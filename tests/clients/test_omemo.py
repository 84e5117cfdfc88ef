"""OMEMO (XEP-0384) by slixmpp-omemo: keys lie in nodes that anybody may read (XEP-0222)."""

import asyncio
import sys

import pytest
from omemo.storage import Just, Nothing, Storage
from slixmpp.plugins import register_plugin
from slixmpp_omemo import XEP_0384

from conftest import started
from test_eventing import items_of
from test_slixmpp import SECONDS_MAX, Client, scenario

NOW = "urn:xmpp:omemo:2"
# What most clients still speak.
BEFORE = "eu.siacs.conversations.axolotl"
DEVICES = [f"{NOW}:devices", f"{BEFORE}.devicelist"]


class Keys(Storage):
    """Keys in memory."""

    def __init__(self):
        super().__init__()
        self.kept = {}

    async def _load(self, key):
        return Just(self.kept[key]) if key in self.kept else Nothing()

    async def _store(self, key, value):
        self.kept[key] = value

    async def _delete(self, key):
        self.kept.pop(key, None)


class Omemo(XEP_0384):
    """The plugin, for people who trust whomever they meet first."""

    def plugin_init(self):
        self.keys = Keys()
        super().plugin_init()

    @property
    def storage(self):
        return self.keys

    @property
    def _btbv_enabled(self):
        return True

    async def _prompt_manual_trust(self, manually_trusted, identifier):
        raise AssertionError(f"{manually_trusted} should be trusted blindly")


register_plugin(Omemo)


class Person(Client):
    """A client that keeps encrypted messages."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        for plugin in ("xep_0060", "xep_0115", "xep_0163", "xep_0280", "xep_0334"):
            self.register_plugin(plugin)
        self.register_plugin("xep_0384", module=sys.modules[__name__])

    async def __aenter__(self):
        await super().__aenter__()
        # Its keys are published when this is there.
        await asyncio.wait_for(self.omemo.get_session_manager(), SECONDS_MAX)
        self.send_presence()
        await self.plugin["xep_0199"].ping(self.boundjid.host, timeout=SECONDS_MAX)
        return self

    @property
    def omemo(self):
        return self.plugin["xep_0384"]

    async def say(self, to, text):
        stanza = self.make_message(mto=to, mtype="chat")
        stanza["body"] = text
        sealed, errors = await self.omemo.encrypt_message(stanza, stanza["to"])
        assert not errors
        assert text not in str(sealed)
        sealed.send()

    async def hear(self):
        sealed = await self.message()
        assert self.omemo.is_encrypted(sealed) == {BEFORE}
        opened, sender = await self.omemo.decrypt_message(sealed)
        return sender.bare_jid, opened["body"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = started(tmp_path_factory.mktemp("omemo"))
    yield server
    server.stop()


def test_two_people_read_each_other_and_their_keys_are_for_anybody_to_fetch(server):
    one, two = server.friends

    async def play():
        async with Person(server, f"{one}/a") as alice, Person(server, f"{two}/b") as bob:
            await alice.omemo.refresh_device_lists({bob.boundjid}, force_download=True)
            await alice.say(two, "meet me at the orchard")
            assert await bob.hear() == (one, "meet me at the orchard")
            await bob.say(one, "at nine")
            assert await alice.hear() == (two, "at nine")
            # The plugin writes no messages of the newer kind, but has all the keys for them.
            managers = [await person.omemo.get_session_manager() for person in (alice, bob)]
            sealed, errors = await managers[0].encrypt(frozenset({two}), {NOW: b"or at ten"})
            assert not errors
            (message,) = sealed
            opened, sender, _ = await managers[1].decrypt(message)
            assert (message.namespace, sender.bare_jid, opened) == (NOW, one, b"or at ten")
            async with Client(server, server.stranger) as stranger:
                stranger.register_plugin("xep_0060")
                for node in DEVICES:
                    assert await items_of(stranger, one, node) == ["current"]
                (device, _) = await managers[0].get_own_device_information()
                bundle = f"{BEFORE}.bundles:{device.device_id}"
                assert await items_of(stranger, one, bundle) == ["current"]
                bundles = await items_of(stranger, one, f"{NOW}:bundles")
                assert bundles == [str(device.device_id)]

    scenario(play())
