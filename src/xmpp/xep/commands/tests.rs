//! Tests of what forms say, and of which executions are remembered.

use super::administration::Kind;
use super::form::Field;
use super::*;
use stanza::scope::StreamScope;

const fn text(var: &'static str, is_required: bool) -> Field {
    Field {
        var,
        type_: "text-single",
        label: "",
        is_required,
        options: &[],
    }
}

const fn form(fields: &'static [Field]) -> Form {
    Form {
        kind: "kind",
        title: "",
        instructions: "",
        fields,
    }
}

static COMMAND: Command = Command {
    kind: Kind::Announce,
    node: "node",
    name: "Name",
    form: None,
};

/// What a form says that has these fields, of one value each.
fn submit(form: &Form, type_: &str, given: &[(&str, &str)]) -> Result<Fields, Refusal> {
    let given = given.iter();
    let given: String = given
        .map(|(var, value)| format!("<field var='{var}'><value>{value}</value></field>"))
        .collect();
    let text = format!(
        "<command xmlns='http://jabber.org/protocol/commands'>\
         <x xmlns='jabber:x:data' type='{type_}'>{given}</x></command>"
    );
    let tree = Tree::parse(text.as_bytes(), &StreamScope::client()).expect("it is well-formed");
    submitted(form, tree.root())
}

#[test]
fn a_form_that_does_not_answer_is_refused() {
    const FIRST: Form = form(&[text("first", true)]);
    for (type_, given) in [
        ("submit", &[][..]),
        ("submit", &[("first", "")]),
        ("result", &[("first", "a")]),
        ("submit", &[("first", "a"), ("FORM_TYPE", "other")]),
    ] {
        let refused = submit(&FIRST, type_, given);
        assert_eq!(refused, Err(Refusal::BAD_PAYLOAD), "{type_} {given:?}");
    }
    let said: Fields = vec![("first".into(), vec!["a&b".into()])];
    // XEP-0050 3.5.1
    let given = [("first", "a&amp;b"), ("other", "x")];
    assert_eq!(submit(&FIRST, "cancel", &given).as_ref(), Ok(&said));
    let with_kind = [("first", "a&amp;b"), ("FORM_TYPE", "kind")];
    assert_eq!(submit(&FIRST, "submit", &with_kind), Ok(said));
    const SECOND: Form = form(&[Field {
        options: &[("One", "1"), ("Two", "2")],
        ..text("second", false)
    }]);
    for given in ["3", ""] {
        let refused = submit(&SECOND, "submit", &[("second", given)]);
        assert_eq!(refused, Err(Refusal::BAD_PAYLOAD), "{given:?}");
    }
    for given in [&[][..], &[("second", "2")]] {
        assert!(submit(&SECOND, "submit", given).is_ok(), "{given:?}");
    }
}

#[test]
fn of_too_many_executions_those_that_have_ended_go_first_and_then_the_oldest() {
    let mut commands = Commands::default();
    let of = |asker: String, id: usize, is_open: bool| Execution {
        id: id.to_string().into(),
        asker: asker.into(),
        command: &COMMAND,
        is_open,
        since: Timestamp(0),
    };
    let check = |commands: &Commands, asker: &str, id: usize| {
        commands.check(&id.to_string(), asker, &COMMAND, Timestamp(0))
    };
    for id in 0..EXECUTIONS_PER_ASKER_MAX {
        commands.insert(of("a@b/c".into(), id, id != 1));
    }
    assert_eq!(check(&commands, "a@b/c", 1), Err(Refusal::EXPIRED));
    commands.insert(of("a@b/c".into(), 8, true));
    assert_eq!(check(&commands, "a@b/c", 1), Err(Refusal::BAD_SESSION));
    assert_eq!(check(&commands, "a@b/c", 0), Ok(()));
    commands.insert(of("a@b/c".into(), 9, true));
    assert_eq!(check(&commands, "a@b/c", 0), Err(Refusal::BAD_SESSION));
    assert_eq!(check(&commands, "a@b/c", 2), Ok(()));
    assert_eq!(check(&commands, "a@b/d", 2), Err(Refusal::BAD_SESSION));
    // Of a shard likewise.
    let rest = EXECUTIONS_MAX - commands.executions.len();
    for id in 0..rest {
        commands.insert(of(format!("{id}@b/c"), 0, id != 1));
    }
    for id in rest..rest + 2 {
        commands.insert(of(format!("{id}@b/c"), 0, true));
    }
    assert_eq!(commands.executions.len(), EXECUTIONS_MAX);
    assert_eq!(check(&commands, "1@b/c", 0), Err(Refusal::BAD_SESSION));
    assert_eq!(check(&commands, "a@b/c", 2), Err(Refusal::BAD_SESSION));
    assert_eq!(check(&commands, "0@b/c", 0), Ok(()));
}
