//! What preparation accepts, refuses and maps.

use super::*;
use std::collections::HashMap;

fn prepared(text: &str) -> String {
    Jid::parse(text).map_or_else(|e| panic!("{text}: {e}"), |jid| jid.as_str().to_owned())
}

#[test]
fn lower_case_ascii_is_borrowed_and_split() {
    let jid = Jid::parse("romeo@montague.example/Orchard 1").expect("a JID");
    assert!(matches!(jid.text, Cow::Borrowed(_)));
    assert_eq!(jid.local(), Some("romeo"));
    assert_eq!(jid.domain(), "montague.example");
    assert_eq!(jid.resource(), Some("Orchard 1"));
    assert_eq!(jid.bare(), "romeo@montague.example");
    assert!(!jid.is_bare());
    for domain in ["a", "a.b", "127.0.0.1", "a-b.c_d", "a/b@c/d", "a/@"] {
        let jid = Jid::parse(domain).expect("a JID");
        assert!(matches!(jid.text, Cow::Borrowed(_)), "{domain}");
        assert_eq!(jid.local(), None);
    }
}

#[test]
fn the_parts_are_split_at_the_first_slash_and_then_at_the_first_at() {
    let jid = Jid::parse("a@b/c@d/e").expect("a JID");
    assert_eq!(
        (jid.local(), jid.domain(), jid.resource()),
        (Some("a"), "b", Some("c@d/e"))
    );
    let jid = Jid::parse("b/c@d").expect("a JID");
    assert_eq!(
        (jid.local(), jid.domain(), jid.resource()),
        (None, "b", Some("c@d"))
    );
}

