//! The subscription states of RFC 6121 Appendix A over real sockets, on one shard and on two: what
//! a pair comes to that agrees about itself, and every cell for pairs whose rosters do not agree,
//! as a failed server, another server or an import leaves them.
//!
//! No cell of A.2 or A.3 is out of a client's reach: all that a stanza needs is one state of its
//! sender from which it is routed, and with rosters from a file the sender may be in any, whatever
//! the receiver is in. What no client can cause are these pairs, for the stanza never leaves:
//!
//! - `subscribed` from a sender in "None", "None + Pending Out", "To", "From", "From + Pending Out"
//!   or "Both" (A.2.3: MUST NOT be routed), to a receiver in any state;
//! - `unsubscribed` from a sender in "None", "None + Pending Out" or "To" (A.2.4: MUST NOT be
//!   routed), to a receiver in any state.
//!
//! For these the tests check that nothing arrives. What a server may answer to `unsubscribe` by
//! itself cannot be seen: its user has no subscription left that `unsubscribed` would end.

mod support;

use std::collections::BTreeSet;

use support::roster::{
    BOTH, Entry, FROM, FROM_OUT, Item, NONE, NONE_IN, NONE_OUT, NONE_OUT_IN, STATES, State, TO,
    TO_IN,
};
use support::server::home;
use support::{Client, DOMAIN, Element, Options, Server};

const TYPES: [&str; 4] = ["subscribe", "unsubscribe", "subscribed", "unsubscribed"];

/// What the two say to get into a state from nothing: `true` is the user's.
fn steps(to: State) -> Vec<(bool, &'static str)> {
    let mut steps = Vec::new();
    let granted = |asks: bool| [(asks, "subscribe"), (!asks, "subscribed")];
    if matches!(to.subscription, "to" | "both") {
        steps.extend(granted(true));
    }
    if matches!(to.subscription, "from" | "both") {
        steps.extend(granted(false));
    }
    if to.pending_out {
        steps.push((true, "subscribe"));
    }
    if to.pending_in {
        steps.push((false, "subscribe"));
    }
    steps
}

/// What follows when a user in `before` sends a stanza: its next state, whether the contact's
/// client gets the stanza (A.2 and A.3, for a contact whose state is the mirror), and whether the
/// item is approved in advance (3.4).
fn expected(before: State, type_: &str) -> (State, bool, bool) {
    let next = |to: State, heard| (to, heard, false);
    match (type_, before) {
        // A.2.1 and A.3.1: who has a subscription or a request waiting is not asked again.
        ("subscribe", NONE) => next(NONE_OUT, true),
        ("subscribe", NONE_IN) => next(NONE_OUT_IN, true),
        ("subscribe", FROM) => next(FROM_OUT, true),
        ("subscribe", same) => next(same, false),
        // A.2.2 and A.3.2
        ("unsubscribe", NONE_OUT | TO) => next(NONE, true),
        ("unsubscribe", NONE_OUT_IN | TO_IN) => next(NONE_IN, true),
        ("unsubscribe", FROM_OUT | BOTH) => next(FROM, true),
        ("unsubscribe", same) => next(same, false),
        // A.2.3 and A.3.3
        ("subscribed", NONE_IN) => next(FROM, true),
        ("subscribed", NONE_OUT_IN) => next(FROM_OUT, true),
        ("subscribed", TO_IN) => next(BOTH, true),
        ("subscribed", same @ (FROM | FROM_OUT | BOTH)) => next(same, false),
        ("subscribed", same) => (same, false, true),
        // A.2.4 and A.3.4
        ("unsubscribed", NONE_IN | FROM) => next(NONE, true),
        ("unsubscribed", NONE_OUT_IN | FROM_OUT) => next(NONE_OUT, true),
        ("unsubscribed", TO_IN | BOTH) => next(TO, true),
        ("unsubscribed", same) => next(same, false),
        other => panic!("no rule for {other:?}"),
    }
}

/// Two who know nothing of each other, with interested resources.
struct Pair<'a> {
    server: &'a Server,
    names: [String; 2],
    clients: [Client; 2],
}

