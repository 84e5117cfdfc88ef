//! The engine over real sockets of the loopback: what is received, sent, moved and refused.

#![allow(clippy::unwrap_used)] // helpers of tests may, as tests may

use ring::{Buffers, Completion, ConnectPlan, Op, Ring, RingConfig, Slots, Token, bound_listener};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

const CONFIG: RingConfig = RingConfig {
    entries: 64,
    completions: 256,
    slots: 32,
};

fn ring() -> Ring {
    Ring::new(&CONFIG, &ring::probe().unwrap()).unwrap()
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = bound_listener("127.0.0.1:0".parse().unwrap(), 64).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Waits for the next completion of kind `op`; others are dropped.
fn next(ring: &mut Ring, buffers: &mut Buffers, seen: &mut Vec<Completion>, op: Op) -> Completion {
    loop {
        if let Some(index) = seen.iter().position(|completion| completion.token.op == op) {
            return seen.remove(index);
        }
        ring.submit_and_wait(1).unwrap();
        ring.reap(Some(buffers), seen);
    }
}

#[test]
fn an_accepted_connection_has_a_peer_and_echoes_what_it_gets() {
    let mut ring = ring();
    let mut buffers = Buffers::new(&ring, 0, None).unwrap();
    let (listener, address) = listener();
    let mut seen = Vec::new();
    ring.accept(listener.as_fd(), 3, 9);
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"hello").unwrap();
    let accepted = next(&mut ring, &mut buffers, &mut seen, Op::Accept);
    assert_eq!((accepted.token.slot, accepted.token.generation), (3, 9));
    assert_eq!(ring.peer(3), Some(client.local_addr().unwrap()));
    let slot = accepted.result as u32;

    ring.recv_multi(slot, 1, buffers.group());
    for round in [&b"hello"[..], b"again"] {
        let got = next(&mut ring, &mut buffers, &mut seen, Op::Recv);
        let chunk = got.chunk.unwrap();
        assert_eq!(buffers.bytes(&chunk), round);
        assert!(got.more);
        ring.send(slot, 1, [b"xx", round].concat(), 2);
        buffers.give_back(chunk);
        let sent = next(&mut ring, &mut buffers, &mut seen, Op::Send);
        assert_eq!((sent.result, sent.buffer.unwrap().len()), (5, 7));
        let mut back = [0; 5];
        client.read_exact(&mut back).unwrap();
        assert_eq!(back, round);
        if round == b"hello" {
            client.write_all(b"again").unwrap();
        }
    }
    drop(client);
    let end = next(&mut ring, &mut buffers, &mut seen, Op::Recv);
    assert_eq!((end.result, end.more), (0, false));
    ring.close(slot, 1);
    assert_eq!(
        next(&mut ring, &mut buffers, &mut seen, Op::Close).result,
        0
    );
}

#[test]
fn more_bytes_than_all_buffers_hold_pass_when_chunks_are_given_back() {
    let mut ring = ring();
    let shape = ring::BufferShape {
        count: 4,
        size: 4096,
    };
    let mut buffers = Buffers::new(&ring, 0, Some(shape)).unwrap();
    let (listener, address) = listener();
    let mut seen = Vec::new();
    ring.accept_multi(listener.as_fd(), 0, 0);
    let data: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
    let copy = data.clone();
    let client = std::thread::spawn(move || {
        TcpStream::connect(address)
            .unwrap()
            .write_all(&copy)
            .unwrap();
    });
    let accepted = next(&mut ring, &mut buffers, &mut seen, Op::Accept);
    assert!(accepted.more);
    let slot = accepted.result as u32;
    let mut got = Vec::new();
    ring.recv_multi(slot, 1, buffers.group());
    loop {
        let completion = next(&mut ring, &mut buffers, &mut seen, Op::Recv);
        if let Some(mut chunk) = completion.chunk {
            got.extend_from_slice(buffers.bytes_mut(&mut chunk));
            buffers.give_back(chunk);
        } else if completion.result == 0 {
            break;
        }
        if !completion.more {
            // ENOBUFS, or a full buffer ended it.
            ring.recv_multi(slot, 1, buffers.group());
        }
    }
    client.join().unwrap();
    assert!(
        got == data,
        "{} of {} bytes, or their order",
        got.len(),
        data.len()
    );
}

#[test]
fn a_cancelled_receive_says_so_and_a_timeout_runs_out() {
    let mut ring = ring();
    let mut buffers = Buffers::new(&ring, 0, None).unwrap();
    let (listener, address) = listener();
    let mut seen = Vec::new();
    ring.accept(listener.as_fd(), 0, 0);
    let _client = TcpStream::connect(address).unwrap();
    let slot = next(&mut ring, &mut buffers, &mut seen, Op::Accept).result as u32;
    ring.recv_once(slot, 5, buffers.group(), 0);
    ring.cancel(Token::new(Op::Recv, slot, 5));
    let cancelled = next(&mut ring, &mut buffers, &mut seen, Op::Recv);
    assert_eq!(cancelled.result, -125);
    ring.timeout(1, 2, Duration::from_millis(1)).unwrap();
    let late = next(&mut ring, &mut buffers, &mut seen, Op::Timeout);
    assert_eq!(
        (late.token.slot, late.token.generation, late.result),
        (1, 2, -62)
    );
}

