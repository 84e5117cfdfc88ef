//! The helper thread that derives SCRAM keys away from the ring threads.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use crate::client::Script;
use crate::scram::{Keys, Recipe};

/// A client that waits for keys: its slot and which user of it.
pub type Waiting = (u32, u32);

/// One request of a ring thread.
pub struct Request {
    /// What to derive.
    pub recipe: Recipe,
    /// For whom.
    pub waiting: Waiting,
    /// Where the answer goes.
    pub inbox: Arc<Inbox>,
}

/// Derived keys on their way back; the ring thread looks in at each turn.
#[derive(Default)]
pub struct Inbox {
    ready: Mutex<Vec<(Waiting, Arc<Keys>)>>,
}

impl Inbox {
    /// Takes what is there.
    pub fn take(&self) -> Vec<(Waiting, Arc<Keys>)> {
        std::mem::take(&mut self.ready.lock().expect("nobody panics while holding it"))
    }
}

/// Starts the thread; it ends when the last sender is gone.
pub fn start(script: Arc<Script>) -> std::io::Result<Sender<Request>> {
    let (sender, requests) = channel();
    std::thread::Builder::new()
        .name("derive".into())
        .spawn(move || run(&script, &requests))
        .map(|_| sender)
}

fn run(script: &Script, requests: &Receiver<Request>) {
    while let Ok(request) = requests.recv() {
        // Many clients ask for the same keys at once where all accounts share a salt.
        let keys = script.keys.find(&request.recipe).unwrap_or_else(|| {
            let keys = Arc::new(request.recipe.derive());
            script.keys.insert(request.recipe, keys.clone());
            keys
        });
        let mut ready = request
            .inbox
            .ready
            .lock()
            .expect("nobody panics while holding it");
        ready.push((request.waiting, keys));
    }
}
