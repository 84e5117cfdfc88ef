//! Files that come and go over connections of the web: from the connection to the keeper of files,
//! and back.
//!
//! Invariant: a connection with a file has no stream. It is not read while the disk is behind, and
//! the disk is not while its client is.

use crate::connection::Life;
use crate::host::World;
use crate::transport::http::files::FileRequest;
use crate::transport::web::CONTINUE;
use crate::turn::Turn;
use crate::uploads::Said;
use std::cmp::Reverse;
use xmpp::{ConnId, Host as _, Shard};

/// A request for a file has come: from now on the connection is no stream's.
pub(crate) fn begin(shard: &mut Shard, world: &mut World, id: ConnId, request: FileRequest) {
    shard.on_close(world, id);
    let now = world.now;
    let World {
        conns,
        uploads,
        begun,
        ..
    } = world;
    let Some(conn) = conns.open_mut(id) else {
        return;
    };
    let Some(transfer) = conn.transfer() else {
        return;
    };
    transfer.begin(request.ask.size(), now);
    begun.push((transfer.look_at(now), id));
    let uploads = uploads
        .as_ref()
        .expect("there are files where they are asked for");
    uploads.begin(id, Box::new(request.ask), request.peer);
}

/// Hands pieces of a file on, and has its client wait where there are many.
pub(crate) fn hand_on(world: &mut World, id: ConnId, pieces: Vec<Vec<u8>>) {
    let now = world.now;
    let World { conns, uploads, .. } = world;
    let Some(conn) = conns.open_mut(id) else {
        return;
    };
    // By itself it would take all that the kernel has into memory.
    conn.receives = 0;
    let Some(transfer) = conn.transfer() else {
        return;
    };
    transfer.note(now);
    let is_full = transfer.is_full();
    let uploads = uploads.as_ref().expect("there are files where one comes");
    for piece in pieces {
        uploads.chunk(id, piece);
    }
    if is_full {
        world.pause(id);
        world.touch(id);
    }
}

impl Turn {
    /// Takes what the keeper of files said.
    pub(crate) fn drain_uploads(&mut self) {
        while let Some(said) = self.world.uploads.as_ref().and_then(|link| link.pop()) {
            match said {
                Said::Slot(ticket, answer) => self.shard.on_slot(&mut self.world, ticket, answer),
                Said::Ready(id) => self.on_file_ready(id),
                Said::Taken(id) => self.on_piece_taken(id),
                Said::Bytes(id, bytes, is_last) => self.on_file_bytes(id, bytes, is_last),
                Said::Broken(id) => self.lose(id),
            }
        }
    }

    /// A file may come.
    fn on_file_ready(&mut self, id: ConnId) {
        if let Some(conn) = self.world.conns.open_mut(id)
            && let Some(web) = &mut conn.web
            && web
                .transfer()
                .is_some_and(|transfer| transfer.may_be_told())
        {
            web.say(CONTINUE.to_vec());
            self.world.touch(id);
        }
        self.on_piece_taken(id);
    }

    /// A piece of a file is with the disk.
    fn on_piece_taken(&mut self, id: ConnId) {
        let now = self.world.now;
        let Some(conn) = self.world.conns.open_mut(id) else {
            return;
        };
        let paused = conn.paused;
        let transfer = conn.transfer();
        if transfer.is_some_and(|transfer| transfer.relieve(now)) && paused {
            self.world.resume(id);
        }
    }

    /// A part of an answer. The connection stays open until the last one is written, so that its
    /// client has the time that a transfer has, and not that of a close.
    fn on_file_bytes(&mut self, id: ConnId, bytes: Vec<u8>, is_last: bool) {
        let now = self.world.now;
        let Some(conn) = self.world.conns.open_mut(id) else {
            return;
        };
        let Some(web) = &mut conn.web else { return };
        let Some(transfer) = web.transfer() else {
            return;
        };
        transfer.owe(is_last, now);
        web.say(bytes);
        conn.tells_written = true;
        self.world.touch(id);
    }

    /// All that was output is written: to a stream's client, or of a file.
    pub(crate) fn on_all_written(&mut self, id: ConnId) {
        let World { conns, uploads, .. } = &mut self.world;
        let transfer = conns.open_mut(id).and_then(|conn| conn.transfer());
        match (transfer, uploads) {
            (Some(transfer), _) if transfer.is_answered() => self.close_written(id),
            (Some(transfer), Some(uploads)) => uploads.more(id, transfer.settle()),
            _ => self.shard.on_written(&mut self.world, id),
        }
    }

    pub(crate) fn close_written(&mut self, id: ConnId) {
        if let Some(conn) = self.world.conns.open_mut(id) {
            conn.life = Life::Closing;
            self.world.touch(id);
        }
    }

    /// Looks after the time of transfers that began in this turn.
    pub(crate) fn time_transfers(&mut self) {
        let begun = self.world.begun.drain(..);
        self.endings.extend(begun.map(Reverse));
    }

    /// The time of a connection's transfer, or of its next request, may be over, if it has one.
    pub(crate) fn see_to_transfer(&mut self, id: ConnId) {
        let now = self.world.now;
        let conn = self.world.conns.open_mut(id);
        let Some(transfer) = conn.and_then(|conn| conn.transfer()) else {
            return self.see_to_request(id);
        };
        match transfer.deadline() <= now {
            true => self.lose(id),
            false => self.endings.push(Reverse((transfer.look_at(now), id))),
        }
    }

    /// The shard ends: so do the files on their way, of which no stream tells their clients. An
    /// answer that is whole has the time that streams have for their last words.
    pub(crate) fn end_transfers(&mut self) {
        let mut cut = 0;
        for id in self.world.conns.transfers() {
            let conn = self.world.conns.open_mut(id);
            match conn.and_then(|conn| Some(conn.transfer()?.is_answered())) {
                Some(true) => self.close_written(id),
                Some(false) => {
                    cut += 1;
                    self.lose(id);
                }
                None => {}
            }
        }
        if cut > 0 {
            tracing::info!(
                count = cut,
                "files on their way were cut by the end of the server"
            );
        }
    }
}
