//! How a shard's thread waits: in its ring while it is busy, through glommio when it is idle.
//!
//! Always sleeping through glommio costs 6.5 us per wake; never doing so would starve the executor's
//! other tasks or poll for them. So the ring task blocks the thread in the ring with one timeout of
//! 1 ms armed; a tick that saw work yields to the executor and arms again; one that saw none hands the
//! waiting over to glommio by an eventfd. Invariant: no wait has a timeout argument of its own.

use crate::turn::{Alarm, TICK, Turn};
use glommio::io::BufferedFile;
use ring::EventFd;
use std::io;
use std::os::fd::OwnedFd;

/// Runs the turns of a shard to its end.
pub(crate) async fn run(turn: &mut Turn) -> io::Result<()> {
    let event = EventFd::new()?;
    let signalled: BufferedFile = ring::adopt(OwnedFd::from(event.try_clone()?));
    turn.alarm(Alarm::Tick, TICK);
    loop {
        wait(turn)?;
        turn.run();
        if turn.is_over() {
            // Last words are pushed, not handed over yet.
            turn.ring.submit()?;
            break;
        }
        if std::mem::take(&mut turn.ticked) {
            let worked = std::mem::take(&mut turn.worked);
            if worked || turn.must_tick() || turn.has_more() {
                glommio::yield_if_needed().await;
            } else {
                idle(turn, &event, &signalled).await?;
            }
            turn.alarm(Alarm::Tick, TICK);
        }
    }
    signalled.close().await.map_err(io::Error::from)
}

/// Blocks until the ring has something, unless more is there already.
fn wait(turn: &mut Turn) -> io::Result<()> {
    if turn.has_more() || !turn.bell().fall_asleep() {
        return turn.ring.run_deferred();
    }
    turn.ring.submit_and_wait(1)?;
    turn.bell().wake_up();
    Ok(())
}

/// Sleeps in glommio until the ring completes something; costs nothing meanwhile.
async fn idle(turn: &mut Turn, event: &EventFd, signalled: &BufferedFile) -> io::Result<()> {
    turn.ring.register_eventfd(event)?;
    if turn.bell().fall_asleep() {
        turn.ring.run_deferred()?;
        if turn.ring.is_quiet() {
            signalled.read_at(0, size_of::<u64>()).await.map_err(io::Error::from)?;
        }
        turn.bell().wake_up();
    }
    turn.ring.unregister_eventfd()
}