impl Pair<'_> {
    fn of(server: &Server, number: usize) -> Pair<'_> {
        let names = [0, 1].map(|side| format!("u{}", 2 * number + side));
        let clients = names.each_ref().map(|name| {
            let mut client = Client::available(server, name, "r");
            client.ask("", "get", "<query xmlns='jabber:iq:roster'/>");
            client
        });
        Pair {
            server,
            names,
            clients,
        }
    }

    /// One sends the other a stanza; the types of presence that the other gets.
    fn send(&mut self, from: usize, type_: &str) -> Vec<String> {
        let to = format!("{}@{DOMAIN}", self.names[1 - from]);
        let [first, second] = &mut self.clients;
        let (sender, receiver) = match from {
            0 => (first, second),
            _ => (second, first),
        };
        sender.send(&format!("<presence to='{to}' type='{type_}'/>"));
        let heard = receiver.settle_with(sender);
        // What the receiver's side answered by itself has come back, too.
        sender.settle_with(receiver);
        let presences = heard.iter().filter(|element| element.name == "presence");
        let types = presences.map(|element| element.attr("type").unwrap_or("").to_owned());
        types.collect()
    }

    /// The state of one side, and whether it approved the other in advance.
    fn state(&mut self, side: usize) -> (State, bool) {
        let other = format!("{}@{DOMAIN}", self.names[1 - side]);
        let answer = self.clients[side].ask("", "get", "<query xmlns='jabber:iq:roster'/>");
        let query = answer.child("query").expect("a roster");
        let item = query
            .children
            .iter()
            .find(|item| item.attr("jid") == Some(&other));
        let said = |name: &str| item.and_then(|item| item.attr(name));
        let subscription = ["none", "to", "from", "both"]
            .into_iter()
            .find(|known| said("subscription").unwrap_or("none") == *known);
        // A request that waits comes with every login (3.1.3).
        let mut next = Client::log_in(self.server, &self.names[side], "next");
        next.send("<presence/>");
        let asked = next.settle();
        let pending_in = asked.iter().any(|element| {
            element.name == "presence"
                && element.attr("type") == Some("subscribe")
                && element.attr("from") == Some(&other)
        });
        drop(next);
        let found = State {
            subscription: subscription.expect("a known subscription"),
            pending_out: said("ask") == Some("subscribe"),
            pending_in,
        };
        (found, said("approved") == Some("true"))
    }
}

#[test]
fn every_state_and_stanza_of_appendix_a_leads_where_the_rfc_says() {
    let cells: Vec<_> = STATES
        .iter()
        .flat_map(|before| TYPES.map(|type_| (*before, type_)))
        .collect();
    for shards in [1, 2] {
        let server = Server::start(&Options {
            shards,
            users: 2 * cells.len() as u32,
            clique: 1,
            ..Options::default()
        });
        for (number, &(before, type_)) in cells.iter().enumerate() {
            let cell = format!("{before:?} {type_}, {shards} shards");
            let mut pair = Pair::of(&server, number);
            for (is_user, step) in steps(before) {
                pair.send(usize::from(!is_user), step);
            }
            assert_eq!(pair.state(0), (before, false), "{cell}");
            assert_eq!(pair.state(1), (before.mirrored(), false), "{cell}");
            let (after, is_heard, is_approved) = expected(before, type_);
            let heard = pair.send(0, type_);
            let came = heard.iter().filter(|heard| *heard == type_).count();
            assert_eq!(came, usize::from(is_heard), "{cell}: {heard:?}");
            assert_eq!(pair.state(0), (after, is_approved), "{cell}");
            assert_eq!(pair.state(1), (after.mirrored(), false), "{cell}");
        }
    }
}

/// A row of a table: the state before, whether the stanza goes on, and the state behind it.
type Row = (State, bool, State);

const MUST: bool = true;
const MUST_NOT: bool = false;

