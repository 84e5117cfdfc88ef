//! One connection's life on its ring: connect, handshake, bytes in, failure, close.

use std::sync::atomic::Ordering::Relaxed;

use ring::{Buffers, Completion, Op, Token};

use crate::client::{Client, Cx, Step, Turn};
use crate::derive::Request;
use crate::driver::{GROUP, LOGIN_SIZE, Secure, Worker};
use crate::plan::{Dialect, Scenario};
use crate::scan;
use crate::tls::Tls;

impl Worker {
    pub(crate) fn on_line(
        &mut self,
        op: Op,
        index: u32,
        completion: &Completion,
        buffers: &Buffers,
    ) {
        match op {
            Op::Connect => match completion.error() {
                Some(error) => self.fail(index, format!("cannot connect: {error}")),
                None => {
                    self.arm(index);
                    self.now = self.job.plan.clock.now();
                    self.on_connected(index);
                }
            },
            Op::Recv => {
                self.lines[index as usize].receiving = completion.more;
                match (&completion.chunk, completion.result) {
                    (Some(chunk), 1..) => {
                        self.now = self.job.plan.clock.now();
                        self.on_received(index, buffers.bytes(chunk));
                    }
                    (_, 0) => self.on_end(index, "the server closed the connection"),
                    _ => self.on_recv_error(index, completion),
                }
                self.after_recv(index);
            }
            Op::Send => {
                self.lines[index as usize].sending = false;
                let whole = completion.buffer.as_ref().map_or(0, Vec::len);
                if completion.result >= 0 && completion.result as usize == whole {
                    if self.lines[index as usize].dirty {
                        self.dirty.push(index);
                    }
                } else {
                    self.fail(index, "cannot send".to_owned());
                }
                self.try_close(index);
            }
            Op::Close => {
                self.now = self.job.plan.clock.now();
                self.on_closed(index);
            }
            _ => {}
        }
    }

    fn arm(&mut self, index: u32) {
        let line = &mut self.lines[index as usize];
        line.receiving = true;
        self.ring.recv_multi(index, line.generation, GROUP);
    }

    fn after_recv(&mut self, index: u32) {
        let line = &self.lines[index as usize];
        if line.closing {
            self.try_close(index);
        } else if line.open && !line.receiving {
            self.arm(index);
        }
    }

    fn on_recv_error(&mut self, index: u32, completion: &Completion) {
        const NO_BUFFERS: i32 = 105;
        const CANCELLED: i32 = 125;
        if !matches!(-completion.result, NO_BUFFERS | CANCELLED) {
            self.on_end(index, "the connection was reset");
        }
    }

    fn on_connected(&mut self, index: u32) {
        if self.job.plan.dialect == Dialect::Floor {
            self.lines[index as usize].client.step = Step::Bind;
            let hello = self.job.first + index;
            let out = &mut self.lines[index as usize].out;
            self.shape.write_hello(hello, out);
            self.touch(index);
            return;
        }
        let turn = self.with_client(index, |client, cx| client.on_connected(cx));
        self.on_turn(index, turn);
    }

