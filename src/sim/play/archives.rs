//! What must hold of the archives when all is said.

use super::Play;
use crate::managed::Managed;
use stanza::jid::BareJid;
use std::collections::HashMap;
use xmpp::port::{ArchiveQuery, StoreOp, StoreReply};

/// How often an archive has a message, by its id.
type Archived = HashMap<String, u32>;

fn bare_of(managed: &Managed) -> String {
    managed.0.borrow().bare().to_owned()
}

impl Play {
    /// All that somebody heard is in his archive, and so is all that was acknowledged; and nothing
    /// is there twice that was not sent again as something new.
    pub fn check_archives(&mut self) {
        let names: Vec<String> = self.people.iter().map(bare_of).collect();
        let each = names.iter().map(|name| (name.clone(), self.archive(name)));
        let archives: HashMap<String, Archived> = each.collect();
        for managed in &self.people {
            let person = managed.0.borrow();
            let own = &archives[&bare_of(managed)];
            for heard in &person.heard {
                // A session may end while storage is about to refuse what its archive was to have
                // of it: that waits on without (decision 0013).
                let may_lack = heard.delayed && self.plot.refuses();
                let is_there = own.contains_key(&heard.id);
                assert!(is_there || may_lack, "{heard:?} is in no archive");
            }
            for (id, said) in &person.said {
                let receiver = said.to.split('/').next().unwrap_or_default();
                let count = |archive: &Archived| archive.get(id).copied().unwrap_or(0);
                let (sent, got) = (count(own), count(&archives[receiver]));
                if said.sessions == 1 {
                    assert!(
                        sent <= 1 && got <= 1,
                        "{id} {said:?}: {sent} and {got} times"
                    );
                }
                // What its own archive refuses nobody hears of.
                let may_fail = self.plot.refuses() || said.bounces;
                let is_unheard = may_fail && person.epoch > said.epoch;
                let is_safe = said.acked && said.errors == 0 && !is_unheard;
                assert!(!is_safe || got > 0, "{id} {said:?} was not archived");
                let has_own = sent > 0 || self.plot.refuses();
                assert!(
                    !is_safe || has_own,
                    "{id} {said:?} is not with what was sent"
                );
            }
        }
    }

    fn archive(&mut self, name: &str) -> Archived {
        let query = ArchiveQuery::all(usize::MAX);
        let op = StoreOp::ArchivePage {
            account: BareJid::parse(name).expect("a play's names are good"),
            query: Box::new(query),
        };
        let StoreReply::ArchivePage(page) = self.world.perform(op) else {
            panic!("{name} has no archive");
        };
        assert!(page.is_complete, "a play has few messages");
        let mut archived = Archived::new();
        for (_, message) in page.messages {
            let text = String::from_utf8_lossy(&message);
            let id = text
                .split(" id='")
                .nth(1)
                .and_then(|rest| rest.split('\'').next());
            let id = id.expect("what people say has an id").to_owned();
            *archived.entry(id).or_default() += 1;
        }
        archived
    }
}
