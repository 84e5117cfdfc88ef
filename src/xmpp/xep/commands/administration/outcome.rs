//! What a command of administration answers once its parts are there.

use super::super::Refusal;
use super::super::catalogue::ADMIN;
use super::super::form::Results;
use super::{Kind, LOGIN_QUESTIONS, Run};
use crate::errand::Told;
use crate::error::{StanzaError, put};
use crate::host::Timestamp;
use crate::port::StoreReply;
use crate::xep::time::utc;
use crate::xml::Attr;
use stanza::jid::BareJid;

/// What is said where nothing better is known.
const STORAGE_FAILED: (StanzaError, &str) =
    (StanzaError::InternalServerError, "storage did not answer");

/// What is answered where parts of a command are not there in time. Those that change something go
/// on.
pub(super) fn late_outcome(kind: Kind) -> Result<Vec<u8>, Refusal> {
    match kind.is_read() {
        true => Err(StanzaError::ResourceConstraint.into()),
        false => {
            Ok(b"<note type='warn'>It takes long: see later whether it is done.</note>".to_vec())
        }
    }
}

impl Run {
    /// Whether storage has an account.
    fn is_known(&self, place: u16) -> bool {
        let told = self.told.get(&place);
        matches!(told, Some(Told::Stored(StoreReply::Credentials(Some(_)))))
    }

    /// What stands in the answer.
    pub(super) fn outcome(&self) -> Result<Vec<u8>, Refusal> {
        if self.told.values().any(|told| matches!(told, Told::Busy)) {
            return Err(StanzaError::ResourceConstraint.into());
        }
        let mut out = Vec::new();
        match self.command.kind {
            Kind::AddUser | Kind::ChangeUserPassword | Kind::DeleteUser | Kind::EndUserSession => {
                self.write_failures(&mut out)?;
            }
            Kind::Announce | Kind::Shutdown => {}
            Kind::GetUserLastlogin => self.write_logins(&mut out)?,
            Kind::GetUserStats => self.write_stats(&mut out)?,
            Kind::GetRegisteredUsersNum | Kind::GetRegisteredUsersList => {
                self.write_registered(&mut out)?;
            }
            Kind::GetOnlineUsersNum | Kind::GetOnlineUsersList => self.write_online(&mut out),
        }
        Ok(out)
    }

    /// Why nothing was done about a subject.
    fn failure(&self, place: u16) -> Option<(StanzaError, &str)> {
        if self.command.kind == Kind::EndUserSession {
            let ended = self.told.get(&(self.subjects.len() as u16 + place));
            let subject = &self.subjects[usize::from(place)];
            return match (ended, self.told.get(&place)) {
                (Some(Told::Ended(1..)), _) => None,
                (Some(Told::Ended(0)), Some(Told::Stored(StoreReply::Credentials(Some(_))))) => {
                    let no_session = (StanzaError::ItemNotFound, "there is no such session");
                    subject.resource.is_some().then_some(no_session)
                }
                (_, known) => failure_of(known).or(Some(STORAGE_FAILED)),
            };
        }
        let first = failure_of(self.told.get(&place));
        match self.command.kind {
            // What the old password let in has to be over, too.
            Kind::ChangeUserPassword if first.is_none() => {
                let second = self.told.get(&(self.subjects.len() as u16 + place));
                let is_over = matches!(second, Some(Told::Stored(StoreReply::Missing)));
                failure_of(second).filter(|_| !is_over)
            }
            _ => first,
        }
    }

    /// XEP-0050 3.6: what of it failed stands in notes; where there is one subject, the whole does.
    fn write_failures(&self, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let count = self.subjects.len();
        for (place, subject) in (0..).zip(&self.subjects) {
            let Some((error, why)) = self.failure(place) else {
                continue;
            };
            if count == 1 {
                return Err(error.into());
            }
            write_note(&format!("{}: {why}.", subject.account.as_str()), out);
        }
        Ok(())
    }

    fn write_logins(&self, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let (mut known, mut times) = (Vec::new(), Vec::new());
        for (index, subject) in (0..).zip(&self.subjects) {
            let first = index * LOGIN_QUESTIONS;
            let is_known = self.is_known(first);
            let last = (first..first + LOGIN_QUESTIONS)
                .filter_map(|place| last_seen(self.told.get(&place)))
                .max();
            let mut told = (first..first + LOGIN_QUESTIONS).map(|place| self.told.get(&place));
            if let Some((error, why)) = told.find_map(trouble_of) {
                if self.subjects.len() == 1 {
                    return Err(error.into());
                }
                write_note(&format!("{}: {why}.", subject.account.as_str()), out);
                continue;
            }
            match last {
                Some(last) if is_known => {
                    known.push(subject.account.as_str());
                    times.push(utc(last));
                }
                None if is_known => {
                    let text = format!("{}: nobody has logged in.", subject.account.as_str());
                    write_note(&text, out);
                }
                _ if self.subjects.len() == 1 => return Err(StanzaError::ItemNotFound.into()),
                _ => {
                    let text = format!("{}: there is no such account.", subject.account.as_str());
                    write_note(&text, out);
                }
            }
        }
        Results::open(ADMIN, out)
            .field(("accountjids", "jid-multi", "Accounts"), known)
            .field(
                ("lastlogin", "text-multi", "Last seen, in their order"),
                times,
            )
            .close();
        Ok(())
    }

