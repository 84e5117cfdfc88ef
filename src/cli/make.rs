//! `vorpal user make`: a million accounts for load tests, with one salt among them.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use stanza::jid::{BareJid, check_new_local};
use store::schema;
use xmpp::port::{RosterItem, Subscription, WholeAccount};

use super::accounts::{Accounts, Trouble};
use super::{Failure, derive};

const PLACE: &str = "%d";

/// Accounts of one call.
const COUNT_MAX: u64 = 100_000_000;

/// Accounts of one clique: each of them has all others in its roster.
const CLIQUE_MAX: u64 = 1000;

/// Accounts that are put into order at once, for which each needs about 100 bytes.
const BLOCK_SIZE: usize = if cfg!(test) { 10 } else { 1 << 20 };

/// What to make.
pub(crate) struct Plan {
    /// The local parts, with one [`PLACE`] for the number.
    pub(crate) pattern: String,
    /// How many, numbered from 0.
    pub(crate) count: u64,
    /// Of all of them.
    pub(crate) password: String,
    /// How many in order are contacts of each other.
    pub(crate) clique: u64,
}

/// How many accounts of a clique existed, by the first number of the clique.
type Existed = HashMap<u64, u64>;

impl Plan {
    fn check(&self) -> Result<(), Failure> {
        if self.pattern.matches(PLACE).count() != 1 {
            return Err(Failure(format!(
                "The pattern {:?} needs one {PLACE} for the number, as in 'u{PLACE}'.",
                self.pattern
            )));
        }
        if !(1..=COUNT_MAX).contains(&self.count) {
            return Err(Failure(format!(
                "--count is a number from 1 to {COUNT_MAX}."
            )));
        }
        if !(1..=CLIQUE_MAX).contains(&self.clique) {
            return Err(Failure(format!(
                "--clique is a number from 1 to {CLIQUE_MAX}."
            )));
        }
        check_new_local(&self.pattern.replace(PLACE, "0")).map_err(|error| {
            Failure(format!(
                "The pattern {:?} gives no safe names: {error}.",
                self.pattern
            ))
        })
    }

    fn account(&self, number: u64, domain: &str) -> Result<BareJid, Failure> {
        let text = format!(
            "{}@{domain}",
            self.pattern.replace(PLACE, &number.to_string())
        );
        BareJid::parse(&text).map_err(|error| Failure(format!("{text:?} is no JID: {error}.")))
    }

    /// The numbers of all accounts, a block at a time in the order of the store's keys: what comes
    /// in order lies behind what came before, and the engine has nothing to merge. Left to their
    /// numbers it would write a million rosters three times over.
    fn numbers(&self, domain: &str) -> impl Iterator<Item = Result<u64, Failure>> {
        let blocks = (0..self.count).step_by(BLOCK_SIZE);
        blocks.flat_map(move |first| {
            let numbers = first..(first + BLOCK_SIZE as u64).min(self.count);
            let keyed = numbers.map(|number| {
                let account = self.account(number, domain)?;
                Ok((schema::account_key(&account), number))
            });
            let (block, refusal) = match keyed.collect::<Result<Vec<_>, _>>() {
                Ok(mut block) => {
                    block.sort_unstable();
                    (block, None)
                }
                Err(failure) => (Vec::new(), Some(failure)),
            };
            let numbers = block.into_iter().map(|(_, number)| Ok(number));
            numbers.chain(refusal.map(Err))
        })
    }

    /// The number of an account of the pattern.
    fn number(&self, account: &BareJid) -> Option<u64> {
        let (before, behind) = self.pattern.split_once(PLACE)?;
        let local = account.local()?.strip_prefix(before)?;
        local.strip_suffix(behind)?.parse().ok()
    }

