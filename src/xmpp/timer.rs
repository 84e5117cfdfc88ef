//! What a shard waits for by the clock.

use crate::account::AccountKey;
use crate::host::ConnId;
use crate::session::SessionKey;

/// What the shard's clock is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// The stream must be bound by now, and one that waits for its end must end.
    Bound(ConnId),
    /// The client of the session that waits longest must be back by now.
    Hibernation,
    /// More of the sessions that have overflowed may end, and more of the legacies be seen to.
    Overflow,
    /// Storage failed to give the session what waits for its account.
    Fetch(AccountKey, SessionKey, u32),
    /// The clients of the last process's sessions must be back by now.
    Dormancy,
    /// Storage failed to end sessions.
    Ends,
    /// Storage failed to write subscriptions.
    Roster,
    /// Storage failed to learn how far sessions are settled.
    Owing,
    /// Storage failed to keep errors.
    Errors,
    /// Managed sessions whose input waits are told how far they are settled.
    HeldBack,
    /// A session that has changed may be written again.
    Save(SessionKey, u32),
    /// Who sent a session directed presence may be written again.
    Strangers(SessionKey, u32),
    /// A block list may be written again.
    Blocking(AccountKey),
    /// Clients are to be asked for acknowledgements.
    Asking,
    /// Storage failed to load an account that stanzas wait for.
    Load(AccountKey),
    /// The next of those whose contacts sleep in storage is to be answered.
    Probes,
    /// The next step along all sessions.
    Walk,
    /// An administrator's command has taken too long.
    Runs,
    /// Something is to be published to push services, or has to be answered by now.
    Push,
    /// The next step along all archives.
    Retention,
}