/// RFC 6121 A.2: whether the sender's server routes a stanza, and what the sender is in then.
fn outbound(type_: &str) -> [Row; 9] {
    match type_ {
        // A.2.1
        "subscribe" => [
            (NONE, MUST, NONE_OUT),
            (NONE_OUT, MUST, NONE_OUT),
            (NONE_IN, MUST, NONE_OUT_IN),
            (NONE_OUT_IN, MUST, NONE_OUT_IN),
            (TO, MUST, TO),
            (TO_IN, MUST, TO_IN),
            (FROM, MUST, FROM_OUT),
            (FROM_OUT, MUST, FROM_OUT),
            (BOTH, MUST, BOTH),
        ],
        // A.2.2
        "unsubscribe" => [
            (NONE, MUST, NONE),
            (NONE_OUT, MUST, NONE),
            (NONE_IN, MUST, NONE_IN),
            (NONE_OUT_IN, MUST, NONE_IN),
            (TO, MUST, NONE),
            (TO_IN, MUST, NONE_IN),
            (FROM, MUST, FROM),
            (FROM_OUT, MUST, FROM),
            (BOTH, MUST, FROM),
        ],
        // A.2.3
        "subscribed" => [
            (NONE, MUST_NOT, NONE),
            (NONE_OUT, MUST_NOT, NONE_OUT),
            (NONE_IN, MUST, FROM),
            (NONE_OUT_IN, MUST, FROM_OUT),
            (TO, MUST_NOT, TO),
            (TO_IN, MUST, BOTH),
            (FROM, MUST_NOT, FROM),
            (FROM_OUT, MUST_NOT, FROM_OUT),
            (BOTH, MUST_NOT, BOTH),
        ],
        // A.2.4
        "unsubscribed" => [
            (NONE, MUST_NOT, NONE),
            (NONE_OUT, MUST_NOT, NONE_OUT),
            (NONE_IN, MUST, NONE),
            (NONE_OUT_IN, MUST, NONE_OUT),
            (TO, MUST_NOT, TO),
            (TO_IN, MUST, TO),
            (FROM, MUST, NONE),
            (FROM_OUT, MUST, NONE_OUT),
            (BOTH, MUST, TO),
        ],
        other => panic!("no table for {other}"),
    }
}

/// RFC 6121 A.3: whether the receiver's clients get a stanza, and what the receiver is in then.
fn inbound(type_: &str) -> [Row; 9] {
    match type_ {
        // A.3.1
        "subscribe" => [
            (NONE, MUST, NONE_IN),
            (NONE_OUT, MUST, NONE_OUT_IN),
            (NONE_IN, MUST_NOT, NONE_IN),
            (NONE_OUT_IN, MUST_NOT, NONE_OUT_IN),
            (TO, MUST, TO_IN),
            (TO_IN, MUST_NOT, TO_IN),
            (FROM, MUST_NOT, FROM),
            (FROM_OUT, MUST_NOT, FROM_OUT),
            (BOTH, MUST_NOT, BOTH),
        ],
        // A.3.2
        "unsubscribe" => [
            (NONE, MUST_NOT, NONE),
            (NONE_OUT, MUST_NOT, NONE_OUT),
            (NONE_IN, MUST, NONE),
            (NONE_OUT_IN, MUST, NONE_OUT),
            (TO, MUST_NOT, TO),
            (TO_IN, MUST, TO),
            (FROM, MUST, NONE),
            (FROM_OUT, MUST, NONE_OUT),
            (BOTH, MUST, TO),
        ],
        // A.3.3
        "subscribed" => [
            (NONE, MUST_NOT, NONE),
            (NONE_OUT, MUST, TO),
            (NONE_IN, MUST_NOT, NONE_IN),
            (NONE_OUT_IN, MUST, TO_IN),
            (TO, MUST_NOT, TO),
            (TO_IN, MUST_NOT, TO_IN),
            (FROM, MUST_NOT, FROM),
            (FROM_OUT, MUST, BOTH),
            (BOTH, MUST_NOT, BOTH),
        ],
        // A.3.4
        "unsubscribed" => [
            (NONE, MUST_NOT, NONE),
            (NONE_OUT, MUST, NONE),
            (NONE_IN, MUST_NOT, NONE_IN),
            (NONE_OUT_IN, MUST, NONE_IN),
            (TO, MUST, NONE),
            (TO_IN, MUST, NONE_IN),
            (FROM, MUST_NOT, FROM),
            (FROM_OUT, MUST, FROM),
            (BOTH, MUST, FROM),
        ],
        other => panic!("no table for {other}"),
    }
}

