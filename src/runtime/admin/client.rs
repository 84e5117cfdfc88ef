//! The other end of the admin socket: what the command line uses.

use std::borrow::Borrow;
use std::fmt;
use std::io::{self, BufReader, BufWriter};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use xmpp::port::{StoreOp, StoreReply};

use super::protocol::{LINE_SIZE_MAX, OPS_MAX, Op, Reply, Request};
use super::{Line, Place, SOCKET_NAME, read_line, write_line};

/// How long the server may take for one reply; a full commit takes milliseconds, a deletion may
/// have to wait for the accounts of contacts.
const REPLY_WAIT_MAX: Duration = Duration::from_secs(120);

/// Bytes of the operations of one line; what is around them is shorter than the rest.
const OPS_SIZE_MAX: usize = LINE_SIZE_MAX - 64;

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
    /// answer, in order, until that says `false`.
    ///
    /// # Errors
    /// As for [`Client::perform`]; what was answered before is as it was said.
    pub fn perform_each<T>(
        &mut self,
        writes: impl Iterator<Item = (T, impl Borrow<StoreOp>)>,
        answered: &mut dyn FnMut(T, Answer) -> bool,
    ) -> Result<(), ClientError> {
        let (mut line, mut whose, mut size) = (Vec::new(), Vec::new(), 0);
        for (of, op) in writes {
            let (op, op_size) = match encoded(op.borrow()) {
                Ok(encoded) => encoded,
                Err(refusal) => {
                    let goes_on = self.perform_line(&mut line, &mut whose, answered)?;
                    size = 0;
                    if goes_on && answered(of, Answer::Refused(refusal)) {
                        continue;
                    }
                    return Ok(());
                }
            };
            if line.len() == OPS_MAX || size + op_size > OPS_SIZE_MAX {
                if !self.perform_line(&mut line, &mut whose, answered)? {
                    return Ok(());
                }
                size = 0;
            }
            line.push(op);
            whose.push(of);
            size += op_size;
        }
        self.perform_line(&mut line, &mut whose, answered)?;
        Ok(())
    }

    /// Performs a line and empties it; gives whether to go on.
    fn perform_line<T>(
        &mut self,
        line: &mut Vec<Op>,
        whose: &mut Vec<T>,
        answered: &mut dyn FnMut(T, Answer) -> bool,
    ) -> Result<bool, ClientError> {
        if line.is_empty() {
            return Ok(true);
        }
        match self.ask(&Request::Perform(std::mem::take(line)))? {
            Reply::Replies(outcomes) if outcomes.len() == whose.len() => {
                let mut both = whose.drain(..).zip(outcomes);
                Ok(both.all(|(of, outcome)| answered(of, Answer::Reply(outcome.into()))))
            }
            Reply::Error(text) => Err(ClientError(text)),
            other => Err(unexpected(&other)),
        }
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
        match read_line(&mut self.reader, &mut line)? {
            Line::Whole => serde_json::from_slice(&line)
                .map_err(|error| ClientError(format!("The server answered nonsense: {error}."))),
            Line::TooLong => Err(ClientError("The server's answer is too long.".into())),
            Line::End => Err(ClientError(
                "The server went away without an answer.".into(),
            )),
        }
    }
}

/// An operation for a line, with its bytes there.
fn encoded(op: &StoreOp) -> Result<(Op, usize), String> {
    let op = Op::from_store_op(op)?;
    let size = serde_json::to_vec(&op).map_err(|error| format!("{error}."))?;
    let size = size.len() + 1;
    if size > OPS_SIZE_MAX {
        return Err(format!(
            "A running server takes no write of {size} bytes, only {OPS_SIZE_MAX} at most; stop \
             it and try again."
        ));
    }
    Ok((op, size))
}

fn unexpected(reply: &Reply) -> ClientError {
    ClientError(format!("The server answered another question: {reply:?}."))
}
