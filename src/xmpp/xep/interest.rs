//! What the clients of this server want to be told: the `+notify` features of their capabilities
//! (XEP-0115, XEP-0163 4.2). Whoever says something new is asked what it stands for.
//!
//! Invariant: what a client says holds for itself; for others with the same hash it holds only if
//! the hash is that of what it says.

use super::capabilities::verification;
use super::disco::{Field, Form, Identity, Info};
use super::pubsub::NodeNames;
use crate::error::put;
use crate::host::Host;
use crate::outbox::Keep;
use crate::session::{Modes, Presence, SessionKey};
use crate::shard::Shard;
use crate::stanza::Type;
use crate::xml::Attr;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};
use sha2::{Sha256, Sha512};
use stanza::ns::Ns;
use stanza::tree::{Node, Tree};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// What stands behind the name of a node in a feature (XEP-0163 4.2).
const NOTIFY: &str = "+notify";

/// Capabilities that are known by their hash; the one that is known longest makes way.
pub const KNOWN_MAX: usize = 1_024;

/// Nodes that one client is told of; further ones are passed over.
pub const NODES_MAX: usize = 256;

/// Bytes of their names.
pub const NODES_SIZE_MAX: usize = 16 << 10;

/// Bytes of a node, a hash and its algorithm in a presence; longer ones are passed over.
pub const CAPS_SIZE_MAX: usize = 1_023;

/// What a presence says of its client's capabilities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caps {
    hash: Box<str>,
    node: Box<str>,
    ver: Box<str>,
}

impl Caps {
    /// That of a presence.
    pub(crate) fn of(presence: Node<'_>) -> Option<Caps> {
        let caps = presence.child("c", Ns::Caps)?;
        let part = |name| caps.attr(name).unwrap_or_default();
        // Before XEP-0115 1.4 there was no hash: such a client is asked for itself alone.
        let (hash, node, ver) = (part("hash"), part("node"), part("ver"));
        let size = hash.len() + node.len() + ver.len();
        let is_fit = !node.is_empty() && !ver.is_empty() && size <= CAPS_SIZE_MAX;
        is_fit.then(|| Caps {
            hash: hash.into(),
            node: node.into(),
            ver: ver.into(),
        })
    }

    /// By what it is known: an algorithm has no line break in its name.
    fn key(&self) -> Box<str> {
        format!("{}\n{}", self.hash, self.ver).into()
    }

    /// Whether its hash is that of what it stands for.
    fn is_of(&self, info: Info<'_>) -> bool {
        let text = verification(info);
        let hash = match &*self.hash {
            "sha-1" => STANDARD.encode(Sha1::digest(text)),
            "sha-256" => STANDARD.encode(Sha256::digest(text)),
            "sha-512" => STANDARD.encode(Sha512::digest(text)),
            _ => return false,
        };
        *hash == *self.ver
    }
}

/// What a session's client is interested in, as far as that is known.
#[derive(Debug)]
enum Interest {
    /// It was asked by an iq of this id.
    Asked(Box<(Caps, u64)>),
    Known(Arc<Known>),
}

#[derive(Debug)]
struct Known {
    caps: Caps,
    nodes: NodeNames,
}

/// What the clients of a shard's sessions are interested in.
#[derive(Debug, Default)]
pub(crate) struct Interests {
    known: HashMap<Box<str>, Arc<Known>>,
    /// Those that are known, the oldest first.
    order: VecDeque<Box<str>>,
    /// Those sessions that said what they are capable of.
    sessions: HashMap<SessionKey, Interest>,
}

impl Interests {
    /// Whether a session's client is interested in a node.
    pub(crate) fn has(&self, key: SessionKey, node: &str) -> bool {
        match self.sessions.get(&key) {
            Some(Interest::Known(known)) => {
                let found = known.nodes.binary_search_by(|known| (**known).cmp(node));
                found.is_ok()
            }
            _ => false,
        }
    }

    /// What it is interested in.
    pub(crate) fn of(&self, key: SessionKey) -> Option<NodeNames> {
        match self.sessions.get(&key) {
            Some(Interest::Known(known)) => Some(Arc::clone(&known.nodes)),
            _ => None,
        }
    }

    /// A session ends, or says nothing any more.
    pub(crate) fn forget(&mut self, key: SessionKey) {
        self.sessions.remove(&key);
    }

    fn caps(&self, key: SessionKey) -> Option<&Caps> {
        Some(match self.sessions.get(&key)? {
            Interest::Asked(asked) => &asked.0,
            Interest::Known(known) => &known.caps,
        })
    }

