//! Tests of SASL: the vectors of RFC 5802 and RFC 7677, and every way to be refused.

use super::hash::Hash;
use super::*;
use crate::host::TlsFacts;
use crate::port::Credentials;
use crate::settings::Settings;

const SECRET: [u8; 32] = [9; 32];
const SALTS: Salts = [[1; SALT_SIZE], [2; SALT_SIZE], [3; SALT_SIZE]];

fn facts() -> TlsFacts {
    TlsFacts {
        exporter: Some([0xAB; 32]),
        server_end_point: Some(Box::new([0xCD; 32])),
    }
}

/// Settings of a server where every mechanism but ANONYMOUS is at its default.
fn settings() -> Settings {
    Settings {
        tls_required: false,
        ..Settings::new("example.org")
    }
}

fn keys(password: &str) -> Credentials {
    derive_credentials(password, &SALTS, 2).expect("a good password")
}

/// The exchange after `message`, on a stream with these facts.
fn exchange(
    mechanism: Mechanism,
    message: &str,
    facts: Option<&TlsFacts>,
) -> Result<(BareJid, Exchange), SaslError> {
    let settings = settings();
    let offer = Offer::new(&settings, facts);
    match begin(mechanism, Some(message.as_bytes()), &offer)? {
        First::NeedsCredentials { account, exchange } => Ok((account, exchange)),
        other => panic!("not an exchange: {other:?}"),
    }
}

/// What begins a PLAIN login.
fn plain(message: &str) -> Result<(BareJid, Password), SaslError> {
    let settings = settings();
    let facts = facts();
    let offer = Offer::new(&settings, Some(&facts));
    match begin(Mechanism::Plain, Some(message.as_bytes()), &offer)? {
        First::Plain { account, password } => Ok((account, password)),
        other => panic!("not PLAIN: {other:?}"),
    }
}

/// A SCRAM client: the final message for `password`, given the server's first message.
fn client_final(
    hash: Hash,
    password: &str,
    bare: &str,
    server_first: &str,
    binding: &[u8],
) -> String {
    let field = |name: &str| {
        let mut fields = server_first.split(',');
        fields
            .find_map(|field| field.strip_prefix(name))
            .expect("a field")
            .to_owned()
    };
    let salt = decode(field("s=").as_bytes()).expect("base64");
    let rounds: u32 = field("i=").parse().expect("a number");
    let (client_key, stored_key) = hash.client_keys(password, &salt, rounds);
    let without_proof = format!("c={},r={}", encode(binding), field("r="));
    let signed = format!("{bare},{server_first},{without_proof}");
    let proof = hash
        .hmac(&stored_key, &[signed.as_bytes()])
        .xor(&client_key);
    format!("{without_proof},p={}", encode(&proof))
}

/// Logs in by `mechanism` as `username` with `password`; the account has the password "pencil".
fn login(
    mechanism: Mechanism,
    gs2: &str,
    username: &str,
    password: &str,
    channel: &[u8],
    known: bool,
) -> Result<Vec<u8>, SaslError> {
    let bare = format!("n={username},r=abcdef");
    let facts = facts();
    let (_, mut exchange) = exchange(mechanism, &format!("{gs2}{bare}"), Some(&facts))?;
    let keys = keys("pencil");
    let first = exchange.challenge(known.then_some(&keys), [5; NONCE_SIZE], &SECRET, 2);
    let first = String::from_utf8(first).expect("text");
    let hash = Hash::of(mechanism).expect("SCRAM");
    let binding = [gs2.as_bytes(), channel].concat();
    let last = client_final(hash, password, &bare, &first, &binding);
    exchange.finish(last.as_bytes())
}