fn row(table: [Row; 9], before: State) -> (bool, State) {
    let row = table.into_iter().find(|row| row.0 == before);
    let (_, goes, after) = row.expect("a table has all states");
    (goes, after)
}

/// What becomes of one side: what its client gets from the other, by type, and the pushes of its
/// roster, each in the order it came; what its roster has and whether a request waits afterwards.
#[derive(Debug, PartialEq)]
struct Side {
    heard: Vec<String>,
    pushed: Vec<Item>,
    item: Option<Item>,
    pending_in: bool,
}

/// One side while the tables are followed.
struct Course {
    entry: Entry,
    heard: Vec<String>,
    pushed: Vec<Item>,
}

/// What an available client's presence is among the types.
const AVAILABLE: &str = "available";

impl Course {
    fn of(entry: Entry) -> Course {
        Course {
            entry,
            heard: Vec::new(),
            pushed: Vec::new(),
        }
    }

    /// Has a new entry; a client is pushed what it can see of that, and nothing else.
    fn turn_into(&mut self, entry: Entry) {
        if entry.item() != self.entry.item() {
            self.pushed.extend(entry.item());
        }
        self.entry = entry;
    }

    /// Its client sends a stanza; what goes to the other, in order.
    fn sends(&mut self, type_: &'static str) -> Vec<&'static str> {
        let before = self.entry;
        let (is_routed, state) = row(outbound(type_), before.state);
        let in_advance = !is_routed && !before.state.is_from();
        self.turn_into(Entry {
            state,
            listed: before.listed || matches!(type_, "subscribe" | "subscribed"),
            // RFC 6121 3.4.2, and 3.2.2 for its end.
            approved: match type_ {
                "subscribed" => in_advance,
                "unsubscribed" => false,
                _ => before.approved,
            },
        });
        match type_ {
            _ if !is_routed => vec![],
            // RFC 6121 3.1.5
            "subscribed" => vec!["subscribed", AVAILABLE],
            // RFC 6121 3.2.2: that nobody is there while the other is still subscribed.
            "unsubscribed" if before.state.is_from() => vec!["unavailable", "unsubscribed"],
            other => vec![other],
        }
    }

    /// A stanza of the other's comes; what its server answers.
    fn gets(&mut self, type_: &str) -> Vec<&'static str> {
        if !TYPES.contains(&type_) {
            self.heard.push(type_.to_owned());
            return vec![];
        }
        let before = self.entry;
        if type_ == "subscribe" && before.approved {
            let state = match before.state {
                NONE => FROM,
                NONE_OUT => FROM_OUT,
                TO => BOTH,
                other => panic!("nobody is approved in advance in {other:?}"),
            };
            // RFC 6121 3.1.3. That an approval is good for one request is our reading.
            self.turn_into(Entry {
                state,
                listed: true,
                approved: false,
            });
            return vec!["subscribed", AVAILABLE];
        }
        let (is_delivered, state) = row(inbound(type_), before.state);
        if is_delivered {
            self.heard.push(type_.to_owned());
        }
        self.turn_into(Entry { state, ..before });
        match type_ {
            // RFC 6121 3.1.3 and the note of A.3.1.
            "subscribe" if before.state.is_from() => vec!["subscribed"],
            // RFC 6121 3.3.3
            "unsubscribe" if before.state.is_from() => vec!["unavailable"],
            _ => vec![],
        }
    }

    fn end(self) -> Side {
        Side {
            heard: self.heard,
            pushed: self.pushed,
            item: self.entry.item(),
            pending_in: self.entry.state.pending_in,
        }
    }
}

