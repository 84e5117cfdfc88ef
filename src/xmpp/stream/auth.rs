//! SASL on a client stream (RFC 6120 6, XEP-0388): negotiation, the move to the account's home,
//! throttles. The profiles share all of that; what differs on the wire is in [`Profile`].
//!
//! Invariant: credentials are looked up on the account's home shard only; a connection moves there
//! when its stream first names the account, before anything is verified.

use super::sasl::{
    self, DeriveJob, Derived, Exchange, First, Mechanism, Offer, Password, SaslError,
};
use super::{ExpectHeader, ExpectResponse, ExpectVerdict, Flow, Phase, Profile, StreamState};
use crate::error::{StreamError, put};
use crate::host::{ConnId, Host, Ticket, Timestamp, random_bytes};
use crate::port::{Credentials, StoreOp, StoreReply};
use crate::shard::{Shard, Waiting};
use crate::xep::fast::TokenLogin;
use stanza::jid::BareJid;
use std::collections::HashMap;

/// Failed authentications remembered: accounts and addresses together, per shard.
const THROTTLE_ENTRIES_MAX: usize = 10_000;

/// How many times as many failures an address may have as an account: several people share one.
const ADDRESS_FACTOR: u32 = 4;

/// How many times as many exchanges an address may leave unended: a provider's customers share one,
/// and lose their connections all at once.
const UNFINISHED_FACTOR: u32 = 64;

/// The window in which failed authentications count, in microseconds.
pub(crate) const FAILURE_WINDOW_US: u64 = 60_000_000;

/// How the local parts of anonymous accounts begin.
pub(crate) const ANONYMOUS_PREFIX: &str = "anon-";

/// An authentication that waits for storage or derivation.
#[derive(Debug)]
pub(crate) enum Request {
    /// SCRAM: the account's keys are on their way.
    Scram {
        account: BareJid,
        exchange: Exchange,
    },
    /// PLAIN: the keys first, then the derivation.
    Plain {
        account: BareJid,
        password: Option<Password>,
    },
    /// A token: what is known of its user agent is on its way, or being written.
    Token(Box<TokenLogin>),
    /// In-band registration.
    Register(super::register::Request),
}

impl Request {
    /// The account whose password is checked.
    pub(crate) fn claimed(&self) -> Option<&BareJid> {
        match self {
            Request::Scram { account, .. } | Request::Plain { account, .. } => Some(account),
            Request::Token(login) => Some(&login.proof.account),
            Request::Register(_) => None,
        }
    }
}

/// Counts events per name in windows of fixed length.
#[derive(Debug)]
pub(crate) struct Throttle {
    window_us: u64,
    events: HashMap<Box<str>, (Timestamp, u32)>,
}

impl Throttle {
    /// A throttle that forgets after `window_us` microseconds.
    pub(crate) fn new(window_us: u64) -> Throttle {
        Throttle {
            window_us,
            events: HashMap::new(),
        }
    }

    /// Whether `name` had `max` events or more within the window.
    pub(crate) fn is_over(&self, name: &str, now: Timestamp, max: u32) -> bool {
        self.counted(name, now) >= max
    }

    /// How many events `name` had within the window.
    pub(crate) fn counted(&self, name: &str, now: Timestamp) -> u32 {
        let found = self.events.get(name);
        let recent = found.filter(|(since, _)| now.0 < since.0 + self.window_us);
        recent.map_or(0, |(_, count)| *count)
    }

    /// Counts one event for `name`.
    pub(crate) fn count(&mut self, name: &str, now: Timestamp) {
        self.count_many(name, now, 1);
    }

    /// Takes back some of what was counted for `name`, where that is not forgotten yet.
    pub(crate) fn take_back(&mut self, name: &str, now: Timestamp, count: u32) {
        if let Some((since, counted)) = self.events.get_mut(name)
            && now.0 < since.0 + self.window_us
        {
            *counted = counted.saturating_sub(count);
        }
    }