    fn write_stats(&self, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let roster_size = match self.told.get(&0) {
            Some(Told::Stored(StoreReply::Account(Some(data)))) => {
                data.roster.iter().filter(|item| item.listed).count()
            }
            Some(Told::Stored(StoreReply::Account(None))) => {
                return Err(StanzaError::ItemNotFound.into());
            }
            _ => return Err(StanzaError::InternalServerError.into()),
        };
        let none = Vec::new();
        let sessions = match self.told.get(&1) {
            Some(Told::Sessions(sessions)) => sessions,
            _ => &none,
        };
        let addresses = sessions.iter().filter_map(|(_, address)| *address);
        let addresses = addresses.map(|address| address.to_string());
        let resources = sessions.iter().map(|(resource, _)| resource);
        let account = self
            .subjects
            .first()
            .map(|subject| subject.account.as_str());
        Results::open(ADMIN, out)
            .field(("accountjid", "jid-single", "Account"), account)
            .field(("ipaddresses", "text-multi", "Where from"), addresses)
            .field(
                ("rostersize", "text-single", "Contacts"),
                [roster_size.to_string()],
            )
            .field(("onlineresources", "text-multi", "Resources"), resources)
            .close();
        Ok(())
    }

    fn write_registered(&self, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let Some(Told::Stored(StoreReply::Accounts { count, names })) = self.told.get(&0) else {
            return Err(StanzaError::InternalServerError.into());
        };
        let mut names: Vec<&str> = names.iter().map(BareJid::as_str).collect();
        names.sort_unstable();
        self.write_names(
            ("registeredusersnum", "registereduserjids"),
            *count,
            names,
            out,
        );
        Ok(())
    }

    fn write_online(&self, out: &mut Vec<u8>) {
        let (mut sum, mut all) = (0, Vec::new());
        for told in self.told.values() {
            if let Told::Online { count, names } = told {
                sum += count;
                all.extend(names.iter().map(|name| &**name));
            }
        }
        all.sort_unstable();
        self.write_names(("onlineusersnum", "onlineuserjids"), sum, all, out);
    }

    fn write_names(
        &self,
        (number, list): (&str, &str),
        count: u64,
        mut names: Vec<&str>,
        out: &mut Vec<u8>,
    ) {
        names.truncate(self.names_max);
        let results = Results::open(ADMIN, out);
        match &self.command.form {
            None => results.field((number, "text-single", "Users"), [count.to_string()]),
            Some(_) => results.field((list, "jid-multi", "Users"), names),
        }
        .close();
    }
}

/// Why storage did not do something, if it did not.
fn failure_of(told: Option<&Told>) -> Option<(StanzaError, &str)> {
    match told {
        Some(Told::Stored(StoreReply::Done)) => None,
        Some(Told::Stored(StoreReply::Exists)) => {
            Some((StanzaError::Conflict, "there is such an account already"))
        }
        Some(Told::Stored(StoreReply::Missing | StoreReply::Credentials(None))) => {
            Some((StanzaError::ItemNotFound, "there is no such account"))
        }
        Some(Told::Stored(StoreReply::Failed(why))) => {
            Some((StanzaError::InternalServerError, why))
        }
        _ => Some(STORAGE_FAILED),
    }
}

/// Why storage did not say something, if it did not.
fn trouble_of(told: Option<&Told>) -> Option<(StanzaError, &str)> {
    match told {
        Some(Told::Stored(
            StoreReply::Credentials(_) | StoreReply::UserAgents(_) | StoreReply::Document(_),
        )) => None,
        // An account that is gone meanwhile.
        Some(Told::Stored(StoreReply::Missing)) => None,
        other => failure_of(other),
    }
}

/// When somebody was there last by an answer of storage.
fn last_seen(told: Option<&Told>) -> Option<Timestamp> {
    match told {
        Some(Told::Stored(StoreReply::UserAgents(agents))) => {
            agents.iter().map(|agent| agent.last_seen).max()
        }
        Some(Told::Stored(StoreReply::Document(Some(document)))) => {
            let text = std::str::from_utf8(document).ok()?;
            let at = text.split(' ').next()?.parse().ok()?;
            Some(Timestamp(at))
        }
        _ => None,
    }
}

/// XEP-0050 4.3
fn write_note(text: &str, out: &mut Vec<u8>) {
    put(
        out,
        format_args!("<note type='error'>{}</note>", Attr(text)),
    );
}