/// What an account in the first state sends an account in the second.
#[derive(Clone, Copy, Debug)]
struct Case {
    sender: Entry,
    receiver: Entry,
    type_: &'static str,
}

impl Case {
    /// What follows by the tables, and whether the stanza came to the receiver's server.
    fn expected(self) -> ([Side; 2], bool) {
        let (mut sender, mut receiver) = (Course::of(self.sender), Course::of(self.receiver));
        let sent = sender.sends(self.type_);
        for stanza in &sent {
            for answer in receiver.gets(stanza) {
                let more = sender.gets(answer);
                assert!(more.is_empty(), "an answer is answered: {self:?}");
            }
        }
        ([sender.end(), receiver.end()], sent.contains(&self.type_))
    }

    /// What follows between two who log in to a server that has the accounts.
    fn found(self, server: &Server, names: &[String; 2]) -> [Side; 2] {
        let entries = [self.sender, self.receiver];
        let [first, second] = [0, 1].map(|side| {
            let (mut client, item, pending_in) = arrive(server, names, side, "r");
            let entry = entries[side];
            assert_eq!(item, entry.item(), "{self:?} did not come to be");
            assert_eq!(pending_in, entry.state.pending_in, "{self:?}");
            client.settle();
            client
        });
        let (mut sender, mut receiver) = (first, second);
        // Their presence to each other, and the answers to probes.
        receiver.settle_with(&mut sender);
        sender.settle_with(&mut receiver);
        receiver.settle_with(&mut sender);
        let (to, type_) = (format!("{}@{DOMAIN}", names[1]), self.type_);
        sender.send(&format!("<presence to='{to}' type='{type_}'/>"));
        let mut came = [vec![], receiver.settle_with(&mut sender)];
        came[0] = sender.settle_with(&mut receiver);
        came[1].extend(receiver.settle_with(&mut sender));
        came[0].extend(sender.settle_with(&mut receiver));
        [0, 1].map(|side| {
            let (heard, pushed) = sort(&came[side], &names[side], &names[1 - side]);
            let (_, item, pending_in) = arrive(server, names, side, "next");
            Side {
                heard,
                pushed,
                item,
                pending_in,
            }
        })
    }
}

/// Logs in one side: what its roster has of the other, and whether a request of the other waits.
fn arrive(
    server: &Server,
    names: &[String; 2],
    side: usize,
    resource: &str,
) -> (Client, Option<Item>, bool) {
    let other = format!("{}@{DOMAIN}", names[1 - side]);
    let mut client = Client::log_in(server, &names[side], resource);
    let roster = client.ask("", "get", "<query xmlns='jabber:iq:roster'/>");
    client.send("<presence/>");
    // A request that waits comes with every login (3.1.3).
    let asked = client.settle();
    let pending_in = asked.iter().any(|element| {
        element.name == "presence"
            && element.attr("type") == Some("subscribe")
            && element.attr("from") == Some(&other)
    });
    (client, Item::find(&roster, &other), pending_in)
}

/// What a client got from another, by type, and what was pushed of that; there is nothing else.
fn sort(came: &[Element], own: &str, other: &str) -> (Vec<String>, Vec<Item>) {
    let (own, other) = (format!("{own}@{DOMAIN}"), format!("{other}@{DOMAIN}"));
    let (mut heard, mut pushed) = (Vec::new(), Vec::new());
    for element in came {
        match &*element.name {
            "presence" => {
                let type_ = element.attr("type").unwrap_or(AVAILABLE);
                // RFC 6121 3.1.2: what is said of a subscription is said by an account.
                let from = match TYPES.contains(&type_) {
                    true => other.clone(),
                    false => format!("{other}/r"),
                };
                assert_eq!(element.attr("from"), Some(&*from), "{element:?}");
                assert_eq!(element.attr("to"), Some(&*own), "{element:?}");
                heard.push(type_.to_owned());
            }
            "iq" if element.attr("type") == Some("set") => {
                pushed.push(Item::find(element, &other).expect("a push of the other's item"));
            }
            _ => panic!("{element:?} came to {own}"),
        }
    }
    (heard, pushed)
}