    /// Counts several events for `name`.
    pub(crate) fn count_many(&mut self, name: &str, now: Timestamp, count: u32) {
        if self.events.len() >= THROTTLE_ENTRIES_MAX && !self.events.contains_key(name) {
            self.events
                .retain(|_, (since, _)| now.0 < since.0 + self.window_us);
            // A full table forgets its oldest, so that filling it does not switch it off.
            let oldest = self.events.iter().min_by_key(|(_, (since, _))| *since);
            if self.events.len() >= THROTTLE_ENTRIES_MAX
                && let Some(name) = oldest.map(|(name, _)| name.clone())
            {
                self.events.remove(&name);
            }
        }
        let entry = self.events.entry(name.into()).or_insert((now, 0));
        if now.0 >= entry.0.0 + self.window_us {
            *entry = (now, 0);
        }
        entry.1 = entry.1.saturating_add(count);
    }
}

impl Shard {
    /// `<auth/>` or `<authenticate/>`: the mechanism and the initial response.
    pub(crate) fn on_auth(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut Box<StreamState>,
        mechanism: &str,
        initial: Result<Option<Vec<u8>>, SaslError>,
    ) -> Flow {
        if let Some(over) = self.supersede(host, conn, stream) {
            return over;
        }
        let Some(mechanism) = Mechanism::parse(mechanism) else {
            return self.auth_failed(host, conn, stream, SaslError::InvalidMechanism, None);
        };
        match initial {
            Ok(initial) => self.begin(host, conn, stream, mechanism, initial.as_deref()),
            Err(error) => self.auth_failed(host, conn, stream, error, None),
        }
    }

    /// `<response/>` in whichever phase.
    pub(crate) fn on_response(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut Box<StreamState>,
        message: Result<Vec<u8>, SaslError>,
    ) -> Flow {
        let message = match message {
            Ok(message) => message,
            Err(error) => return self.auth_failed(host, conn, stream, error, None),
        };
        if let Phase::ExpectInitial(mechanism) = stream.phase {
            return self.begin(host, conn, stream, mechanism, Some(&message));
        }
        match std::mem::replace(&mut stream.phase, Phase::ExpectAuth) {
            Phase::ExpectResponse(expect) => {
                let ExpectResponse {
                    account,
                    exchange,
                    outdated,
                } = *expect;
                if self.is_throttled(host, stream, &account) {
                    let error = SaslError::TemporaryAuthFailure;
                    return self.auth_failed(host, conn, stream, error, None);
                }
                match exchange.finish(&message) {
                    Ok(_) if outdated => {
                        let error = SaslError::NotAuthorized;
                        self.auth_failed(host, conn, stream, error, Some(&account))
                    }
                    Ok(last) => self.auth_succeeded(host, conn, stream, account, Some(&last)),
                    Err(error) => self.auth_failed(host, conn, stream, error, Some(&account)),
                }
            }
            _ => self.auth_failed(host, conn, stream, SaslError::MalformedRequest, None),
        }
    }

    /// Another exchange takes the place of one under way, as if that had been aborted: it counts as
    /// a try, or nothing would bound how many are begun.
    fn supersede(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
    ) -> Option<Flow> {
        if !stream.is_proving() {
            return None;
        }
        self.count_failure(host, stream, SaslError::Aborted, None);
        self.end_of_tries(host, conn, stream)
    }

    /// `<abort/>` (RFC 6120 6.4.4).
    pub(crate) fn on_abort(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut Box<StreamState>,
    ) -> Flow {
        self.auth_failed(host, conn, stream, SaslError::Aborted, None)
    }

    fn begin(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut Box<StreamState>,
        mechanism: Mechanism,
        initial: Option<&[u8]>,
    ) -> Flow {
        let offer = Offer::new(&self.settings, stream.tls.as_deref());
        let first = match sasl::begin(mechanism, initial, &offer) {
            Ok(first) => first,
            Err(error) => return self.auth_failed(host, conn, stream, error, None),
        };
        match first {
            First::Challenge => {
                stream.profile().write_challenge(b"", host.output(conn));
                stream.phase = Phase::ExpectInitial(mechanism);
                Flow::Next
            }
            First::Anonymous => {
                let account = self.anonymous_account(host);
                self.auth_succeeded(host, conn, stream, account, None)
            }
            First::Plain { account, password } => {
                let request = Request::Plain {
                    account: account.clone(),
                    password: Some(password),
                };
                self.look_up(host, conn, stream, account, request)
            }
            First::NeedsCredentials { account, exchange } => {
                let request = Request::Scram {
                    account: account.clone(),
                    exchange,
                };
                self.look_up(host, conn, stream, account, request)
            }
        }
    }

