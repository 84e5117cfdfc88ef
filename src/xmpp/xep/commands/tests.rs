//! Tests of the walk through forms, of which no command of this server has more than one.

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

static THREE: Command = Command {
    kind: Kind::Announce,
    node: "three",
    name: "Three",
    forms: &[
        form(&[text("first", true)]),
        form(&[Field {
            options: &[("One", "1"), ("Two", "2")],
            ..text("second", false)
        }]),
        form(&[Field {
            type_: "text-multi",
            ..text("third", false)
        }]),
    ],
};

fn execution(stage: usize) -> Execution {
    Execution {
        id: "id".into(),
        asker: "a@b/c".into(),
        command: &THREE,
        stage: Some(stage),
        said: Fields::new(),
        since: Timestamp(0),
    }
}

/// Submits a form with these fields, of one value each.
fn submit(execution: &mut Execution, type_: &str, given: &[(&str, &str)]) -> Result<(), Refusal> {
    let given = given.iter();
    let given: String = given
        .map(|(var, value)| format!("<field var='{var}'><value>{value}</value></field>"))
        .collect();
    let text = format!(
        "<command xmlns='http://jabber.org/protocol/commands'>\
         <x xmlns='jabber:x:data' type='{type_}'>{given}</x></command>"
    );
    let tree = Tree::parse(text.as_bytes(), &StreamScope::client()).expect("it is well-formed");
    execution.submit(tree.root())
}

/// XEP-0050 3.4
#[test]
fn from_each_form_one_goes_where_its_actions_say_and_nowhere_else() {
    use Action::{Cancel, Complete, Execute, Next, Prev};
    let all = [Execute, Next, Prev, Complete, Cancel];
    let steps = |stage| all.map(|action| Step::of(action, stage, 3));
    let (show, perform, cancel) = (
        |n| Some(Step::Show(n)),
        Some(Step::Perform),
        Some(Step::Cancel),
    );
    assert_eq!(steps(0), [show(1), show(1), None, None, cancel]);
    assert_eq!(steps(1), [show(2), show(2), show(0), None, cancel]);
    assert_eq!(steps(2), [perform, None, show(1), perform, cancel]);
    let only = all.map(|action| Step::of(action, 0, 1));
    assert_eq!(only, [perform, None, None, perform, cancel]);
}

#[test]
fn each_form_says_which_actions_it_allows() {
    let written = |stage| {
        let mut out = Vec::new();
        write_actions(stage, 3, &mut out);
        String::from_utf8(out).expect("it is text")
    };
    assert_eq!(written(0), "<actions execute='next'><next/></actions>");
    assert_eq!(
        written(1),
        "<actions execute='next'><prev/><next/></actions>"
    );
    let last = "<actions execute='complete'><prev/><complete/></actions>";
    assert_eq!(written(2), last);
}

#[test]
fn what_the_forms_say_is_kept_from_one_to_the_next_and_shown_to_who_goes_back() {
    let mut execution = execution(0);
    submit(&mut execution, "submit", &[("first", "a&amp;b")]).unwrap();
    execution.stage = Some(1);
    submit(&mut execution, "submit", &[("second", "1"), ("other", "x")]).unwrap();
    let said = |execution: &Execution, var: &str| form::values(&execution.said, var).to_vec();
    assert_eq!(said(&execution, "first"), ["a&b".into()]);
    assert_eq!(said(&execution, "other"), []);
    let mut out = Vec::new();
    execution
        .current_form()
        .expect("it is shown")
        .write(&execution.said, &mut out);
    let shown = String::from_utf8(out).expect("it is text");
    assert!(shown.contains("<value>1</value><option"), "{shown}");
    submit(&mut execution, "submit", &[("second", "2")]).unwrap();
    assert_eq!(said(&execution, "second"), ["2".into()]);
}

#[test]
fn a_form_that_does_not_answer_is_refused_and_what_was_said_stays() {
    let mut first = execution(0);
    for (type_, given) in [
        ("submit", &[][..]),
        ("submit", &[("first", "")]),
        ("result", &[("first", "a")]),
        ("submit", &[("first", "a"), ("FORM_TYPE", "other")]),
    ] {
        let refused = submit(&mut first, type_, given);
        assert_eq!(refused, Err(Refusal::BAD_PAYLOAD), "{type_} {given:?}");
    }
    // XEP-0050 3.5.1
    assert_eq!(submit(&mut first, "cancel", &[("first", "a")]), Ok(()));
    let with_kind = [("first", "a"), ("FORM_TYPE", "kind")];
    assert_eq!(submit(&mut first, "submit", &with_kind), Ok(()));
    let mut second = execution(1);
    for given in ["3", ""] {
        let refused = submit(&mut second, "submit", &[("second", given)]);
        assert_eq!(refused, Err(Refusal::BAD_PAYLOAD), "{given:?}");
    }
    assert_eq!(submit(&mut second, "submit", &[]), Ok(()));
}

#[test]
fn of_too_many_executions_an_asker_s_oldest_go_and_of_a_shard_s_the_oldest_of_all() {
    let mut commands = Commands::default();
    let of = |asker: String, id: usize| Execution {
        id: id.to_string().into(),
        asker: asker.into(),
        ..execution(0)
    };
    for id in 0..=EXECUTIONS_PER_ASKER_MAX {
        commands.insert(of("a@b/c".into(), id));
    }
    let place = |commands: &Commands, asker: &str, id: usize| {
        commands.place_of(&id.to_string(), asker, &THREE, Timestamp(0))
    };
    assert_eq!(place(&commands, "a@b/c", 0), Err(Refusal::BAD_SESSION));
    assert!(place(&commands, "a@b/c", 1).is_ok());
    assert_eq!(place(&commands, "a@b/d", 1), Err(Refusal::BAD_SESSION));
    for id in 0..EXECUTIONS_MAX {
        commands.insert(of(format!("{id}@b/c"), 0));
    }
    assert_eq!(commands.executions.len(), EXECUTIONS_MAX);
    assert_eq!(place(&commands, "a@b/c", 1), Err(Refusal::BAD_SESSION));
    assert!(place(&commands, "0@b/c", 0).is_ok());
}
