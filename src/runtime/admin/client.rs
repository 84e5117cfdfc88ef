//! The other end of the admin socket: what the command line uses.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use xmpp::port::{StoreOp, StoreReply};

use super::protocol::{LINE_SIZE_MAX, Op, Reply, Request};
use super::{Line, Place, SOCKET_NAME, read_line, write_line};

/// How long the server may take for one reply; a full commit takes milliseconds, a deletion may
/// have to wait for the accounts of contacts.
const REPLY_WAIT_MAX: Duration = Duration::from_secs(120);

/// Bytes of the operations of one line; what is around them is shorter than the rest.
const OPS_SIZE_MAX: usize = LINE_SIZE_MAX - 64;

/// Bytes from which on a line takes no more operations: everybody else waits for its commit.
const LINE_FULL: usize = 1 << 20;

/// Operations of one line of those that are sent ahead: its answers fit the socket's buffer,
/// whatever they say, so that nobody waits for the other to read.
const OPS_AHEAD_MAX: usize = 1_024;

/// Lines that the server may have beside the one that it performs.
const LINES_AHEAD: usize = 2;

/// A connection to a running server.
pub struct Client {
    reader: BufReader<UnixStream>,
    writer: BufWriter<UnixStream>,
}

/// Why the server did not do it, in one sentence.
#[derive(Debug)]
pub struct ClientError(String);

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The store's reply.
    Reply(StoreReply),
    /// It was not sent, for it is too large for a line; a sentence.
    Refused(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ClientError {}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> ClientError {
        ClientError(format!("The server's admin socket failed: {error}."))
    }
}

impl Client {
    /// Connects to the server that uses the data directory `data`; `None` where none answers.
    ///
    /// # Errors
    /// There is a socket that may not be used, by its mode for example.
    pub fn connect(data: &Path) -> Result<Option<Client>, ClientError> {
        let stream = match Place::of(data).and_then(|place| place.connect()) {
            Ok(stream) => stream,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound
                        | io::ErrorKind::ConnectionRefused
                        | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(error) => {
                let path = data.join(SOCKET_NAME);
                let path = path.display();
                return Err(ClientError(format!(
                    "Cannot use the admin socket {path}: {error}."
                )));
            }
        };
        stream.set_read_timeout(Some(REPLY_WAIT_MAX))?;
        stream.set_write_timeout(Some(REPLY_WAIT_MAX))?;
        let writer = BufWriter::new(stream.try_clone()?);
        Ok(Some(Client {
            reader: BufReader::new(stream),
            writer,
        }))
    }

    /// Performs writes, in order; as many as a line takes are one commit, but for deletions.
    ///
    /// # Errors
    /// The server refused or went away; what was asked before may have been done.
    pub fn perform(&mut self, ops: &[StoreOp]) -> Result<Vec<StoreReply>, ClientError> {
        let mut replies = Vec::with_capacity(ops.len());
        let mut refusal = None;
        self.perform_each(ops.iter().map(|op| ((), op)), &mut |(), answer| {
            match answer {
                Answer::Reply(reply) => replies.push(reply),
                Answer::Refused(text) => refusal = Some(ClientError(text)),
            }
            refusal.is_none()
        })?;
        refusal.map_or(Ok(replies), Err)
    }

    /// The same for any number of writes, each with whose it is, and calls `answered` with each
    /// answer, in order, until that says `false`: then no more is sent, and what was is still
    /// answered. A few lines are under way at once, so that the server need not wait for the next.
    ///
    /// # Errors
    /// As for [`Client::perform`]; what was answered before is as it was said.
    pub fn perform_each<T>(
        &mut self,
        writes: impl Iterator<Item = (T, impl Borrow<StoreOp>)>,
        answered: &mut dyn FnMut(T, Answer) -> bool,
    ) -> Result<(), ClientError> {
        let mut sending = Sending {
            client: self,
            line: Vec::new(),
            whose: Vec::new(),
            sent: VecDeque::new(),
            answered,
            goes_on: true,
        };
        for (of, op) in writes {
            match encoded(op.borrow()) {
                Ok(op) => sending.push(of, &op)?,
                Err(refusal) => {
                    sending.send()?;
                    sending.receive_beyond(0)?;
                    if sending.goes_on {
                        sending.goes_on = (sending.answered)(of, Answer::Refused(refusal));
                    }
                }
            }
            if !sending.goes_on {
                return sending.receive_beyond(0);
            }
        }
        sending.send()?;
        sending.receive_beyond(0)
    }

    /// Calls `each` with every account, ordered by JID, until it answers `false`.
    ///
    /// # Errors
    /// The server failed or went away.
    pub fn list(mut self, each: &mut dyn FnMut(&str) -> bool) -> Result<(), ClientError> {
        let mut reply = self.ask(&Request::List)?;
        loop {
            match reply {
                Reply::Accounts(page) if page.is_empty() => return Ok(()),
                Reply::Accounts(page) => {
                    if !page.iter().all(|account| each(account)) {
                        return Ok(());
                    }
                }
                Reply::Error(text) => return Err(ClientError(text)),
                other => return Err(unexpected(&other)),
            }
            reply = self.read()?;
        }
    }