    /// Asks storage for the keys, or the token, at the account's home; elsewhere the connection
    /// moves there first.
    pub(crate) fn look_up(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut Box<StreamState>,
        account: BareJid,
        request: Request,
    ) -> Flow {
        if stream.is_of_another(&account) {
            return self.auth_failed(host, conn, stream, SaslError::InvalidAuthzid, None);
        }
        let home = self.router.home(account.as_str());
        if home != self.id {
            self.moving_to = Some(home);
            return Flow::Moved;
        }
        if self.is_throttled(host, stream, &account) || self.leaves_many(host, stream) {
            return self.auth_failed(host, conn, stream, SaslError::TemporaryAuthFailure, None);
        }
        let ticket = self.ticket(Waiting::Auth(conn));
        let op = match &request {
            Request::Token(login) => login.question(),
            _ => StoreOp::Credentials { account },
        };
        host.store(ticket, op);
        host.pause(conn);
        stream.phase = Phase::ExpectVerdict(Box::new(ExpectVerdict::new(ticket, request)));
        Flow::Stop
    }

    /// Whether so many have failed that the next is refused unexamined. Asked before each verdict,
    /// as well as before anything is looked up: others may have failed since this one began. For a
    /// derivation those under way count as well, see [`Shard::derive_login`]. The answer is
    /// RFC 6120 6.5.9's: it says nothing about the account, and that later may do.
    pub(crate) fn is_throttled(
        &self,
        host: &impl Host,
        stream: &StreamState,
        account: &BareJid,
    ) -> bool {
        let max = self.settings.limits.auth_failures_per_minute_max;
        let of_address = self.of_address(ADDRESS_FACTOR);
        let peer = stream.counted_peer();
        self.throttle.is_over(account.as_str(), host.now(), max)
            || self.throttle.is_over(&peer, host.now(), of_address)
    }

    /// Whether an address has left so many exchanges that it begins no other one. Those that are
    /// under way go on: their success is what makes up for it.
    fn leaves_many(&self, host: &impl Host, stream: &StreamState) -> bool {
        let max = self.of_address(UNFINISHED_FACTOR);
        self.unfinished
            .is_over(&stream.counted_peer(), host.now(), max)
    }

    /// What a shard allows an address in a minute, of so many times what an account may have in
    /// all. It is counted where the address's accounts are at home: on every shard.
    fn of_address(&self, factor: u32) -> u32 {
        let max = self.settings.limits.auth_failures_per_minute_max;
        max.saturating_mul(factor)
            .div_ceil(u32::from(self.settings.shards))
    }

    /// A stream ends: an exchange that ends with it was work, too. It counts for the address alone,
    /// and one that succeeds makes up for it: of many who log in some always lose their
    /// connections.
    pub(crate) fn count_unfinished(&mut self, host: &impl Host, stream: &StreamState) {
        if stream.phase.claimed().is_some() {
            self.unfinished.count(&stream.counted_peer(), host.now());
        }
    }

