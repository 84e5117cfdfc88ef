//! The thread that reads archives: a page of one takes as long as many commits, and nobody's wait
//! for it.
//!
//! Invariant: what is read was committed when the storage thread handed it over, so whoever asks
//! sees what was stored for him before; and every question has one answer.

use crate::storage::Waker;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use xmpp::Ticket;
use xmpp::port::{Reading, StoreReply};

/// Whose answer it is: a shard by its number, and what it asked.
pub(crate) type Asker = (usize, Ticket);

/// The storage thread's end. What is under way is bounded by what accounts may ask for at once, and
/// by connections: each asks once when it is bound.
pub(crate) struct Reader {
    questions: Option<Sender<(Asker, Reading)>>,
    answers: Receiver<(Asker, StoreReply)>,
    under_way: usize,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// Starts the thread, which wakes the storage thread for each answer.
    pub(crate) fn start(waker: Arc<Waker>) -> io::Result<Reader> {
        let (questions, asked) = channel::<(Asker, Reading)>();
        let (answered, answers) = channel();
        let work = move || {
            for (asker, reading) in asked {
                if answered.send((asker, reading())).is_err() {
                    return;
                }
                waker.wake();
            }
        };
        let thread = std::thread::Builder::new().name("archive".into());
        Ok(Reader {
            questions: Some(questions),
            answers,
            under_way: 0,
            thread: Some(thread.spawn(work)?),
        })
    }

    /// Has something read.
    pub(crate) fn ask(&mut self, asker: Asker, reading: Reading) {
        let questions = self.questions.as_ref().expect("it ends when it is dropped");
        questions
            .send((asker, reading))
            .expect("the thread takes questions until it is dropped");
        self.under_way += 1;
    }

    /// The next answer, if there is one.
    pub(crate) fn answer(&mut self) -> Option<(Asker, StoreReply)> {
        let answer = self.answers.try_recv().ok()?;
        self.under_way -= 1;
        Some(answer)
    }

    /// Whether something is still being read.
    pub(crate) fn is_busy(&self) -> bool {
        self.under_way > 0
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.questions = None;
        if let Some(thread) = self.thread.take() {
            let _its_panic_was_told = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam::sync::Parker;

    #[test]
    fn every_question_has_its_answer_in_its_order_and_wakes_who_waits() {
        let parker = Parker::new();
        let waker = Arc::new(Waker::new(parker.unparker().clone()));
        let mut reader = Reader::start(waker.clone()).unwrap();
        for number in 0..100 {
            let reading = move || StoreReply::Room(number);
            reader.ask((0, Ticket(number.into())), Box::new(reading));
        }
        let mut answers = Vec::new();
        while reader.is_busy() {
            waker.expect_sleep();
            match reader.answer() {
                Some(answer) => answers.push(answer),
                None => parker.park(),
            }
        }
        let expected = (0..100).map(|number| {
            let asker = (0, Ticket(number.into()));
            (asker, StoreReply::Room(number))
        });
        assert_eq!(answers, expected.collect::<Vec<_>>());
    }
}
