//! The queue on its way to the client.
//!
//! Invariant: it is written no faster than the connection takes it: what waits does so in the
//! queue, whose limits end a client that does not read.

use super::{Acks, REQUEST_EVERY, Sent};
use crate::host::{ConnId, Host};
use crate::leave::as_late;

const REQUEST: &[u8] = b"<r xmlns='urn:xmpp:sm:3'/>";

impl Acks {
    /// Writes what may be written and the connection takes; [`Acks::on_written`] writes more.
    pub(crate) fn flush(&mut self, host: &mut impl Host, conn: Option<ConnId>) {
        let Some(conn) = conn.filter(|_| !self.is_stopped) else {
            return;
        };
        let was_behind = self.is_behind();
        while self.opened
            && self.claiming != Some(self.sent().wrapping_add(1))
            && let Some(sent) = self.queue.get(self.written)
            && sent.write.is_none()
            && sent.is_numbered
        {
            if host.is_choked(conn) {
                self.is_stopped = true;
                host.tell_written(conn);
                break;
            }
            let out = host.output(conn);
            let is_answer = sent.is_answer;
            self.put(sent, out);
            self.count_written(out);
            if is_answer {
                self.shorten(self.written - 1, false);
            }
        }
        if was_behind && !self.is_behind() {
            host.resume(conn);
        }
    }

    /// The socket has taken all that was output.
    pub(crate) fn on_written(&mut self, host: &mut impl Host, conn: ConnId) {
        if std::mem::take(&mut self.is_stopped) {
            self.flush(host, Some(conn));
        }
    }

    /// Writes a stanza. The client sees one late that came before it was back (XEP-0203 3).
    fn put(&self, sent: &Sent, out: &mut Vec<u8>) {
        let domain = self.domain.as_ref().filter(|_| sent.is_late);
        let late = domain.and_then(|domain| as_late(&sent.bytes, sent.arrived, domain));
        out.extend_from_slice(late.as_deref().unwrap_or(&sent.bytes));
    }

    pub(super) fn count_written(&mut self, out: &mut Vec<u8>) {
        self.written += 1;
        self.since_request += 1;
        if self.since_request >= REQUEST_EVERY {
            self.since_request = 0;
            out.extend_from_slice(REQUEST);
        }
    }

    /// Whether its client is to be asked, and it was not known before.
    pub(crate) fn begins_asking(&mut self) -> bool {
        self.since_request > 0 && !std::mem::replace(&mut self.is_asking, true)
    }

    /// Asks for what was written since the last time.
    pub(crate) fn ask(&mut self, host: &mut impl Host, conn: Option<ConnId>) {
        self.is_asking = false;
        if let Some(conn) = conn.filter(|_| self.since_request > 0 && self.written > 0) {
            self.since_request = 0;
            host.output(conn).extend_from_slice(REQUEST);
        }
    }

    /// Writes once more what the client did not get, then what waits.
    pub(crate) fn rewrite(&mut self, host: &mut impl Host, conn: ConnId, domain: &str) {
        self.domain = Some(domain.into());
        for sent in &mut self.queue {
            sent.is_late = true;
        }
        (self.written, self.since_request, self.is_stopped) = (0, 0, false);
        self.flush(host, Some(conn));
        if self.since_request > 0 {
            self.since_request = 0;
            host.output(conn).extend_from_slice(REQUEST);
        }
    }
}
