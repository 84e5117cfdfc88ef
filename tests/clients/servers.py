"""Servers under test: the built vorpal, and Prosody to tell a failing script from a failing server.

Each listens on free ports of 127.0.0.1 in a directory of its own, speaks for `localhost` with a
certificate of a throw-away CA, and holds two friends with subscription both and one stranger.
"""

import itertools
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from typing import ClassVar

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOMAIN = "localhost"
PASSWORD = "correct horse"
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 30
PORTS = range(16_384, 32_768)
PORTS_OF_A_PROCESS = 64
PORTS_TAKEN = itertools.count()


def free_port():
    """A port nobody listens on, below those Linux gives to connections; another at each call."""
    while True:
        place = os.getpid() * PORTS_OF_A_PROCESS + next(PORTS_TAKEN)
        port = PORTS[place % len(PORTS)]
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def run(*command, **options):
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=120, **options
    )
    assert done.returncode == 0, f"{command} said\n{done.stdout}{done.stderr}"
    return done.stdout


def make_certificates(directory):
    """A CA and an ECDSA certificate for `localhost` signed by it."""
    ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    ca, ca_key = directory / "ca.pem", directory / "ca.key"
    cert, key, request = (directory / name for name in ("cert.pem", "key.pem", "request.pem"))
    run("openssl", "req", "-x509", *ec, "-keyout", ca_key, "-out", ca, "-days", 2,
        "-subj", "/CN=throw-away CA",
        "-addext", "basicConstraints=critical,CA:TRUE",
        "-addext", "keyUsage=critical,keyCertSign")
    run("openssl", "req", *ec, "-keyout", key, "-out", request, "-subj", f"/CN={DOMAIN}")
    extensions = directory / "extensions"
    extensions.write_text(f"subjectAltName=DNS:{DOMAIN}\nextendedKeyUsage=serverAuth\n")
    run("openssl", "x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key,
        "-CAcreateserial", "-days", 2, "-extfile", extensions, "-out", cert)
    trusted = directory / "trusted"
    trusted.mkdir()
    shutil.copy(ca, trusted / "ca.pem")
    run("openssl", "rehash", trusted)


@dataclass
class Server:
    """One server process and what a client needs to reach it."""

    directory: pathlib.Path
    port: int = field(default_factory=free_port)
    tls_port: int = field(default_factory=free_port)
    web_port: int = field(default_factory=free_port)
    process: subprocess.Popen = None
    friends: tuple = ()
    stranger: str = f"stranger@{DOMAIN}"
    name: ClassVar[str] = ""

    @property
    def ca(self):
        return self.directory / "ca.pem"

    def launch(self, command, is_up):
        log = open(self.directory / "log", "ab")
        self.process = subprocess.Popen(
            [str(word) for word in command], stdout=log, stderr=log, cwd=self.directory
        )
        until = time.monotonic() + START_SECONDS_MAX
        while not is_up():
            said = (self.directory / "log").read_text(errors="replace")
            assert self.process.poll() is None, f"{self.name} ended at once:\n{said}"
            assert time.monotonic() < until, f"{self.name} did not come up:\n{said}"
            time.sleep(0.02)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.name} ignored SIGTERM for {STOP_SECONDS_MAX} s") from None


class Vorpal(Server):
    name = "vorpal"

    def binary(self):
        named = os.environ.get("VORPAL")
        assert named, "set VORPAL to the server binary, or use tests/clients/run.sh"
        return pathlib.Path(named).resolve()

    def configure(self, mechanisms=None, more="", listen=""):
        make_certificates(self.directory)
        auth = f"[auth]\nmechanisms = {mechanisms!r}\n" if mechanisms else ""
        self.config.write_text(
            f'domain = "{DOMAIN}"\n'
            f'data = "{self.directory / "data"}"\n'
            "shards = 2\n"
            f'[listen]\nc2s = "127.0.0.1:{self.port}"\nc2s_tls = "127.0.0.1:{self.tls_port}"\n'
            f'https = "127.0.0.1:{self.web_port}"\n{listen}'
            f'[tls]\ncert = "{self.directory / "cert.pem"}"\nkey = "{self.directory / "key.pem"}"\n'
            f"{auth}{more}"
        )

    @property
    def config(self):
        return self.directory / "vorpal.toml"

    def command(self, *words):
        """What an operator types; gives what it printed."""
        return run(self.binary(), *words, "--config", self.config)

    def start(self, mechanisms=None, more="", listen=""):
        self.configure(mechanisms, more, listen)
        self.command("user", "make", "u%d", "--count", 2, "--clique", 2, "--password", PASSWORD)
        self.command("user", "add", self.stranger, "--password", PASSWORD)
        listed = self.command("user", "list").split()
        jids = [word if "@" in word else f"{word}@{DOMAIN}" for word in listed]
        self.friends = tuple(sorted(jid for jid in jids if jid.startswith("u")))
        assert len(self.friends) == 2, f"made two users, listed {listed}"
        self.serve()

    def serve(self):
        ready = self.directory / "ready"
        ready.unlink(missing_ok=True)
        self.launch(
            (self.binary(), "serve", "--config", self.config, "--ready-file", ready), ready.exists
        )

    def kill(self):
        self.process.kill()
        self.process.wait()


class Prosody(Server):
    name = "prosody"

    def start(self, mechanisms=None, more=""):
        make_certificates(self.directory)
        data = self.directory / "data"
        data.mkdir()
        config = self.directory / "prosody.cfg.lua"
        config.write_text(
            f'data_path = "{data}"\npidfile = "{self.directory / "pid"}"\nrun_as_root = true\n'
            'interfaces = { "127.0.0.1" }\n'
            f"c2s_ports = {{ {self.port} }}\nc2s_direct_tls_ports = {{ {self.tls_port} }}\n"
            f"s2s_ports = {{}}\nhttp_ports = {{}}\nhttps_ports = {{ {self.web_port} }}\n"
            f'https_ssl = {{ certificate = "{self.directory / "cert.pem"}", '
            f'key = "{self.directory / "key.pem"}" }}\n'
            'modules_enabled = { "roster", "saslauth", "tls", "disco", "ping", "time", "version", '
            '"websocket", "bosh" }\n'
            'modules_disabled = { "s2s", "offline" }\n'
            'authentication = "internal_hashed"\nstorage = "internal"\n'
            "c2s_require_encryption = true\n"
            f'ssl = {{ certificate = "{self.directory / "cert.pem"}", '
            f'key = "{self.directory / "key.pem"}" }}\n'
            f'log = {{ debug = "{self.directory / "log"}" }}\n'
            f'VirtualHost "{DOMAIN}"\n'
        )
        names = ("u1", "u2", "stranger")
        for name in names:
            run("prosodyctl", "--config", config, "register", name, DOMAIN, PASSWORD)
        self.friends = (f"u1@{DOMAIN}", f"u2@{DOMAIN}")
        for own, other in (("u1", "u2"), ("u2", "u1")):
            roster = data / DOMAIN / "roster" / f"{own}.dat"
            roster.parent.mkdir(exist_ok=True)
            roster.write_text(
                f'return {{ ["{other}@{DOMAIN}"] = {{ subscription = "both"; groups = {{}} }}; '
                "[false] = { version = 1 } }"
            )
        self.launch(("prosody", "--config", config, "-F"), self.answers)

    def answers(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1):
                return True
        except OSError:
            return False


SERVERS = {"vorpal": Vorpal, "prosody": Prosody}
