#!/usr/bin/env python3
"""Makes docs/conformance.md from what the code says of itself.

usage: scripts/conformance.py [--check]

A XEP that is answered has a `const XEP` in its file; a rule that is obeyed has its citation in a
comment (`// RFC 6121 8.5.2.1.1`, `// XEP-0198 4`). With --check nothing is written: the page is made
in memory and compared, and the status is 1 where it differs. A XEP's name stands in NAMES below;
where the XEPs' sources lie in ../shared/specs/xeps, a missing name is said with its line.
"""

import pathlib
import re
import sys
from collections import defaultdict

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/conformance.md"
XEPS = ROOT.parent / "shared/specs/xeps"
# The table of namespaces names the XEP of each, obeyed or not.
SKIPPED = ("src/stanza/ns.rs",)
PLACES = ("src", "tests")
IS_TEST = re.compile(r"^tests/|/tests/|(^|/)tests\.rs$|^src/sim/|conformance\.rs$|/crash\.rs$")

NAMES = {
    "XEP-0004": "Data Forms",
    "XEP-0012": "Last Activity",
    "XEP-0016": "Privacy Lists",
    "XEP-0030": "Service Discovery",
    "XEP-0048": "Bookmarks",
    "XEP-0049": "Private XML Storage",
    "XEP-0050": "Ad-Hoc Commands",
    "XEP-0054": "vcard-temp",
    "XEP-0059": "Result Set Management",
    "XEP-0060": "Publish-Subscribe",
    "XEP-0068": "Field Standardization for Data Forms",
    "XEP-0077": "In-Band Registration",
    "XEP-0082": "XMPP Date and Time Profiles",
    "XEP-0084": "User Avatar",
    "XEP-0085": "Chat State Notifications",
    "XEP-0092": "Software Version",
    "XEP-0114": "Jabber Component Protocol",
    "XEP-0115": "Entity Capabilities",
    "XEP-0124": "Bidirectional-streams Over Synchronous HTTP (BOSH)",
    "XEP-0128": "Service Discovery Extensions",
    "XEP-0133": "Service Administration",
    "XEP-0153": "vCard-Based Avatars",
    "XEP-0156": "Discovering Alternative XMPP Connection Methods",
    "XEP-0157": "Contact Addresses for XMPP Services",
    "XEP-0160": "Best Practices for Handling Offline Messages",
    "XEP-0163": "Personal Eventing Protocol",
    "XEP-0172": "User Nickname",
    "XEP-0191": "Blocking Command",
    "XEP-0198": "Stream Management",
    "XEP-0199": "XMPP Ping",
    "XEP-0202": "Entity Time",
    "XEP-0203": "Delayed Delivery",
    "XEP-0206": "XMPP Over BOSH",
    "XEP-0215": "External Service Discovery",
    "XEP-0220": "Server Dialback",
    "XEP-0222": "Persistent Storage of Public Data via PubSub",
    "XEP-0223": "Persistent Storage of Private Data via PubSub",
    "XEP-0227": "Portable Import/Export Format for XMPP-IM Servers",
    "XEP-0280": "Message Carbons",
    "XEP-0297": "Stanza Forwarding",
    "XEP-0288": "Bidirectional Server-to-Server Connections",
    "XEP-0292": "vCard4 Over XMPP",
    "XEP-0313": "Message Archive Management",
    "XEP-0334": "Message Processing Hints",
    "XEP-0352": "Client State Indication",
    "XEP-0353": "Jingle Message Initiation",
    "XEP-0357": "Push Notifications",
    "XEP-0359": "Unique and Stable Stanza IDs",
    "XEP-0363": "HTTP File Upload",
    "XEP-0368": "SRV records for XMPP over TLS",
    "XEP-0377": "Blocking Command Reports",
    "XEP-0384": "OMEMO Encryption",
    "XEP-0386": "Bind 2",
    "XEP-0388": "Extensible SASL Profile",
    "XEP-0398": "User Avatar to vCard-Based Avatars Conversion",
    "XEP-0402": "PEP Native Bookmarks (without section 6, decision 0018)",
    "XEP-0411": "Bookmarks Conversion (switched off, decision 0018)",
    "XEP-0440": "SASL Channel-Binding Type Capability",
    "XEP-0474": "SASL SCRAM Downgrade Protection",
    "XEP-0424": "Message Retraction",
    "XEP-0441": "Message Archive Management Preferences",
    "XEP-0444": "Message Reactions",
    "XEP-0455": "Service Outage Status",
    "XEP-0478": "Stream Limits Advertisement",
    "XEP-0480": "SASL Upgrade Tasks",
    "XEP-0484": "Fast Authentication Streamlining Tokens",
    "XEP-0490": "Message Displayed Synchronization",
    "XEP-0494": "Client Access Management",
    "RFC 3454": "Preparation of Internationalized Strings (stringprep)",
    "RFC 3921": "XMPP: Instant Messaging and Presence, obsolete",
    "RFC 3986": "Uniform Resource Identifier (URI)",
    "RFC 4013": "SASLprep",
    "RFC 4055": "Algorithms and Identifiers for RSA in X.509",
    "RFC 4422": "Simple Authentication and Security Layer (SASL)",
    "RFC 4505": "Anonymous SASL Mechanism",
    "RFC 4616": "The PLAIN SASL Mechanism",
    "RFC 5246": "TLS 1.2",
    "RFC 5646": "Tags for Identifying Languages",
    "RFC 5802": "SCRAM",
    "RFC 5803": "Storing SCRAM Secrets in LDAP",
    "RFC 5929": "Channel Bindings for TLS",
    "RFC 6120": "XMPP: Core",
    "RFC 6121": "XMPP: Instant Messaging and Presence",
    "RFC 6122": "XMPP: Address Format, obsolete",
    "RFC 6454": "The Web Origin Concept",
    "RFC 6455": "The WebSocket Protocol",
    "RFC 7239": "Forwarded HTTP Extension",
    "RFC 7395": "XMPP over WebSocket",
    "RFC 7590": "Use of TLS in XMPP",
    "RFC 7622": "XMPP: Address Format",
    "RFC 7677": "SCRAM-SHA-256",
    "RFC 8265": "Usernames and Passwords (PRECIS)",
    "RFC 8446": "TLS 1.3",
    "RFC 9266": "Channel Bindings for TLS 1.3",
    "RFC 9110": "HTTP Semantics",
    "RFC 9112": "HTTP/1.1",
}

