"""Files (XEP-0363) put by slixmpp's own plugin, over TLS that it checks, and got by what is not a client of XMPP."""

import asyncio
import io
import ssl
import urllib.error
import urllib.parse
import urllib.request

import aiohttp
import pytest
from slixmpp.exceptions import IqError
from slixmpp.plugins.xep_0363 import FileTooBig

from conftest import kind, started
from servers import DOMAIN
from test_slixmpp import SECONDS_MAX, Client

SIZE_MAX = 300_000
FILE = bytes(range(256)) * 1_000

pytestmark = pytest.mark.skipif(kind() != "vorpal", reason="the configuration is vorpal's")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = started(
        tmp_path_factory.mktemp("upload"),
        more=f"[upload]\nenabled = true\nmax_file_size = {SIZE_MAX}\nquota = 600000\n",
    )
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def trust(server, monkeypatch):
    """The plugin makes its own client of HTTP, which knows no throw-away CA."""

    def session(**options):
        connector = aiohttp.TCPConnector(ssl=trusting(server))
        return aiohttp.ClientSession(connector=connector, **options)

    monkeypatch.setattr("slixmpp.plugins.xep_0363.http_upload.ClientSession", session)


def uploader(server, user):
    client = Client(server, user)
    client.register_plugin("xep_0363")
    return client


async def put(client, name, data, content_type):
    """Uploads as the plugin does it, and gives the URL that others may have."""
    return await client.plugin["xep_0363"].upload_file(
        name, size=len(data), content_type=content_type, input_file=io.BytesIO(data),
        timeout=SECONDS_MAX,
    )


def trusting(server):
    return ssl.create_default_context(cafile=server.ca)


def fetch(server, url, **headers):
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=SECONDS_MAX, context=trusting(server)) as answer:
        return answer.status, answer.headers, answer.read()


def test_a_file_that_slixmpp_puts_is_got_by_its_url(server):
    async def play():
        async with uploader(server, server.friends[0]) as client:
            service = await client.plugin["xep_0363"].find_upload_service(timeout=SECONDS_MAX)
            assert service["from"] == DOMAIN
            return await put(client, "très cool.jpg", FILE, "image/jpeg")

    url = asyncio.run(play())
    assert urllib.parse.unquote(url).endswith("/très cool.jpg")
    status, headers, body = fetch(server, url)
    assert (status, body) == (200, FILE)
    assert headers["Content-Type"] == "image/jpeg"
    status, headers, body = fetch(server, url, Range="bytes=10-19")
    assert (status, body) == (206, FILE[10:20])
    with pytest.raises(urllib.error.HTTPError) as refusal:
        fetch(server, url[:-1])
    assert refusal.value.code == 404


def test_slixmpp_knows_what_is_too_large_and_is_told_what_there_is_no_room_for(server):
    async def play():
        async with uploader(server, server.friends[1]) as client:
            with pytest.raises(FileTooBig):
                await put(client, "a.bin", bytes(SIZE_MAX + 1), None)
            with pytest.raises(IqError) as refusal:
                await client.plugin["xep_0363"].request_slot(DOMAIN, "a.bin", SIZE_MAX + 1, "a/b")
            assert refusal.value.condition == "not-acceptable"
            await put(client, "a.bin", FILE, None)
            await put(client, "b.bin", FILE, None)
            with pytest.raises(IqError) as refusal:
                await put(client, "c.bin", FILE, None)
            assert refusal.value.condition == "resource-constraint"

    asyncio.run(play())
