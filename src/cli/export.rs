//! `vorpal export`: every account as XEP-0227 has it, from a snapshot of the store.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stanza::ns::Ns;
use stanza::writer;
use store::backup::{self, Backup};
use xmpp::port::{Credentials, RosterItem, Space, WholeAccount};

use super::Failure;
use super::accounts::Accounts;
use super::element::{self, Element};
use super::nodes;

/// XEP-0227 4.
pub(crate) const PIE: &str = "urn:xmpp:pie:0";
/// XEP-0227 4.2.1.
pub(crate) const SCRAM: &str = "urn:xmpp:pie:0#scram";
/// XEP-0227 4.7, the form that every server knows of a block list.
pub(crate) const PRIVACY: &str = "jabber:iq:privacy";
/// When an account was last here; not in XEP-0227, which lets an exporter add such.
pub(crate) const ACTIVITY: &str = "urn:vorpal:activity:0";

/// The list that holds what is blocked.
const LIST: &str = "blocked";

/// A file that is gone when the value is.
struct Passing(PathBuf);

impl Drop for Passing {
    fn drop(&mut self) {
        let _best_effort = std::fs::remove_file(&self.0);
    }
}

/// Writes an export.
pub(crate) fn export(config: &Path, file: &Path) -> Result<ExitCode, Failure> {
    let file = &backup::place_of(file).map_err(Failure::new)?;
    let mut accounts = Accounts::open(config)?;
    let passing = accounts
        .data()
        .join(format!("export-{}.passing", std::process::id()));
    let passing = std::path::absolute(&passing).map_err(|error| cannot_write(&passing, &error))?;
    let snapshot = Passing(passing);
    accounts.back_up(&snapshot.0)?;
    let backup = Backup::open(&snapshot.0).map_err(Failure::new)?;
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = Passing(name.into());
    let made = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part.0);
    let mut out = BufWriter::new(made.map_err(|error| cannot_write(file, &error))?);
    let mut report = Report::default();
    let written = write(&mut out, &backup, accounts.domain(), &mut report)?;
    written
        .and_then(|()| finish(out, &part.0, file))
        .map_err(|error| cannot_write(file, &error))?;
    println!("Exported {} accounts to {}.", report.count, file.display());
    for (account, what) in &report.left_out {
        eprintln!("vorpal: {account}: left out {what}.");
    }
    Ok(if report.left_out.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn cannot_write(file: &Path, error: &io::Error) -> Failure {
    Failure(format!("Cannot write {}: {error}.", file.display()))
}

fn finish(out: BufWriter<File>, part: &Path, file: &Path) -> io::Result<()> {
    out.into_inner()?.sync_all()?;
    std::fs::rename(part, file)?;
    let parent = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[derive(Default)]
struct Report {
    count: u64,
    left_out: Vec<(String, String)>,
}

/// Writes the whole document; the outer failure is the snapshot's, the inner the file's.
fn write(
    out: &mut impl Write,
    backup: &Backup,
    domain: &str,
    report: &mut Report,
) -> Result<io::Result<()>, Failure> {
    let mut text = b"<?xml version='1.0' encoding='UTF-8'?>\n".to_vec();
    writer::open(&mut text, "server-data")
        .attr("xmlns", PIE)
        .start();
    text.push(b'\n');
    writer::open(&mut text, "host").attr("jid", domain).start();
    text.push(b'\n');
    let mut written = out.write_all(&text);
    let mut each = |whole: WholeAccount| {
        text.clear();
        let name = whole.account.as_str().to_owned();
        let mut left_out = |what: String| report.left_out.push((name.clone(), what));
        user(&whole, &mut text, &mut left_out);
        report.count += 1;
        written = out.write_all(&text);
        written.is_ok()
    };
    backup
        .accounts(&mut each)
        .map_err(|error| Failure(format!("The store failed: {error}.")))?;
    Ok(written.and_then(|()| out.write_all(b"</host>\n</server-data>\n")))
}

/// Documents that the format has no place for, and what they say.
const UNKNOWN: [(Space, &str); 2] = [
    (Space::Archiving, "which messages are to be archived"),
    (Space::Push, "where devices are notified"),
];

/// Writes one account and tells `left_out` what cannot be written.
pub(crate) fn user(whole: &WholeAccount, out: &mut Vec<u8>, left_out: &mut dyn FnMut(String)) {
    let local = whole.account.local().unwrap_or_default();
    writer::open(out, "user").attr("name", local).start();
    scram(&whole.credentials, out);
    roster(&whole.data.roster, out, left_out);
    let mut copy = |what: &str, bytes: &[u8], from: &str, to: &str, out: &mut Vec<u8>| {
        match Element::of_fragment(bytes, from) {
            Ok(elements) => elements.iter().for_each(|element| element.write(to, out)),
            // No other server reads it either; what it says besides is not lost for that.
            Err(error) => match Element::of_mended(bytes, from) {
                Ok(elements) => {
                    elements.iter().for_each(|element| element.write(to, out));
                    left_out(format!("a part of {what}: {error}"));
                }
                Err(_) => left_out(format!("{what}: {error}")),
            },
        }
    };
    for stanza in whole
        .data
        .roster
        .iter()
        .filter_map(|item| item.pending_in.as_deref())
    {
        copy("a waiting request", stanza, Ns::Client.as_str(), PIE, out);
    }
    if !whole.offline.is_empty() {
        writer::open(out, "offline-messages").start();
        for stanza in &whole.offline {
            copy("a waiting message", stanza, Ns::Client.as_str(), PIE, out);
        }
        writer::close(out, "offline-messages");
    }
    let of = |kind| {
        whole
            .documents
            .iter()
            .filter(move |(space, ..)| *space == kind)
    };
    if of(Space::Private).next().is_some() {
        writer::open(out, "query").ns(Ns::Private).start();
        for (_, name, bytes) in of(Space::Private) {
            let ns = Ns::Private.as_str();
            copy(&format!("the document {name}"), bytes, ns, ns, out);
        }
        writer::close(out, "query");
    }
    for (_, _, bytes) in of(Space::Vcard) {
        copy("the vCard", bytes, "", PIE, out);
    }
    let ns = Ns::PubSub.as_str();
    nodes::write(&whole.nodes, out, |what, item, out| {
        copy(what, item, ns, ns, out);
    });
    for (_, _, bytes) in of(Space::Activity) {
        writer::open(out, "activity")
            .attr("xmlns", ACTIVITY)
            .start();
        let text = String::from_utf8_lossy(bytes);
        let text = readable(&text, "the last status", left_out);
        writer::escape_text(&text, out);
        writer::close(out, "activity");
    }
    let has = |known: &&(Space, &str)| of(known.0).next().is_some();
    let unknown = UNKNOWN.iter().filter(has);
    unknown.for_each(|(_, what)| left_out((*what).into()));
    privacy(&whole.data.blocked, out);
    writer::close(out, "user");
    out.push(b'\n');
}

fn scram(credentials: &Credentials, out: &mut Vec<u8>) {
    let Credentials {
        sha1,
        sha256,
        sha512,
    } = credentials;
    let all = [
        ("SCRAM-SHA-1", sha1),
        ("SCRAM-SHA-256", sha256),
        ("SCRAM-SHA-512", sha512),
    ];
    for (mechanism, key) in all {
        let Some(key) = key else { continue };
        writer::open(out, "scram-credentials")
            .attr("xmlns", SCRAM)
            .attr("mechanism", mechanism)
            .start();
        writer::text(out, "iter-count", &key.iterations.to_string());
        writer::text(out, "salt", &STANDARD.encode(&key.salt));
        writer::text(out, "server-key", &STANDARD.encode(&key.server_key));
        writer::text(out, "stored-key", &STANDARD.encode(&key.stored_key));
        writer::close(out, "scram-credentials");
    }
}

/// A text without what no XML has, which is told.
fn readable<'a>(text: &'a str, what: &str, left_out: &mut dyn FnMut(String)) -> Cow<'a, str> {
    element::without_forbidden(text).map_or(Cow::Borrowed(text), |readable| {
        left_out(format!("characters of {what} that XML does not allow"));
        Cow::Owned(readable)
    })
}