#[test]
fn the_example_of_rfc_5802_is_answered_to_the_letter() {
    let bare = "n=user,r=fyko+d2lbbFgONRv9qkxdawL";
    let (account, mut exchange) =
        exchange(Mechanism::ScramSha1, &format!("n,,{bare}"), None).expect("an exchange");
    assert_eq!(account.as_str(), "user@example.org");
    let salt = decode(b"QSXCR+Q6sek8bf92").expect("base64");
    let keys = Credentials {
        sha1: Some(Hash::Sha1.derive("pencil", &salt, 4096)),
        ..Credentials::default()
    };
    exchange.challenge(Some(&keys), [0; NONCE_SIZE], &SECRET, 4096);
    // The example's server nonce is no base64 of 18 bytes, so it is put in by hand.
    let first = "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096";
    exchange.pretend(bare, first);
    let last = exchange
        .finish(
            b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
        )
        .expect("the proof is right");
    assert_eq!(last, b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=");
}

#[test]
fn the_example_of_rfc_7677_is_answered_to_the_letter() {
    let bare = "n=user,r=rOprNGfwEbeRWgbNEkqO";
    let (_, mut exchange) =
        exchange(Mechanism::ScramSha256, &format!("n,,{bare}"), None).expect("an exchange");
    let salt = decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
    let keys = Credentials {
        sha256: Some(Hash::Sha256.derive("pencil", &salt, 4096)),
        ..Credentials::default()
    };
    exchange.challenge(Some(&keys), [0; NONCE_SIZE], &SECRET, 4096);
    let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    exchange.pretend(
        bare,
        &format!("r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"),
    );
    let proof = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    let last = exchange
        .finish(format!("c=biws,r={nonce},p={proof}").as_bytes())
        .expect("the proof is right");
    assert_eq!(last, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
}

#[test]
fn every_scram_mechanism_lets_the_right_password_in_and_no_other() {
    for mechanism in Mechanism::ALL
        .into_iter()
        .filter(|one| Hash::of(*one).is_some())
    {
        let bindings: &[(&str, &[u8])] = if mechanism.is_plus() {
            &[
                ("p=tls-exporter,,", &[0xAB; 32]),
                ("p=tls-server-end-point,,", &[0xCD; 32]),
            ]
        } else {
            &[("n,,", &[])]
        };
        for (gs2, channel) in bindings {
            let right = login(mechanism, gs2, "user", "pencil", channel, true);
            assert!(
                right.expect("the right password").starts_with(b"v="),
                "{mechanism:?}"
            );
            let wrong = login(mechanism, gs2, "user", "pen", channel, true);
            assert_eq!(wrong, Err(SaslError::NotAuthorized), "{mechanism:?}");
        }
    }
}

#[test]
fn a_client_on_another_channel_is_refused_though_its_password_is_right() {
    for (gs2, channel) in [
        ("p=tls-exporter,,", [0xCD; 32]),
        ("p=tls-server-end-point,,", [0xAB; 32]),
    ] {
        let got = login(
            Mechanism::ScramSha256Plus,
            gs2,
            "user",
            "pencil",
            &channel,
            true,
        );
        assert_eq!(got, Err(SaslError::NotAuthorized));
    }
    // The `c=` of a client that says `n` must repeat just that.
    let got = login(Mechanism::ScramSha1, "n,,", "user", "pencil", b"x", true);
    assert_eq!(got, Err(SaslError::NotAuthorized));
}

#[test]
fn a_removed_offer_of_plus_is_noticed() {
    let facts = facts();
    let refused = exchange(Mechanism::ScramSha256, "y,,n=user,r=abc", Some(&facts));
    assert_eq!(refused.map(|_| ()), Err(SaslError::NotAuthorized));
    // In clear nothing was offered, so the client is right.
    assert!(exchange(Mechanism::ScramSha256, "y,,n=user,r=abc", None).is_ok());
    // A client without channel binding is always welcome.
    assert!(exchange(Mechanism::ScramSha256, "n,,n=user,r=abc", Some(&facts)).is_ok());
}

#[test]
fn an_unknown_user_sees_a_stable_salt_and_fails_only_at_the_end() {
    let challenge = |name: &str, mechanism, nonce| {
        let message = format!("n,,n={name},r=abc");
        let (_, mut exchange) = exchange(mechanism, &message, None).expect("an exchange");
        let first = exchange.challenge(None, [nonce; NONCE_SIZE], &SECRET, 4096);
        let first = String::from_utf8(first).expect("text");
        assert!(first.contains(",i=4096,"));
        first.split(',').nth(1).expect("a salt").to_owned()
    };
    let salt = challenge("ghost", Mechanism::ScramSha256, 1);
    assert_eq!(salt, challenge("ghost", Mechanism::ScramSha256, 2));
    assert_eq!(
        salt,
        challenge("GHOST", Mechanism::ScramSha256, 3),
        "one account, one salt"
    );
    assert_ne!(salt, challenge("ghosts", Mechanism::ScramSha256, 1));
    assert_ne!(
        salt,
        challenge("ghost", Mechanism::ScramSha1, 1),
        "as with real accounts"
    );
    let real = Credentials {
        sha256: keys("x").sha256,
        ..Credentials::default()
    };
    let shown = encode(&real.sha256.expect("a key").salt);
    assert_eq!(salt.len(), "s=".len() + shown.len());

    let got = login(Mechanism::ScramSha256, "n,,", "ghost", "pencil", b"", false);
    assert_eq!(got, Err(SaslError::NotAuthorized));
}

/// The example of XEP-0474 6.3.
#[test]
fn a_client_learns_the_hash_of_what_was_advertised_and_nobody_between_changes_it() {
    let settings = Settings {
        mechanisms: vec![Mechanism::ScramSha1Plus, Mechanism::ScramSha1],
        ..settings()
    };
    let facts = facts();
    for (facts, hash) in [
        (Some(&facts), "G6k/rBLDqgOhRRaCuuatSDFkJ08="),
        (None, "LrtFoCs8XsoI+diY4u3rG69UGN8="),
    ] {
        let offer = Offer::new(&settings, facts);
        let message = Some(&b"n,,n=user,r=abc"[..]);
        let begun = || match begin(Mechanism::ScramSha1, message, &offer) {
            Ok(First::NeedsCredentials { exchange, .. }) => exchange,
            other => panic!("not an exchange: {other:?}"),
        };
        let said = |exchange: &mut Exchange| {
            let first = exchange.challenge(Some(&keys("x")), [7; NONCE_SIZE], &SECRET, 2);
            String::from_utf8(first).expect("text")
        };
        let mut exchange = begun();
        let first = said(&mut exchange);
        let told = first.split(',').nth(3);
        assert_eq!(told, Some(&*format!("h={hash}")));
        let last = client_final(Hash::Sha1, "x", "n=user,r=abc", &first, b"n,,");
        assert!(exchange.finish(last.as_bytes()).is_ok());
        // Who puts another hash into it is found by the server.
        let mut exchange = begun();
        let first = said(&mut exchange).replace("h=", "h=A");
        let last = client_final(Hash::Sha1, "x", "n=user,r=abc", &first, b"n,,");
        let refused = exchange.finish(last.as_bytes());
        assert_eq!(refused, Err(SaslError::NotAuthorized));
    }
}

#[test]
fn an_account_without_keys_for_the_hash_fails_like_an_unknown_user() {
    let (_, mut exchange) =
        exchange(Mechanism::ScramSha512, "n,,n=user,r=abc", None).expect("an exchange");
    let imported = Credentials {
        sha1: keys("pencil").sha1,
        ..Credentials::default()
    };
    let first = exchange.challenge(Some(&imported), [0; NONCE_SIZE], &SECRET, 2);
    let first = String::from_utf8(first).expect("text");
    let last = client_final(Hash::Sha512, "pencil", "n=user,r=abc", &first, b"n,,");
    assert_eq!(
        exchange.finish(last.as_bytes()),
        Err(SaslError::NotAuthorized)
    );
}

#[test]
fn malformed_first_messages_are_refused() {
    let long = format!("n,,n=user,r={}", "a".repeat(513));
    let huge = format!("n,,n=user,r=abc,x={}", "a".repeat(MESSAGE_SIZE_MAX));
    for message in [
        "",
        "n",
        "n,",
        "n,,",
        "n,,n=user",
        "n,,r=abc,n=user",
        "n,,n=,r=abc",
        "n,,n=user,r=",
        "n,,m=x,n=user,r=abc",
        "n,,n=user,r=abc,m=x",
        "n,,n=user,r=abc,",
        "n,,n=user,r=abc,x",
        "n,,n=us=er,r=abc",
        "n,,n=us=2cer,r=abc",
        "n,,n=user,r=a b",
        "n,,n=user,r=a\u{e9}",
        "n,b,n=user,r=abc",
        "q,,n=user,r=abc",
        "p=tls-exporter,,n=user,r=abc",
        "N,,n=user,r=abc",
        "n,,n=us\0er,r=abc",
        &long,
        &huge,
    ] {
        let got = exchange(Mechanism::ScramSha1, message, None).map(|_| ());
        assert_eq!(got, Err(SaslError::MalformedRequest), "{message:?}");
    }
    let facts = facts();
    for message in [
        "n,,n=user,r=abc",
        "y,,n=user,r=abc",
        "p=tls-unique,,n=user,r=abc",
        "p=,,n=user,r=abc",
    ] {
        let got = exchange(Mechanism::ScramSha1Plus, message, Some(&facts)).map(|_| ());
        assert_eq!(got, Err(SaslError::MalformedRequest), "{message:?}");
    }
    assert!(exchange(Mechanism::ScramSha1, "n,,n=user,r=abc,x=y,z=1=2", None).is_ok());
}

#[test]
fn malformed_final_messages_are_refused() {
    let proof = encode(&[0; 20]);
    for last in [
        String::new(),
        "c=biws".to_owned(),
        format!("c=biws,r=NONCE,p={proof}x"),
        format!("c=biws,r=NONCE,p={}", encode(&[0; 19])),
        format!("c=bi ws,r=NONCE,p={proof}"),
        format!("r=NONCE,c=biws,p={proof}"),
        format!("c=biws,p={proof}"),
        format!("c=biws,r=NONCE,m=x,p={proof}"),
        format!("c=biws,r=NONCE,p={proof},x=y"),
        "c=biws,r=NONCE,p=".to_owned(),
    ] {
        let (_, mut exchange) =
            exchange(Mechanism::ScramSha1, "n,,n=user,r=abc", None).expect("an exchange");
        let first = exchange.challenge(Some(&keys("pencil")), [0; NONCE_SIZE], &SECRET, 2);
        let first = String::from_utf8(first).expect("text");
        let nonce = first
            .split(',')
            .next()
            .and_then(|r| r.strip_prefix("r="))
            .expect("r");
        let last = last.replace("NONCE", nonce);
        let got = exchange.finish(last.as_bytes());
        assert_eq!(got, Err(SaslError::MalformedRequest), "{last:?}");
    }
}

#[test]
fn a_replayed_final_message_is_refused_for_its_nonce() {
    let start = || {
        exchange(Mechanism::ScramSha1, "n,,n=user,r=abc", None)
            .expect("an exchange")
            .1
    };
    let keys = keys("pencil");
    let mut old = start();
    let first = old.challenge(Some(&keys), [1; NONCE_SIZE], &SECRET, 2);
    let first = String::from_utf8(first).expect("text");
    let last = client_final(Hash::Sha1, "pencil", "n=user,r=abc", &first, b"n,,");
    assert!(old.finish(last.as_bytes()).is_ok());
    let mut new = start();
    new.challenge(Some(&keys), [2; NONCE_SIZE], &SECRET, 2);
    assert_eq!(new.finish(last.as_bytes()), Err(SaslError::NotAuthorized));
}

#[test]
fn a_final_message_without_a_challenge_is_refused() {
    let (_, exchange) =
        exchange(Mechanism::ScramSha1, "n,,n=user,r=abc", None).expect("an exchange");
    let last = format!("c=biws,r=abc,p={}", encode(&[0; 20]));
    assert_eq!(
        exchange.finish(last.as_bytes()),
        Err(SaslError::MalformedRequest)
    );
}

#[test]
fn names_are_unescaped_and_prepared() {
    let (account, _) =
        exchange(Mechanism::ScramSha1, "n,,n=U=2CS=3Der,r=abc", None).expect("an exchange");
    assert_eq!(account.as_str(), "u,s=er@example.org");
    let (account, _) =
        exchange(Mechanism::ScramSha1, "n,,n=\u{dc}ser,r=abc", None).expect("an exchange");
    assert_eq!(account.as_str(), "\u{fc}ser@example.org");
    for name in ["user@example.org", "user/phone", "us er", "us\"er"] {
        let got = exchange(Mechanism::ScramSha1, &format!("n,,n={name},r=abc"), None);
        assert_eq!(got.map(|_| ()), Err(SaslError::NotAuthorized), "{name:?}");
    }
}

#[test]
fn nobody_opens_a_session_for_somebody_else() {
    for own in ["", "user", "USER", "user@example.org", "User@example.org"] {
        assert!(plain(&format!("{own}\0user\0pencil")).is_ok(), "{own:?}");
        let authzid = if own.is_empty() {
            String::new()
        } else {
            format!("a={own}")
        };
        let message = format!("n,{authzid},n=user,r=abc");
        assert!(
            exchange(Mechanism::ScramSha1, &message, None).is_ok(),
            "{own:?}"
        );
    }
    for other in [
        "admin",
        "admin@example.org",
        "user@example.net",
        "example.org",
        "user@example.org/x",
        "@",
    ] {
        let got = plain(&format!("{other}\0user\0pencil")).map(|_| ());
        assert_eq!(got, Err(SaslError::InvalidAuthzid), "{other:?}");
        let message = format!("n,a={other},n=user,r=abc");
        let got = exchange(Mechanism::ScramSha1, &message, None).map(|_| ());
        assert_eq!(got, Err(SaslError::InvalidAuthzid), "{other:?}");
    }
}

#[test]
fn plain_is_taken_apart_strictly() {
    let (account, password) = plain("\0User\0pen cil").expect("PLAIN");
    assert_eq!(account.as_str(), "user@example.org");
    assert_eq!(password.as_str(), "pen cil");
    assert!(!format!("{password:?}").contains("pen"));
    for message in [
        "",
        "user",
        "\0user",
        "\0\0pencil",
        "\0user\0",
        "\0user\0pencil\0",
    ] {
        let got = plain(message).map(|_| ());
        assert_eq!(got, Err(SaslError::MalformedRequest), "{message:?}");
    }
    let facts = facts();
    let settings = settings();
    let offer = Offer::new(&settings, Some(&facts));
    let got = begin(Mechanism::Plain, Some(b"\0user\0\xff"), &offer).map(|_| ());
    assert_eq!(got, Err(SaslError::MalformedRequest));
    assert!(matches!(
        begin(Mechanism::Plain, None, &offer),
        Ok(First::Challenge)
    ));
}

#[test]
fn plain_passwords_are_verified_with_whatever_key_there_is() {
    let verified = |password: &str, keys: Option<&Credentials>| {
        let password = Password::new(password.to_owned());
        match DeriveJob::verify_plain(password, keys, 2).run() {
            Derived::Verified(verified) => verified,
            Derived::Credentials(_) => panic!("keys were not asked for"),
        }
    };
    // SASLprep: a soft hyphen is nothing, a no-break space a space (RFC 4013 2.1).
    let all = keys("pen cil");
    assert!(verified("pen cil", Some(&all)));
    assert!(verified("pen\u{a0}ci\u{ad}l", Some(&all)));
    assert!(!verified("Pen cil", Some(&all)));
    assert!(!verified("pen cil", None));
    assert!(!verified("", None));
    assert!(!verified("\u{7}", Some(&all)));
    for one in [
        Credentials {
            sha1: all.sha1.clone(),
            ..Credentials::default()
        },
        Credentials {
            sha512: all.sha512.clone(),
            ..Credentials::default()
        },
    ] {
        assert!(verified("pen cil", Some(&one)));
        assert!(!verified("pencil", Some(&one)));
    }
}

#[test]
fn new_keys_let_the_password_in_and_bad_passwords_get_none() {
    let job = DeriveJob::new_credentials(&Password::new("pencil".to_owned()), SALTS, 2);
    match job.expect("a good password").run() {
        Derived::Credentials(made) => assert_eq!(*made, keys("pencil")),
        Derived::Verified(_) => panic!("nothing was to be verified"),
    }
    for bad in [String::new(), "\u{7}".to_owned(), "a".repeat(1024)] {
        let job = DeriveJob::new_credentials(&Password::new(bad.clone()), SALTS, 2);
        assert_eq!(job.map(|_| ()), Err(BadPassword), "{bad:?}");
        assert_eq!(derive_credentials(&bad, &SALTS, 2), Err(BadPassword));
    }
}

#[test]
fn base64_is_strict() {
    assert_eq!(decode_initial(b""), Ok(None));
    assert_eq!(decode_initial(b"="), Ok(Some(Vec::new())));
    assert_eq!(decode_initial(b"AGE="), Ok(Some(b"\0a".to_vec())));
    assert_eq!(decode(b""), Ok(Vec::new()));
    for text in [
        &b"AGE"[..],
        b"AG E=",
        b"AGE=\n",
        b"AGF=",
        b"AG-_",
        b"==",
        b"AGE=AGE=",
    ] {
        assert_eq!(decode(text), Err(SaslError::IncorrectEncoding), "{text:?}");
    }
}

#[test]
fn the_offer_depends_on_tls_and_on_what_it_can_bind() {
    let names = |settings: &Settings, facts: Option<&TlsFacts>| {
        let offer = Offer::new(settings, facts);
        let mechanisms: Vec<_> = offer.mechanisms().map(Mechanism::as_str).collect();
        let bindings: Vec<_> = offer.bindings().collect();
        (mechanisms.join(" "), bindings.join(" "))
    };
    let scram = "SCRAM-SHA-512 SCRAM-SHA-256 SCRAM-SHA-1";
    let plus = "SCRAM-SHA-512-PLUS SCRAM-SHA-256-PLUS SCRAM-SHA-1-PLUS";
    let mut all = settings();
    assert_eq!(names(&all, None), (scram.to_owned(), String::new()));
    assert_eq!(
        names(&all, Some(&facts())),
        (
            format!("{plus} {scram} PLAIN"),
            "tls-exporter tls-server-end-point".to_owned()
        )
    );
    let only_end_point = TlsFacts {
        exporter: None,
        ..facts()
    };
    assert_eq!(names(&all, Some(&only_end_point)).1, "tls-server-end-point");
    let nothing = TlsFacts::default();
    assert_eq!(
        names(&all, Some(&nothing)),
        (format!("{scram} PLAIN"), String::new())
    );
    all.mechanisms = vec![Mechanism::Plain, Mechanism::ScramSha1];
    assert_eq!(
        names(&all, Some(&facts())),
        ("SCRAM-SHA-1 PLAIN".to_owned(), String::new())
    );
    all.tls_required = true;
    assert_eq!(names(&all, None), (String::new(), String::new()));

    let offer = Offer::new(&all, None);
    let early = begin(Mechanism::Plain, Some(b"\0user\0pencil"), &offer).map(|_| ());
    assert_eq!(early, Err(SaslError::EncryptionRequired));
    let unknown = begin(Mechanism::Anonymous, None, &offer).map(|_| ());
    assert_eq!(unknown, Err(SaslError::InvalidMechanism));
}

#[test]
fn anonymous_is_off_unless_configured_and_its_trace_is_short() {
    let settings = Settings {
        anonymous: true,
        ..settings()
    };
    let offer = Offer::new(&settings, None);
    let begin = |trace: Option<&[u8]>| begin(Mechanism::Anonymous, trace, &offer).map(|_| ());
    assert_eq!(begin(None), Ok(()));
    assert_eq!(begin(Some(b"sirhc")), Ok(()));
    assert_eq!(begin(Some(&[b'a'; 256])), Err(SaslError::MalformedRequest));
    assert_eq!(begin(Some(b"\xff")), Err(SaslError::MalformedRequest));
    assert!(
        offer
            .mechanisms()
            .any(|mechanism| mechanism == Mechanism::Anonymous)
    );
}

#[test]
fn names_of_mechanisms_are_found_in_any_case() {
    for mechanism in Mechanism::ALL {
        assert_eq!(Mechanism::parse(mechanism.as_str()), Some(mechanism));
        assert_eq!(
            Mechanism::parse(&mechanism.as_str().to_lowercase()),
            Some(mechanism)
        );
    }
    assert_eq!(Mechanism::parse("EXTERNAL"), None);
}

#[test]
fn an_exchange_is_small_and_may_change_threads() {
    fn travels<T: Send + 'static>() {}
    travels::<First>();
    travels::<DeriveJob>();
    travels::<Derived>();
    assert_eq!(size_of::<Exchange>(), size_of::<usize>());
    assert!(size_of::<First>() <= 48);
}