XEP = re.compile(r'const XEP: Xep = Xep \{\s*number: (\d+),\s*version: "([^"]+)"')
COMMENT = re.compile(r"(?:^|\s)//[/!]?(?!/)\s?(.*)$")
SECTION = r"(?:Appendix )?(?:\d+(?:\.\d+)*|[A-Z](?:\.\d+)*)(?![\w-]|\.\d|,\d)"
CITATION = re.compile(
    rf"\b(RFC \d{{4}}|XEP-\d{{4}})(?: ({SECTION}(?:(?:, and |, | and | or | to ){SECTION})*))?"
)


def comments(text):
    """The comments of a file in Rust, those of adjacent lines joined."""
    joined = []
    for line in text.splitlines():
        found = COMMENT.search(line)
        alone = found and line.lstrip().startswith("//")
        if alone and joined and joined[-1] is not None:
            joined[-1] += " " + found.group(1)
        elif found:
            joined.append(found.group(1))
            if not alone:
                joined.append(None)
        elif joined and joined[-1] is not None:
            joined.append(None)
    return [comment for comment in joined if comment]


def split_tests(path, text):
    """(code, tests) of a file."""
    if IS_TEST.search(path):
        return "", text
    code, _, tests = text.partition("\n#[cfg(test)]\nmod tests {")
    return code, tests


def order(section):
    """Sections by their numbers, appendices last."""
    word = section.removeprefix("Appendix ")
    return [(part.isalpha(), int(part) if part.isdigit() else 0, part) for part in word.split(".")]


