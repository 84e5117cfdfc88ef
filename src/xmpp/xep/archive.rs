//! XEP-0313: Message Archive Management. An account's clients read what it sent and got.
//!
//! Invariant: a page is of the asker's own archive, and its results come before the answer that
//! ends it. How messages get into archives is in [`crate::archive`].

use super::carbons::put_inner;
use super::preferences::Preferences;
use super::result_sets::{PageRequest, write_set};
use super::time::{parse_utc, utc_exact};
use super::{Answer, Context, Extension, Request, Target, Xep};
use crate::account::AccountKey;
use crate::error::{StanzaError, put};
use crate::host::{ConnId, Host, Ticket};
use crate::iq::IqRequest;
use crate::limit::REQUESTS_PER_SESSION_MAX;
use crate::outbox::{Keep, UNACKED_MAX};
use crate::port::{ArchiveEnds, ArchiveId, ArchivePage, ArchiveQuery, Space, StoreOp, StoreReply};
use crate::retention::Round;
use crate::session::{Address, SessionKey};
use crate::settings::Settings;
use crate::shard::{Shard, Waiting};
use crate::xml::Attr;
use stanza::jid::Jid;
use stanza::ns::Ns;
use stanza::tree::{Node, Tree};
use stanza::view::StanzaView;
use std::collections::HashMap;

/// Messages of a page where the client does not say how many it wants.
pub const PAGE_DEFAULT: usize = 50;

/// Messages of a page, whatever it wants.
pub const PAGE_MAX: usize = 100;

/// Reads of one account's archive under way; one more is refused. A client that asks ahead has
/// fewer, for its input waits from [`crate::limit::REQUESTS_PER_SESSION_MAX`] on.
pub const READS_MAX: u16 = 64;

/// Stanzas that its client has not acknowledged from which on a session gets no more pages: with
/// all that were asked for before they stay below what ends it.
pub const UNACKED_FOR_PAGES_MAX: usize =
    UNACKED_MAX - REQUESTS_PER_SESSION_MAX as usize * (PAGE_MAX + 1);

/// Messages that one query may name.
pub const IDS_MAX: usize = PAGE_MAX;

/// Bytes of what a client knows a query by: it is repeated in every result.
pub const QUERY_ID_SIZE_MAX: usize = 256;

/// What may be asked for (XEP-0313 4.1.5).
const FORM: &[u8] = b"<query xmlns='urn:xmpp:mam:2'><x xmlns='jabber:x:data' type='form'>\
    <field type='hidden' var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field>\
    <field type='jid-single' var='with'/>\
    <field type='text-single' var='start'/>\
    <field type='text-single' var='end'/>\
    <field type='text-single' var='before-id'/>\
    <field type='text-single' var='after-id'/>\
    <field type='list-multi' var='ids'>\
    <validate xmlns='http://jabber.org/protocol/xdata-validate' datatype='xs:string'>\
    <open/></validate></field></x></query>";

/// Archives. Who reads one has a session: the shard answers its clients.
#[derive(Debug)]
pub struct Archive;

impl Extension for Archive {
    const XEP: Xep = Xep {
        number: 313,
        version: "1.1.3",
    };
    const NAMESPACES: &'static [Ns] = &[Ns::Mam];
    const ACCOUNT_FEATURES: &'static [Ns] = &[Ns::Mam, Ns::MamExtended];

    fn is_offered(settings: &Settings) -> bool {
        settings.archives()
    }

    fn iq(
        context: &Context<'_>,
        request: &Request<'_>,
        _: &mut Vec<u8>,
    ) -> Result<Answer, StanzaError> {
        Err(match request.target {
            // XEP-0313 7.1: an archive is its owner's.
            Target::Other if context.settings.archives() => StanzaError::Forbidden,
            Target::Other | Target::Account | Target::Server => StanzaError::ServiceUnavailable,
        })
    }
}

/// What storage is asked about archives.
#[derive(Debug, Default)]
pub(crate) struct ArchiveRequests {
    /// What is not answered, by ticket.
    pub pending: HashMap<u64, Pending>,
    /// How far [`crate::retention`] has come.
    pub round: Round,
}

/// Who waits for an answer about archives.
#[derive(Debug)]
pub(crate) enum Pending {
    /// A client that asked.
    Asked(ArchiveRequest),
    /// A client that is bound when it is there (XEP-0386).
    Bind(ConnId),
    /// Who looks for what is too old.
    Sweep,
}

/// A request of an archive that storage works on.
#[derive(Debug)]
pub(crate) struct ArchiveRequest {
    answered: IqRequest,
    account: AccountKey,
    asked: Asked,
}

#[derive(Debug)]
enum Asked {
    Page(Query),
    Ends,
    Wishes(Box<Preferences>),
}

