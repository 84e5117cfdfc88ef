"""profanity's account: registration, its password, and what the server keeps for it.

profanity 0.13.1 registers and changes its password (XEP-0077), asks for last activity (XEP-0012)
and keeps its bookmarks in private XML (XEP-0049). What it has no command for, and what is
therefore sent by hand from its XML console: to cancel a registration, and vcard-temp (XEP-0054).
"""

import asyncio

import pytest
from slixmpp.xmlstream import ET

from servers import DOMAIN
from test_messaging import Person, open_server
from test_profanity import open_profanity
from test_slixmpp import SECONDS_MAX, scenario

ROOM = f"lounge@rooms.{DOMAIN}"


@pytest.fixture(scope="module")
def server(open_server):
    """Here anybody may register."""
    return open_server


@pytest.fixture
def profanity(server, open_profanity):
    return open_profanity(server.friends[0], server.directory / "trusted")


def test_an_account_is_registered_used_and_cancelled_from_profanity(server, open_profanity):
    new = f"romeo@{DOMAIN}"

    def opened():
        profanity = open_profanity(server.friends[0], server.directory / "trusted")
        profanity.shows("Type '/help'")
        return profanity

    def answer(profanity, *passwords):
        for prompt, password in zip(("Enter password:", "Confirm password:"), passwords):
            profanity.shows(prompt)
            profanity.type(password)

    def register(password, wanted):
        # It registers once and is then opened anew: the connection that it registered over stays
        # "raw" to it, and a log-in after that skips TLS and is rightly refused.
        profanity = opened()
        profanity.type(f"/register romeo {DOMAIN} port {server.port} tls force")
        answer(profanity, password, password)
        profanity.shows(wanted)

    def log_in(profanity, password, wanted):
        profanity.console(f"/connect {new} server 127.0.0.1 port {server.port}")
        answer(profanity, password)
        profanity.shows(wanted)

    register("montague", "Registration successful.")
    register("capulet", "Server error: conflict")
    profanity = opened()
    log_in(profanity, "montague", "logged in successfully")
    profanity.console("/changepassword")
    answer(profanity, "rosaline", "rosaline")
    profanity.shows("Password successfully changed.")
    profanity.console("/disconnect")
    profanity.shows("logged out successfully")
    log_in(profanity, "montague", "Login failed.")
    log_in(profanity, "rosaline", "logged in successfully")
    profanity.send(
        "<iq type='set' id='end'><query xmlns='jabber:iq:register'><remove/></query></iq>"
    )
    profanity.shows("Lost connection.")
    profanity = opened()
    log_in(profanity, "rosaline", "Login failed.")


def test_profanity_is_told_who_was_active_when(server, profanity):
    one, two = server.friends
    profanity.log_in()

    async def play():
        await profanity.answers(f"/lastactivity get {DOMAIN}", f"{DOMAIN} up since", "uptime 0 d")
        async with Person(server, f"{two}/desk") as friend:
            friend.send_presence()
            await friend.presence_of(one, "available")
            await profanity.answers(f"/lastactivity get {two}", f"{two} currently logged in")
            # The other way round: how long nothing was typed in the terminal.
            seen = await friend.plugin["xep_0012"].get_last_activity(
                f"{one}/prof", timeout=SECONDS_MAX
            )
            assert 0 <= seen["last_activity"]["seconds"] < SECONDS_MAX
            friend.send_presence(ptype="unavailable")
            await friend.settled()
        await profanity.answers(f"/lastactivity get {two}", f"{two} last logged in")
        await profanity.answers(
            f"/lastactivity get {server.stranger}", f"failed for {server.stranger}: forbidden"
        )

    scenario(play())


def test_profanitys_bookmarks_and_card_are_kept(server, open_profanity, profanity):
    one, two = server.friends
    profanity.log_in()

    async def bookmarks(person):
        query = person.make_iq_get()
        query.xml.append(ET.fromstring(
            "<query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'/></query>"
        ))
        answer = await query.send(timeout=SECONDS_MAX)
        return [kept.get("jid") for kept in answer.xml.iter("{storage:bookmarks}conference")]

    async def play():
        profanity.console(f"/bookmark add {ROOM} nick romeo autojoin off")
        await profanity.until(f"Bookmark added for {ROOM}")
        profanity.send(
            "<iq type='set' id='card'>"
            "<vCard xmlns='vcard-temp'><FN>Romeo Montague</FN></vCard></iq>"
        )
        async with Person(server, f"{one}/desk") as desk, Person(server, two) as friend:
            async with asyncio.timeout(SECONDS_MAX):
                while await bookmarks(desk) != [ROOM]:
                    await asyncio.sleep(0.05)
                card = {}
                while card.get("FN") != "Romeo Montague":
                    seen = await friend.plugin["xep_0054"].get_vcard(one, timeout=SECONDS_MAX)
                    card = {part.tag.split("}")[1]: part.text for part in seen["vcard_temp"].xml}
            # And read again, after a new log-in, and by the friend's profanity.
            profanity.console("/disconnect")
            await profanity.until("logged out successfully")
            profanity.type(f"/connect {one}")
            await profanity.until("logged in successfully")
            await profanity.answers("/bookmark list", ROOM)
            new = friend.plugin["xep_0054"].make_vcard()
            new["FN"] = "Juliet Capulet"
            await friend.plugin["xep_0054"].publish_vcard(new, timeout=SECONDS_MAX)
            profanity.send(f"<iq type='get' id='see' to='{two}'><vCard xmlns='vcard-temp'/></iq>")
            profanity.type("/xmlconsole")
            await profanity.until("<FN>Juliet Capulet</FN>")

    scenario(play())