    /// The pattern, prepared as the names are that it gives: by that these are known again.
    fn prepared(&self, domain: &str) -> Result<String, Failure> {
        let zero = "0";
        let (before, behind) = self.pattern.split_once(PLACE).unwrap_or_default();
        let prepared = |text: String| {
            let parsed = BareJid::parse(&format!("{text}@{domain}"));
            let name = parsed.map_err(|error| Failure(format!("{text:?} is no name: {error}.")))?;
            Ok::<_, Failure>(name.local().unwrap_or_default().to_owned())
        };
        let before = prepared(format!("{before}{zero}"))?;
        let behind = prepared(format!("{zero}{behind}"))?;
        let (before, behind) = (before.strip_suffix(zero), behind.strip_prefix(zero));
        Ok([
            before.unwrap_or_default(),
            PLACE,
            behind.unwrap_or_default(),
        ]
        .concat())
    }

    /// The numbers of the clique with `number`.
    fn clique_of(&self, number: u64) -> Range<u64> {
        let first = number - number % self.clique;
        first..(first + self.clique).min(self.count)
    }

    /// Takes an account of the pattern that existed into the count of its clique.
    fn count(&self, account: &BareJid, existed: &mut Existed) {
        if let Some(number) = self.number(account) {
            *existed.entry(self.clique_of(number).start).or_default() += 1;
        }
    }

    /// How many cliques have new accounts and some of those that existed, which keep their rosters.
    fn torn(&self, existed: &Existed) -> usize {
        let is_torn = |(first, count): &(&u64, &u64)| {
            let clique = self.clique_of(**first);
            **count < clique.end - clique.start
        };
        existed.iter().filter(is_torn).count()
    }

    /// The contacts of account `number`: the others of its clique, each subscribed to each.
    fn contacts(&self, number: u64, domain: &str) -> Result<Vec<RosterItem>, Failure> {
        let others = self.clique_of(number).filter(|other| *other != number);
        others
            .map(|other| {
                let contact = self.account(other, domain)?;
                let item = RosterItem::new(contact);
                Ok(RosterItem {
                    subscription: Subscription::Both,
                    listed: true,
                    ..item
                })
            })
            .collect()
    }
}

