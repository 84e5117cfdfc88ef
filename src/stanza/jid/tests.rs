//! What preparation accepts, refuses and maps.

use super::*;

#[test]
fn lower_case_ascii_is_borrowed_and_split() {
    let jid = Jid::parse("romeo@montague.example/Orchard 1").expect("a JID");
    assert!(matches!(jid.text, Cow::Borrowed(_)));
    assert_eq!(jid.local(), Some("romeo"));
    assert_eq!(jid.domain(), "montague.example");
    assert_eq!(jid.resource(), Some("Orchard 1"));
    assert_eq!(jid.bare(), "romeo@montague.example");
}