def cited(texts):
    """document -> section (or "") -> files."""
    found = defaultdict(lambda: defaultdict(set))
    for path, text in texts:
        # Python and scenarios are read whole: they cite in docstrings and headings.
        is_whole = path.endswith((".py", ".txt"))
        for comment in text.splitlines() if is_whole else comments(text):
            for document, sections in CITATION.findall(comment):
                for section in re.findall(SECTION, sections) or [""]:
                    found[document][section.removeprefix("Appendix ")].add(path)
    return found


def read():
    """(path, code, tests) of every file that may obey a rule or test one."""
    files = [path for place in PLACES for path in (ROOT / place).rglob("*.rs")]
    files += (ROOT / "tests/clients").glob("*.py")
    files += (ROOT / "tests/scenarios").glob("*.txt")
    for path in sorted(files):
        name = path.relative_to(ROOT).as_posix()
        if name not in SKIPPED and "/target/" not in name and name != "tests/conformance.rs":
            yield name, *split_tests(name, path.read_text())


def name_of(document):
    if document in NAMES:
        return NAMES[document]
    source = XEPS / f"{document.lower()}.xml"
    title = source.exists() and re.search(r"<title>([^<]+)</title>", source.read_text())
    line = f'"{document}": "{title.group(1) if title else "ITS NAME"}",'
    sys.exit(f"conformance: {document} has no name; add to NAMES in scripts/conformance.py: {line}")


def listed(paths):
    return ", ".join(f"`{path.removeprefix('src/')}`" for path in sorted(paths)) or "-"


def rows(code, tests):
    for section in sorted({*code, *tests}, key=lambda s: order(s) if s else []):
        yield f"| {section or 'as a whole'} | {listed(code.get(section, ()))} | " \
              f"{listed(tests.get(section, ()))} |"


def page():
    files = list(read())
    code = cited((path, text) for path, text, _ in files)
    tests = cited((path, text) for path, _, text in files)
    answered = sorted(
        (int(number), version, path)
        for path, text, _ in files for number, version in XEP.findall(text)
    )
    out = [
        "# Conformance", "",
        "Made by `scripts/conformance.py` from the code: the `const XEP` of each extension, and the",
        "sections of RFCs and XEPs that comments cite where a rule is obeyed or tested. Paths without",
        "`tests/` start at `src/`. A section that is not here may be obeyed, but nobody says where.", "",
        "## Extensions that are answered", "",
        "| XEP | name | version | file | sections cited | tests that cite it |",
        "|---|---|---|---|---|---|",
    ]
    for number, version, path in answered:
        document = f"XEP-{number:04}"
        sections = sorted({s for s in code.get(document, {}) if s}, key=order)
        files_of_tests = {path for paths in tests.get(document, {}).values() for path in paths}
        link = f"[{number:04}](https://xmpp.org/extensions/xep-{number:04}.html)"
        cells = (link, name_of(document), version, listed([path]), ", ".join(sections) or "-",
                 listed(files_of_tests))
        out.append(f"| {' | '.join(cells)} |")
    documents = sorted({*code, *tests})
    for kind in ("RFC", "XEP"):
        out += ["", f"## Sections of {kind}s"]
        for document in (d for d in documents if d.startswith(kind)):
            out += ["", f"### {document}: {name_of(document)}", "",
                    "| section | code | tests |", "|---|---|---|",
                    *rows(code.get(document, {}), tests.get(document, {}))]
    return "\n".join(out) + "\n"


def main():
    made = page()
    if sys.argv[1:] == ["--check"]:
        if not PAGE.exists() or PAGE.read_text() != made:
            sys.exit("conformance: docs/conformance.md is out of date; run scripts/conformance.py")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        PAGE.write_text(made)
        print(f"{PAGE.relative_to(ROOT)}: {len(made.splitlines())} lines")


if __name__ == "__main__":
    main()