    /// Runs a step of the client with what it may use.
    pub(crate) fn with_client(
        &mut self,
        index: u32,
        step: impl FnOnce(&mut Client, &mut Cx<'_>) -> Turn,
    ) -> Turn {
        self.prepare(index, LOGIN_SIZE);
        let line = &mut self.lines[index as usize];
        let mut cx = Cx {
            script: &self.job.script,
            index: self.job.first + index,
            now: self.now,
            random: &mut self.random,
            meter: &mut self.meter,
            out: &mut line.out,
        };
        let turn = step(&mut line.client, &mut cx);
        if !line.out.is_empty() {
            self.touch(index);
        }
        turn
    }

    pub(crate) fn on_turn(&mut self, index: u32, turn: Turn) {
        match turn {
            Turn::Nothing => {}
            Turn::StartTls => self.start_tls(index),
            Turn::Derive(recipe) => {
                let waiting = (index, self.lines[index as usize].generation);
                let request = Request {
                    recipe: *recipe,
                    waiting,
                    inbox: self.inbox.clone(),
                };
                if self.job.derive.send(request).is_err() {
                    self.fail(index, "the derivation thread is gone".to_owned());
                }
            }
            Turn::Join => self.come_to_room(index),
            Turn::Ready(jid) => self.on_ready(index, jid),
            Turn::Resumed(h) => self.on_resumed(index, h),
            Turn::NotResumed => self.on_not_resumed(index),
            Turn::End => self.on_end(index, "the server closed the stream"),
            Turn::Fail(reason) => self.fail(index, reason),
        }
    }

    pub(crate) fn on_ready(&mut self, index: u32, jid: Box<str>) {
        self.logging_in -= 1;
        let mut escaped = Vec::new();
        scan::escape(&jid, &mut escaped);
        self.gauge()
            .jid_size
            .fetch_max(escaped.len() as u64, Relaxed);
        self.jids[index as usize] = jid;
        self.is_in_room(index);
        self.reached += 1;
        self.gauge().logins.fetch_add(1, Relaxed);
        if self.mix.is_some() && self.is_back(index) {
            return;
        }
        if self.job.plan.scenario != Scenario::Login {
            self.gauge().ready.fetch_add(1, Relaxed);
            return;
        }
        if self.reached <= u64::from(self.job.count) {
            self.gauge().ready.fetch_add(1, Relaxed);
        } else {
            self.ledger.verdict.delivered += 1;
            let due = self.lines[index as usize].due;
            if due >= self.record_from {
                let took = self.now.saturating_sub(due);
                self.meter.latency.saturating_record(took);
                self.record_second(took);
            }
        }
        let line = &mut self.lines[index as usize];
        line.client.close(&mut line.out);
        self.touch(index);
    }

    fn start_tls(&mut self, index: u32) {
        let Some((config, name)) = &self.job.tls else {
            return self.fail(index, "TLS is not set up".to_owned());
        };
        match Tls::new(config, name) {
            Err(reason) => self.fail(index, reason),
            Ok(tls) => {
                let secure = Secure {
                    tls,
                    tail: Vec::new(),
                    raw: Vec::new(),
                };
                self.lines[index as usize].secure = Some(Box::new(secure));
                self.on_received(index, b"");
            }
        }
    }

    fn on_received(&mut self, index: u32, bytes: &[u8]) {
        let line = &mut self.lines[index as usize];
        if line.closing {
            return;
        }
        let Some(mut secure) = line.secure.take() else {
            return self.on_plain(index, bytes);
        };
        let mut cipher = std::mem::take(&mut self.cipher);
        let mut plain = std::mem::take(&mut self.plain);
        cipher.clear();
        plain.clear();
        cipher.append(&mut secure.tail);
        cipher.extend_from_slice(bytes);
        let step = secure.tls.read(&mut cipher, &mut plain, &mut secure.raw);
        let step = step.inspect(|step| secure.tail.extend_from_slice(&cipher[step.consumed..]));
        if secure.tail.is_empty() {
            secure.tail = Vec::new();
        }
        if !secure.raw.is_empty() {
            self.touch(index);
        }
        self.lines[index as usize].secure = Some(secure);
        match step {
            Err(reason) => self.fail(index, format!("TLS: {reason}")),
            Ok(step) => {
                if step.secured {
                    let turn = self.with_client(index, |client, cx| client.on_secured(cx));
                    self.on_turn(index, turn);
                }
                self.on_plain(index, &plain);
                if step.closed {
                    self.on_end(index, "the server closed TLS");
                }
            }
        }
        self.cipher = cipher;
        self.plain = plain;
    }

    /// What TLS was around: the stream itself, or WebSocket frames with it.
    fn on_plain(&mut self, index: u32, bytes: &[u8]) {
        let line = &mut self.lines[index as usize];
        let Some(web) = &mut line.web else {
            return self.on_stream(index, bytes);
        };
        let mut xml = std::mem::take(&mut self.xml);
        xml.clear();
        let read = web.read(bytes, &mut xml);
        if web.has_answers() || !line.out.is_empty() {
            self.touch(index);
        }
        match read {
            Err(reason) => self.fail(index, reason),
            Ok(goes_on) => {
                self.on_stream(index, &xml);
                if !goes_on {
                    self.on_end(index, "the server closed the WebSocket");
                }
            }
        }
        self.xml = xml;
    }

    fn on_stream(&mut self, index: u32, bytes: &[u8]) {
        let mut held = std::mem::take(&mut self.lines[index as usize].held);
        let used = if held.is_empty() {
            let used = self.digest(index, bytes);
            if used < bytes.len() {
                held = self.pool.take(bytes.len() - used);
                held.extend_from_slice(&bytes[used..]);
            }
            used
        } else {
            held.extend_from_slice(bytes);
            let used = self.digest(index, &held);
            held.drain(..used);
            used
        };
        if held.is_empty() && used > 0 {
            // A ready client owns no buffer while nothing is cut.
            self.pool.give(std::mem::take(&mut held));
        }
        self.lines[index as usize].held = held;
    }

    /// The server's side is over, in good order or not.
    fn on_end(&mut self, index: u32, how: &str) {
        match self.lines[index as usize].client.step {
            Step::Closing | Step::Lost | Step::Failed => self.begin_close(index),
            _ => self.fail(index, how.to_owned()),
        }
    }

    pub(crate) fn fail(&mut self, index: u32, reason: String) {
        let line = &mut self.lines[index as usize];
        match line.client.step {
            Step::Failed => {}
            // We are done with it anyway.
            Step::Closing | Step::Lost => {}
            step => {
                if step == Step::Ready {
                    self.ledger.verdict.disconnected += 1;
                } else {
                    self.logging_in -= 1;
                }
                line.client.step = Step::Failed;
                *self.failures.entry(reason).or_default() += 1;
                self.gauge().failed.fetch_add(1, Relaxed);
                self.leave_room(index);
            }
        }
        self.begin_close(index);
    }

    pub(crate) fn begin_close(&mut self, index: u32) {
        self.lines[index as usize].closing = true;
        self.try_close(index);
    }

    /// Closes the slot once nothing is in flight on it.
    fn try_close(&mut self, index: u32) {
        let line = &mut self.lines[index as usize];
        if !line.closing || !line.open || line.shut {
            return;
        }
        if line.receiving || line.sending {
            if !line.cancelled {
                line.cancelled = true;
                for (active, op) in [(line.receiving, Op::Recv), (line.sending, Op::Send)] {
                    if active {
                        self.ring.cancel(Token::new(op, index, line.generation));
                    }
                }
            }
            return;
        }
        line.shut = true;
        self.ring.close(index, line.generation);
    }

    fn on_closed(&mut self, index: u32) {
        let line = &mut self.lines[index as usize];
        line.open = false;
        line.shut = false;
        line.closing = false;
        line.dirty = false;
        line.secure = None;
        line.web = None;
        self.pool.give(std::mem::take(&mut line.out));
        self.pool.give(std::mem::take(&mut line.held));
        if line.client.step == Step::Closing && self.job.plan.scenario == Scenario::Login {
            line.client.step = Step::Idle;
            line.idle_since = self.now;
            self.idle.push_back(index);
        } else if line.client.step == Step::Closing && self.mix.is_some() {
            self.come_back(index);
        }
    }

    pub(crate) fn close_all(&mut self) {
        for index in 0..self.job.count {
            let line = &mut self.lines[index as usize];
            let xmpp = self.job.plan.dialect == Dialect::Xmpp;
            if line.client.step == Step::Ready && xmpp {
                line.client.close(&mut line.out);
                self.touch(index);
            } else if line.open && line.client.step != Step::Closing {
                line.client.step = Step::Closing;
                self.begin_close(index);
            }
        }
    }
}