fn roster(items: &[RosterItem], out: &mut Vec<u8>, left_out: &mut dyn FnMut(String)) {
    writer::open(out, "query").ns(Ns::Roster).start();
    for item in items.iter().filter(|item| item.listed) {
        let contact = item.contact.as_str();
        let name = readable(&item.name, &format!("the name of {contact}"), left_out);
        let open = writer::open(out, "item")
            .attr("jid", contact)
            .attr_if("name", (!name.is_empty()).then_some(&name))
            .attr("subscription", item.subscription.as_str())
            .attr_if("ask", item.ask.then_some("subscribe"))
            .attr_if("approved", item.approved.then_some("true"));
        if item.groups.is_empty() {
            open.close_empty();
            continue;
        }
        open.start();
        for group in &item.groups {
            let group = readable(group, &format!("a group of {contact}"), left_out);
            writer::text(out, "group", &group);
        }
        writer::close(out, "item");
    }
    writer::close(out, "query");
}

/// XEP-0016 has no element for everything of a JID but an item without children.
fn privacy(blocked: &[Box<str>], out: &mut Vec<u8>) {
    if blocked.is_empty() {
        return;
    }
    writer::open(out, "query").attr("xmlns", PRIVACY).start();
    writer::open(out, "default")
        .attr("name", LIST)
        .close_empty();
    writer::open(out, "list").attr("name", LIST).start();
    for (order, jid) in (1..).zip(blocked) {
        writer::open(out, "item")
            .attr("type", "jid")
            .attr("value", jid)
            .attr("action", "deny")
            .attr("order", &i32::to_string(&order))
            .close_empty();
    }
    writer::close(out, "list");
    writer::close(out, "query");
}