#[test]
fn addresses_are_mapped_to_one_form() {
    let cases = [
        (
            "Romeo@Montague.Example/Orchard",
            "romeo@montague.example/Orchard",
        ),
        ("a@example.org.", "a@example.org"),
        ("a@example.org./r", "a@example.org/r"),
        ("Stra\u{df}e@x", "strasse@x"),
        ("\u{3c2}@x", "\u{3c3}@x"),
        ("\u{fb01}\u{2163}@x", "fiiv@x"),
        ("a\u{ad}b@x", "ab@x"),
        ("fa\u{df}.de", "xn--fa-hia.de"),
        ("b\u{fc}cher.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("b\u{fc}cher\u{3002}example", "xn--bcher-kva.example"),
        ("a@[2001:DB8:0:0::1]/r", "a@[2001:db8::1]/r"),
        ("x/\u{1f916}", "x/\u{1f916}"),
        ("x/\u{1f600} \u{1fae0}", "x/\u{1f600} \u{1fae0}"),
        ("x/Stra\u{df}e \u{2163}", "x/Stra\u{df}e IV"),
        ("x/\u{1e9e}", "x/\u{1e9e}"),
        // A capital in a square decomposes into a capital, which must be folded in turn.
        ("\u{1f130}@x", "a@x"),
    ];
    for (text, expected) in cases {
        assert_eq!(prepared(text), expected);
    }
}

#[test]
fn what_is_no_address_is_refused() {
    let long = "x".repeat(1024);
    let cases = [
        ("", JidError::Empty),
        ("@x", JidError::Empty),
        ("a@", JidError::Empty),
        ("a@/r", JidError::Empty),
        ("x/", JidError::Empty),
        ("\u{ad}@x", JidError::Empty),
        ("x/\u{200b}", JidError::Empty),
        (".", JidError::Empty),
        ("a b@x", JidError::Local),
        ("a\"b@x", JidError::Local),
        ("a:b@x", JidError::Local),
        ("a<b@x", JidError::Local),
        ("a\u{2044}\u{2100}b@x", JidError::Local),
        ("\u{5d0}a@x", JidError::Local),
        ("\u{e000}@x", JidError::Local),
        ("a@b@c", JidError::Domain),
        ("a@b c", JidError::Domain),
        ("a@b..c", JidError::Domain),
        ("a@.b", JidError::Domain),
        ("a@-b", JidError::Domain),
        ("a@b-.c", JidError::Domain),
        ("a@b'c", JidError::Domain),
        ("a@xn--a", JidError::Domain),
        ("a@[::1", JidError::Domain),
        ("a@[::g]", JidError::Domain),
        ("a@[::1]x", JidError::Domain),
        ("x/\u{7}", JidError::Resource),
        ("x/\u{e0041}", JidError::Resource),
        ("x/\u{fffd}", JidError::Resource),
    ];
    for (text, expected) in cases {
        assert_eq!(
            Jid::parse(text).map(|j| j.to_string()),
            Err(expected),
            "{text:?}"
        );
    }
    for text in [
        format!("{long}@x"),
        format!("a@{long}"),
        format!("x/{long}"),
    ] {
        assert_eq!(Jid::parse(&text).map(|_| ()), Err(JidError::TooLong));
    }
    let part = "x".repeat(1023);
    let domain = vec!["x".repeat(63); 16].join(".");
    assert_eq!(domain.len(), 1023);
    assert!(Jid::parse(&format!("{part}@{domain}/{part}")).is_ok());
    // U+FDFA expands elevenfold: it is the prepared part that counts.
    let expanding = format!("x/{}", "\u{fdfa}".repeat(40));
    assert_eq!(Jid::parse(&expanding).map(|_| ()), Err(JidError::TooLong));
}

#[test]
fn owned_addresses_are_found_by_their_text() {
    let bare = BareJid::parse("A@x").expect("a bare JID");
    assert_eq!(
        (bare.local(), bare.domain(), bare.as_str()),
        (Some("a"), "x", "a@x")
    );
    let table = HashMap::from([(bare.clone(), 1)]);
    assert_eq!(table.get("a@x"), Some(&1));
    assert_eq!(BareJid::parse("a@x/r"), Err(JidError::WrongKind));
    assert_eq!(FullJid::parse("a@x"), Err(JidError::WrongKind));
    let full = bare.with_resource("R\u{2163}").expect("a full JID");
    assert_eq!(
        (full.resource(), full.bare(), full.domain()),
        ("RIV", "a@x", "x")
    );
    assert_eq!(full, FullJid::parse("a@X/RIV").expect("a full JID"));
    assert_eq!(full.to_bare(), bare);
    assert_eq!(full.as_jid().resource(), Some("RIV"));
    assert_eq!(BareJid::from_prepared("a@x/r"), bare);
}

#[test]
fn the_hash_of_an_address_never_changes() {
    assert_eq!(home_hash("juliet@capulet.example"), 0x21dc_fa34_68b2_c648);
    assert_eq!(virtual_shard("juliet@capulet.example"), 0x21d);
    let mut seen = std::collections::HashSet::new();
    for i in 0..10_000 / SHARE {
        let shard = virtual_shard(&format!("user{i}@example.org"));
        assert!(shard < VIRTUAL_SHARDS);
        seen.insert(shard);
    }
    assert!(
        seen.len() > 3_000 / SHARE,
        "users spread over the virtual shards"
    );
}

#[test]
fn new_accounts_have_names_that_both_worlds_read_alike() {
    for name in [
        "romeo",
        "romeo.m-1_x",
        "m\u{fc}ller",
        "\u{43c}\u{430}\u{448}\u{430}",
    ] {
        assert_eq!(check_new_local(name), Ok(()), "{name}");
    }
    for name in [
        "stra\u{df}e",
        "\u{3c2}",
        "\u{fb01}",
        "\u{2163}",
        "\u{1f916}",
        "\u{1e9e}",
    ] {
        assert_eq!(check_new_local(name), Err(JidError::Ambiguous), "{name}");
    }
    for name in [
        "a\"b", "a/b", "a@b", "a b", "a'b", "a&b", "a:b", "a<b", "\u{0}",
    ] {
        assert_eq!(check_new_local(name), Err(JidError::Local), "{name}");
    }
    assert_eq!(check_new_local(""), Err(JidError::Empty));
}

#[test]
fn passwords_are_prepared_by_either_profile() {
    let prepare = |password| prepare_password(password);
    assert_eq!(prepare("pass word"), Ok("pass word".into()));
    assert_eq!(prepare("I\u{ad}X"), Ok("IX".into()));
    assert_eq!(prepare("\u{2168}"), Ok("IX".into()));
    assert_eq!(prepare("\u{1e9e}"), Ok("\u{1e9e}".into()));
    assert_eq!(prepare("\u{7}"), Err(JidError::Password));
    assert_eq!(prepare(""), Err(JidError::Empty));
    assert_eq!(prepare("\u{ad}"), Err(JidError::Empty));
}

/// Characters of every kind that preparation knows, more of the plain ones.
const ALPHABET: &str = "abcABC019-_.@/ '&:xyz\u{df}\u{3c2}\u{fb01}\u{2163}\u{bd}\u{ad}\u{200d}\
    \u{fe0f}\u{e9}\u{c9}\u{301}\u{345}\u{130}\u{131}\u{5d0}\u{627}\u{661}\u{ff21}\u{ff0e}\u{3002}\
    \u{1e9e}\u{1f916}\u{1f600}\u{1f130}\u{10400}\u{3d2}\u{2126}\u{1fb3}\u{390}\u{3000}\u{a0}\
    \u{4e2d}\u{ac00}\u{e000}\u{fffd}\u{10a0}\u{13a0}\u{ab70}\u{1c90}\u{fdfa}\u{2100}\u{2044}[]";

/// Miri, which takes a thousand times as long, has this share of the samples.
const SHARE: usize = if cfg!(miri) { 1_000 } else { 1 };

/// Texts that look more or less like addresses, always the same.
fn samples(count: usize) -> impl Iterator<Item = String> {
    let alphabet: Vec<char> = ALPHABET.chars().collect();
    let mut state = 0x5eed_u64;
    let mut next = move |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695);
        (state >> 33) as usize % below
    };
    let mut part = move |out: &mut String| {
        let plain = next(3) > 0;
        for _ in 0..1 + next(5) {
            out.push(if plain {
                alphabet[next(24)]
            } else {
                alphabet[next(alphabet.len())]
            });
        }
        next(4)
    };
    (0..count).map(move |_| {
        let mut text = String::new();
        if part(&mut text) > 0 {
            text.push('@');
            part(&mut text);
        }
        if part(&mut String::new()) > 1 {
            text.push('/');
            part(&mut text);
        }
        text
    })
}

