//! The last step of a login where clients talk in rooms: entering one, and taking it as it is where
//! it is new.

use super::{Client, Cx, Step, Turn, condition};
use crate::muc::{self, Heard};
use crate::scan;
use crate::stats::Phase;

/// What a room has told who enters it.
#[derive(Debug, Default)]
pub(super) struct Progress {
    is_in: bool,
    /// It is new, and locked until our request is answered.
    is_locked: bool,
    has_subject: bool,
}

impl Client {
    pub(super) fn after_presence(&mut self, cx: &mut Cx<'_>) -> Turn {
        if cx.script.rooms.is_none() {
            return self.ready(cx);
        }
        self.step = Step::Join;
        Turn::Join
    }

    /// Enters its room, as [`Turn::Join`] asked for; who is the first asks whether there are any.
    pub fn join(&mut self, cx: &mut Cx<'_>, is_first: bool) -> Turn {
        match cx.script.rooms.as_ref().filter(|_| is_first) {
            Some(rooms) => {
                let start = cx.out.len();
                // Not everything that has no rooms says so to who wants to enter one.
                rooms.write_question(cx.out);
                self.sent(&cx.out[start..]);
                Turn::Nothing
            }
            None => self.enter(cx),
        }
    }

    /// Whether there are rooms, as who is first asked.
    pub(super) fn on_asked(&mut self, cx: &mut Cx<'_>, answer: &[u8]) -> Turn {
        let error = is_error(answer).then(|| condition(answer));
        let rooms = cx.script.rooms.as_ref();
        match rooms.map_or(Ok(()), |rooms| rooms.check(answer, error.as_deref())) {
            Ok(()) => self.enter(cx),
            Err(reason) => Turn::Fail(reason),
        }
    }

    fn enter(&mut self, cx: &mut Cx<'_>) -> Turn {
        let Some(occupant) = cx.script.occupant(cx.index) else {
            return Turn::Fail("there are no rooms to enter".into());
        };
        // What it waited for is no part of it.
        self.since = cx.now;
        let start = cx.out.len();
        muc::write_join(&occupant, cx.out);
        self.sent(&cx.out[start..]);
        Turn::Nothing
    }

    /// Something came while a room is being entered.
    pub(super) fn on_room(&mut self, cx: &mut Cx<'_>, element: &[u8]) -> Turn {
        let occupant = cx.script.occupant(cx.index).unwrap_or_default();
        let Some(rooms) = &cx.script.rooms else {
            return Turn::Nothing;
        };
        match rooms.hear(&occupant, element) {
            Heard::Other => return Turn::Nothing,
            Heard::Refused => return Turn::Fail(rooms.refusal(&condition(element))),
            Heard::Renamed => {
                let domain = rooms.domain();
                return Turn::Fail(format!(
                    "the rooms at {domain} give other nicks than are asked for; let them not"
                ));
            }
            Heard::Subject => self.login().room.has_subject = true,
            Heard::Entered(is_new) => {
                self.login().room.is_in = true;
                if is_new {
                    self.login().room.is_locked = true;
                    let start = cx.out.len();
                    muc::write_opening(&occupant, cx.out);
                    self.sent(&cx.out[start..]);
                }
            }
        }
        self.look_around(cx)
    }

    /// The room's answer to who took it as it is.
    pub(super) fn on_opened(&mut self, cx: &mut Cx<'_>, answer: &[u8]) -> Turn {
        if is_error(answer) {
            let refused = |rooms: &muc::Rooms| rooms.refusal(&condition(answer));
            return Turn::Fail(cx.script.rooms.as_ref().map_or_else(String::new, refused));
        }
        self.login().room.is_locked = false;
        self.look_around(cx)
    }

    /// Takes part once the room has said everything and is open to others.
    fn look_around(&mut self, cx: &mut Cx<'_>) -> Turn {
        let room = &self.login().room;
        if !room.is_in || !room.has_subject || room.is_locked {
            return Turn::Nothing;
        }
        self.phase(cx, Phase::Join);
        self.ready(cx)
    }
}

fn is_error(answer: &[u8]) -> bool {
    scan::attribute(answer, b"type") == Some(b"error")
}
