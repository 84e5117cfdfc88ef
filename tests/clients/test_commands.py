"""Ad-hoc commands (XEP-0050) and administration by them (XEP-0133), by slixmpp's own plugins."""

import asyncio

import pytest

from conftest import kind, started
from servers import DOMAIN
from test_slixmpp import SECONDS_MAX, Client, scenario

ADMIN = "http://jabber.org/protocol/admin"
OPERATOR = f"u0@{DOMAIN}"

pytestmark = pytest.mark.skipif(kind() != "vorpal", reason="the configuration is vorpal's")


class Operator(Client):
    """A client that runs commands."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        for plugin in ("xep_0030", "xep_0004", "xep_0050", "xep_0133"):
            self.register_plugin(plugin)

    async def commands(self):
        found = await self.plugin["xep_0133"].get_commands(DOMAIN, timeout=SECONDS_MAX)
        return {node: name for _, node, name in found["disco_items"]["items"]}

    async def run(self, start, fill=None):
        """Starts a command and fills in its form; gives what completes it, or the error."""
        done = asyncio.get_running_loop().create_future()

        def on_next(iq, session):
            if iq["command"]["status"] == "completed":
                return done.done() or done.set_result(iq)
            form = iq["command"]["form"]
            form["type"] = "submit"
            for var, value in (fill or {}).items():
                form.get_fields()[var]["value"] = value
            session["payload"] = form
            session["next"] = on_next
            self.plugin["xep_0050"].complete_command(session)

        def on_error(iq, session):
            if not done.done():
                done.set_result(iq)

        start(jid=DOMAIN, session={"next": on_next, "error": on_error})
        return await asyncio.wait_for(done, SECONDS_MAX)


def result(iq, var):
    assert iq["command"]["status"] == "completed", iq
    return iq["command"]["form"].get_fields()[var].get_value()


@pytest.fixture
def administered(tmp_path):
    server = started(tmp_path, more=f'[admin]\njids = ["{OPERATOR}"]\n')
    yield server
    if server.process.poll() is None:
        server.stop()


def test_an_administrator_finds_and_runs_the_commands_that_others_do_not_see(administered):
    server = administered
    admin, user = server.friends
    assert admin == OPERATOR

    async def play():
        async with Operator(server, f"{admin}/desk") as alice, Operator(server, f"{user}/x") as bob:
            bob.send_presence()
            listed = await alice.commands()
            assert listed[f"{ADMIN}#add-user"] == "Add User"
            assert await bob.commands() == {}
            run = alice.plugin["xep_0133"]
            jid = f"new@{DOMAIN}"
            password = {"password": "one", "password-verify": "one"}
            added = await alice.run(run.add_user, {"accountjid": jid, **password})
            assert added["command"]["status"] == "completed"
            again = await alice.run(run.add_user, {"accountjid": jid, **password})
            assert again["error"]["condition"] == "conflict"
            refused = await bob.run(bob.plugin["xep_0133"].add_user)
            assert refused["error"]["condition"] == "forbidden"
            count = await alice.run(run.get_registered_users_num)
            assert int(result(count, "registeredusersnum")) >= 3
            said = "The server is closed for tea"
            await alice.run(run.announce, {"announcement": said})
            assert (await bob.message())["body"] == said
            ended = asyncio.get_running_loop().create_future()
            bob.add_event_handler("stream_error", lambda error: ended.set_result(error["condition"]))
            done = await alice.run(run.end_user_session, {"accountjids": [f"{user}/x"]})
            assert done["command"]["status"] == "completed"
            assert await asyncio.wait_for(ended, SECONDS_MAX) == "reset"
            gone = await alice.run(run.delete_user, {"accountjids": [jid]})
            assert gone["command"]["status"] == "completed"

    scenario(play())