/// How a client wants its results.
#[derive(Debug, Default)]
struct Query {
    id: Option<Box<str>>,
    is_flipped: bool,
}

/// Reads a query (XEP-0313 4.1 to 4.3).
fn read_query(payload: Node<'_>) -> Result<(Query, ArchiveQuery), StanzaError> {
    let id: Option<Box<str>> = payload.attr("queryid").map(Box::from);
    if id.as_ref().is_some_and(|id| id.len() > QUERY_ID_SIZE_MAX) {
        return Err(StanzaError::BadRequest);
    }
    let mut form = ArchiveQuery::all(PAGE_DEFAULT);
    let mut query = Query {
        id,
        is_flipped: false,
    };
    for child in payload.children() {
        match (child.name(), child.ns()) {
            ("x", Ns::DataForms) => read_form(child, &mut form)?,
            ("set", Ns::ResultSet) => read_page(PageRequest::read(child)?, &mut form)?,
            ("flip-page", Ns::Mam) => query.is_flipped = true,
            _ => {}
        }
    }
    Ok((query, form))
}

/// An id that no archive has is as one that this one does not have.
fn known_id(text: &str) -> Result<ArchiveId, StanzaError> {
    ArchiveId::parse(text).ok_or(StanzaError::ItemNotFound)
}

impl ArchiveQuery {
    fn start_behind(&mut self, id: ArchiveId) {
        self.known.push(id);
        self.first = self.first.max(ArchiveId(id.0.saturating_add(1)));
    }

    fn end_before(&mut self, id: ArchiveId) {
        self.known.push(id);
        self.last = self.last.min(ArchiveId(id.0.saturating_sub(1)));
    }
}

fn read_page(page: PageRequest<'_>, query: &mut ArchiveQuery) -> Result<(), StanzaError> {
    if let Some(max) = page.max {
        query.count = max.min(PAGE_MAX);
    }
    if let Some(id) = page.after {
        query.start_behind(known_id(id)?);
    }
    if let Some(id) = page.before {
        query.is_backward = true;
        if !id.is_empty() {
            query.end_before(known_id(id)?);
        }
    }
    Ok(())
}

fn read_form(form: Node<'_>, query: &mut ArchiveQuery) -> Result<(), StanzaError> {
    let fields = form
        .children()
        .filter(|child| child.is("field", Ns::DataForms));
    for field in fields {
        let values = || {
            let values = field
                .children()
                .filter(|child| child.is("value", Ns::DataForms));
            values.map(|value| value.text().trim())
        };
        let value = values().next().ok_or(StanzaError::BadRequest);
        let moment = || parse_utc(value?).ok_or(StanzaError::BadRequest);
        match field.attr("var").unwrap_or_default() {
            "FORM_TYPE" if value? == Ns::Mam.as_str() => {}
            "FORM_TYPE" => return Err(StanzaError::BadRequest),
            "with" => {
                let with = Jid::parse(value?).map_err(|_| StanzaError::JidMalformed)?;
                query.with = Some(with.as_str().into());
            }
            // Whatever came at that moment is included, at either end.
            "start" => query.first = query.first.max(ArchiveId::first_at(moment()?)),
            "end" => query.last = query.last.min(ArchiveId::last_at(moment()?)),
            "before-id" => query.end_before(known_id(value?)?),
            "after-id" => query.start_behind(known_id(value?)?),
            "ids" => {
                let ids = values().map(known_id).collect::<Result<Vec<_>, _>>()?;
                if ids.len() > IDS_MAX {
                    return Err(StanzaError::ResourceConstraint);
                }
                query.ids = Some(ids);
            }
            // XEP-0313 4.1.5
            _ => return Err(StanzaError::FeatureNotImplemented),
        }
    }
    Ok(())
}

