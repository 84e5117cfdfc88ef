//! `vorpal import`: accounts with all they own from a file in the format of XEP-0227.
//!
//! Invariant: an account comes in as a whole or not at all, and one that exists already is named
//! and left as it is; so an import that was cut short can be repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufReader;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stanza::jid::{BareJid, Jid};
use stanza::ns::Ns;
use xml::reader::{EventReader, XmlEvent};
use xmpp::Timestamp;
use xmpp::leave::as_left;
use xmpp::limit::Limits;
use xmpp::port::{
    Credentials, DOCUMENT_NAME_SIZE_MAX, DOCUMENTS_MAX, Document, OfflineQuota, RosterItem,
    ScramKey, Space, Subscription, WholeAccount,
};
use xmpp::settings::SCRAM_ITERATIONS_MAX;
use xmpp::subscription::REQUESTS_SIZE_MAX;

use super::accounts::{self, Accounts, Trouble};
use super::element::{self, Element};
use super::export::{ACTIVITY, PIE, PRIVACY, SCRAM};
use super::{Failure, derive, nodes};

const XINCLUDE: &str = "http://www.w3.org/2001/XInclude";
const BLOCKING: &str = "urn:xmpp:blocking";

/// Accounts of one commit.
const BATCH: usize = 2048;
/// Files within files: one for a host, one for a user, one for a part of that.
const INCLUDES_MAX: usize = 4;
/// Notes that are printed; more are counted.
const NOTES_MAX: u64 = 100;

type Reader = EventReader<BufReader<File>>;

