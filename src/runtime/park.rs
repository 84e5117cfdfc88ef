//! How a shard's thread waits: in its ring while it is busy, through glommio when it is idle.
//!
//! Always sleeping through glommio costs 6.5 us per wake and burned 97 % of a core at 50 k msg/s.
//! So the ring task blocks the thread in the ring, with one timeout of 1 ms armed in it (as many ms
//! as there are shards for each processor, so that many shards do not wake for ticks only); a tick
//! that saw work arms it again; one that saw none hands the waiting over to glommio by an eventfd.
//! Before each wait in the ring it stays awake as long as `idle_spin_us` says, which is not at all
//! by default: that takes the core from whoever shares it.
//! Invariant: no wait has a timeout argument of its own, and a wait in glommio always has an event
//! to end it.
//!
//! A busy shard does not yield to the executor, because it runs nothing else, and because glommio
//! (0.9) goes to sleep beside a runnable task where its preemption timer runs out before the first
//! task queue ran: with a timer of 1 ms on a crowded machine that stalled shards for ever. The
//! timer is therefore [`PREEMPT`], too long to run out there.

use crate::turn::{Alarm, Turn};
use glommio::io::BufferedFile;
use ring::EventFd;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// When glommio takes a task's processor away: never.
pub(crate) const PREEMPT: Duration = Duration::from_secs(3600);

/// Runs the turns of a shard to its end.
pub(crate) async fn run(turn: &mut Turn) -> io::Result<()> {
    let event = EventFd::new()?;
    let signalled: BufferedFile = ring::adopt(OwnedFd::from(event.try_clone()?));
    turn.alarm(Alarm::Tick, turn.tick);
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
            if !worked && !turn.must_tick() && !turn.has_more() {
                idle(turn, &event, &signalled).await?;
            }
            turn.alarm(Alarm::Tick, turn.tick);
        }
    }
    signalled.close().await.map_err(io::Error::from)
}

/// Blocks until the ring has something, unless more is there already.
fn wait(turn: &mut Turn) -> io::Result<()> {
    if turn.has_more() || spin(turn)? || !turn.bell().fall_asleep() {
        return turn.ring.run_deferred();
    }
    turn.ring.submit_and_wait(1)?;
    turn.bell().wake_up();
    Ok(())
}

/// Looks for something to do, awake, as long as configured; whether there is.
///
/// Waking a virtual core that sleeps takes about 25 us, which whoever waits for an answer sees.
fn spin(turn: &mut Turn) -> io::Result<bool> {
    if turn.idle_spin.is_zero() {
        return Ok(false);
    }
    let began = Instant::now();
    loop {
        turn.ring.run_deferred()?;
        if !turn.ring.is_quiet() || turn.bell().is_posted() {
            return Ok(true);
        }
        if began.elapsed() >= turn.idle_spin {
            return Ok(false);
        }
        std::hint::spin_loop();
    }
}

/// Sleeps in glommio until the ring completes something; costs nothing meanwhile.
async fn idle(turn: &mut Turn, event: &EventFd, signalled: &BufferedFile) -> io::Result<()> {
    turn.ring.register_eventfd(event)?;
    if turn.bell().fall_asleep() {
        turn.ring.run_deferred()?;
        if turn.ring.is_quiet() {
            signalled
                .read_at(0, size_of::<u64>())
                .await
                .map_err(io::Error::from)?;
        }
        turn.bell().wake_up();
    }
    turn.ring.unregister_eventfd()
}