impl Shard {
    /// A client's request of its own archive, or of what goes there.
    pub(crate) fn on_archive_request(
        &mut self,
        host: &mut impl Host,
        key: SessionKey,
        view: &StanzaView<'_>,
        tree: &Tree<'_>,
        is_set: bool,
    ) -> Result<(), StanzaError> {
        let payload = tree.root().children().next();
        let payload = payload.ok_or(StanzaError::BadRequest)?;
        let session = self.sessions.at(key);
        let (account, queued) = (session.account, session.outlet.queued());
        let owner = self.accounts.at(account);
        if owner.is_anonymous {
            return Err(StanzaError::ServiceUnavailable);
        }
        let jid = owner.jid.clone();
        let answered = self.iq_request(key, view, Target::Account);
        let (asked, op) = match (payload.name(), is_set) {
            ("query", false) => {
                self.reply(host, &answered, Ok(FORM));
                return Ok(());
            }
            ("query", true) => {
                let (query, form) = read_query(payload)?;
                let query_op = StoreOp::ArchivePage {
                    account: jid,
                    query: Box::new(form),
                };
                (Asked::Page(query), query_op)
            }
            ("metadata", false) => (Asked::Ends, StoreOp::ArchiveEnds { account: jid }),
            ("prefs", false) => {
                let mut prefs = Vec::new();
                let wishes = owner.archiving.as_deref().cloned().unwrap_or_default();
                wishes.write(&mut prefs);
                self.reply(host, &answered, Ok(&prefs));
                return Ok(());
            }
            ("prefs", true) => {
                let wishes = Preferences::parse(payload)?;
                let op = StoreOp::PutDocument {
                    account: jid,
                    space: Space::Archiving,
                    key: "".into(),
                    bytes: wishes.record(),
                };
                (Asked::Wishes(Box::new(wishes)), op)
            }
            _ => return Err(StanzaError::BadRequest),
        };
        if owner.archive_reads >= READS_MAX || queued > UNACKED_FOR_PAGES_MAX {
            return Err(StanzaError::ResourceConstraint);
        }
        let owner = self.accounts.at_mut(account);
        owner.archive_reads += 1;
        owner.pins += 1;
        let ticket = self.ticket(Waiting::Archive);
        let request = ArchiveRequest {
            answered,
            account,
            asked,
        };
        let pending = &mut self.archive_requests.pending;
        pending.insert(ticket.0, Pending::Asked(request));
        host.store(ticket, op);
        Ok(())
    }

    /// Storage has answered.
    pub(crate) fn on_archive_stored(
        &mut self,
        host: &mut impl Host,
        ticket: Ticket,
        reply: StoreReply,
    ) {
        match self.archive_requests.pending.remove(&ticket.0) {
            Some(Pending::Asked(request)) => self.answer_asked(host, request, reply),
            Some(Pending::Bind(conn)) => self.on_ends_stored(host, conn, ticket, reply),
            Some(Pending::Sweep) => self.on_swept(host, reply),
            None => {}
        }
    }

    fn answer_asked(&mut self, host: &mut impl Host, request: ArchiveRequest, reply: StoreReply) {
        let ArchiveRequest {
            answered,
            account,
            asked,
        } = request;
        let mut payload = Vec::new();
        let outcome = match (asked, reply) {
            (Asked::Page(query), StoreReply::ArchivePage(page)) => {
                self.send_results(host, &answered, &query, &page);
                write_fin(&page, &mut payload);
                Ok(&*payload)
            }
            (Asked::Ends, StoreReply::ArchiveEnds(ends)) => {
                write_metadata(ends, &mut payload);
                Ok(&*payload)
            }
            (Asked::Wishes(wishes), StoreReply::Done) => {
                wishes.write(&mut payload);
                self.accounts.at_mut(account).archiving = Some(wishes);
                Ok(&*payload)
            }
            (_, StoreReply::Missing) => Err(StanzaError::ItemNotFound),
            (_, StoreReply::Full) => Err(StanzaError::ResourceConstraint),
            (_, reply) => {
                tracing::error!(?reply, "an archive was not read");
                Err(StanzaError::InternalServerError)
            }
        };
        self.reply(host, &answered, outcome);
        let owner = self.accounts.at_mut(account);
        owner.archive_reads -= 1;
        owner.pins -= 1;
        self.evict_if_idle(account);
    }

    fn send_results(
        &mut self,
        host: &mut impl Host,
        answered: &IqRequest,
        query: &Query,
        page: &ArchivePage,
    ) {
        let Some(key) = self.asker_of(answered) else {
            return;
        };
        let mut send = |(id, message): &(ArchiveId, Box<[u8]>)| {
            let write = |address: &Address, out: &mut Vec<u8>| {
                let addresses = (address.bare(), address.full());
                write_result(query.id.as_deref(), *id, message, addresses, out);
            };
            self.sessions.write_to(host, key, Keep::Memory, write);
        };
        match query.is_flipped {
            false => page.messages.iter().for_each(&mut send),
            true => page.messages.iter().rev().for_each(&mut send),
        }
    }
}

/// XEP-0313 4.2
fn write_result(
    query: Option<&str>,
    id: ArchiveId,
    message: &[u8],
    (from, to): (&str, &str),
    out: &mut Vec<u8>,
) {
    let (from, to) = (Attr(from), Attr(to));
    put(
        out,
        format_args!("<message from='{from}' to='{to}'><result xmlns='urn:xmpp:mam:2'"),
    );
    if let Some(query) = query {
        put(out, format_args!(" queryid='{}'", Attr(query)));
    }
    let stamp = utc_exact(id.time());
    put(
        out,
        format_args!(
            " id='{id}'><forwarded xmlns='urn:xmpp:forward:0'>\
             <delay xmlns='urn:xmpp:delay' stamp='{stamp}'/>"
        ),
    );
    put_inner(message, out);
    out.extend_from_slice(b"</forwarded></result></message>");
}