    /// What is known already stays: of two answers with one hash the first is believed.
    fn remember(&mut self, known: &Arc<Known>) {
        let key = known.caps.key();
        if let Entry::Vacant(place) = self.known.entry(key.clone()) {
            place.insert(Arc::clone(known));
            self.order.push_back(key);
        }
        if self.order.len() > KNOWN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

impl Shard {
    /// A session is available, and says this of its client. A new one has the last items of what it
    /// is interested in.
    pub(crate) fn note_caps(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        caps: Option<Caps>,
        is_initial: bool,
    ) {
        let Some(caps) = caps else {
            if self.sessions.at(key).modes.has(Modes::HAS_CAPS) {
                self.sessions.at_mut(key).modes.set(Modes::HAS_CAPS, false);
                self.sessions.interests.forget(key);
            }
            return;
        };
        let interests = &self.sessions.interests;
        let before = interests.of(key);
        if interests.caps(key) != Some(&caps) {
            match interests.known.get(&caps.key()).cloned() {
                Some(known) => self.set_interest(key, Interest::Known(known)),
                None => return self.ask_caps(host, key, caps),
            }
        }
        if let Some(nodes) = self.sessions.interests.of(key) {
            let before = before.filter(|_| !is_initial);
            self.catch_up_since(host, key, before, nodes);
        }
    }

    /// A session is back from storage, which does not know what its client is interested in.
    pub(crate) fn learn_caps_again(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        presence: &Presence,
    ) {
        let scope = self.client_scope.clone();
        let tree = Tree::parse(&presence.bytes, &scope).ok();
        let caps = tree.and_then(|tree| Caps::of(tree.root()));
        self.note_caps(host, key, caps, false);
    }

    fn set_interest(&mut self, key: SessionKey, interest: Interest) {
        self.sessions.at_mut(key).modes.set(Modes::HAS_CAPS, true);
        self.sessions.interests.sessions.insert(key, interest);
    }

    /// Gives a session the last items of what it was not interested in before.
    fn catch_up_since(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        before: Option<NodeNames>,
        nodes: NodeNames,
    ) {
        let new = match before {
            None => nodes,
            Some(before) => {
                let new = nodes.iter().filter(|node| !before.contains(node));
                new.cloned().collect()
            }
        };
        self.catch_up(host, key, new);
    }

    /// XEP-0115 6.2: asks a client what its capabilities are.
    fn ask_caps(&mut self, host: &mut impl Host, key: SessionKey, caps: Caps) {
        let id = host.random();
        let (node, ver) = (Attr(&caps.node), Attr(&caps.ver));
        let query = format!(
            "<query xmlns='http://jabber.org/protocol/disco#info' node='{node}#{ver}'/></iq>"
        );
        self.set_interest(key, Interest::Asked(Box::new((caps, id))));
        self.sessions
            .write_to(host, key, Keep::Memory, |address, out| {
                let (from, to) = (Attr(address.bare()), Attr(address.full()));
                put(
                    out,
                    format_args!("<iq from='{from}' to='{to}' id='{id:016x}' type='get'>{query}"),
                );
            });
    }

    /// A client answers its own account.
    pub(crate) fn on_caps_told(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        id: &str,
        type_: Type,
        query: Option<Node<'_>>,
    ) {
        let asked = self.sessions.interests.sessions.get(&key);
        let Some(Interest::Asked(asked)) = asked else {
            return;
        };
        let (caps, expected) = &**asked;
        if u64::from_str_radix(id, 16) != Ok(*expected) {
            return;
        }
        let caps = caps.clone();
        let query = query.filter(|query| query.is("query", Ns::DiscoInfo) && type_ == Type::Result);
        let nodes = query.map_or_else(|| [].into(), notified);
        let is_verified = query.and_then(read).is_some_and(|info| caps.is_of(info));
        let known = Arc::new(Known {
            caps,
            nodes: Arc::clone(&nodes),
        });
        if is_verified {
            self.sessions.interests.remember(&known);
        }
        self.set_interest(key, Interest::Known(known));
        if self.sessions.at(key).available {
            self.catch_up(host, key, nodes);
        }
    }
}

/// The nodes that a client wants to be told of, in order.
fn notified(query: Node<'_>) -> NodeNames {
    let features = query
        .children()
        .filter(|it| it.is("feature", Ns::DiscoInfo));
    let nodes = features.filter_map(|feature| feature.attr("var")?.strip_suffix(NOTIFY));
    let mut size = 0;
    let mut fits = |node: &&str| {
        size += node.len();
        size <= NODES_SIZE_MAX
    };
    let mut nodes: Vec<Box<str>> = nodes
        .filter(|node| node.len() <= super::pubsub::NAME_SIZE_MAX)
        .take(NODES_MAX)
        .take_while(|node| fits(node))
        .map(Box::from)
        .collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes.into()
}

/// What a client says of itself; `None` where it is no sound answer (XEP-0115 5.4).
fn read<'t>(query: Node<'t>) -> Option<Info<'t>> {
    let text = |node: Node<'t>, name| node.attr(name).unwrap_or_default();
    let of = |name| move |node: &Node<'t>| node.is(name, Ns::DiscoInfo);
    let identities = query.children().filter(of("identity")).map(|one| Identity {
        category: text(one, "category"),
        kind: text(one, "type"),
        lang: text(one, "xml:lang"),
        name: text(one, "name"),
    });
    let features = query.children().filter(of("feature"));
    let forms = query.children().filter(|x| x.is("x", Ns::DataForms));
    let mut info = Info {
        identities: identities.collect(),
        features: features.map(|feature| text(feature, "var")).collect(),
        forms: Vec::new(),
    };
    for x in forms {
        info.forms.extend(read_form(x)?);
    }
    is_sound(&mut info).then_some(info)
}

