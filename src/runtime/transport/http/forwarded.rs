//! What a proxy says of its client: the address, and whether it came by TLS. Only trusted proxies
//! are asked, for anybody may say so.

use super::{Site, values};
use httparse::Header;
use std::net::{IpAddr, SocketAddr};

/// Hops that are looked at, from the nearest.
const HOPS_MAX: usize = 16;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) address: IpAddr,
    /// By the word of a trusted proxy; in clear it is not.
    pub(super) is_secured: bool,
}

/// The client of a connection that comes from `peer`.
pub(super) fn client(headers: &[Header<'_>], site: &Site, peer: IpAddr) -> Peer {
    let is_trusted = |address: &IpAddr| site.trusted_proxies.contains(address);
    if !is_trusted(&peer) {
        return Peer {
            address: peer,
            is_secured: false,
        };
    }
    // RFC 7239 4, or what was usual before it. A proxy writes one of the two and passes the other
    // on as its client made it up: where both are there nobody is named, and both have to say TLS.
    let standard = list(headers, "forwarded");
    let older = list(headers, "x-forwarded-for");
    let parameters = |name: &'static str| standard.iter().map(move |hop| parameter(hop, name));
    let older_scheme = list(headers, "x-forwarded-proto").pop();
    let is_older = !older.is_empty() || older_scheme.is_some();
    let addresses: Vec<Option<String>> = match (standard.is_empty(), is_older) {
        (false, true) => Vec::new(),
        (false, false) => parameters("for").collect(),
        (true, _) => older.into_iter().map(Some).collect(),
    };
    let schemes = [parameters("proto").next_back().flatten(), older_scheme];
    // The last hop was seen by our own proxy; each is believed as far as its successor is trusted.
    let mut address = peer;
    for hop in addresses.into_iter().rev().take(HOPS_MAX) {
        let Some(named) = hop.as_deref().and_then(parse) else {
            break;
        };
        address = named;
        if !is_trusted(&named) {
            break;
        }
    }
    let is_secured = |scheme: &String| matches!(&*scheme.to_ascii_lowercase(), "https" | "wss");
    Peer {
        address,
        // Trust is that clients come by TLS, unless this one is said not to.
        is_secured: schemes.iter().flatten().all(is_secured),
    }
}

/// The items of a list that may stand in several lines. What is no text stays one, and names
/// nobody.
fn list(headers: &[Header<'_>], name: &str) -> Vec<String> {
    let mut all = Vec::new();
    for value in values(headers, name) {
        let text = String::from_utf8_lossy(value);
        all.extend(unquoted(&text, ',').map(|item| item.trim().to_owned()));
    }
    all
}

/// What stands between separators that are not in quotes (RFC 7239 4): a client may have had its
/// own put there.
fn unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |one: char| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match one {
            '"' if !was_escaped => is_quoted = !is_quoted,
            '\\' if is_quoted && !was_escaped => is_escaped = true,
            _ => {}
        }
        one == separator && !is_quoted
    })
}

/// What `name` is in an item of `Forwarded`.
fn parameter(item: &str, name: &str) -> Option<String> {
    let pairs = unquoted(item, ';').filter_map(|pair| pair.split_once('='));
    let mut named = pairs.filter(|(key, _)| key.trim().eq_ignore_ascii_case(name));
    let (_, value) = named.next()?;
    Some(value.trim().trim_matches('"').to_owned())
}

