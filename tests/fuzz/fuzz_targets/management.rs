//! Stream management: whatever a client says and however it comes and goes, no shard gets out of
//! order, and what the server acknowledges was sent.
//!
//! Each byte is a step, with the next one as its number where it needs one.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sim::{Faults, Login, Random, World};
use xmpp::Settings;

fn step(world: &mut World, id: sim::ClientId, code: u8, number: u8, session: &mut String) {
    let text = match code % 16 {
        0 => "<enable xmlns='urn:xmpp:sm:3' resume='true'/>".to_owned(),
        1 => "<r xmlns='urn:xmpp:sm:3'/>".to_owned(),
        2 => format!("<a xmlns='urn:xmpp:sm:3' h='{number}'/>"),
        3 => format!("<message to='bob@example.org' id='{number}'><body>x</body></message>"),
        4 => format!("<message to='alice@example.org' id='{number}'><body>x</body></message>"),
        5 => "<presence/>".to_owned(),
        6 => format!("<presence><priority>{}</priority></presence>", number as i8),
        7 => format!("<resume xmlns='urn:xmpp:sm:3' h='{number}' previd='{session}'/>"),
        8 => format!("<iq type='get' id='{number}'><query xmlns='jabber:iq:roster'/></iq>"),
        9 => format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", u32::MAX - u32::from(number)),
        10 => {
            world.vanish(id);
            return;
        }
        11 => {
            world.run_for(u64::from(number) * 2_000);
            return;
        }
        12 => {
            world.crash();
            return;
        }
        13 => "<enable xmlns='urn:xmpp:sm:3'/>".to_owned(),
        14 => "</stream:stream>".to_owned(),
        _ => {
            world.run();
            return;
        }
    };
    world.send(id, &text);
    let heard = world.received(id);
    if let Some(enabled) = heard.iter().find(|element| element.name == "enabled") {
        *session = enabled.attr("id").to_owned();
    }
}

fuzz_target!(|bytes: &[u8]| {
    let settings = Settings {
        shards: 2,
        ..Settings::for_tests("example.org")
    };
    let mut world = World::new(1, settings, Faults::rough(&mut Random::new(1)));
    for name in ["alice", "bob"] {
        world.add_account(&format!("{name}@example.org"), "secret");
    }
    let mut clients = Vec::new();
    let mut session = String::new();
    for pair in bytes.chunks(2).take(200) {
        let (code, number) = (pair[0], pair.get(1).copied().unwrap_or(0));
        // The upper bits choose the client; a new one where there is none yet.
        let who = usize::from(code >> 4) % 4;
        while clients.len() <= who {
            let name = if clients.len() % 2 == 0 { "alice" } else { "bob" };
            clients.push(world.connect(Login::new(&format!("{name}@example.org/x"), "secret")));
            world.run();
        }
        if world.client(clients[who]).ended {
            let name = if who % 2 == 0 { "alice" } else { "bob" };
            clients[who] = world.connect(Login::new(&format!("{name}@example.org/x"), "secret"));
            world.run();
        }
        step(&mut world, clients[who], code, number, &mut session);
    }
    world.run_for(1_000_000);
    world.check_rest();
});