/// A form of an answer, which may count for nothing; `None` where it spoils the answer.
fn read_form<'t>(x: Node<'t>) -> Option<Option<Form<'t>>> {
    let fields = x
        .children()
        .filter(|field| field.is("field", Ns::DataForms));
    let mut kinds: Vec<&str> = Vec::new();
    let mut form = Form {
        kind: "",
        fields: Vec::new(),
    };
    for field in fields {
        let values = field.children().filter(|it| it.is("value", Ns::DataForms));
        let values: Vec<&str> = values.map(|value| value.text()).collect();
        match field.attr("var") {
            // XEP-0115 5.4 3.6: one that is not hidden names no kind.
            Some("FORM_TYPE") if field.attr("type") == Some("hidden") => kinds.extend(values),
            Some("FORM_TYPE") => {}
            var => form.fields.push(Field {
                var: var.unwrap_or_default().into(),
                kind: "",
                values,
            }),
        }
    }
    kinds.dedup();
    match kinds[..] {
        [] => Some(None),
        [kind] => {
            form.kind = kind;
            Some(Some(form))
        }
        _ => None,
    }
}

/// Whether nothing stands there twice, and nothing has the sign that separates what is hashed: with
/// it, another answer could have the same hash.
fn is_sound(info: &mut Info<'_>) -> bool {
    let mut texts: Vec<&str> = info.features.clone();
    let count = texts.len();
    texts.sort_unstable();
    texts.dedup();
    let mut identities: Vec<_> = info.identities.iter().collect();
    let key = |one: &&Identity<'_>| format!("{}/{}/{}", one.category, one.kind, one.lang);
    identities.sort_by_key(key);
    identities.dedup_by_key(|one| key(one));
    let mut kinds: Vec<&str> = info.forms.iter().map(|form| form.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let is_unique = texts.len() == count
        && identities.len() == info.identities.len()
        && kinds.len() == info.forms.len();
    let parts = info.identities.iter();
    let parts = parts.flat_map(|one| [one.category, one.kind, one.lang, one.name]);
    let fields = info.forms.iter().flat_map(|form| &form.fields);
    let values = fields.flat_map(|it| it.values.iter().copied().chain([&*it.var]));
    let others = || {
        parts
            .clone()
            .chain(kinds.iter().copied())
            .chain(values.clone())
    };
    // The hash is of one text with all parts (XEP-0115 5.1): what is a feature in one answer may be
    // a part of something else in another of the same hash. What counts here must not.
    let hides = others().any(|text| text.ends_with(NOTIFY));
    let mut all = texts.into_iter().chain(others());
    is_unique && !hides && !all.any(|text| text.contains('<'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use stanza::scope::StreamScope;

    fn caps(hash: &str, ver: &str) -> Caps {
        Caps {
            hash: hash.into(),
            node: "urn:c".into(),
            ver: ver.into(),
        }
    }

    /// Whether an answer proves a hash, which is that of the text.
    fn proves(answer: &str, text: &str) -> bool {
        let query =
            format!("<query xmlns='http://jabber.org/protocol/disco#info'>{answer}</query>");
        let tree = Tree::parse(query.as_bytes(), &StreamScope::client()).unwrap();
        let caps = caps("sha-1", &STANDARD.encode(Sha1::digest(text)));
        read(tree.root()).is_some_and(|info| caps.is_of(info))
    }

    #[test]
    fn an_answer_proves_its_hash_and_no_other() {
        let plain = "<identity category='client' type='pc' name='x'/><feature var='b'/>\
                     <feature var='a'/>";
        assert!(proves(plain, "client/pc//x<a<b<"));
        assert!(!proves(plain, "client/pc//x<a<c<"));
        let form = "<feature var='a'/><x xmlns='jabber:x:data' type='result'>\
                    <field var='FORM_TYPE' type='hidden'><value>k</value></field>\
                    <field var='os'><value>2</value><value>1</value></field></x>";
        assert!(proves(form, "a<k<os<1<2<"));
    }

    #[test]
    fn an_answer_that_another_could_be_taken_for_proves_nothing() {
        for (answer, text) in [
            // XEP-0115 5.4 3.3 to 3.5, and the sign that separates.
            ("<feature var='a'/><feature var='a'/>", "a<a<"),
            ("<feature var='a&lt;b'/>", "a<b<"),
            (
                "<identity category='client' type='pc' name='x&lt;a'/>",
                "client/pc//x<a<",
            ),
            (
                "<identity category='c' type='t'/><identity category='c' type='t'/>",
                "c/t//<c/t//<",
            ),
            (
                "<x xmlns='jabber:x:data'><field var='FORM_TYPE' type='hidden'><value>k</value>\
                 <value>l</value></field></x>",
                "k<",
            ),
        ] {
            assert!(!proves(answer, text), "{answer}");
        }
        // Who has the features `a` and `n+notify` would have the same hash.
        for hidden in [
            "<identity category='client' type='pc' name='n+notify'/><feature var='a'/>",
            "<feature var='a'/><x xmlns='jabber:x:data'><field var='FORM_TYPE' type='hidden'>\
             <value>n+notify</value></field></x>",
            "<feature var='a'/><x xmlns='jabber:x:data'><field var='FORM_TYPE' type='hidden'>\
             <value>k</value></field><field var='n+notify'/></x>",
            "<feature var='a'/><x xmlns='jabber:x:data'><field var='FORM_TYPE' type='hidden'>\
             <value>k</value></field><field var='b'><value>n+notify</value></field></x>",
        ] {
            let query =
                format!("<query xmlns='http://jabber.org/protocol/disco#info'>{hidden}</query>");
            let tree = Tree::parse(query.as_bytes(), &StreamScope::client()).unwrap();
            assert!(read(tree.root()).is_none(), "{hidden}");
        }
        // XEP-0115 5.4 3.6: a form of no kind counts for nothing.
        let form = "<feature var='a'/><x xmlns='jabber:x:data'><field var='b'/></x>";
        assert!(proves(form, "a<"));
    }

    #[test]
    fn so_many_hashes_are_known_and_so_many_nodes_of_each() {
        let mut interests = Interests::default();
        for number in 0..=KNOWN_MAX {
            let known = Known {
                caps: caps("sha-1", &number.to_string()),
                nodes: [].into(),
            };
            interests.remember(&Arc::new(known));
        }
        assert_eq!(interests.known.len(), KNOWN_MAX);
        assert!(!interests.known.contains_key(&caps("sha-1", "0").key()));
        assert!(interests.known.contains_key(&caps("sha-1", "1").key()));
        let features = (0..2 * NODES_MAX).map(|number| format!("<feature var='{number}+notify'/>"));
        let query = format!(
            "<query xmlns='http://jabber.org/protocol/disco#info'>{}</query>",
            features.collect::<String>()
        );
        let tree = Tree::parse(query.as_bytes(), &StreamScope::client()).unwrap();
        assert_eq!(notified(tree.root()).len(), NODES_MAX);
        let long = "x".repeat(NODES_SIZE_MAX / 20);
        let features = (0..30).map(|number| format!("<feature var='{number}{long}+notify'/>"));
        let query = format!(
            "<query xmlns='http://jabber.org/protocol/disco#info'>{}</query>",
            features.collect::<String>()
        );
        let tree = Tree::parse(query.as_bytes(), &StreamScope::client()).unwrap();
        assert_eq!(notified(tree.root()).len(), 19);
    }

    #[test]
    fn of_two_answers_with_one_hash_the_first_is_believed() {
        let mut interests = Interests::default();
        let known = |nodes: &[&str]| {
            Arc::new(Known {
                caps: caps("sha-1", "1"),
                nodes: nodes.iter().map(|node| Box::from(*node)).collect(),
            })
        };
        interests.remember(&known(&["n"]));
        interests.remember(&known(&[]));
        let kept = &interests.known[&caps("sha-1", "1").key()];
        assert_eq!(kept.nodes.len(), 1);
    }

    #[test]
    fn what_is_too_long_in_a_presence_is_passed_over() {
        let of = |ver: &str| {
            let presence = format!(
                "<presence><c xmlns='http://jabber.org/protocol/caps' node='n' ver='{ver}'/>\
                 </presence>"
            );
            let tree = Tree::parse(presence.as_bytes(), &StreamScope::client()).unwrap();
            Caps::of(tree.root()).is_some()
        };
        assert!(of(&"v".repeat(CAPS_SIZE_MAX - 1)));
        assert!(!of(&"v".repeat(CAPS_SIZE_MAX)));
        assert!(!of(""));
    }
}