#[test]
fn preparation_is_idempotent() {
    let mut accepted = 0;
    for text in samples(100_000 / SHARE) {
        let Ok(jid) = Jid::parse(&text) else { continue };
        accepted += 1;
        let again = Jid::parse(jid.as_str()).unwrap_or_else(|e| panic!("{text:?} {jid}: {e}"));
        assert_eq!(again, jid, "{text:?}");
        let trusted = Jid::from_prepared(jid.as_str());
        assert_eq!(
            (trusted.local(), trusted.domain(), trusted.resource()),
            (jid.local(), jid.domain(), jid.resource())
        );
    }
    assert!(accepted > 5_000 / SHARE, "{accepted}");
}

#[test]
fn the_fast_path_gives_what_the_slow_path_gives() {
    let mut fast = 0;
    for text in samples(100_000 / SHARE) {
        if split_prepared(text.as_bytes()).is_none() {
            continue;
        }
        fast += 1;
        let slow = Jid::parse_slow(&text).unwrap_or_else(|e| panic!("{text:?}: {e}"));
        assert_eq!(slow.as_str(), text);
        assert_eq!(Jid::parse(&text).expect("fast"), slow);
    }
    assert!(fast > 2_000 / SHARE, "{fast}");
}

#[test]
fn a_label_of_a_domain_has_63_bytes_at_most() {
    let (fits, long) = ("x".repeat(63), "x".repeat(64));
    for place in ["a@{}", "a@{}.example/r", "a@www.{}", "{}"] {
        assert!(Jid::parse(&place.replace("{}", &fits)).is_ok(), "{place}");
        assert!(Jid::parse(&place.replace("{}", &long)).is_err(), "{place}");
        let long = format!("\u{fc}{long}");
        assert!(Jid::parse(&place.replace("{}", &long)).is_err(), "{place}");
    }
}

/// The crate `jid` keeps U-labels and prepares by stricter tables. Where it accepts an address
/// whose domain is of letters, digits and hyphens, so do we, and mean the same.
#[test]
fn what_another_implementation_accepts_is_accepted_and_means_the_same() {
    let mut compared = 0;
    for text in samples(200_000 / SHARE) {
        let Ok(theirs) = jid::Jid::new(&text) else {
            continue;
        };
        let domain = theirs.domain().as_str();
        // It forgets that it dropped a final dot when it says where the resource starts.
        if text
            .split('/')
            .next()
            .is_some_and(|bare| bare.ends_with('.'))
        {
            continue;
        }
        let is_odd =
            |c: char| c.is_ascii() && !matches!(c, 'a'..='z' | '0'..='9' | '-' | '.' | '_');
        if domain.contains(is_odd) && !domain.starts_with('[') {
            continue;
        }
        let ours = Jid::parse(&text).unwrap_or_else(|e| panic!("{text:?} {theirs}: {e}"));
        // Theirs need not be a fixed point; ours is, so it is compared with theirs prepared again.
        let again = |part: Option<&str>, prepare: fn(&str) -> Result<Cow<'_, str>, JidError>| {
            part.map(|p| prepare(p).expect("accepted before").into_owned())
        };
        let local = again(theirs.node().map(|n| n.as_str()), prepare::local);
        let resource = again(theirs.resource().map(|r| r.as_str()), prepare_resource);
        assert_eq!(
            (ours.local(), ours.resource()),
            (local.as_deref(), resource.as_deref()),
            "{text:?}"
        );
        // Nameprep maps characters that UTS 46 keeps apart, sharp s and final sigma first.
        if domain.is_ascii() && text.is_ascii() {
            assert_eq!(ours.domain(), domain, "{text:?}");
        }
        compared += 1;
    }
    assert!(compared > 5_000 / SHARE, "{compared}");
}