#[test]
fn a_client_connects_from_the_address_it_chose_and_refusal_is_one_completion() {
    let mut ring = ring();
    let mut buffers = Buffers::new(&ring, 0, None).unwrap();
    let (listener, address) = listener();
    let mut seen = Vec::new();
    let mut slots = Slots::new(ring.slots());
    let source = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 77));
    let plan = ConnectPlan {
        source: Some(source),
        target: address,
    };
    let slot = slots.take().unwrap();
    ring.connect(slot, 4, &plan).unwrap();
    let connected = next(&mut ring, &mut buffers, &mut seen, Op::Connect);
    assert_eq!(
        (connected.token.slot, connected.token.generation),
        (slot, 4)
    );
    assert_eq!(connected.result, 0);
    let (mut server, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip(), source);
    ring.recv_once(slot, 4, buffers.group(), 3);
    server.write_all(b"abcdef").unwrap();
    let got = next(&mut ring, &mut buffers, &mut seen, Op::Recv);
    assert_eq!(buffers.bytes(got.chunk.as_ref().unwrap()), b"abc");

    drop(listener);
    let refused = slots.take().unwrap();
    ring.connect(refused, 5, &plan).unwrap();
    let answer = next(&mut ring, &mut buffers, &mut seen, Op::Connect);
    assert_eq!((answer.token.slot, answer.result), (refused, -111));
    ring.close(refused, 5);
    next(&mut ring, &mut buffers, &mut seen, Op::Close);
    assert!(
        seen.iter()
            .all(|completion| completion.token.op != Op::Connect)
    );
}

#[test]
fn a_socket_moves_to_another_ring_with_the_bytes_that_wait_in_it() {
    let mut from = ring();
    let mut buffers = Buffers::new(&from, 0, None).unwrap();
    let (listener, address) = listener();
    let mut seen = Vec::new();
    from.accept(listener.as_fd(), 0, 0);
    let mut client = TcpStream::connect(address).unwrap();
    let slot = next(&mut from, &mut buffers, &mut seen, Op::Accept).result as u32;
    client.write_all(b"waiting").unwrap();

    let (descriptor, receive) = std::sync::mpsc::channel();
    let arrival = Token::new(Op::Arrived, 42, 7);
    let other = std::thread::spawn(move || {
        let mut to = ring();
        let mut buffers = Buffers::new(&to, 0, None).unwrap();
        let mut seen = Vec::new();
        descriptor.send(to.try_clone_descriptor().unwrap()).unwrap();
        let arrived = next(&mut to, &mut buffers, &mut seen, Op::Arrived);
        assert_eq!(arrived.token, arrival);
        let slot = arrived.result as u32;
        to.recv_once(slot, 1, buffers.group(), 0);
        let got = next(&mut to, &mut buffers, &mut seen, Op::Recv);
        assert_eq!(buffers.bytes(got.chunk.as_ref().unwrap()), b"waiting");
        to.send(slot, 1, b"moved".to_vec(), 0);
        assert_eq!(next(&mut to, &mut buffers, &mut seen, Op::Send).result, 5);
    });
    let descriptor = receive.recv().unwrap();
    from.send_slot(
        slot,
        3,
        std::os::fd::AsRawFd::as_raw_fd(&descriptor),
        arrival,
    );
    assert!(next(&mut from, &mut buffers, &mut seen, Op::Sent).result >= 0);
    assert_eq!(
        next(&mut from, &mut buffers, &mut seen, Op::Close).result,
        0
    );
    let mut back = [0; 5];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"moved");
    other.join().unwrap();
}

#[test]
fn a_full_table_refuses_a_moving_socket_and_leaves_it_where_it_is() {
    let small = RingConfig { slots: 1, ..CONFIG };
    let mut full = Ring::new(&small, &ring::probe().unwrap()).unwrap();
    full.install(0, ring::EventFd::new().unwrap().into())
        .unwrap();
    let mut from = ring();
    let mut buffers = Buffers::new(&from, 0, None).unwrap();
    let (listener, address) = listener();
    let mut seen = Vec::new();
    from.accept(listener.as_fd(), 0, 0);
    let mut client = TcpStream::connect(address).unwrap();
    let slot = next(&mut from, &mut buffers, &mut seen, Op::Accept).result as u32;
    from.send_slot(slot, 3, full.descriptor(), Token::new(Op::Arrived, 0, 0));
    // The other ring's deferred work runs when its thread enters.
    let sent = loop {
        from.run_deferred().unwrap();
        full.run_deferred().unwrap();
        from.reap(Some(&mut buffers), &mut seen);
        if let Some(index) = seen
            .iter()
            .position(|completion| completion.token.op == Op::Sent)
        {
            break seen.remove(index);
        }
    };
    assert_eq!(sent.result, -23, "ENFILE");
    assert!(
        next(&mut from, &mut buffers, &mut seen, Op::Close).result < 0,
        "it was cancelled"
    );
    from.send(slot, 3, b"still here".to_vec(), 0);
    next(&mut from, &mut buffers, &mut seen, Op::Send);
    let mut back = [0; 10];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"still here");
}

#[test]
fn a_bell_wakes_a_ring_that_sleeps() {
    let (descriptor, receive) = std::sync::mpsc::channel();
    let sleeper = std::thread::spawn(move || {
        let mut ring = ring();
        let mut buffers = Buffers::new(&ring, 0, None).unwrap();
        descriptor
            .send(ring.try_clone_descriptor().unwrap())
            .unwrap();
        next(&mut ring, &mut buffers, &mut Vec::new(), Op::Bell).token
    });
    let descriptor = receive.recv().unwrap();
    let token = Token::new(Op::Bell, 6, 0);
    let mut bell = ring::Bell::new(&ring::probe().unwrap()).unwrap();
    bell.ring(std::os::fd::AsRawFd::as_raw_fd(&descriptor), token)
        .unwrap();
    assert_eq!(sleeper.join().unwrap(), token);
}
