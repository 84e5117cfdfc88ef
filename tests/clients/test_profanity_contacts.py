"""profanity's contacts: its roster, who may see whom, who is there, and reports of spam (XEP-0377).

What profanity 0.13.1 has no command for: to withdraw a request that was not answered yet, and to
give up seeing a contact but keep the contact. Both are sent by hand from its XML console.
"""

import asyncio

import pytest

from servers import DOMAIN
from test_messaging import Person
from test_profanity import open_profanity
from test_slixmpp import SECONDS_MAX, scenario


@pytest.fixture
def profanity(server, open_profanity):
    opened = open_profanity(server.friends[0], server.directory / "trusted")
    opened.log_in()
    return opened


def test_a_roster_is_kept_from_profanity(server, profanity):
    one, two = server.friends
    added = f"benvolio@{DOMAIN}"

    async def play():
        async with Person(server, f"{one}/desk") as desk:
            profanity.console(f'/roster nick {two} "Juliet C"')
            await desk.item(two, name="Juliet C", subscription="both")
            await profanity.answers("/roster", "(Juliet C) - both")
            profanity.console('/roster group add "The Capulets" "Juliet C"')
            await desk.item(two, name="Juliet C", groups={"The Capulets"})
            await profanity.answers("/roster", "(Juliet C) - both - The Capulets")
            profanity.console('/roster group add Verona "Juliet C"')
            await desk.item(two, groups={"The Capulets", "Verona"})
            profanity.console(f"/roster add {added} Benvolio")
            await desk.item(added, name="Benvolio", subscription="none")
            await profanity.answers(
                "/roster", "(Benvolio) - none", "(Juliet C) - both - ", "The Capulets"
            )
            await profanity.answers(
                "/roster group show Verona", "Verona:", f"{two} (Juliet C) - both"
            )
            # What another client changes is seen here.
            await desk.update_roster(two, name="Juliet", groups=["Verona"], timeout=SECONDS_MAX)
            await profanity.answers("/roster", "(Juliet) - both - Verona")
            profanity.console("/roster group remove Verona Juliet")
            await desk.item(two, groups=set())
            profanity.console(f"/roster clearnick {two}")
            await desk.item(two, name="")
            profanity.console(f"/roster remove {added}")
            await desk.item(added)
            await profanity.answers("/roster", f"{two} - both", without=[added])

    scenario(play())


def test_subscriptions_are_asked_for_denied_and_withdrawn_from_profanity(server, profanity):
    one, stranger = server.friends[0], server.stranger

    async def play():
        async with Person(server, f"{one}/desk") as desk, Person(server, stranger) as other:
            other.send_presence()
            # Asked, and denied by the other one.
            profanity.console(f"/sub request {stranger}")
            await other.request("subscribe", one)
            await profanity.answers("/sub sent", "Awaiting subscription responses from:", stranger)
            other.send_presence(pto=one, ptype="unsubscribed")
            await profanity.until(f"{stranger} deleted subscription")
            await desk.item(stranger, subscription="none", pending_out=False)
            # Asked, and taken back.
            profanity.console(f"/sub request {stranger}")
            await other.request("subscribe", one)
            await desk.item(stranger, pending_out=True)
            profanity.send(f'<presence to="{stranger}" type="unsubscribe"/>')
            await other.request("unsubscribe", one)
            await desk.item(stranger, subscription="none", pending_out=False)
            # Asked by the other one, denied here, and asked again and allowed.
            other.send_presence(pto=one, ptype="subscribe")
            await profanity.until(f"Received authorization request from {stranger}")
            await profanity.answers(
                "/sub received", "Outstanding subscription requests from:", stranger
            )
            profanity.console(f"/sub deny {stranger}")
            await other.request("unsubscribed", one)
            await profanity.answers("/sub received", "No outstanding subscription requests.")
            other.send_presence(pto=one, ptype="subscribe")
            await profanity.until(f"Received authorization request from {stranger}")
            profanity.console(f"/sub allow {stranger}")
            await other.request("subscribed", one)
            await other.presence_of(one, "available")
            await profanity.answers(f"/sub show {stranger}", "subscription status: from.")
            # What was allowed is cancelled.
            profanity.console(f"/sub deny {stranger}")
            await other.request("unsubscribed", one)
            await other.presence_of(one, "unavailable")
            profanity.console(f"/roster remove {stranger}")
            await desk.item(stranger)

    scenario(play())


