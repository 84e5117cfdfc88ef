//! How a client has its session go on over another connection (XEP-0198 5): from the answer that
//! names the session to the one that says what the server has of it.

use super::{Client, Cx, Step, Turn, count};
use crate::acks::Acks;
use crate::scan;
use crate::stats::Phase;

impl Client {
    /// The network is lost; the next connection is to resume the session.
    pub fn lose(&mut self) {
        self.step = Step::Lost;
    }

    /// Gives away the counters of a session that is no more.
    pub fn forget(&mut self) -> Option<Box<Acks>> {
        self.acks.take()
    }

    /// One that is ready, in a session of this name.
    #[cfg(test)]
    pub(crate) fn in_session(id: &str) -> Client {
        Client {
            step: Step::Ready,
            acks: Some(Box::new(Acks::of_session(id))),
            ..Client::default()
        }
    }

    /// The stream is managed from here on.
    pub(super) fn on_enabled(&mut self, cx: &mut Cx<'_>, element: &[u8]) -> Turn {
        let resumes = matches!(scan::attribute(element, b"resume"), Some(b"true" | b"1"));
        let id = scan::attribute(element, b"id").filter(|_| resumes);
        self.acks = match (cx.script.resumes, id) {
            (false, _) => Some(Box::default()),
            (true, Some(id)) => {
                let id = String::from_utf8_lossy(&scan::unescape(id)).into_owned();
                Some(Box::new(Acks::of_session(&id)))
            }
            (true, None) => {
                let why = "the server lets nobody resume a session; leave `resume` out of the mix";
                return Turn::Fail(why.into());
            }
        };
        self.phase(cx, Phase::Manage);
        self.after_manage(cx)
    }

    /// Instead of a resource, the session of before is asked for.
    pub(super) fn ask_to_resume(&mut self, cx: &mut Cx<'_>) -> Turn {
        let Some(acks) = &self.acks else {
            return Turn::Fail("there is no session to resume".into());
        };
        acks.resume(cx.out);
        self.step = Step::Resume;
        Turn::Nothing
    }

    pub(super) fn on_resumed(&mut self, cx: &mut Cx<'_>, element: &[u8]) -> Turn {
        let asked = self.acks.as_ref().and_then(|acks| acks.id());
        let named = scan::attribute(element, b"previd").map(scan::unescape);
        if named.as_deref() != asked.map(str::as_bytes) {
            return Turn::Fail("the server resumed another session than was asked for".into());
        }
        let Some(h) = count(element) else {
            return Turn::Fail("the server resumed a session without saying what it has".into());
        };
        self.phase(cx, Phase::Resume);
        self.login = None;
        self.step = Step::Ready;
        Turn::Resumed(h)
    }

    /// XEP-0198 5: the stream goes on with a resource.
    pub(super) fn on_not_resumed(&mut self, cx: &mut Cx<'_>) -> Turn {
        self.login().resumes = false;
        self.since = cx.now;
        self.bind(cx);
        Turn::NotResumed
    }
}