fn write_fin(page: &ArchivePage, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<fin xmlns='urn:xmpp:mam:2'");
    if page.is_complete {
        out.extend_from_slice(b" complete='true'");
    }
    out.push(b'>');
    let ends = page.messages.first().zip(page.messages.last());
    let ends = ends.map(|(first, last)| (first.0.to_string(), last.0.to_string()));
    let ends = ends.as_ref().map(|(first, last)| (&**first, &**last));
    write_set(ends, page.count, out);
    out.extend_from_slice(b"</fin>");
}

/// XEP-0313 4.5
pub(crate) fn write_metadata(ends: ArchiveEnds, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<metadata xmlns='urn:xmpp:mam:2'>");
    if let Some((first, last)) = ends {
        for (name, id) in [("start", first), ("end", last)] {
            let stamp = utc_exact(id.time());
            put(out, format_args!("<{name} id='{id}' timestamp='{stamp}'/>"));
        }
    }
    out.extend_from_slice(b"</metadata>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Timestamp;
    use stanza::scope::StreamScope;

    fn read(children: &str) -> Result<ArchiveQuery, StanzaError> {
        let query = format!("<query xmlns='urn:xmpp:mam:2' queryid='q'>{children}</query>");
        let scope = StreamScope::client();
        let tree = Tree::parse(query.as_bytes(), &scope).unwrap();
        read_query(tree.root()).map(|(_, form)| form)
    }

    fn form(var: &str, value: &str) -> Result<ArchiveQuery, StanzaError> {
        let kind = "<field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field>";
        let field = format!("<field var='{var}'><value>{value}</value></field>");
        read(&format!(
            "<x xmlns='jabber:x:data' type='submit'>{kind}{field}</x>"
        ))
    }

    #[test]
    fn what_bounds_a_query_bounds_the_ids_that_are_looked_at() {
        let id = ArchiveId::new(Timestamp(1_000_000), 7);
        let text = id.to_string();
        let all = read("").unwrap();
        assert_eq!((all.first, all.last), (ArchiveId(0), ArchiveId::MAX));
        assert_eq!(all.count, PAGE_DEFAULT);
        let after = form("after-id", &text).unwrap();
        assert_eq!((after.first.0, &*after.known), (id.0 + 1, &[id][..]));
        let before = form("before-id", &text).unwrap();
        assert_eq!((before.last.0, before.is_backward), (id.0 - 1, false));
        let start = form("start", "1970-01-01T00:00:01Z").unwrap();
        assert_eq!(start.first, ArchiveId::first_at(Timestamp(1_000_000)));
        let end = form("end", "1970-01-01T00:00:01Z").unwrap();
        assert_eq!(end.last, ArchiveId::last_at(Timestamp(1_000_000)));
        let set = |page: &str| {
            read(&format!(
                "<set xmlns='http://jabber.org/protocol/rsm'>{page}</set>"
            ))
        };
        let last = set(&format!("<before>{text}</before><max>1000</max>")).unwrap();
        assert_eq!(
            (last.last.0, last.is_backward, last.count),
            (id.0 - 1, true, PAGE_MAX)
        );
        let last = set("<before/>").unwrap();
        assert_eq!((last.last.0, last.is_backward), (u128::MAX, true));
        assert!(last.known.is_empty());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (var, value, error) in [
            ("with", "@", StanzaError::JidMalformed),
            ("start", "yesterday", StanzaError::BadRequest),
            ("after-id", "x", StanzaError::ItemNotFound),
            ("ids", "x", StanzaError::ItemNotFound),
            (
                "include-groupchat",
                "true",
                StanzaError::FeatureNotImplemented,
            ),
            ("FORM_TYPE", "urn:xmpp:mam:1", StanzaError::BadRequest),
        ] {
            assert_eq!(form(var, value).unwrap_err(), error, "{var}");
        }
        let id = ArchiveId(1).to_string();
        let many = vec![id; IDS_MAX + 1].join("</value><value>");
        assert_eq!(
            form("ids", &many).unwrap_err(),
            StanzaError::ResourceConstraint
        );
        let long = "x".repeat(QUERY_ID_SIZE_MAX + 1);
        let query = format!("<query xmlns='urn:xmpp:mam:2' queryid='{long}'/>");
        let scope = StreamScope::client();
        let tree = Tree::parse(query.as_bytes(), &scope).unwrap();
        assert!(read_query(tree.root()).is_err());
    }
}