    /// Storage answered an authentication.
    pub(crate) fn on_auth_stored(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut Box<StreamState>,
        ticket: Ticket,
        reply: StoreReply,
    ) -> Flow {
        if let Phase::ExpectAgent(_) = stream.phase {
            return self.on_agent_stored(host, conn, stream, ticket, reply);
        }
        if let Phase::ExpectUpgrade(_) = stream.phase {
            return self.on_upgrade_stored(host, conn, stream, ticket, reply);
        }
        let Some(expect) = take_verdict(stream, ticket) else {
            return Flow::Next;
        };
        let credentials = match (expect.request, reply) {
            (Request::Register(request), reply) => {
                return self.on_register_stored(host, conn, stream, request, reply);
            }
            _ if expect.outdated => {
                let error = SaslError::TemporaryAuthFailure;
                return self.auth_failed(host, conn, stream, error, None);
            }
            (Request::Token(login), reply) => {
                return self.on_token_stored(host, conn, stream, login, reply);
            }
            (request, StoreReply::Credentials(credentials)) => {
                if let Some(inline) = &mut stream.inline {
                    inline.upgrades.learn(credentials.as_deref());
                }
                (request, credentials)
            }
            (_, reply) => {
                tracing::error!(?reply, "storage did not answer an authentication");
                let error = SaslError::TemporaryAuthFailure;
                return self.auth_failed(host, conn, stream, error, None);
            }
        };
        match credentials {
            (Request::Scram { account, exchange }, keys) => {
                self.challenge(host, conn, stream, account, exchange, keys.as_deref())
            }
            (Request::Plain { account, password }, keys) => {
                let password = password.expect("the password is there until the derivation");
                let rounds = self.settings.scram_iterations;
                let job = DeriveJob::verify_plain(password, keys.as_deref(), rounds);
                let Some(ticket) = self.derive_login(host, conn, stream, &account, job) else {
                    let error = SaslError::TemporaryAuthFailure;
                    return self.auth_failed(host, conn, stream, error, None);
                };
                let request = Request::Plain {
                    account,
                    password: None,
                };
                stream.phase = Phase::ExpectVerdict(Box::new(ExpectVerdict::new(ticket, request)));
                Flow::Stop
            }
            (Request::Register(_) | Request::Token(_), _) => unreachable!("answered above"),
        }
    }

    /// A derivation is done.
    pub(crate) fn on_auth_derived(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut Box<StreamState>,
        ticket: Ticket,
        derived: Derived,
    ) -> Flow {
        let Some(expect) = take_verdict(stream, ticket) else {
            return Flow::Next;
        };
        match (expect.request, derived) {
            (Request::Plain { account, .. }, _)
                if expect.outdated || self.is_throttled(host, stream, &account) =>
            {
                let error = SaslError::TemporaryAuthFailure;
                self.auth_failed(host, conn, stream, error, None)
            }
            (Request::Plain { account, .. }, Derived::Verified(true)) => {
                self.auth_succeeded(host, conn, stream, account, None)
            }
            (Request::Plain { account, .. }, Derived::Verified(false)) => {
                self.auth_failed(host, conn, stream, SaslError::NotAuthorized, Some(&account))
            }
            (Request::Register(request), Derived::Credentials(credentials)) => {
                self.on_register_derived(host, conn, stream, request, credentials)
            }
            _ => Flow::Next,
        }
    }

    fn challenge(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        account: BareJid,
        mut exchange: Exchange,
        keys: Option<&Credentials>,
    ) -> Flow {
        let nonce = random_bytes(host);
        let secret = &self.settings.fake_salt_secret;
        let rounds = self.settings.scram_iterations;
        let message = exchange.challenge(keys, nonce, secret, rounds);
        stream
            .profile()
            .write_challenge(&message, host.output(conn));
        stream.phase = Phase::ExpectResponse(Box::new(ExpectResponse {
            account,
            exchange,
            outdated: false,
        }));
        Flow::Next
    }

    pub(crate) fn auth_succeeded(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        account: BareJid,
        last: Option<&[u8]>,
    ) -> Flow {
        tracing::debug!(account = account.as_str(), peer = %stream.peer, "authenticated");
        let peer = stream.counted_peer();
        self.unfinished.take_back(&peer, host.now(), 1);
        stream.tls = None;
        let limits = &self.settings.limits;
        let limits = limits.scanner(limits.stanza_size_max);
        stream.scanner.set_limits(limits);
        if stream.profile() == Profile::Sasl2 {
            return self.on_sasl2_proved(host, conn, stream, account, last);
        }
        stream.inline = None;
        let out = host.output(conn);
        match last {
            Some(message) => put(
                out,
                format_args!(
                    "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{}</success>",
                    sasl::encode(message)
                ),
            ),
            None => out.extend_from_slice(b"<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"),
        }
        stream.phase = Phase::ExpectHeader(ExpectHeader {
            account: Some(account),
        });
        stream.scanner.restart();
        Flow::Next
    }

