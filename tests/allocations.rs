//! Once warm, routing a message allocates nothing: not on one shard, and not from one to another.

use sim::direct::{Direct, Seat};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Counts the allocations of each thread, and passes them on.
struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    COUNT.with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes to the system's allocator unchanged; the count is a plain thread-local
// number without a destructor, so that touching it allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is System's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: what is freed came from System, above.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: what grows came from System, above.
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many allocations `work` does.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = COUNT.with(Cell::get);
    work();
    COUNT.with(Cell::get) - before
}

/// A world with a sender on shard 0 and a receiver on `shard`, both available.
fn pair(shards: u16, shard: u16) -> (Direct, Seat, Seat, String) {
    let mut direct = Direct::new(shards);
    let (from, to) = (direct.name(0, 1), direct.name(shard, 2));
    direct.account(&from, &[]);
    direct.account(&to, &[]);
    let (alice, bob) = (direct.login(&from), direct.login(&to));
    for seat in [alice, bob] {
        direct.say(seat, b"<presence/>");
        direct.end_turn();
    }
    (direct, alice, bob, format!("{to}@example.org"))
}

/// Sends `text` often enough to warm up, then counts.
fn count_for(direct: &mut Direct, from: Seat, to: Seat, text: &str) -> u64 {
    let mut send = || {
        direct.say(from, text.as_bytes());
        assert!(!direct.output(to).is_empty(), "nothing arrived: {text}");
        direct.end_turn();
    };
    for _ in 0..10 {
        send();
    }
    allocations(|| (0..1000).for_each(|_| send()))
}

#[test]
fn a_routed_message_allocates_nothing() {
    for (shards, shard) in [(1, 0), (2, 1)] {
        let (mut direct, alice, bob, to) = pair(shards, shard);
        let payload = "<body>hello &amp; good bye</body><x xmlns='urn:x' a='1'/>";
        for address in [to.clone(), format!("{to}/r")] {
            let text = format!("<message to='{address}' type='chat' id='1'>{payload}</message>");
            let count = count_for(&mut direct, alice, bob, &text);
            assert_eq!(count, 0, "1000 messages to {address} on {shards} shards");
        }
    }
}

#[test]
fn a_routed_request_and_directed_presence_allocate_nothing() {
    for (shards, shard) in [(1, 0), (2, 1)] {
        let (mut direct, alice, bob, to) = pair(shards, shard);
        for text in [
            format!("<iq to='{to}/r' type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>"),
            format!("<iq to='{to}/r' type='result' id='1'/>"),
            format!("<presence to='{to}/r'><show>away</show></presence>"),
            format!("<presence to='{to}'><show>away</show></presence>"),
        ] {
            let count = count_for(&mut direct, alice, bob, &text);
            assert_eq!(count, 0, "1000 of {text} on {shards} shards");
        }
    }
}

#[test]
fn a_broadcast_allocates_as_often_for_many_contacts_as_for_one() {
    let count = |contacts: usize| {
        let mut direct = Direct::new(2);
        let names: Vec<String> = (0..=contacts)
            .map(|number| direct.name(number as u16 % 2, number))
            .collect();
        direct.account(&names[0], &names[1..]);
        for name in &names[1..] {
            direct.account(name, &names[..1]);
        }
        let seats: Vec<Seat> = names.iter().map(|name| direct.login(name)).collect();
        for seat in &seats {
            direct.say(*seat, b"<presence/>");
            direct.end_turn();
        }
        let text = "<presence><show>away</show></presence>";
        count_for(&mut direct, seats[0], seats[contacts], text) / 1000
    };
    // What was said last is kept; on the way to the other shard one box is made.
    let (few, many) = (count(2), count(40));
    assert!(few <= 8, "{few} allocations for a broadcast");
    assert_eq!(few, many);
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}