    /// Lets the server write a backup to an absolute path and calls `progress` with the number of
    /// records so far; gives their number.
    ///
    /// # Errors
    /// The server failed or went away.
    pub fn back_up(
        &mut self,
        file: &str,
        progress: &mut dyn FnMut(u64),
    ) -> Result<u64, ClientError> {
        let mut reply = self.ask(&Request::Backup(file.into()))?;
        loop {
            match reply {
                Reply::Progress(count) => progress(count),
                Reply::Saved(count) => return Ok(count),
                Reply::Error(text) => return Err(ClientError(text)),
                other => return Err(unexpected(&other)),
            }
            reply = self.read()?;
        }
    }

    fn ask(&mut self, request: &Request) -> Result<Reply, ClientError> {
        if let Err(error) = write_line(&mut self.writer, request) {
            // A server that has no room for us says so, and reads nothing.
            return match self.read() {
                Ok(reply @ Reply::Error(_)) => Ok(reply),
                _ => Err(error.into()),
            };
        }
        self.read()
    }

    fn read(&mut self) -> Result<Reply, ClientError> {
        let mut line = Vec::new();
        let found = match read_line(&mut self.reader, &mut line) {
            // It ended before it had read what was sent ahead.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Line::End,
            found => found?,
        };
        match found {
            Line::Whole => serde_json::from_slice(&line)
                .map_err(|error| ClientError(format!("The server answered nonsense: {error}."))),
            Line::TooLong => Err(ClientError("The server's answer is too long.".into())),
            Line::End => Err(ClientError(
                "The server went away without an answer.".into(),
            )),
        }
    }
}

/// The lines of one [`Client::perform_each`].
struct Sending<'a, T> {
    client: &'a mut Client,
    /// The operations of the next line, with commas between them.
    line: Vec<u8>,
    whose: Vec<T>,
    /// Whose writes the lines under way are, the oldest first.
    sent: VecDeque<Vec<T>>,
    answered: &'a mut dyn FnMut(T, Answer) -> bool,
    goes_on: bool,
}

impl<T> Sending<'_, T> {
    fn push(&mut self, of: T, op: &[u8]) -> Result<(), ClientError> {
        if self.whose.len() == OPS_AHEAD_MAX || self.line.len() + op.len() > LINE_FULL {
            self.send()?;
        }
        if !self.line.is_empty() {
            self.line.push(b',');
        }
        self.line.extend_from_slice(op);
        self.whose.push(of);
        Ok(())
    }

    /// Sends what there is, and takes the answers of what was sent long before.
    fn send(&mut self) -> Result<(), ClientError> {
        if self.line.is_empty() {
            return Ok(());
        }
        self.sent.push_back(std::mem::take(&mut self.whose));
        // As serde would write a `Request::Perform`, but each operation is written once only.
        let parts = [&b"{\"perform\":["[..], &self.line, b"]}\n"];
        let writer = &mut self.client.writer;
        let written = parts.iter().try_for_each(|part| writer.write_all(part));
        self.line.clear();
        if let Err(error) = written.and_then(|()| writer.flush()) {
            // A server that has no room for us says so, and reads nothing; one that went away may
            // have answered before.
            self.receive_beyond(0)?;
            return Err(error.into());
        }
        self.receive_beyond(LINES_AHEAD)
    }

    /// Takes answers until so many lines only are under way.
    fn receive_beyond(&mut self, lines: usize) -> Result<(), ClientError> {
        let mut failure = None;
        // Once a line was refused, the others that are under way are answered all the same.
        while (self.sent.len() > lines || failure.is_some())
            && let Some(whose) = self.sent.pop_front()
        {
            match self.client.read()? {
                Reply::Replies(outcomes) if outcomes.len() == whose.len() => {
                    for (of, outcome) in whose.into_iter().zip(outcomes) {
                        self.goes_on &= (self.answered)(of, Answer::Reply(outcome.into()));
                    }
                }
                Reply::Error(text) => failure = failure.or(Some(ClientError(text))),
                other => return Err(failure.unwrap_or_else(|| unexpected(&other))),
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

/// An operation as it stands in a line.
fn encoded(op: &StoreOp) -> Result<Vec<u8>, String> {
    let op = Op::from_store_op(op)?;
    let op = serde_json::to_vec(&op).map_err(|error| format!("{error}."))?;
    let size = op.len();
    if size > OPS_SIZE_MAX {
        return Err(format!(
            "A running server takes no write of {size} bytes, only {OPS_SIZE_MAX} at most; stop \
             it and try again."
        ));
    }
    Ok(op)
}

fn unexpected(reply: &Reply) -> ClientError {
    ClientError(format!("The server answered another question: {reply:?}."))
}