    /// Writes `<failure/>`; after too many the stream ends (RFC 6120 6.4.5).
    pub(crate) fn auth_failed(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &mut StreamState,
        error: SaslError,
        account: Option<&BareJid>,
    ) -> Flow {
        self.count_failure(host, stream, error, account);
        stream.profile().write_failure(error, host.output(conn));
        self.end_of_tries(host, conn, stream).unwrap_or(Flow::Next)
    }

    /// A try is over. It counts for its account where that was looked up: `account`, or who the
    /// exchange is with that is still under way.
    fn count_failure(
        &mut self,
        host: &impl Host,
        stream: &mut StreamState,
        error: SaslError,
        account: Option<&BareJid>,
    ) {
        let left = std::mem::replace(&mut stream.phase, Phase::ExpectAuth);
        let account = account.or(left.claimed());
        tracing::info!(
            condition = error.condition(),
            account = account.map(BareJid::as_str),
            peer = %stream.peer,
            "authentication failed"
        );
        if let Some(account) = account {
            let now = host.now();
            self.throttle.count(account.as_str(), now);
            // Who takes another mechanism after all is no worse than who loses his connection.
            let of_address = match error {
                SaslError::Aborted => &mut self.unfinished,
                _ => &mut self.throttle,
            };
            of_address.count(&stream.counted_peer(), now);
        }
        stream.tries += 1;
    }

    /// Ends the stream if it has no try left.
    fn end_of_tries(
        &mut self,
        host: &mut impl Host,
        conn: ConnId,
        stream: &StreamState,
    ) -> Option<Flow> {
        let text = Some("too many failed authentications");
        let error = StreamError::PolicyViolation;
        (stream.tries >= self.settings.limits.auth_tries_max)
            .then(|| self.stream_error(host, conn, stream, error, text))
    }

    /// A fresh local part that is at home on this shard, so that the connection need not move.
    fn anonymous_account(&self, host: &mut impl Host) -> BareJid {
        loop {
            let (a, b) = (host.random(), host.random());
            let jid = format!(
                "{ANONYMOUS_PREFIX}{a:016x}{b:016x}@{}",
                self.settings.domain
            );
            if self.router.home(&jid) == self.id {
                return BareJid::parse(&jid).expect("hexadecimal digits make a valid local part");
            }
        }
    }
}

impl StreamState {
    /// The profile to answer in.
    fn profile(&self) -> Profile {
        self.profile.unwrap_or(Profile::Rfc6120)
    }

    /// Whether its header named another account than who authenticates now. No other header comes
    /// (XEP-0388 2.3, 4.4).
    fn is_of_another(&self, account: &BareJid) -> bool {
        let from = self.inline.as_ref().and_then(|inline| inline.from.as_ref());
        self.profile() == Profile::Sasl2 && from.is_some_and(|from| from != account)
    }
}

/// Takes what waits for a verdict if `ticket` is its own.
fn take_verdict(stream: &mut StreamState, ticket: Ticket) -> Option<ExpectVerdict> {
    match std::mem::replace(&mut stream.phase, Phase::ExpectAuth) {
        Phase::ExpectVerdict(expect) if expect.ticket == ticket => Some(*expect),
        other => {
            stream.phase = other;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_throttle_forgets_its_oldest_and_goes_on_counting() {
        let mut throttle = Throttle::new(FAILURE_WINDOW_US);
        for index in 0..THROTTLE_ENTRIES_MAX {
            throttle.count(&format!("name {index}"), Timestamp(index as u64));
        }
        let now = Timestamp(THROTTLE_ENTRIES_MAX as u64);
        assert!(throttle.is_over("name 0", now, 1));
        throttle.count("one more", now);
        assert!(throttle.is_over("one more", now, 1));
        assert!(!throttle.is_over("name 0", now, 1));
        assert!(throttle.is_over("name 1", now, 1));
        assert_eq!(throttle.events.len(), THROTTLE_ENTRIES_MAX);
    }
}