def test_a_request_waits_for_profanity(server, open_profanity):
    one, stranger = server.friends[0], server.stranger

    async def play():
        async with Person(server, stranger) as other:
            other.send_presence(pto=one, ptype="subscribe")
            await other.settled()
            profanity = open_profanity(one, server.directory / "trusted")
            await asyncio.to_thread(profanity.log_in)
            await profanity.until(f"Received authorization request from {stranger}")
            profanity.console(f"/sub deny {stranger}")
            await other.request("unsubscribed", one)

    scenario(play())


def test_profanity_shows_and_is_shown_presence_of_several_resources(server, profanity):
    one, two = server.friends

    async def play():
        async with Person(server, f"{two}/desk") as desk, Person(server, f"{two}/phone") as phone:
            desk.send_presence(pshow="dnd", pstatus="writing", ppriority=5)
            phone.send_presence(pstatus="on the move", ppriority=-1)
            await profanity.until(f"++ {two} (phone) is online", f"++ {two} (desk) is dnd")
            await profanity.answers(
                f"/info {two}", 'desk (5), dnd, "writing"', 'phone (-1), online, "on the move"'
            )
            profanity.type(f"/msg {two} who gets this")
            assert (await desk.message())["body"] == "who gets this"
            await phone.settled()
            assert phone.messages.empty(), "a negative priority is given no message to the account"
            await phone.presence_of(one, "available")
            profanity.console('/status set away "at supper"')
            seen = await phone.presence_of(one, "away")
            assert (seen["status"], seen["from"].resource) == ("at supper", "prof")
            profanity.console("/priority 7")
            await profanity.until("Priority set to 7.")
            seen = await phone.presence_of(one, "away")
            assert (seen["status"], seen["priority"]) == ("at supper", 7)
            profanity.console("/status set online")
            await phone.presence_of(one, "available")
            async with Person(server, f"{one}/tablet") as tablet:
                tablet.send_presence(ppriority=3)
                await phone.presence_of(one, "available")
                phone.send_message(mto=one, mbody="to whoever is there", mtype="chat")
                profanity.type(f"/msg {two}")
                await profanity.until("to whoever is there")
                profanity.console("/priority -1")
                await profanity.until("Priority set to -1.")
                await phone.presence_of(one, "available")
                phone.send_message(mto=one, mbody="to the tablet", mtype="chat")
                phone.send_message(mto=f"{one}/prof", mbody="to the terminal", mtype="chat")
                while (await tablet.message())["body"] != "to the tablet":
                    pass
                profanity.type(f"/msg {two}")
                # The message itself is the tablet's alone; profanity asked for copies (XEP-0280 6.1).
                assert "to the tablet" in await profanity.until("to the terminal")

    scenario(play())


def test_spam_is_reported_from_profanity(server, profanity):
    one, stranger = server.friends[0], server.stranger
    text = "Never came trouble to my house like this."

    async def play():
        async with Person(server, stranger) as other, Person(server, f"{one}/desk") as desk:
            blocked = asyncio.Queue()
            desk.add_event_handler("blocked", blocked.put_nowait)
            assert await desk.plugin["xep_0191"].get_blocked_jids(timeout=SECONDS_MAX) == set()
            profanity.console(f"/blocked report-spam {stranger} {text}")
            pushed = await asyncio.wait_for(blocked.get(), SECONDS_MAX)
            assert [item["jid"] for item in pushed["block"]["items"]] == [stranger]
            other.send_message(mto=one, mbody="Buy!", mtype="chat")
            assert (await other.message())["error"]["condition"] == "service-unavailable"
            await profanity.answers("/blocked", "Blocked users:", stranger)
            await desk.plugin["xep_0191"].unblock(stranger, timeout=SECONDS_MAX)

    scenario(play())
    said = (server.directory / "log").read_text(errors="replace")
    [line] = [line for line in said.splitlines() if "abuse reported" in line]
    assert all(part in line for part in (one, stranger, "urn:xmpp:reporting:spam", text)), line