/// Makes the accounts; those that exist are left as they are.
pub(crate) fn make(config: &Path, mut plan: Plan) -> Result<ExitCode, Failure> {
    plan.check()?;
    let started = Instant::now();
    let mut accounts = Accounts::open(config)?;
    let domain = accounts.domain().to_owned();
    plan.pattern = plan.prepared(&domain)?;
    let keys = derive::keys(&plan.password)?;
    plan.account(plan.count - 1, &domain)?;
    let mut refusal = None;
    let mut numbered = plan.numbers(&domain).map_while(|number| {
        let whole = number.and_then(|number| {
            let account = plan.account(number, &domain)?;
            let mut whole = WholeAccount::new(account, keys.clone());
            whole.data.roster = plan.contacts(number, &domain)?;
            Ok(whole)
        });
        match whole {
            Ok(whole) => Some(whole),
            Err(failure) => {
                refusal = Some(failure);
                None
            }
        }
    });
    let (mut created, mut refused) = (0, None);
    let mut existed = Existed::new();
    let made = accounts.create(
        &mut numbered,
        &mut created,
        &mut |account, trouble| match trouble {
            Trouble::Exists => plan.count(account, &mut existed),
            Trouble::Refused(why) => refused = Some(Failure(why)),
        },
    );
    let seconds = started.elapsed().as_secs_f64();
    let count: u64 = existed.values().sum();
    println!("Made {created} accounts in {seconds:.1} s; {count} existed and are as they were.");
    let torn = plan.torn(&existed);
    if torn > 0 {
        eprintln!(
            "vorpal: In {torn} cliques some accounts existed, and may not have the new ones as \
             contacts; delete them and make them again, or take another pattern."
        );
    }
    eprintln!(
        "vorpal: These accounts share one password and one salt, so whoever has one has all: they \
         are for load tests only and unsafe for anything else."
    );
    made?;
    refusal.or(refused).map_or(Ok(ExitCode::SUCCESS), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(pattern: &str, count: u64, clique: u64) -> Plan {
        Plan {
            pattern: pattern.into(),
            count,
            password: "p".into(),
            clique,
        }
    }

    #[test]
    fn cliques_are_mutual_and_the_last_may_be_smaller() {
        let plan = plan("u%d", 8, 3);
        let contacts = |number| -> Vec<String> {
            let items = plan.contacts(number, "a.example").unwrap();
            assert!(
                items
                    .iter()
                    .all(|item| item.subscription == Subscription::Both)
            );
            items
                .iter()
                .map(|item| item.contact.local().unwrap().to_owned())
                .collect()
        };
        assert_eq!(contacts(0), ["u1", "u2"]);
        assert_eq!(contacts(4), ["u3", "u5"]);
        assert_eq!(contacts(7), ["u6"]);
        for (one, other) in (0..8).flat_map(|one| (0..8).map(move |other| (one, other))) {
            let knows = |a: u64, b: u64| contacts(a).contains(&format!("u{b}"));
            assert_eq!(knows(one, other), knows(other, one), "{one} and {other}");
        }
    }

    #[test]
    fn each_account_comes_once_and_a_block_of_them_in_the_order_of_its_keys() {
        let plan = plan("u%d", 2 * BLOCK_SIZE as u64 + 3, 1);
        let numbers: Vec<u64> = plan.numbers("a.example").map(Result::unwrap).collect();
        for (block, first) in numbers.chunks(BLOCK_SIZE).zip((0..).step_by(BLOCK_SIZE)) {
            let key = |number| schema::account_key(&plan.account(number, "a.example").unwrap());
            assert!(block.is_sorted_by_key(|number| key(*number)), "{block:?}");
            let mut block = block.to_vec();
            block.sort_unstable();
            assert!(block.into_iter().eq((first..plan.count).take(BLOCK_SIZE)));
        }
        assert_eq!(numbers.len() as u64, plan.count);
    }

    #[test]
    fn the_accounts_of_a_pattern_are_known_again_however_it_is_written() {
        for (pattern, prepared) in [("U%d", "u%d"), ("%dX-", "%dx-"), ("0%d0", "0%d0")] {
            let mut plan = plan(pattern, 3, 1);
            plan.pattern = plan.prepared("a.example").unwrap();
            assert_eq!(plan.pattern, prepared);
            let account = plan.account(2, "a.example").unwrap();
            assert_eq!(plan.number(&account), Some(2), "{pattern}");
        }
    }

    #[test]
    fn cliques_of_new_accounts_and_of_old_ones_are_counted() {
        let plan = plan("u%d", 8, 3);
        let torn = |existed: &[&str]| {
            let mut counted = Existed::new();
            for name in existed {
                let account = BareJid::parse(&format!("{name}@a.example")).unwrap();
                plan.count(&account, &mut counted);
            }
            plan.torn(&counted)
        };
        assert_eq!(torn(&[]), 0);
        assert_eq!(torn(&["u0", "u1", "u2", "u6", "u7"]), 0);
        assert_eq!(torn(&["u1", "u3", "u5", "u6", "u7"]), 2);
    }

    #[test]
    fn a_plan_that_cannot_be_made_is_refused() {
        assert!(plan("u%d", 1, 1).check().is_ok());
        for wrong in [
            plan("u", 1, 1),
            plan("u%d%d", 1, 1),
            plan("u%d", 0, 1),
            plan("u%d", COUNT_MAX + 1, 1),
            plan("u%d", 1, 0),
            plan("u%d", 1, CLIQUE_MAX + 1),
            plan("a b%d", 1, 1),
        ] {
            let pattern = &wrong.pattern;
            assert!(
                wrong.check().is_err(),
                "{pattern} {} {}",
                wrong.count,
                wrong.clique
            );
        }
    }
}
