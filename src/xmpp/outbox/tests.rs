//! The queue by itself.

use super::*;

/// Whether a queue of so many of a stanza has outgrown its limits, and still has where its
/// client has acknowledged them all but one.
fn overflows(stanza: &[u8], count: usize) -> (bool, bool) {
    let id = SessionId { home: 0, secret: 1 };
    let mut acks = Acks::new(id, true, true);
    for _ in 0..count {
        acks.push(Sent::new(stanza.into(), Keep::Memory, Timestamp::default()));
    }
    acks.written = count;
    let before = acks.has_overflowed();
    acks.acknowledge(count as u32 - 1);
    (before, acks.has_overflowed())
}

#[test]
fn presence_counts_apart_and_both_have_limits_of_count_and_size() {
    const SIZE: usize = 1 << 16;
    let (presence, message) = (b"<presence/>".as_slice(), b"<message/>".as_slice());
    let large = |name: &[u8]| [name, &vec![b' '; SIZE - name.len()]].concat();
    for (stanza, max) in [
        (message, UNACKED_MAX),
        (presence, UNACKED_PRESENCE_MAX),
        (&large(message), UNACKED_SIZE_MAX / SIZE),
        (&large(presence), UNACKED_PRESENCE_SIZE_MAX / SIZE),
    ] {
        assert_eq!(overflows(stanza, max), (false, false), "{max}");
        assert_eq!(overflows(stanza, max + 1), (true, false), "{max}");
    }
}

#[test]
fn so_many_bytes_of_a_roster_do_not_count() {
    const SIZE: usize = 1 << 16;
    let push = [b"<iq/>".as_slice(), &[b' '; SIZE - 5]].concat();
    for (more, overflows) in [(0, false), (1, true)] {
        let id = SessionId { home: 0, secret: 1 };
        let mut acks = Acks::new(id, true, true);
        for _ in 0..(EXCUSED_SIZE_MAX + UNACKED_SIZE_MAX) / SIZE + more {
            let bytes = push.clone().into();
            acks.push(Sent::new(bytes, Keep::Memory, Timestamp::default()));
        }
        assert!(acks.has_overflowed());
        acks.excuse_behind(0);
        assert_eq!(acks.has_overflowed(), overflows, "{more}");
    }
}

/// The error that reaches the limit is the last, and the rest comes the next time.
#[test]
fn errors_are_stored_again_so_many_and_so_many_bytes_at_a_time() {
    let id = SessionId { home: 0, secret: 1 };
    let mut acks = Acks::new(id, true, true);
    for place in 1..=5 {
        let error = b"<message type='error'/>";
        acks.push(Sent {
            is_vital: true,
            ..Sent::new(error[..].into(), Keep::Later(place), Timestamp::default())
        });
    }
    for (mut count, mut size, places, has_more) in [
        (2, usize::MAX, vec![1, 2], true),
        (usize::MAX, 24, vec![3, 4], true),
        (usize::MAX, usize::MAX, vec![5], false),
    ] {
        let (taken, more) = acks.take_later(&mut count, &mut size);
        let taken = taken.iter().map(|later| (later.place.place, later.number));
        let numbered: Vec<(u64, u32)> = taken.collect();
        let expected = places.into_iter().map(|place| (place, place as u32));
        assert_eq!((numbered, more), (expected.collect(), has_more));
    }
    // One is refused once more, and taken alone.
    acks.answered_at(3, 3, false);
    acks.answered_at(4, 4, true);
    let (mut count, mut size) = (usize::MAX, usize::MAX);
    let (taken, more) = acks.take_later(&mut count, &mut size);
    assert_eq!((taken.len(), taken[0].place.place, more), (1, 3, false));
    assert_eq!(acks.vital, 4);
}