/// Imports files; Prosody writes one for each account.
pub(crate) fn import(config: &Path, files: &[PathBuf]) -> Result<ExitCode, Failure> {
    let mut accounts = Accounts::open(config)?;
    let mut import = Import::new(accounts.domain().to_owned(), accounts.limits().clone());
    let mut create = |batch: Vec<Arrival>, notes: &mut Notes| flush(&mut accounts, batch, notes);
    let read = files
        .iter()
        .try_for_each(|file| import.file(file, Level::Root, 0, &mut create));
    // What was read before the trouble is whole.
    let batch = std::mem::take(&mut import.batch);
    let flushed = create(batch, &mut import.notes);
    import.tell();
    read?;
    flushed?;
    let is_clean = import.notes.count == 0 && import.unknown.is_empty();
    Ok(if is_clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// An account as it was read.
struct Arrival {
    whole: WholeAccount,
    /// Items of its nodes, and where they stand: how nodes are configured may stand behind them.
    items: Vec<(Element, String)>,
    /// Its password, where that is all there is.
    password: Option<String>,
    /// Bytes of the messages that wait for it.
    waiting_size: u64,
    /// Messages that may not wait beside those.
    left_out: u64,
}

impl Arrival {
    /// Lets a message wait where the server would. Its limits are those of one burst to a client.
    fn add_waiting(&mut self, stanza: Box<[u8]>, quota: OfflineQuota) {
        let size = self.waiting_size + stanza.len() as u64;
        let count = u32::try_from(self.whole.offline.len() + 1);
        if !count.is_ok_and(|count| quota.admits(count, size)) {
            self.left_out += 1;
            return;
        }
        self.waiting_size = size;
        self.whole.offline.push(stanza);
    }
}

/// What the operator is told.
#[derive(Default)]
struct Notes {
    /// Accounts that came in.
    created: u64,
    /// Those of them that have keys for some hashes only.
    partial: u64,
    count: u64,
    /// What is told at the end.
    last: Vec<String>,
    /// What was told at once.
    #[cfg(test)]
    said: Vec<String>,
}

impl Notes {
    fn say(&mut self, text: &str) {
        #[cfg(test)]
        self.said.push(text.to_owned());
        self.count += 1;
        if self.count <= NOTES_MAX {
            eprintln!("vorpal: {text}");
        }
    }

    /// The same at the end, where nothing that scrolls by hides it.
    fn say_last(&mut self, text: String) {
        self.count += 1;
        if self.count <= NOTES_MAX {
            self.last.push(text);
        }
    }
}

fn flush(accounts: &mut Accounts, batch: Vec<Arrival>, notes: &mut Notes) -> Result<(), Failure> {
    let keys = derive::on_all_cores(&batch, |arrival| match &arrival.password {
        Some(password) => derive::keys(password).map(Some),
        None => Ok(None),
    });
    let mut all = Vec::with_capacity(batch.len());
    let (mut left_out, mut partial) = (BTreeMap::new(), BTreeSet::new());
    for (arrival, keys) in batch.into_iter().zip(keys) {
        let mut whole = arrival.whole;
        if arrival.left_out > 0 {
            left_out.insert(whole.account.clone(), arrival.left_out);
        }
        match keys {
            Ok(keys) => whole.credentials = keys.unwrap_or(whole.credentials),
            Err(failure) => notes.say(&format!(
                "{}: {failure} It gets no password: use `vorpal user passwd`.",
                whole.account.as_str()
            )),
        }
        if accounts::is_partial(&whole.credentials) {
            partial.insert(whole.account.clone());
        }
        all.push(whole);
    }
    let quota = accounts.offline();
    let mut created = 0;
    let mut all = all.into_iter();
    let done = accounts.create(&mut all, &mut created, &mut |account, trouble| {
        let name = account.as_str();
        left_out.remove(account);
        partial.remove(account);
        match trouble {
            Trouble::Exists => notes.say(&format!("{name} exists already; left as it is.")),
            Trouble::Refused(why) => notes.say_last(format!("{name} was left out: {why}")),
        }
    });
    notes.created += created;
    notes.partial += created.min(partial.len() as u64);
    for (account, count) in &left_out {
        notes.say_last(format!(
            "{}: {count} of its waiting messages were left out; {} messages of {} bytes together \
             may wait for one account.",
            account.as_str(),
            quota.count,
            quota.size
        ));
    }
    done
}

/// Where in the document a file or element stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    /// The document: `<server-data/>` in it.
    Root,
    /// In `<server-data/>`.
    Server,
    /// In `<host/>`.
    Host,
}

type Create<'a> = &'a mut dyn FnMut(Vec<Arrival>, &mut Notes) -> Result<(), Failure>;

/// The state of one import.
struct Import {
    domain: String,
    /// What one account may have.
    limits: Limits,
    /// The file that is being read, for messages.
    path: PathBuf,
    depth: usize,
    batch: Vec<Arrival>,
    notes: Notes,
    unknown: BTreeMap<(String, String), u64>,
}

impl Import {
    fn new(domain: String, limits: Limits) -> Import {
        Import {
            domain,
            limits,
            path: PathBuf::new(),
            depth: 0,
            batch: Vec::new(),
            notes: Notes::default(),
            unknown: BTreeMap::new(),
        }
    }

    /// Says what came in and what did not.
    fn tell(&self) {
        println!("Imported {} accounts.", self.notes.created);
        accounts::tell_partial(self.notes.partial);
        for text in &self.notes.last {
            eprintln!("vorpal: {text}");
        }
        for ((name, ns), count) in &self.unknown {
            eprintln!(
                "vorpal: passed over {count} of <{name} xmlns='{ns}'>, which is unknown here."
            );
        }
        if self.notes.count > NOTES_MAX {
            let more = self.notes.count - NOTES_MAX;
            eprintln!("vorpal: and {more} more like these.");
        }
    }

    fn broken(&self, reader: &Reader, what: &str) -> Failure {
        Failure(format!("{}: {what}.", place(&self.path, reader)))
    }

    fn open(&mut self, path: &Path) -> Result<Reader, Failure> {
        let file = File::open(path)
            .map_err(|error| Failure(format!("Cannot read {}: {error}.", path.display())))?;
        Ok(element::reader(BufReader::new(file)))
    }

    /// Reads a file whose root element stands at `level`.
    fn file(
        &mut self,
        path: &Path,
        level: Level,
        depth: usize,
        create: Create<'_>,
    ) -> Result<(), Failure> {
        let mut reader = self.open(path)?;
        let outer = (
            std::mem::replace(&mut self.path, path.to_owned()),
            self.depth,
        );
        self.depth = depth;
        self.level(&mut reader, level, create)?;
        (self.path, self.depth) = outer;
        Ok(())
    }

    /// Reads elements until the one around them ends.
    fn level(
        &mut self,
        reader: &mut Reader,
        level: Level,
        create: Create<'_>,
    ) -> Result<(), Failure> {
        loop {
            let event = element::next(reader).map_err(|what| self.broken(reader, &what))?;
            let element = match event {
                XmlEvent::StartElement {
                    name, attributes, ..
                } => Element::start(name, attributes),
                XmlEvent::EndElement { .. } | XmlEvent::EndDocument => return Ok(()),
                _ => continue,
            };
            match level {
                Level::Root if element.is("server-data", PIE) => {
                    self.level(reader, Level::Server, create)?;
                }
                Level::Root => return Err(self.broken(reader, "this is no file of XEP-0227")),
                _ if element.is("include", XINCLUDE) => {
                    let path = self.included(reader, &element)?;
                    self.skip(reader)?;
                    self.file(&path, level, self.depth + 1, create)?;
                }
                Level::Server if element.is("host", PIE) => {
                    self.host(reader, &element, create)?;
                }
                Level::Host if element.is("user", PIE) => self.user(reader, &element, create)?,
                _ => {
                    self.pass_over(&element);
                    self.skip(reader)?;
                }
            }
        }
    }

    fn skip(&self, reader: &mut Reader) -> Result<(), Failure> {
        element::skip(reader).map_err(|what| self.broken(reader, &what))
    }

    fn pass_over(&mut self, element: &Element) {
        let kind = (element.name.clone(), element.ns.clone());
        *self.unknown.entry(kind).or_default() += 1;
    }

    /// XEP-0227 5: the file that an element names, beside the one that names it or below.
    fn included(&self, reader: &Reader, element: &Element) -> Result<PathBuf, Failure> {
        let href = element.attr("href").unwrap_or_default();
        let is_plain = element.attr("parse").is_none() && element.attr("xpointer").is_none();
        let is_below = Path::new(href)
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if href.is_empty() || !is_plain || !is_below || href.contains(':') {
            let what =
                format!("the file {href:?} cannot be included: only one beside or below can");
            return Err(self.broken(reader, &what));
        }
        if self.depth >= INCLUDES_MAX {
            return Err(self.broken(reader, "files include each other too deeply"));
        }
        Ok(self.path.parent().unwrap_or(Path::new("")).join(href))
    }

    fn host(
        &mut self,
        reader: &mut Reader,
        element: &Element,
        create: Create<'_>,
    ) -> Result<(), Failure> {
        let jid = element.attr("jid").unwrap_or_default();
        let is_ours = BareJid::parse(jid)
            .is_ok_and(|jid| jid.local().is_none() && jid.domain() == self.domain);
        if is_ours {
            return self.level(reader, Level::Host, create);
        }
        let domain = &self.domain;
        let text = format!("passed over the accounts of {jid:?}: this server is for {domain}.");
        self.notes.say(&text);
        self.skip(reader)
    }

    fn user(
        &mut self,
        reader: &mut Reader,
        element: &Element,
        create: Create<'_>,
    ) -> Result<(), Failure> {
        let name = element.attr("name").unwrap_or_default();
        let account = match accounts::new_name(&format!("{name}@{}", self.domain), &self.domain) {
            Ok(account) => account,
            Err(refusal) => {
                self.notes
                    .say(&format!("passed over an account: {refusal}"));
                return self.skip(reader);
            }
        };
        let password = element
            .attr("password")
            .filter(|password| !password.is_empty());
        let mut arrival = Arrival {
            whole: WholeAccount::new(account, Credentials::default()),
            items: Vec::new(),
            password: password.map(str::to_owned),
            waiting_size: 0,
            left_out: 0,
        };
        self.belongings(reader, &mut arrival)?;
        let items = std::mem::take(&mut arrival.items);
        for (at, what) in nodes::items(&items, &mut arrival.whole, &self.limits) {
            self.note_left_out(&at, &arrival, Err(what));
        }
        if arrival.whole.credentials.has_any() {
            arrival.password = None;
        } else if arrival.password.is_none() {
            self.notes.say(&format!(
                "{} has no password that could be used; give it one with `vorpal user passwd`.",
                arrival.whole.account.as_str()
            ));
            // It comes in all the same: it can receive messages, and nobody can log in.
        }
        self.batch.push(arrival);
        if self.batch.len() >= BATCH {
            let batch = std::mem::take(&mut self.batch);
            create(batch, &mut self.notes)?;
        }
        Ok(())
    }

    /// Reads what an account owns, until its element ends.
    fn belongings(&mut self, reader: &mut Reader, arrival: &mut Arrival) -> Result<(), Failure> {
        loop {
            let event = element::next(reader).map_err(|what| self.broken(reader, &what))?;
            let start = match event {
                XmlEvent::StartElement {
                    name, attributes, ..
                } => Element::start(name, attributes),
                XmlEvent::EndElement { .. } => return Ok(()),
                XmlEvent::EndDocument => return Err(self.broken(reader, "it ends too early")),
                _ => continue,
            };
            let read = start
                .read(reader)
                .map_err(|what| self.broken(reader, &what))?;
            if read.is("include", XINCLUDE) {
                self.included_belonging(reader, &read, arrival)?;
                continue;
            }
            let at = place(&self.path, reader);
            self.belonging(&read, &at, arrival);
        }
    }

    fn included_belonging(
        &mut self,
        reader: &Reader,
        element: &Element,
        arrival: &mut Arrival,
    ) -> Result<(), Failure> {
        let path = self.included(reader, element)?;
        let mut reader = self.open(&path)?;
        let next = element::next(&mut reader);
        let read = next.and_then(|event| match event {
            XmlEvent::StartElement {
                name, attributes, ..
            } => Element::start(name, attributes).read(&mut reader),
            _ => Err("it has no element".into()),
        });
        let at = place(&path, &reader);
        let read = read.map_err(|what| Failure(format!("{at}: {what}.")))?;
        self.belonging(&read, &at, arrival);
        Ok(())
    }

    /// Takes an element that ends at a line of a file.
    fn belonging(&mut self, element: &Element, at: &str, arrival: &mut Arrival) {
        let whole = &mut arrival.whole;
        let taken = match (element.name.as_str(), element.ns.as_str()) {
            ("scram-credentials", SCRAM) => scram(element, &mut whole.credentials),
            ("query", "jabber:iq:roster") => roster(element, whole, &self.limits),
            // COMPAT: Prosody writes it without its namespace.
            ("presence", "jabber:client" | PIE) => {
                let mut presence = as_stanza(element);
                presence.set("to", whole.account.as_str());
                request(presence, whole, &self.limits)
            }
            ("offline-messages", PIE) => {
                let messages = element.children().filter(|child| child.name == "message");
                let mut wrong = Ok(());
                for message in messages {
                    match waiting(message, &arrival.whole.account) {
                        Ok(stanza) => arrival.add_waiting(stanza, self.limits.offline()),
                        Err(what) => wrong = Err(what),
                    }
                }
                wrong
            }
            ("query", "jabber:iq:private") => private(element, whole),
            ("vCard", "vcard-temp") => put(whole, Space::Vcard, "", element.bytes("")),
            ("activity", ACTIVITY) => put(
                whole,
                Space::Activity,
                "",
                element.text().into_bytes().into(),
            ),
            ("pubsub", ns) if ns == Ns::PubSubOwner.as_str() => {
                nodes::configurations(element, whole, &self.limits)
            }
            ("pubsub", ns) if ns == Ns::PubSub.as_str() => {
                arrival.items.push((element.clone(), at.to_owned()));
                Ok(())
            }
            ("query", PRIVACY) => privacy(element, &mut whole.data.blocked),
            ("blocklist", BLOCKING) => {
                let items = element.children().filter_map(|item| item.attr("jid"));
                block(items, &mut whole.data.blocked)
            }
            _ => {
                self.pass_over(element);
                Ok(())
            }
        };
        self.note_left_out(at, arrival, taken);
    }

    fn note_left_out(&mut self, at: &str, arrival: &Arrival, taken: Result<(), String>) {
        if let Err(what) = taken {
            let account = arrival.whole.account.as_str();
            self.notes
                .say(&format!("{at}: {account}: {what}; that part was left out."));
        }
    }
}

/// Where a reader is in its file.
fn place(path: &Path, reader: &Reader) -> String {
    use xml::common::Position;
    format!("{}:{}", path.display(), reader.position().row + 1)
}

fn as_stanza(element: &Element) -> Element {
    element.clone().moved(PIE, Ns::Client.as_str())
}

/// A message as it waits for an account: with the addresses that it would have got on its way.
fn waiting(message: &Element, account: &BareJid) -> Result<Box<[u8]>, String> {
    let own = account.as_str();
    let mut stanza = as_stanza(message);
    // RFC 6120 8.1.2.1, 10.3.1: whoever is not named is the account.
    for name in ["from", "to"] {
        let text = stanza.attr(name).unwrap_or(own).to_owned();
        let what = || format!("the {name:?} of a waiting message is {text:?}");
        let jid = Jid::parse(&text).map_err(|_| what())?;
        if name == "to" && jid.bare() != own {
            return Err(what());
        }
        stanza.set(name, jid.as_str());
    }
    // XEP-0160 3: errors, headlines and what is of the moment would not wait here either.
    let bytes = stanza.bytes(Ns::Client.as_str());
    as_left(&bytes, Timestamp::default(), account.domain())
        .ok_or_else(|| "a waiting message is of a kind that does not wait".into())
}

/// COMPAT: ejabberd 23.01 encodes what is base64 already once more.
fn decoded_again(octets: Vec<u8>) -> Vec<u8> {
    STANDARD.decode(&octets).unwrap_or(octets)
}

fn scram(element: &Element, credentials: &mut Credentials) -> Result<(), String> {
    let mechanism = element.attr("mechanism").unwrap_or_default();
    let (place, size) = match mechanism {
        "SCRAM-SHA-1" => (&mut credentials.sha1, 20),
        "SCRAM-SHA-256" => (&mut credentials.sha256, 32),
        "SCRAM-SHA-512" => (&mut credentials.sha512, 64),
        other => return Err(format!("its keys are for {other:?}, which is unknown here")),
    };
    let part = |name: &str| {
        let found = element.children().find(|child| child.is(name, SCRAM));
        found
            .map(|child| child.text().trim().to_owned())
            .unwrap_or_default()
    };
    let octets = |name: &str| {
        let octets = STANDARD
            .decode(part(name))
            .ok()
            .filter(|octets| !octets.is_empty());
        octets.ok_or_else(|| format!("the <{name}/> of its {mechanism} keys is no base64"))
    };
    let iterations = part("iter-count").parse().ok();
    let iterations = iterations.filter(|count| (1..=SCRAM_ITERATIONS_MAX).contains(count));
    let (mut salt, mut stored, mut server) = (
        octets("salt")?,
        octets("stored-key")?,
        octets("server-key")?,
    );
    if stored.len() != size {
        (salt, stored, server) = (
            decoded_again(salt),
            decoded_again(stored),
            decoded_again(server),
        );
    }
    let key = ScramKey {
        salt: salt.into(),
        iterations: iterations.ok_or("its iteration count cannot be used")?,
        stored_key: stored.into(),
        server_key: server.into(),
    };
    if key.stored_key.len() != size || key.server_key.len() != size {
        return Err(format!("its {mechanism} keys have the wrong size"));
    }
    *place = Some(key);
    Ok(())
}

/// The item of a contact, which is made where there is none.
fn item_of(roster: &mut Vec<RosterItem>, contact: BareJid) -> &mut RosterItem {
    let index = roster.iter().position(|item| item.contact == contact);
    let index = index.unwrap_or_else(|| {
        roster.push(RosterItem::new(contact));
        roster.len() - 1
    });
    &mut roster[index]
}

fn roster(element: &Element, whole: &mut WholeAccount, limits: &Limits) -> Result<(), String> {
    let roster = &mut whole.data.roster;
    let mut listed = roster.iter().filter(|item| item.listed).count();
    let mut wrong = Ok(());
    for child in element.children().filter(|child| child.name == "item") {
        let jid = child.attr("jid").unwrap_or_default();
        let Ok(contact) = Jid::parse(jid) else {
            wrong = Err(format!("its contact {jid:?} is no JID"));
            continue;
        };
        // As a client's roster set: a contact is a bare JID.
        let contact = contact.to_bare();
        if contact == whole.account {
            wrong = Err("its own address is in its roster".into());
            continue;
        }
        let subscription = child.attr("subscription").unwrap_or("none");
        let Some(subscription) = Subscription::parse(subscription) else {
            // `remove` and what old servers made up: no contact.
            continue;
        };
        let known = roster.iter().find(|item| item.contact == contact);
        let is_new = known.is_none_or(|item| !item.listed);
        if is_new && listed >= limits.roster_items_max {
            wrong = Err(format!("it has more than {listed} contacts"));
            continue;
        }
        listed += usize::from(is_new);
        // RFC 6121 A.2: who is subscribed does not ask.
        let is_asking = child.attr("ask") == Some("subscribe");
        if is_asking && subscription.is_to() {
            wrong = Err(format!(
                "it is subscribed to {:?} and asks to be",
                contact.as_str()
            ));
        }
        let item = item_of(roster, contact);
        item.listed = true;
        item.subscription = subscription;
        item.name = child.attr("name").unwrap_or_default().into();
        item.ask = is_asking && !subscription.is_to();
        item.approved = matches!(child.attr("approved"), Some("true" | "1"));
        item.groups.clear();
        for group in child.children().filter(|group| group.name == "group") {
            let group: Box<str> = group.text().into();
            if !group.is_empty() && !item.groups.contains(&group) {
                item.groups.push(group);
            }
        }
    }
    wrong
}

/// XEP-0227 4.8.
fn request(mut element: Element, whole: &mut WholeAccount, limits: &Limits) -> Result<(), String> {
    if element.attr("type") != Some("subscribe") {
        return Err("a presence of it is no request".into());
    }
    let from = element.attr("from").unwrap_or_default();
    let contact = Jid::parse(from).map_err(|_| format!("a request is from {from:?}, no JID"))?;
    let contact = contact.to_bare();
    if contact == whole.account {
        return Err("a request is from itself".into());
    }
    // RFC 6121 3.1.2: as it would have come.
    element.set("from", contact.as_str());
    let bytes = element.bytes(Ns::Client.as_str());
    let roster = &mut whole.data.roster;
    let is_known = roster.iter().any(|item| item.contact == contact);
    let strangers = roster.iter().filter(|item| !item.listed);
    if !is_known && strangers.count() >= limits.roster_items_max {
        return Err("it has more requests than may wait".into());
    }
    let others = roster.iter().filter(|item| item.contact != contact);
    let waiting = others.flat_map(|item| &item.pending_in).map(|it| it.len());
    if waiting.sum::<usize>() + bytes.len() > REQUESTS_SIZE_MAX {
        return Err("its requests are larger than what may wait".into());
    }
    item_of(roster, contact).pending_in = Some(bytes);
    Ok(())
}

fn put(whole: &mut WholeAccount, space: Space, name: &str, bytes: Box<[u8]>) -> Result<(), String> {
    if bytes.is_empty() {
        return Ok(());
    }
    let same = |document: &&mut Document| document.0 == space && *document.1 == *name;
    if let Some(found) = whole.documents.iter_mut().find(same) {
        found.2 = bytes;
        return Ok(());
    }
    if whole
        .documents
        .iter()
        .filter(|document| document.0 == space)
        .count()
        >= DOCUMENTS_MAX
    {
        return Err(format!("it has more than {DOCUMENTS_MAX} documents"));
    }
    whole.documents.push((space, name.into(), bytes));
    Ok(())
}

fn private(element: &Element, whole: &mut WholeAccount) -> Result<(), String> {
    let mut wrong = Ok(());
    for child in element.children() {
        let name = format!("{} {}", child.name, child.ns);
        // XEP-0049: the namespace is what tells documents apart.
        let taken = if name.len() > DOCUMENT_NAME_SIZE_MAX {
            Err("a private element has a name and a namespace that are too long".into())
        } else if child.ns.is_empty() || child.ns == element.ns {
            let name = &child.name;
            Err(format!("its private <{name}/> has no namespace of its own"))
        } else {
            put(whole, Space::Private, &name, child.bytes(&element.ns))
        };
        wrong = taken.and(wrong);
    }
    wrong
}

/// A block list is what the default privacy list denies to a JID in everything (XEP-0191 5).
fn privacy(element: &Element, blocked: &mut Vec<Box<str>>) -> Result<(), String> {
    let default = element.children().find(|child| child.name == "default");
    let default = default.and_then(|default| default.attr("name"));
    let lists = element.children().filter(|child| child.name == "list");
    let Some(list) = lists.into_iter().find(|list| list.attr("name") == default) else {
        return Ok(());
    };
    let denied = list.children().filter(|item| {
        item.attr("type") == Some("jid")
            && item.attr("action") == Some("deny")
            && item.children().next().is_none()
    });
    block(denied.filter_map(|item| item.attr("value")), blocked)
}

fn block<'a>(
    jids: impl Iterator<Item = &'a str>,
    blocked: &mut Vec<Box<str>>,
) -> Result<(), String> {
    let mut wrong = Ok(());
    for text in jids {
        let Ok(jid) = Jid::parse(text) else {
            wrong = Err(format!("it blocks {text:?}, which is no JID"));
            continue;
        };
        let jid: Box<str> = jid.as_str().into();
        if !blocked.contains(&jid) {
            blocked.push(jid);
        }
    }
    wrong
}

#[cfg(test)]
mod tests;
