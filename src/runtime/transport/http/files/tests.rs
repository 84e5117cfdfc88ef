//! Requests for files: which are asked of the disk, and what they are answered.

use super::*;
use crate::transport::http::{Site, answer};
use crate::uploads::slot::Permit;
use std::sync::Arc;

fn keys() -> Keys {
    Keys::new(&[3; 32])
}

fn file() -> FileId {
    FileId {
        user: [1; 16],
        number: [2; 16],
    }
}

fn path() -> String {
    format!("/upload/{}/a%20b.png", keys().address(&file()))
}

fn token() -> String {
    let permit = Permit {
        until_s: 9,
        size: 10,
        content_type: "image/png".into(),
    };
    keys().token(&file(), "a b.png", &permit)
}

fn site() -> Site {
    Site {
        uploads: Some(Arc::new(keys())),
        ..Site::default()
    }
}

/// What a request is answered, by TLS.
fn asked(head: &str) -> Answer {
    let head = format!("{head}\r\n\r\n");
    answer(head.as_bytes(), &site(), [192, 0, 2, 1].into(), true)
}

fn page_of(answer: Answer) -> String {
    match answer {
        Answer::Page(page) => String::from_utf8(page).expect("text"),
        other => panic!("{other:?}"),
    }
}

fn get(more: &str) -> Get {
    match asked(&format!("GET {} HTTP/1.1\r\nHost: a{more}", path())) {
        Answer::File(request) => match request.ask {
            Ask::Get(get) => get,
            put => panic!("{put:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_put_is_what_its_token_says() {
    let head = format!(
        "PUT {}?a=b HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nAuthorization: bearer {}\r\n\
         Content-Type: IMAGE/PNG; x=y\r\nExpect: 100-Continue",
        path(),
        token()
    );
    let Answer::File(request) = asked(&head) else {
        panic!("it may come");
    };
    assert_eq!((request.head_size, request.expects), (head.len() + 4, true));
    let expected = Put {
        file: file(),
        name: "a b.png".into(),
        content_type: "image/png".into(),
        size: 10,
        until_s: 9,
    };
    assert_eq!(request.ask, Ask::Put(expected));
    let Answer::File(old) = asked(&head.replace("HTTP/1.1", "HTTP/1.0")) else {
        panic!("it may come");
    };
    assert!(!old.expects, "it knows nothing of that");
}

#[test]
fn a_part_is_one_of_bytes_or_nothing() {
    for (range, expected) in [
        ("bytes=0-0", Some(Span::From(0, Some(0)))),
        ("Bytes=5-", Some(Span::From(5, None))),
        ("bytes=-7", Some(Span::Last(7))),
        ("bytes=0-1,3-4", None),
        ("bytes=2-1", None),
        ("bytes=-", None),
        ("bytes=+1-2", None),
        ("lines=1-2", None),
        (
            "bytes=1-18446744073709551615",
            Some(Span::From(1, Some(u64::MAX))),
        ),
        ("bytes=1-18446744073709551616", None),
    ] {
        assert_eq!(
            get(&format!("\r\nRange: {range}")).span,
            expected,
            "{range}"
        );
    }
    assert_eq!(Span::From(1, Some(u64::MAX)).within(5), Some((1, 5)));
    assert_eq!(Span::From(5, None).within(5), None);
    assert_eq!(Span::Last(0).within(5), None);
    assert_eq!(Span::Last(9).within(0), None);
}

#[test]
fn what_a_client_has_it_does_not_get_again() {
    let tag = get("").tag;
    for (known, has_it) in [
        (format!("{tag}"), true),
        (format!("\"a\", W/{tag}"), true),
        ("*".to_owned(), true),
        ("\"a\"".to_owned(), false),
    ] {
        assert_eq!(get(&format!("\r\nIf-None-Match: {known}")).has_it, has_it);
    }
}

/// RFC 9110 9.3.2, 14.2
#[test]
fn a_head_has_no_body_and_no_part() {
    let ask = |path: &str| {
        asked(&format!(
            "HEAD {path} HTTP/1.1\r\nHost: a\r\nRange: bytes=9-"
        ))
    };
    let Answer::File(request) = ask(&path()) else {
        panic!("it is a file's");
    };
    let Ask::Get(head) = request.ask else {
        panic!("it is asked for");
    };
    assert_eq!((head.is_head, head.span), (true, None));
    let missing = String::from_utf8(instead(&head, "404 Not Found", "")).expect("text");
    for page in [missing, page_of(ask("/upload/a/b"))] {
        assert!(page.starts_with("HTTP/1.1 404 ") && page.ends_with("\r\n\r\n"));
        assert!(page.contains("\r\nContent-Length: 14\r\n"), "{page}");
    }
}

#[test]
fn what_a_browser_could_run_is_to_be_saved() {
    let shown = |content_type: &str| {
        let (head, _) = head(&get(""), 5, content_type);
        let head = String::from_utf8(head).expect("text");
        assert!(head.contains("\r\nX-Content-Type-Options: nosniff\r\n"));
        head.contains("\r\nContent-Disposition: inline\r\n")
    };
    for content_type in [
        "image/jpeg",
        "Image/PNG",
        "video/mp4; codecs=x",
        "audio/ogg",
    ] {
        assert!(shown(content_type), "{content_type}");
    }
    for content_type in [
        "image/svg+xml",
        "text/html",
        "text/plain",
        "application/pdf",
        "image/png;x=y, text/html",
        "",
    ] {
        assert!(!shown(content_type), "{content_type}");
    }
    let (inline, _) = head(&get(""), 5, "Image/PNG; x=text/html");
    let inline = String::from_utf8(inline).expect("text");
    assert!(
        inline.contains("\r\nContent-Type: image/png\r\n"),
        "{inline}"
    );
    let (head, _) = head(&get(""), 5, "a/b\r\nX: y");
    let head = String::from_utf8(head).expect("text");
    assert!(
        head.contains("\r\nContent-Type: application/octet-stream\r\n"),
        "{head}"
    );
}

#[test]
fn names_are_in_urls_as_they_were_given() {
    for name in ["a", "très cool.jpg", "100% %41?#&=/+~", "\u{1f600}"] {
        let shown = encoded(name);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte);
        assert!(shown.bytes().all(is_plain), "{shown}");
        let expected = is_name(name).then_some(name);
        assert_eq!(decoded(&shown).as_deref(), expected);
    }
    for foreign in [
        "", "%", "%4", "%zz", "%ff", "a/b", "%2e%2e", "..", "a%00", "%+1",
    ] {
        assert_eq!(decoded(foreign), None, "{foreign}");
    }
}

#[test]
fn where_there_are_no_files_nothing_is_known_of_them() {
    let head = format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", path());
    let none = answer(
        head.as_bytes(),
        &Site::default(),
        [192, 0, 2, 1].into(),
        true,
    );
    assert!(page_of(none).starts_with("HTTP/1.1 404 "));
    let options = page_of(asked(&format!("OPTIONS {} HTTP/1.1\r\nHost: a", path())));
    assert!(options.starts_with("HTTP/1.1 204 "), "{options}");
}
