//! The subscription states of RFC 6121 Appendix A over real sockets, on one shard and on two: every
//! state of a pair, every stanza that one sends the other, and what both rosters, both clients and
//! the next login say afterwards.
//!
//! What only another server could send (an answer to no request) has no client here; the table
//! beside the code has those cells.

mod support;

use support::{Client, DOMAIN, Options, Server};

/// One side of a pair: RFC 6121 A.1, by its own names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    subscription: &'static str,
    pending_out: bool,
    pending_in: bool,
}

const fn state(subscription: &'static str, pending_out: bool, pending_in: bool) -> State {
    State {
        subscription,
        pending_out,
        pending_in,
    }
}

const NONE: State = state("none", false, false);
const NONE_OUT: State = state("none", true, false);
const NONE_IN: State = state("none", false, true);
const NONE_OUT_IN: State = state("none", true, true);
const TO: State = state("to", false, false);
const TO_IN: State = state("to", false, true);
const FROM: State = state("from", false, false);
const FROM_OUT: State = state("from", true, false);
const BOTH: State = state("both", false, false);

const STATES: [State; 9] = [
    NONE,
    NONE_OUT,
    NONE_IN,
    NONE_OUT_IN,
    TO,
    TO_IN,
    FROM,
    FROM_OUT,
    BOTH,
];

impl State {
    /// What the other side is in.
    fn mirrored(self) -> State {
        let subscription = match self.subscription {
            "to" => "from",
            "from" => "to",
            other => other,
        };
        state(subscription, self.pending_in, self.pending_out)
    }

    /// What the two say to get there from nothing: `true` is the user's.
    fn steps(self) -> Vec<(bool, &'static str)> {
        let mut steps = Vec::new();
        let granted = |asks: bool| [(asks, "subscribe"), (!asks, "subscribed")];
        if matches!(self.subscription, "to" | "both") {
            steps.extend(granted(true));
        }
        if matches!(self.subscription, "from" | "both") {
            steps.extend(granted(false));
        }
        if self.pending_out {
            steps.push((true, "subscribe"));
        }
        if self.pending_in {
            steps.push((false, "subscribe"));
        }
        steps
    }
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
    const TYPES: [&str; 4] = ["subscribe", "unsubscribe", "subscribed", "unsubscribed"];
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
            for (is_user, step) in before.steps() {
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
