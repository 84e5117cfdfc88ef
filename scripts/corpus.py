#!/usr/bin/env python3
"""Extracts the example stanzas of XEPs into tests/corpus, one file per XEP.

usage: scripts/corpus.py [FOLDER]

FOLDER holds the sources of XEPs (xep-0030.xml ..), as https://github.com/xsf/xeps has them; by
default ../shared/specs/xeps beside this repository. An example may show several stanzas; kept are
the elements that are well-formed by themselves, one after the other, separated by a line `%%`.
"""

import html
import pathlib
import re
import sys
import xml.parsers.expat

ROOT = pathlib.Path(__file__).resolve().parent.parent
CORPUS = ROOT / "tests" / "corpus"
SIZE_MAX = 1_500_000
STANZA_SIZE_MAX = 16_000

EXAMPLE = re.compile(r"<example\b[^>]*?(?:/>|>(.*?)</example>)", re.S)
CDATA = re.compile(r"<!\[CDATA\[(.*?)\]\]>", re.S)
TAG = re.compile(r"<(/?)([A-Za-z_][^\s/>]*)((?:\s+[^\s=<>]+\s*=\s*(?:'[^'<]*'|\"[^\"<]*\"))*)\s*(/?)>")

NOTICE = """The stanzas in this folder are the examples of XMPP Extension Protocols, extracted by
scripts/corpus.py. They are subject to the notice of the XMPP Standards Foundation (XSF):

Copyright

This XMPP Extension Protocol is copyright (c) 1999 - 2026 by the XMPP Standards Foundation (XSF).

Permissions

Permission is hereby granted, free of charge, to any person obtaining a copy of this specification
(the "Specification"), to make use of the Specification without restriction, including without
limitation the rights to implement the Specification in a software program, deploy the Specification
in a network service, and copy, modify, merge, publish, translate, distribute, sublicense, or sell
copies of the Specification, and to permit persons to whom the Specification is furnished to do so,
subject to the condition that the foregoing copyright notice and this permission notice shall be
included in all copies or substantial portions of the Specification. Unless separate permission is
granted, modified works that are redistributed shall not contain misleading information regarding
the authors, title, number, or publisher of the Specification, and shall not claim endorsement of
the modified works by the authors, any organization or project to which the authors belong, or the
XMPP Standards Foundation.

Disclaimer of Warranty

## NOTE WELL: This Specification is provided on an "AS IS" BASIS, WITHOUT WARRANTIES OR CONDITIONS OF
ANY KIND, express or implied, including, without limitation, any warranties or conditions of TITLE,
NON-INFRINGEMENT, MERCHANTABILITY, or FITNESS FOR A PARTICULAR PURPOSE. ##

Limitation of Liability

In no event and under no legal theory, whether in tort (including negligence), contract, or
otherwise, unless required by applicable law (such as deliberate and grossly negligent acts) or
agreed to in writing, shall the XMPP Standards Foundation or any author of this Specification be
liable for damages, including any direct, indirect, special, incidental, or consequential damages of
any character arising from, out of, or in connection with the Specification or the implementation,
deployment, or other use of the Specification (including but not limited to damages for loss of
goodwill, work stoppage, computer failure or malfunction, or any and all other commercial damages or
losses), even if the XMPP Standards Foundation or such author has been advised of the possibility of
such damages.
"""


def text_of(example):
    """The text of an example: its CDATA sections as they are, the rest with references resolved."""
    pieces = []
    end = 0
    for section in CDATA.finditer(example):
        pieces.append(html.unescape(example[end:section.start()]))
        pieces.append(section.group(1))
        end = section.end()
    pieces.append(html.unescape(example[end:]))
    return "".join(pieces).replace("\r\n", "\n")


def is_well_formed(text):
    """Whether the element is well-formed by itself, namespaces included, and restricted XML."""
    parser = xml.parsers.expat.ParserCreate(namespace_separator=" ")
    restricted = []
    parser.CommentHandler = restricted.append
    parser.ProcessingInstructionHandler = lambda *found: restricted.append(found)
    parser.StartDoctypeDeclHandler = lambda *found: restricted.append(found)
    try:
        parser.Parse(text.encode(), True)
    except (xml.parsers.expat.ExpatError, UnicodeEncodeError):
        return False
    return not restricted


def elements(text):
    """The outermost elements of a text."""
    depth = 0
    start = 0
    for tag in TAG.finditer(text):
        if depth == 0 and not tag.group(1):
            start = tag.start()
        if not tag.group(4):
            depth += -1 if tag.group(1) else 1
        if depth == 0:
            yield text[start:tag.end()]
        depth = max(depth, 0)


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "shared/specs/xeps"
    CORPUS.mkdir(parents=True, exist_ok=True)
    (CORPUS / "NOTICE").write_text(NOTICE)
    total = count = 0
    for source in sorted(folder.glob("xep-[0-9]*.xml")):
        found = []
        for example in EXAMPLE.finditer(source.read_text(errors="replace")):
            for element in elements(text_of(example.group(1) or "")):
                fits = len(element.encode()) <= STANZA_SIZE_MAX and "\n%%\n" not in element
                if fits and element not in found and is_well_formed(element):
                    found.append(element)
        text = "\n%%\n".join(found)
        if not found or total + len(text.encode()) > SIZE_MAX:
            continue
        (CORPUS / (source.stem + ".txt")).write_text(text + "\n")
        total += len(text.encode())
        count += len(found)
    print(f"{count} stanzas, {total} bytes")


if __name__ == "__main__":
    main()
