"""STARTTLS and direct TLS by hand: what is required, what is dropped, what is offered when."""

import base64
import re
import socket
import ssl

import pytest

from servers import DOMAIN, PASSWORD

SECONDS_MAX = 20
STARTTLS = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
HEADER = (
    f"<?xml version='1.0'?><stream:stream to='{DOMAIN}' version='1.0' xmlns='jabber:client' "
    "xmlns:stream='http://etherx.jabber.org/streams'>"
)


class Wire:
    """A socket that reads until what it waits for is there."""

    def __init__(self, server, tls=None, port=None):
        address = ("127.0.0.1", port or server.port)
        self.server = server
        self.socket = socket.create_connection(address, SECONDS_MAX)
        self.seen = ""
        if tls:
            self.wrap(tls)

    def wrap(self, context):
        self.socket = context.wrap_socket(self.socket, server_hostname=DOMAIN)
        self.seen = ""

    def send(self, text):
        self.socket.sendall(text.encode())

    def until(self, pattern):
        """Reads until the pattern matches; gives everything since the last time."""
        while not re.search(pattern, self.seen):
            chunk = self.socket.recv(65536)
            assert chunk, f"{pattern} did not come before the end: {self.seen}"
            self.seen += chunk.decode()
        seen, self.seen = self.seen, ""
        return seen

    def rest(self):
        while True:
            try:
                chunk = self.socket.recv(65536)
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                return self.seen
            self.seen += chunk.decode()

    def open(self):
        self.send(HEADER)
        return self.until("</(stream:)?features>")

    def start_tls(self, behind=""):
        self.open()
        self.send(STARTTLS + behind)
        self.until("<proceed [^>]*/>")
        self.wrap(context(self.server))


def context(server, *protocols):
    made = ssl.create_default_context(cafile=server.ca)
    if protocols:
        made.set_alpn_protocols(protocols)
    return made


def plain(user, password=PASSWORD):
    secret = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
    return f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>"


def name(jid):
    return jid.split("@")[0]


def only_vorpal(server):
    if server.name != "vorpal":
        pytest.skip("a rule of vorpal's")


def test_nothing_but_starttls_is_offered_in_clear(server):
    only_vorpal(server)
    features = Wire(server).open()
    assert "<starttls" in features and "<required" in features
    assert "mechanisms" not in features


def test_authentication_in_clear_is_refused(server):
    wire = Wire(server)
    wire.open()
    wire.send(plain(name(server.friends[0])))
    answer = wire.until("</failure>|</stream:error>|<success")
    assert "success" not in answer
    assert re.search("<failure|<stream:error", answer)


def test_plain_text_behind_starttls_is_dropped(server):
    """CVE-2011-0411's kind: what a man in the middle adds must not be taken as encrypted."""
    user = name(server.friends[0])
    for behind in [
        " \n",
        HEADER,
        HEADER + plain(user),
        plain(user),
        "<message to='a@localhost'/>",
        STARTTLS,
    ]:
        wire = Wire(server)
        try:
            wire.start_tls(behind)
        except (ssl.SSLError, ConnectionError):
            # To end the connection is as safe; to go on as if nothing had been sent is what
            # this server promises.
            assert server.name != "vorpal", f"{behind!r} broke the handshake"
            continue
        seen = wire.open()
        assert seen.count("<stream:stream") == 1, f"{behind!r} was obeyed: {seen}"
        assert "success" not in seen and "mechanisms" in seen
        wire.send(plain(user))
        wire.until("<success")


def test_after_tls_the_stream_is_new_and_offers_authentication(server):
    wire = Wire(server)
    first = wire.open()
    wire.send(STARTTLS)
    wire.until("<proceed [^>]*/>")
    wire.wrap(context(server))
    second = wire.open()
    ids = [re.search(r"\bid=['\"]([^'\"]+)", seen).group(1) for seen in (first, second)]
    assert ids[0] != ids[1]
    assert "starttls" not in second
    offered = re.findall("<mechanism>([^<]+)</mechanism>", second)
    assert {"PLAIN", "SCRAM-SHA-1"} <= set(offered), offered
    if server.name == "vorpal":
        wanted = {"SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS"}
        assert wanted <= set(offered), offered
        # XEP-0440: the bindings stand beside the -PLUS mechanisms.
        assert "tls-exporter" in second and "tls-server-end-point" in second
        assert "tls-unique" not in second


def test_starttls_inside_tls_fails(server):
    only_vorpal(server)
    wire = Wire(server)
    wire.start_tls()
    wire.open()
    wire.send(STARTTLS)
    assert "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'" in wire.rest()


def test_tls_1_2_gets_a_session_too(server):
    made = context(server)
    made.maximum_version = ssl.TLSVersion.TLSv1_2
    wire = Wire(server)
    wire.open()
    wire.send(STARTTLS)
    wire.until("<proceed [^>]*/>")
    wire.wrap(made)
    assert wire.socket.version() == "TLSv1.2"
    assert "mechanisms" in wire.open()


def test_direct_tls_takes_its_alpn_name_and_no_other(server):
    only_vorpal(server)
    wire = Wire(server, context(server, "xmpp-client"), server.tls_port)
    assert wire.socket.selected_alpn_protocol() == "xmpp-client"
    assert "mechanisms" in wire.open()
    # XEP-0368 5: a client without ALPN is served, one that wants another protocol is not.
    assert "mechanisms" in Wire(server, context(server), server.tls_port).open()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        Wire(server, context(server, "http/1.1"), server.tls_port).open()


def test_a_handshake_byte_by_byte_and_a_session_in_one_write(server):
    made = context(server)
    wire = Wire(server)
    wire.open()
    wire.send(STARTTLS)
    wire.until("<proceed [^>]*/>")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = made.wrap_bio(incoming, outgoing, server_hostname=DOMAIN)

    def flush():
        for byte in outgoing.read():
            wire.socket.sendall(bytes([byte]))

    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            flush()
            incoming.write(wire.socket.recv(65536))
    bind = ("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
            "<resource>whole</resource></bind></iq>")
    ping = f"<iq type='get' id='p' to='{DOMAIN}'><ping xmlns='urn:xmpp:ping'/></iq>"
    whole = HEADER + plain(name(server.friends[0])) + HEADER + bind + ping + "</stream:stream>"
    if server.name != "vorpal":
        pytest.skip("not every server takes a whole session at once")
    tls.write(whole.encode())
    flush()
    seen = b""
    while b"</stream:stream>" not in seen:
        try:
            seen += tls.read(65536)
        except ssl.SSLWantReadError:
            chunk = wire.socket.recv(65536)
            assert chunk, seen
            incoming.write(chunk)
    order = [seen.index(part) for part in (b"<success", b"/whole", b"id='p'", b"</stream:stream>")]
    assert order == sorted(order), seen


def test_rubbish_instead_of_a_handshake_is_closed(server):
    wire = Wire(server)
    wire.open()
    wire.send(STARTTLS)
    wire.until("<proceed [^>]*/>")
    wire.send("this is no ClientHello" * 100)
    wire.socket.settimeout(SECONDS_MAX)
    try:
        while wire.socket.recv(65536):
            pass
    except ConnectionResetError:
        pass
    # The server still serves.
    assert "starttls" in Wire(server).open()


def test_sigterm_tells_tls_clients_too(fresh_server):
    wire = Wire(fresh_server)
    wire.start_tls()
    wire.open()
    wire.send(plain(name(fresh_server.friends[0])))
    wire.until("<success")
    wire.open()
    assert fresh_server.stop() == 0 or fresh_server.name != "vorpal"
    assert "system-shutdown" in wire.rest()