/// Names that were not used yet, by the shard they are at home on.
struct Names {
    shards: u16,
    next: u32,
}

impl Names {
    fn take(&mut self, shard: u16) -> String {
        loop {
            let name = format!("c{}", self.next);
            self.next += 1;
            if home(&name, self.shards) == shard {
                return name;
            }
        }
    }
}

/// Runs all cases on one shard, on two with both accounts on the same, and on two with one on
/// each; every difference from what should be is told at the end.
fn check(cases: &[Case], what: impl Fn(Side) -> Side) {
    let mut wrong = Vec::new();
    for shards in [1, 2] {
        let server = Server::start(&Options {
            shards,
            users: 1,
            clique: 1,
            ..Options::default()
        });
        let mut names = Names { shards, next: 0 };
        let places: &[bool] = if shards == 1 {
            &[false]
        } else {
            &[false, true]
        };
        for &apart in places {
            let pairs: Vec<_> = (0_u16..)
                .zip(cases)
                .map(|(number, _)| {
                    let first = number % shards;
                    let second = if apart { 1 - first } else { first };
                    [names.take(first), names.take(second)]
                })
                .collect();
            let users: String = cases
                .iter()
                .zip(&pairs)
                .map(|(case, [first, second])| {
                    case.sender.account(first, second) + &case.receiver.account(second, first)
                })
                .collect();
            server.import(&users);
            for (case, names) in cases.iter().zip(&pairs) {
                let found = case.found(&server, names).map(&what);
                let expected = case.expected().0.map(&what);
                if found != expected {
                    wrong.push(format!(
                        "{shards} shards, apart: {apart}, {case:?}\ncame:   {found:?}\n\
                         should: {expected:?}\n"
                    ));
                }
            }
        }
    }
    let count = wrong.len();
    assert!(wrong.is_empty(), "{count} cases:\n{}", wrong.join("\n"));
}

/// The types in any order.
fn unordered(mut side: Side) -> Side {
    side.heard.sort_unstable();
    side
}

#[test]
fn every_cell_of_appendix_a_is_as_it_says_where_two_rosters_disagree() {
    let mut entries = STATES.map(Entry::listed).to_vec();
    // A stranger, and one who asks: both are in no roster.
    entries.extend([NONE, NONE_IN].map(|state| Entry {
        listed: false,
        ..Entry::listed(state)
    }));
    let mut cases = Vec::new();
    for &sender in &entries {
        for &receiver in &entries {
            cases.extend(TYPES.map(|type_| Case {
                sender,
                receiver,
                type_,
            }));
        }
    }
    let reached: BTreeSet<_> = cases
        .iter()
        .filter(|case| case.expected().1)
        .map(|case| format!("{} {:?}", case.type_, case.receiver.state))
        .collect();
    assert_eq!(reached.len(), TYPES.len() * STATES.len(), "cells of A.3");
    check(&cases, unordered);
}

#[test]
fn an_approval_in_advance_answers_a_request_whatever_the_other_roster_says() {
    let mut cases = Vec::new();
    for approver in [NONE, NONE_OUT, TO] {
        let approver = Entry {
            approved: true,
            ..Entry::listed(approver)
        };
        for other in STATES.map(Entry::listed) {
            for type_ in TYPES {
                cases.push(Case {
                    sender: other,
                    receiver: approver,
                    type_,
                });
                cases.push(Case {
                    sender: approver,
                    receiver: other,
                    type_,
                });
            }
        }
    }
    check(&cases, unordered);
}

#[test]
fn who_is_no_longer_subscribed_sees_nobody_there_before_it_is_told() {
    let mut cases = Vec::new();
    for sender in [FROM, FROM_OUT, BOTH] {
        cases.push(Case {
            sender: Entry::listed(sender),
            receiver: Entry::listed(sender.mirrored()),
            type_: "unsubscribed",
        });
    }
    check(&cases, |side| side);
}