/// An address, perhaps with a port; in brackets where it is of IPv6 (RFC 7239 6).
fn parse(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse::<IpAddr>().ok();
    let address = address.or_else(|| text.parse::<SocketAddr>().ok().map(|both| both.ip()));
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: &str, headers: &[(&str, &str)]) -> (String, bool) {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let site = Site {
            trusted_proxies: vec![address("127.0.0.1"), address("10.0.0.2")],
            ..Site::default()
        };
        let headers: Vec<Header<'_>> = headers
            .iter()
            .map(|&(name, value)| Header {
                name,
                value: value.as_bytes(),
            })
            .collect();
        let peer = client(&headers, &site, address(peer));
        (peer.address.to_string(), peer.is_secured)
    }

    #[test]
    fn a_stranger_is_not_believed() {
        let said = [
            ("X-Forwarded-For", "1.1.1.1"),
            ("X-Forwarded-Proto", "https"),
        ];
        assert_eq!(seen("9.9.9.9", &said), ("9.9.9.9".into(), false));
        assert_eq!(seen("9.9.9.9", &[]), ("9.9.9.9".into(), false));
    }

    #[test]
    fn a_trusted_proxy_names_its_client_and_not_what_that_made_up() {
        for (headers, expected, secured) in [
            (vec![], "127.0.0.1", true),
            (
                vec![("X-Forwarded-For", "1.1.1.1, 2.2.2.2")],
                "2.2.2.2",
                true,
            ),
            (
                vec![("x-forwarded-for", "1.1.1.1, 10.0.0.2")],
                "1.1.1.1",
                true,
            ),
            (
                vec![
                    ("X-Forwarded-For", "1.1.1.1"),
                    ("X-Forwarded-For", "[::5]:80"),
                ],
                "::5",
                true,
            ),
            (
                vec![("X-Forwarded-For", "1.1.1.1, unknown")],
                "127.0.0.1",
                true,
            ),
            (vec![("X-Forwarded-Proto", "http")], "127.0.0.1", false),
            (
                vec![("X-Forwarded-Proto", "http, https")],
                "127.0.0.1",
                true,
            ),
            (
                vec![(
                    "Forwarded",
                    "for=1.1.1.1;proto=http, For=\"[::6]\";proto=HTTPS",
                )],
                "::6",
                true,
            ),
            (
                vec![("Forwarded", "proto=http;for=2.2.2.2:99")],
                "2.2.2.2",
                false,
            ),
            (
                vec![("Forwarded", "for=3.3.3.3"), ("X-Forwarded-For", "4.4.4.4")],
                "127.0.0.1",
                true,
            ),
            (
                vec![
                    ("Forwarded", "for=3.3.3.3;proto=https"),
                    ("X-Forwarded-Proto", "http"),
                ],
                "127.0.0.1",
                false,
            ),
        ] {
            assert_eq!(
                seen("127.0.0.1", &headers),
                (expected.into(), secured),
                "{headers:?}"
            );
        }
    }

    #[test]
    fn what_stands_in_quotes_names_nobody() {
        for said in [
            r#"host="a;for=6.6.6.6,for=6.6.6.6";for=1.1.1.1"#,
            r#"host="\",for=6.6.6.6,";for=1.1.1.1"#,
        ] {
            let client = seen("127.0.0.1", &[("Forwarded", said)]);
            assert_eq!(client, ("1.1.1.1".into(), true), "{said}");
        }
    }

    #[test]
    fn what_is_no_text_hides_nothing_that_a_proxy_says() {
        let own = IpAddr::from([127, 0, 0, 1]);
        let site = Site {
            trusted_proxies: vec![own],
            ..Site::default()
        };
        let headers = [
            ("Forwarded", &b"\xff"[..]),
            ("Forwarded", b"for=3.3.3.3;proto=http"),
            ("X-Forwarded-For", b"4.4.4.4"),
        ];
        let headers = headers.map(|(name, value)| Header { name, value });
        let peer = client(&headers, &site, own);
        assert_eq!((peer.address, peer.is_secured), (own, false));
    }

    #[test]
    fn so_many_hops_are_looked_at() {
        let hops = |count: usize| "1.1.1.1, ".to_owned() + &["10.0.0.2"; 16][..count].join(", ");
        let last = |count| seen("127.0.0.1", &[("X-Forwarded-For", &hops(count))]).0;
        assert_eq!(last(HOPS_MAX - 1), "1.1.1.1");
        assert_eq!(last(HOPS_MAX), "10.0.0.2");
    }
}
